//! What one member may take, so that it holds nothing up for others.

use protocol::message::cache::{CacheRequest, ChunkHeader, DIGESTS_MAX, Encoding};
use tokio::time::timeout;

use super::*;

/// Far less than what a stalled stream is given.
const PROMPT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_who_announce_chunks_and_do_not_send_them_hold_up_no_others() {
    let farm = Farm::start().await;
    let mut stalled = Vec::new();
    let digest = Digest::of(&content(1, 2 << 20));
    for _ in 0..6 {
        let connection = farm.connect("red", Role::Developer).await;
        for _ in 0..4 {
            let mut stream = connection.open().await.unwrap();
            let request = CacheRequest::WriteChunks { team: team("red") };
            stream.send.message(&request).await.unwrap();
            let header = ChunkHeader {
                index: 0,
                digest,
                encoding: Encoding::Raw,
                body_bytes: 2 << 20,
            };
            stream.send.message(&header).await.unwrap();
            stream.send.bytes(vec![7; 1000].into()).await.unwrap();
            stalled.push(stream);
        }
        // What has an answer came after the headers.
        let client = CacheClient::new(connection, team("red"));
        assert!(missing(&client, b"x").await);
    }
    let other = farm.client("blue", Role::Developer).await;
    let chunks: Vec<_> = (0..8).map(|seed| content(seed, 2 << 20)).collect();
    let written = timeout(PROMPT, write(&other, &chunks)).await;
    assert_eq!(written.expect("nothing is held up").unwrap().chunks, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_who_ask_for_much_and_do_not_read_it_hold_up_no_others() {
    let farm = Farm::start().await;
    let there = content(1, 2 << 20);
    let writer = farm.client("red", Role::Developer).await;
    write(&writer, std::slice::from_ref(&there)).await.unwrap();
    let mut stalled = Vec::new();
    for _ in 0..17 {
        let connection = farm.connect("red", Role::Developer).await;
        let mut stream = connection.open().await.unwrap();
        let request = CacheRequest::ReadChunks {
            team: team("red"),
            chunks: vec![Digest::of(&there); DIGESTS_MAX],
        };
        stream.send.message(&request).await.unwrap();
        // It is being answered.
        let first = stream.receive.message::<Result<ChunkHeader, Refusal>>();
        let first = timeout(PROMPT, first).await;
        first.expect("no reader waits for others").unwrap();
        stalled.push((connection, stream));
    }
    let other = farm.client("blue", Role::Developer).await;
    let asked = timeout(PROMPT, missing(&other, b"x")).await;
    assert!(asked.expect("nothing is held up"));
}
