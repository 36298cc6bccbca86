//! Bulk over several connections.

use std::sync::Arc;

use bytes::Bytes;
use protocol::message::cache::{CacheReply, CacheRequest, ChunkHeader, DIGESTS_MAX, Encoding};
use transport::{Server, ServerLimits};

use super::*;
use crate::{client::ask::LARGE, compression::EncodedChunk};

/// As many as a client with six cores has.
const CONNECTIONS: usize = 3;
const MEBIBYTE: usize = 1 << 20;

async fn bulk_client(farm: &Farm) -> (CacheClient, Vec<Connection>) {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(farm.connect("red", Role::Developer).await);
    }
    let shared: Arc<[Connection]> = connections.clone().into();
    (CacheClient::with_bulk(shared, team("red")), connections)
}

fn many(seed: u64, count: u64) -> Vec<Vec<u8>> {
    let seeds = seed..seed + count;
    seeds.map(|seed| content(seed, MEBIBYTE)).collect()
}

fn digests(chunks: &[Vec<u8>]) -> Vec<Digest> {
    chunks.iter().map(|bytes| Digest::of(bytes)).collect()
}

#[tokio::test]
async fn what_goes_over_several_connections_arrives_whole_and_all_of_them_carry_some() {
    let farm = Farm::start().await;
    let (client, connections) = bulk_client(&farm).await;
    let chunks = many(100, 40);
    let written = write(&client, &chunks).await.unwrap();
    assert_eq!((written.chunks, written.new), (40, 40));
    let sent: Vec<u64> = connections
        .iter()
        .map(|connection| connection.datagram_bytes().0)
        .collect();
    let all: u64 = sent.iter().sum();
    assert!(16 * MEBIBYTE as u64 <= all, "{sent:?}");
    assert!(
        sent.iter().all(|&bytes| MEBIBYTE as u64 <= bytes),
        "{sent:?}"
    );
    let digests = digests(&chunks);
    let back = read(&client, &digests).await.unwrap();
    assert_eq!(back.len(), chunks.len());
    for (index, chunk) in back.iter().enumerate() {
        assert_eq!(chunk.index, index);
        assert!(chunk.bytes == chunks[index], "chunk {index}");
    }
    for connection in &connections {
        assert!(MEBIBYTE as u64 <= connection.datagram_bytes().1);
    }
}

#[tokio::test]
async fn a_chunk_that_is_missing_in_any_share_is_named() {
    let farm = Farm::start().await;
    let (client, _connections) = bulk_client(&farm).await;
    let chunks = many(200, 12);
    write(&client, &chunks).await.unwrap();
    for at in [0, 5, 11] {
        let mut asked = digests(&chunks);
        let stranger = Digest::of(&content(999, MEBIBYTE));
        asked[at] = stranger;
        let error = read(&client, &asked).await.unwrap_err();
        assert!(
            matches!(error, CacheError::MissingChunk { digest } if digest == stranger),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_ends_the_whole_of_what_goes_over_several() {
    let farm = Farm::start().await;
    let (client, connections) = bulk_client(&farm).await;
    connections[1].close("a test wants it");
    let broken = write(&client, &many(300, 12)).await.unwrap_err();
    assert!(matches!(broken, CacheError::Stream { .. }), "{broken:?}");
    let alone = CacheClient::new(connections[0].clone(), team("red"));
    let chunks = many(300, 12);
    assert_eq!(write(&alone, &chunks).await.unwrap().chunks, 12);
    let broken = read(&client, &digests(&chunks)).await.unwrap_err();
    assert!(matches!(broken, CacheError::Stream { .. }), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_go_one_after_another_and_small_ones_do_not_wait_for_them() {
    let farm = Farm::start().await;
    let connection = farm.connect("red", Role::Developer).await;
    let client = CacheClient::new(connection.clone(), team("red"));
    let digest = |byte| Digest::from_parts([byte; 32], 1);
    let (few, many) = (vec![digest(1)], vec![digest(2); DIGESTS_MAX]);
    let turn = connection.turn(LARGE).await;
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let (client, many) = (client.clone(), many.clone());
        asking.spawn(async move { client.find_missing(&many).await });
    }
    assert_eq!(client.find_missing(&few).await.unwrap(), [0]);
    let early = tokio::time::timeout(Duration::from_millis(500), asking.join_next());
    assert!(early.await.is_err(), "one was answered out of turn");
    let sent = connection.datagram_bytes().0;
    assert!(sent < MEBIBYTE as u64, "{sent} bytes were sent");
    drop(turn);
    while let Some(found) = asking.join_next().await {
        assert_eq!(found.unwrap().unwrap().len(), DIGESTS_MAX);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_turn_does_not_come_ends_and_the_rest_goes_over_another() {
    let farm = Farm::start().await;
    let listen = ([127, 0, 0, 1], 0).into();
    let credentials = farm.credentials("farm", Role::Cache);
    let server = Server::bind(listen, &credentials, ServerLimits::default()).unwrap();
    let client = Client::new(&farm.credentials("red", Role::Developer)).unwrap();
    let connecting = client.connect(server.local_addr(), Role::Cache);
    let welcoming = async {
        let greeting = server.accept().await.unwrap().greet().await.unwrap();
        greeting.welcome(None).await.unwrap()
    };
    let (there, here) = tokio::join!(connecting, welcoming);
    let there = there.unwrap();
    let (chunks, waiting) = mpsc::channel(1);
    let writer = CacheClient::new(there.clone(), team("red"));
    let writing = async { writer.write_chunks(waiting).await.unwrap() };
    let chunk = |seed| {
        let body: Bytes = content(seed, 100).into();
        EncodedChunk {
            digest: Digest::of(&body),
            encoding: Encoding::Raw,
            body,
        }
    };
    let written = || -> Result<CacheReply, Refusal> {
        Ok(CacheReply::Written {
            chunks: 1,
            new: 1,
            new_bytes_stored: 100,
        })
    };
    let taking = async {
        chunks.send(chunk(1)).await.unwrap();
        let mut first = here.accept().await.unwrap();
        let receive = &mut first.receive;
        assert!(receive.message::<CacheRequest>().await.unwrap().is_some());
        assert!(receive.message::<ChunkHeader>().await.unwrap().is_some());
        receive.bytes(100).await.unwrap();
        let turn = there.turn("red").await;
        chunks.send(chunk(2)).await.unwrap();
        let next = first.receive.message::<ChunkHeader>();
        assert!(next.await.unwrap().is_none(), "the first stream ends");
        drop((turn, chunks));
        first.send.message(&written()).await.unwrap();
        let mut second = here.accept().await.unwrap();
        let receive = &mut second.receive;
        assert!(receive.message::<CacheRequest>().await.unwrap().is_some());
        let header = receive.message::<ChunkHeader>().await.unwrap().unwrap();
        assert_eq!((header.index, header.digest), (0, chunk(2).digest));
        receive.bytes(100).await.unwrap();
        second.send.message(&written()).await.unwrap();
        // A connection that is closed before drops the rest.
        second.send.finish();
        second.send.stopped().await;
    };
    let (written, ()) = tokio::join!(writing, taking);
    assert_eq!(written.chunks, 2);
}
