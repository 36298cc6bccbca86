//! Clients that write one by one, that ask what is there, that ask for more than they read, and that write more
//! than is taken.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};
use cache::{client::CacheClient, compression::EncodedChunk};
use protocol::{digest::Digest, message::cache::CacheRequest};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::timeout,
};
use transport::Datagrams;

use super::{
    Took,
    client::{raw, read},
};
use crate::{
    cache::process::{dial, team},
    clock::Stopwatch,
    noise::Noise,
};

/// Writes chunks, so many `together` in a request; the next go when a request is acknowledged.
pub(super) async fn write(
    client: &CacheClient,
    (size, chunks, seed): (usize, u64, u64),
    (in_flight, together): (usize, usize),
) -> Result<Took> {
    // Each manner and each pair has bytes of its own.
    let seed = [seed, size as u64, in_flight as u64, together as u64].map(u64::to_le_bytes);
    let seed = Digest::of(&seed.concat());
    let (seed, _) = seed
        .hash()
        .split_first_chunk()
        .expect("a hash has 32 bytes");
    let mut noise = Noise::new(u64::from_le_bytes(*seed));
    let made = (0..chunks).map(|_| raw(noise.bytes(size).into()));
    let made: Vec<EncodedChunk> = made.collect();
    let made = Arc::new(Mutex::new(made));
    let watch = Stopwatch::start();
    let mut writers = JoinSet::new();
    for _ in 0..in_flight / together {
        let (client, made) = (client.clone(), Arc::clone(&made));
        writers.spawn(async move {
            loop {
                let (send, receive) = mpsc::channel(together);
                let mut taken = 0;
                for chunk in pop(&made, together).await {
                    send.send(chunk).await?;
                    taken += 1;
                }
                if taken == 0 {
                    return anyhow::Ok(());
                }
                drop(send);
                let written = client.write_chunks(receive).await?;
                ensure!(written.new == taken, "a chunk was there");
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(Took::of(watch.elapsed(), chunks, chunks * size as u64))
}

/// The last `count` chunks, or as many as there are.
async fn pop(chunks: &Mutex<Vec<EncodedChunk>>, count: usize) -> Vec<EncodedChunk> {
    let mut chunks = chunks.lock().await;
    let from = chunks.len().saturating_sub(count);
    chunks.split_off(from)
}

/// Asks for chunks that are there and, between them, as many that are not. Others that are not there, which are
/// asked for before, get connection and processor going; of what is timed, nothing has been asked for.
pub(super) async fn presence(client: &CacheClient, there: &[Digest], count: usize) -> Result<Took> {
    let pairs = there.iter().cycle().zip(others(7, there, count / 2));
    let asked: Vec<Digest> = pairs.flat_map(|(&one, other)| [one, other]).collect();
    let warm = others(8, there, count / 8);
    let missing = client.find_missing(&warm).await?;
    ensure!(missing.len() == warm.len(), "nobody wrote any of these");
    let watch = Stopwatch::start();
    let missing = client.find_missing(&asked).await?;
    let took = Took::of(watch.elapsed(), asked.len() as u64, 0);
    let right = missing
        .iter()
        .enumerate()
        .all(|(at, index)| *index == 2 * at + 1);
    ensure!(
        right && missing.len() == asked.len() / 2,
        "the answer is wrong"
    );
    Ok(took)
}

/// So many digests as large as those that are there, of chunks that are not; other ones for each seed.
fn others(seed: u64, there: &[Digest], count: usize) -> Vec<Digest> {
    let mut noise = Noise::new(seed);
    let sizes = there.iter().cycle().map(Digest::size).take(count);
    let other = |size| {
        let hash = noise.bytes(32).try_into().expect("32 bytes were made");
        Digest::from_parts(hash, size)
    };
    sizes.map(other).collect()
}

/// Asks for chunks on many connections; every second one never reads.
pub(super) async fn hold(
    (farm, address): (&Path, SocketAddr),
    digests: &[Digest],
    (connections, in_flight): (usize, usize),
    bytes: u64,
) -> Result<Took> {
    let mut silent = Vec::new();
    let mut clients = Vec::new();
    for at in 0..connections {
        let connection = dial(farm, address, Datagrams::default()).await?;
        if at % 2 == 0 {
            clients.push(CacheClient::new(connection, team()));
            continue;
        }
        for one in 0..in_flight {
            let mut stream = connection.open().await?;
            let request = CacheRequest::ReadChunks {
                team: team(),
                chunks: vec![digests[one % digests.len()]],
            };
            stream.send.message(&request).await?;
            stream.send.finish();
            silent.push(stream);
        }
    }
    let each = usize::try_from(bytes / digests[0].size())? / clients.len() + 1;
    let watch = Stopwatch::start();
    let mut readers = JoinSet::new();
    let chunks = each * clients.len();
    for client in clients {
        let digests = digests.to_vec();
        readers.spawn(async move { read(&client, &digests, (each, in_flight, 1)).await });
    }
    while let Some(done) = readers.join_next().await {
        done??;
    }
    drop(silent);
    let chunks = chunks as u64;
    Ok(Took::of(
        watch.elapsed(),
        chunks,
        chunks * digests[0].size(),
    ))
}

/// Who writes more than is taken: the same chunks on each of many connections, each with a request of its own and
/// all of them at once.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Press {
    pub(crate) farm: PathBuf,
    pub(crate) address: SocketAddr,
    /// How large each chunk is, in bytes.
    pub(crate) size: u64,
    pub(crate) connections: usize,
    /// How many chunks each connection writes.
    pub(crate) in_flight: usize,
    /// How long, if not all are written before.
    pub(crate) millis: u64,
}

/// Does it; the chunks and bytes are what was sent.
pub(super) async fn press(plan: &Press) -> Result<Took> {
    let length = usize::try_from(plan.size)?;
    let mut noise = Noise::new(9);
    let made = (0..plan.in_flight).map(|_| raw(noise.bytes(length).into()));
    let made: Vec<EncodedChunk> = made.collect();
    let mut dialled = Vec::new();
    for _ in 0..plan.connections {
        dialled.push(dial(&plan.farm, plan.address, Datagrams::default()).await?);
    }
    let watch = Stopwatch::start();
    let mut writers = JoinSet::new();
    for connection in &dialled {
        for chunk in &made {
            let client = CacheClient::new(connection.clone(), team());
            let (send, receive) = mpsc::channel(1);
            send.send(chunk.clone()).await?;
            writers.spawn(async move { client.write_chunks(receive).await });
        }
    }
    let written = async {
        while let Some(written) = writers.join_next().await {
            written??;
        }
        anyhow::Ok(())
    };
    // Writers that still wait when the time is over are what this is for.
    if let Ok(written) = timeout(Duration::from_millis(plan.millis), written).await {
        written?;
    }
    let sent = dialled
        .iter()
        .map(|connection| connection.datagram_bytes().0);
    let sent = sent.sum::<u64>();
    Ok(Took::of(watch.elapsed(), sent / plan.size, sent))
}
