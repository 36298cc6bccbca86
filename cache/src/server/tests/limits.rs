//! What one member may take, so that it holds nothing up for others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use protocol::message::cache::{CacheReply, CacheRequest, ChunkHeader, DIGESTS_MAX, Encoding};
use tokio::{
    runtime::Builder,
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::timeout,
};

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
async fn streams_of_which_nothing_has_come_yet_hold_up_no_others() {
    let farm = Farm::start().await;
    let connection = farm.connect("red", Role::Developer).await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(connection.open().await.unwrap());
    }
    // The server knows of them when it has something of a later one, which may be the first to be looked at.
    let client = CacheClient::new(connection, team("red"));
    for _ in 0..3 {
        let answered = timeout(PROMPT, missing(&client, b"x")).await;
        assert!(answered.expect("nothing is held up"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_large_chunks_at_once_than_a_connection_has_room_for_are_all_written() {
    const AT_ONCE: u64 = 64;
    let farm = Farm::start().await;
    let client = farm.client("red", Role::Developer).await;
    let mut writers = JoinSet::new();
    for seed in 0..AT_ONCE {
        let client = client.clone();
        writers.spawn(async move { write(&client, &[content(seed, 2 << 20)]).await });
    }
    let all = async {
        while let Some(written) = writers.join_next().await {
            assert_eq!(written.unwrap().unwrap().new, 1);
        }
    };
    timeout(PROMPT, all).await.expect("nothing is held up");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_over_its_rate_waits_and_another_does_not() {
    let mut farm = Farm::start().await;
    let limits = Limits {
        team_rate: Some(10_000_000),
        ..Limits::default()
    };
    farm.limit(limits).await;
    let chunks: Vec<_> = (0..4).map(|seed| content(seed, 2 << 20)).collect();
    let digests: Vec<_> = chunks.iter().map(|chunk| Digest::of(chunk)).collect();
    // Two connections of one team share its rate.
    let red = [
        farm.client("red", Role::Developer).await,
        farm.client("red", Role::Developer).await,
    ];
    write(&red[0], &chunks).await.unwrap();
    let blue = farm.client("blue", Role::Developer).await;
    let clock = Clock::start();
    let slow = async {
        let (one, two) = tokio::join!(read(&red[0], &digests), read(&red[1], &digests));
        assert_eq!(one.unwrap().len() + two.unwrap().len(), 8);
        clock.now()
    };
    let quick = async {
        write(&blue, &chunks[..1]).await.unwrap();
        read(&blue, &digests[..1]).await.unwrap();
    };
    let (took, ()) = tokio::join!(slow, quick);
    // 16 MiB at 10 MB/s, and what may be taken at once.
    assert!(protocol::time::Time(1_400_000) < took, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_over_its_rate_holds_up_no_other_on_the_same_connection() {
    let mut farm = Farm::start().await;
    let limits = Limits {
        team_rate: Some(10_000_000),
        ..Limits::default()
    };
    farm.limit(limits).await;
    let connection = farm.connect("farm", Role::Worker).await;
    let client = |name: &str| CacheClient::new(connection.clone(), team(name));
    let (red, blue) = (client("red"), client("blue"));
    for one in [&red, &blue] {
        let grant = grant(one.team().as_str(), Trust::Protected);
        one.present(farm.signer.sign(&grant)).await.unwrap();
    }
    let chunks: Vec<_> = (0..48).map(|seed| content(seed, 2 << 20)).collect();
    let clock = Clock::start();
    let slow = async {
        write(&red, &chunks).await.unwrap();
        clock.now()
    };
    let quick = async {
        for seed in 100..140 {
            write(&blue, &[content(seed, 100_000)]).await.unwrap();
        }
        clock.now()
    };
    let (slow, quick) = tokio::join!(slow, quick);
    // About 48 MiB at 10 MB/s, and what may be taken at once. Pieces that went in turns with those would come when
    // nearly all of them had.
    assert!(protocol::time::Time(2_000_000) < slow, "{slow:?}");
    assert!(2 * quick.0 < slow.0, "{quick:?}, {slow:?}");
}

#[tokio::test]
async fn what_is_read_for_a_report_of_damage_counts_towards_both_rates() {
    let rate = Some(32 << 20);
    let of_connection = Limits {
        connection_rate: rate,
        ..Limits::default()
    };
    let of_team = Limits {
        team_rate: rate,
        ..Limits::default()
    };
    let mut farm = Farm::start().await;
    for limits in [of_connection, of_team] {
        farm.limit(limits).await;
        let connection = farm.connect("red", Role::Developer).await;
        let clock = Clock::start();
        let chunks = (0..16).map(|seed| Digest::from_parts([seed; 32], 2 << 20));
        let request = CacheRequest::ReportDamage {
            team: team("red"),
            chunks: chunks.collect(),
        };
        let mut stream = connection.open().await.unwrap();
        let answer: Result<CacheReply, Refusal> = stream.request(&request).await.unwrap();
        assert!(matches!(answer, Ok(CacheReply::SetAside(0))), "{answer:?}");
        // 32 MiB in a second, but for what may be taken at once.
        let took = clock.now();
        assert!(protocol::time::Time(800_000) < took, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_over_its_rate_waits_and_another_of_its_team_does_not() {
    let mut farm = Farm::start().await;
    let chunks: Vec<_> = (0..8).map(|seed| content(seed, 2 << 20)).collect();
    let digests: Vec<_> = chunks.iter().map(|chunk| Digest::of(chunk)).collect();
    let writer = farm.client("red", Role::Developer).await;
    write(&writer, &chunks).await.unwrap();
    let limits = Limits {
        connection_rate: Some(10_000_000),
        ..Limits::default()
    };
    farm.limit(limits).await;
    let (one, other) = (
        farm.client("red", Role::Developer).await,
        farm.client("red", Role::Developer).await,
    );
    let clock = Clock::start();
    let slow = async {
        assert_eq!(read(&one, &digests).await.unwrap().len(), 8);
        clock.now()
    };
    let quick = async {
        write(&other, &[content(9, 1_000)]).await.unwrap();
        read(&other, &digests[..1]).await.unwrap();
        clock.now()
    };
    let (slow, quick) = tokio::join!(slow, quick);
    // 16 MiB at 10 MB/s, and what may be taken at once.
    assert!(protocol::time::Time(1_400_000) < slow, "{slow:?}");
    assert!(quick < slow, "{quick:?}");
}

#[test]
fn a_team_whose_writes_are_not_durable_yet_leaves_room_for_another() {
    // What is large is verified on threads of which there is one here; what is small is not.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        const CONNECTIONS: usize = 6;
        const CHUNKS: u64 = 12;
        let farm = Farm::start().await;
        let other = farm.client("blue", Role::Developer).await;
        let bytes = content(1, 2 << 20);
        let chunk = compression::encode(&bytes, Digest::of(&bytes));
        let handed = Arc::new(AtomicUsize::new(0));
        let (mut feeding, mut writing) = (JoinSet::new(), JoinSet::new());
        let (stuck, go_on) = stall().await;
        for _ in 0..CONNECTIONS {
            let client = farm.client("red", Role::Developer).await;
            let (send, receive) = mpsc::channel(1);
            writing.spawn(async move { client.write_chunks(receive).await });
            let (chunk, handed) = (chunk.clone(), Arc::clone(&handed));
            feeding.spawn(async move {
                for _ in 0..CHUNKS {
                    send.send(chunk.clone()).await.unwrap();
                    handed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Until the first team has not got on for a while, which is when it has all that it gets.
        let (mut seed, mut before, mut without) = (10, 0, 0);
        while without < 50 {
            let small = timeout(PROMPT, write(&other, &[content(seed, 1_000)])).await;
            assert_eq!(small.expect("nothing is held up").unwrap().new, 1);
            let now = handed.load(Ordering::SeqCst);
            without = if before == now { without + 1 } else { 0 };
            (seed, before) = (seed + 1, now);
        }
        assert!(writing.try_join_next().is_none(), "none of it is durable");
        drop(go_on);
        stuck.await.unwrap();
        feeding.join_all().await;
        for written in writing.join_all().await {
            assert_eq!(written.unwrap().chunks, CHUNKS);
        }
    });
}

/// Keeps a thread for what blocks from all others, until what it gives besides is dropped.
async fn stall() -> (JoinHandle<()>, std::sync::mpsc::Sender<()>) {
    let (go_on, until) = std::sync::mpsc::channel();
    let (begun, has_begun) = oneshot::channel();
    let stuck = spawn_blocking(move || {
        begun.send(()).unwrap();
        // It ends with an error: nothing is ever sent.
        let _over: Result<(), _> = until.recv();
    });
    has_begun.await.unwrap();
    (stuck, go_on)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_team_that_do_not_read_hold_up_no_other_team() {
    let mut farm = Farm::start().await;
    let limits = Limits {
        team_in_flight: 8 << 20,
        ..Limits::default()
    };
    farm.limit(limits).await;
    let there = content(1, 2 << 20);
    for owner in ["red", "blue"] {
        let writer = farm.client(owner, Role::Developer).await;
        write(&writer, std::slice::from_ref(&there)).await.unwrap();
    }
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let connection = farm.connect("red", Role::Developer).await;
        let mut stream = connection.open().await.unwrap();
        let request = CacheRequest::ReadChunks {
            team: team("red"),
            chunks: vec![Digest::of(&there); 1_000],
        };
        stream.send.message(&request).await.unwrap();
        stalled.push((connection, stream));
    }
    let other = farm.client("blue", Role::Developer).await;
    let digest = Digest::of(&there);
    let asked = timeout(PROMPT, read(&other, &[digest])).await;
    assert_eq!(asked.expect("nothing is held up").unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_stops_takes_the_rest_of_what_is_on_its_way() {
    let mut farm = Farm::start().await;
    let connection = farm.connect("red", Role::Developer).await;
    let bytes = content(1, 100_000);
    let mut stream = connection.open().await.unwrap();
    let request = CacheRequest::WriteChunks { team: team("red") };
    stream.send.message(&request).await.unwrap();
    let header = ChunkHeader {
        index: 0,
        digest: Digest::of(&bytes),
        encoding: Encoding::Raw,
        body_bytes: 100_000,
    };
    stream.send.message(&header).await.unwrap();
    stream
        .send
        .bytes(bytes[..50_000].to_vec().into())
        .await
        .unwrap();
    // What has an answer came after that.
    let client = CacheClient::new(connection, team("red"));
    assert!(missing(&client, &bytes).await);
    farm.stop.cancel();
    stream
        .send
        .bytes(bytes[50_000..].to_vec().into())
        .await
        .unwrap();
    stream.send.finish();
    let answer = stream
        .receive
        .message::<Result<CacheReply, Refusal>>()
        .await;
    assert!(matches!(
        answer,
        Ok(Some(Ok(CacheReply::Written { chunks: 1, .. })))
    ));
    farm.running.join_next().await.unwrap().unwrap().unwrap();
    farm.run().await;
    let client = farm.client("red", Role::Developer).await;
    assert!(!missing(&client, &bytes).await);
}
