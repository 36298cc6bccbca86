//! What comes from clients and caches that are damaged or hostile.

use protocol::message::{
    cache::{CacheReply, CacheRequest, ChunkHeader, DIGESTS_MAX, Encoding},
    handshake::Purpose,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use transport::{Server, ServerLimits, Stream};

use super::*;
use crate::metrics;

/// Says that it writes a chunk, and what it says of it.
async fn announce(connection: &Connection, header: ChunkHeader) -> Stream {
    let mut stream = connection.open().await.unwrap();
    let request = CacheRequest::WriteChunks { team: team("red") };
    stream.send.message(&request).await.unwrap();
    stream.send.message(&header).await.unwrap();
    stream
}

async fn answer(stream: &mut Stream) -> Refusal {
    let answer = stream
        .receive
        .message::<Result<CacheReply, Refusal>>()
        .await;
    answer.unwrap().unwrap().unwrap_err()
}

fn header(bytes: &[u8], encoding: Encoding, body_bytes: usize) -> ChunkHeader {
    ChunkHeader {
        index: 0,
        digest: Digest::of(bytes),
        encoding,
        body_bytes: body_bytes.try_into().unwrap(),
    }
}

#[tokio::test]
async fn a_chunk_that_is_not_what_it_says_is_refused_by_name_and_the_connection_goes_on() {
    let farm = Farm::start().await;
    let connection = farm.connect("red", Role::Developer).await;
    let client = CacheClient::new(connection.clone(), team("red"));
    let good = content(1, 10_000);
    let bomb = compression::encode(&vec![0; 2 << 20], Digest::of(b"")).body;
    let short = compression::encode(&good[..5_000], Digest::of(b"")).body;
    let cases = [
        (
            "other bytes",
            header(&good, Encoding::Raw, good.len()),
            content(2, good.len()),
        ),
        (
            "a bomb",
            header(&good, Encoding::Zstd, bomb.len()),
            bomb.to_vec(),
        ),
        (
            "too short",
            header(&good, Encoding::Zstd, short.len()),
            short.to_vec(),
        ),
        ("no zstd", header(&good, Encoding::Zstd, 100), vec![7; 100]),
    ];
    for (what, header, body) in cases {
        let mut stream = announce(&connection, header).await;
        stream.send.bytes(body.into()).await.unwrap();
        stream.send.finish();
        let refused = answer(&mut stream).await;
        assert_eq!(refused.code, RefusalCode::InvalidArgument, "{what}");
        let name = Digest::of(&good).to_string();
        assert!(refused.message.contains(&name), "{what}: {refused}");
        assert!(missing(&client, &good).await, "{what}");
    }
    assert_eq!(write(&client, &[good]).await.unwrap().new, 1);
}

#[tokio::test]
async fn a_header_that_makes_no_sense_is_refused_before_any_body_is_read() {
    let farm = Farm::start().await;
    let connection = farm.connect("red", Role::Developer).await;
    let good = content(1, 1_000);
    let fits = header(&good, Encoding::Raw, good.len());
    let large = Digest::from_parts([1; 32], (2 << 20) + 1);
    let cases = [
        ChunkHeader {
            digest: large,
            ..fits
        },
        ChunkHeader {
            digest: Digest::of(b""),
            body_bytes: 0,
            ..fits
        },
        ChunkHeader {
            body_bytes: 999,
            ..fits
        },
        ChunkHeader {
            body_bytes: u32::MAX,
            encoding: Encoding::Zstd,
            ..fits
        },
        ChunkHeader {
            encoding: Encoding::Missing,
            ..fits
        },
        ChunkHeader { index: 1, ..fits },
    ];
    for header in cases {
        let mut stream = announce(&connection, header).await;
        let refused = answer(&mut stream).await;
        assert_eq!(refused.code, RefusalCode::InvalidArgument, "{header:?}");
        let name = header.digest.to_string();
        assert!(refused.message.contains(&name), "{refused}");
    }
    let client = CacheClient::new(connection, team("red"));
    assert_eq!(write(&client, &[good]).await.unwrap().new, 1);
}

#[tokio::test]
async fn a_stream_that_ends_in_the_middle_of_a_chunk_keeps_nothing_of_it() {
    let farm = Farm::start().await;
    let connection = farm.connect("red", Role::Developer).await;
    let good = content(1, 10_000);
    let mut stream = announce(&connection, header(&good, Encoding::Raw, good.len())).await;
    stream
        .send
        .bytes(good[..9_999].to_vec().into())
        .await
        .unwrap();
    stream.send.finish();
    let refused = answer(&mut stream).await;
    assert!(refused.message.contains("9999 of 10000"), "{refused}");
    let client = CacheClient::new(connection, team("red"));
    assert!(missing(&client, &good).await);
}

#[tokio::test]
async fn too_many_digests_in_one_request_are_refused() {
    let farm = Farm::start().await;
    let connection = farm.connect("red", Role::Developer).await;
    let chunks = vec![Digest::of(b"x"); DIGESTS_MAX + 1];
    let (one, two) = (team("red"), team("red"));
    let find = CacheRequest::FindMissing {
        team: one,
        chunks: chunks.clone(),
    };
    let read = CacheRequest::ReadChunks { team: two, chunks };
    for request in [find, read] {
        let mut stream = connection.open().await.unwrap();
        stream.send.message(&request).await.unwrap();
        let refused = answer(&mut stream).await;
        assert_eq!(refused.code, RefusalCode::InvalidArgument);
        assert!(refused.message.contains("65537"), "{refused}");
    }
    let client = CacheClient::new(connection, team("red"));
    assert!(missing(&client, b"x").await);
}

#[tokio::test]
async fn a_frame_of_garbage_ends_its_connection_and_no_other() {
    let farm = Farm::start().await;
    let other = farm.client("red", Role::Developer).await;
    let connection = farm.connect("red", Role::Developer).await;
    let mut stream = connection.open().await.unwrap();
    stream.send.message(&vec![0xff_u8; 64]).await.unwrap();
    connection.closed().await;
    assert!(missing(&other, b"x").await);
}

#[tokio::test]
async fn a_member_who_is_no_client_of_a_cache_is_refused_with_the_reason() {
    let farm = Farm::start().await;
    let cache = Client::new(&farm.credentials("farm", Role::Cache)).unwrap();
    let refused = cache.connect(farm.address, Role::Cache).await.unwrap_err();
    let message = super::super::refusal::chain(&refused);
    assert!(message.contains("it is one"), "{message}");

    let token = transport::JoinToken::new(farm.authority.fingerprint());
    let refused = transport::enrol(farm.address, &token, "newcomer")
        .await
        .unwrap_err();
    let message = super::super::refusal::chain(&refused);
    assert!(message.contains("coordinator"), "{message}");
}

#[tokio::test]
async fn a_reader_that_stops_reading_holds_nothing_for_others() {
    let farm = Farm::start().await;
    let client = farm.client("red", Role::Developer).await;
    let chunks: Vec<_> = (0..16).map(|seed| content(seed, 2 << 20)).collect();
    write(&client, &chunks).await.unwrap();
    let digests: Vec<_> = chunks.iter().map(|chunk| Digest::of(chunk)).collect();
    let lazy = farm.connect("red", Role::Developer).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = lazy.open().await.unwrap();
        let request = CacheRequest::ReadChunks {
            team: team("red"),
            chunks: digests.clone(),
        };
        stream.send.message(&request).await.unwrap();
        held.push(stream);
    }
    assert_eq!(read(&client, &digests).await.unwrap().len(), 16);
}

#[tokio::test]
async fn a_chunk_that_comes_corrupt_from_the_cache_is_reported_as_such() {
    let farm = Farm::start().await;
    let credentials = farm.credentials("farm", Role::Cache);
    let listen = ([127, 0, 0, 1], 0).into();
    let server = Server::bind(listen, &credentials, ServerLimits::default()).unwrap();
    let address = server.local_addr();
    let (good, bad) = (content(1, 100), content(2, 100));
    let asked = Digest::of(&good);
    let lie = async {
        let greeting = server.accept().await.unwrap().greet().await.unwrap();
        assert_eq!(greeting.purpose, Purpose::Requests);
        let connection = greeting.welcome(None).await.unwrap();
        let mut stream = connection.accept().await.unwrap();
        stream.receive.message::<CacheRequest>().await.unwrap();
        let header: Result<_, Refusal> = Ok(header(&good, Encoding::Raw, bad.len()));
        stream.send.message(&header).await.unwrap();
        stream.send.bytes(bad.into()).await.unwrap();
        stream.send.finish();
        stream.send.stopped().await;
    };
    let ask = async {
        let client = Client::new(&farm.credentials("red", Role::Developer)).unwrap();
        let connection = client.connect(address, Role::Cache).await.unwrap();
        read(&CacheClient::new(connection, team("red")), &[asked]).await
    };
    let (result, ()) = tokio::join!(ask, lie);
    assert!(matches!(result, Err(CacheError::Corrupt { digest, .. }) if digest == asked));
}

#[tokio::test]
async fn metrics_and_health_are_told_over_http() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    let unhealthy = || Err("the disk is gone".to_owned());
    serving.spawn(metrics::serve(listener, unhealthy, stop.clone()));
    ::metrics::counter!("grange_test_questions_total").increment(3);
    let ask = |path: &'static str| async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let metrics = ask("/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(
        metrics.contains("grange_test_questions_total 3"),
        "{metrics}"
    );
    let health = ask("/healthz").await;
    assert!(health.starts_with("HTTP/1.1 503"), "{health}");
    assert!(health.contains("the disk is gone"), "{health}");
    stop.cancel();
    serving.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_restore_counts_by_its_entry_for_those_only_who_may_read_that() {
    let farm = Farm::start().await;
    let bytes = content(1, 1_000);
    let worker = farm.worker("red", Trust::Team).await;
    write(&worker, std::slice::from_ref(&bytes)).await.unwrap();
    let path = "dependency/app/k";
    let put = worker.put_made_entry(key("red", path), entry(&bytes), false, 60_000);
    assert_eq!(put.await.unwrap(), PutOutcome::Stored);
    let restored = |owner: &str, path: &str| UseRecord {
        team: team(owner),
        project: "app".parse().unwrap(),
        what: CacheUse {
            key: "k".to_owned(),
            fallbacks: Vec::new(),
            what: CacheUseKind::Restored,
            bytes: 1_000,
            bytes_moved: 1_000,
            millis: 2,
        },
        entry: Some(key("red", path)),
    };
    worker.record(restored("red", path)).await.unwrap();
    let other = farm.worker("blue", Trust::Team).await;
    let not_theirs = [
        worker.record(restored("red", "dependency/other/k")).await,
        other.record(restored("blue", path)).await,
    ];
    for refused in not_theirs {
        assert_eq!(refusal(refused).code, RefusalCode::PermissionDenied);
    }
    let stats = farm.client("red", Role::Developer).await.stats().await;
    let uses = &stats.unwrap().uses[0];
    let counts = (uses.restored, uses.made_millis, uses.estimated);
    assert_eq!(counts, (1, 60_000, 0));
}
