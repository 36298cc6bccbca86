//! Bulk over several connections.

use std::sync::Arc;

use super::*;

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
