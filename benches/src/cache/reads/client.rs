//! The clients of the cache: one fills it, others read.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use cache::{client::CacheClient, compression::EncodedChunk};
use protocol::{digest::Digest, message::cache::Encoding};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinSet};
use transport::{Connection, Datagrams};

use super::{
    Took,
    more::{self, Press},
    pump,
};
use crate::{
    cache::process::{dial, team},
    clock::Stopwatch,
    noise::Noise,
};

/// How many streams fill a cache.
const FILLERS: usize = 4;

/// What a client does.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Load {
    /// Writes chunks, and keeps their digests.
    Fill {
        farm: PathBuf,
        address: SocketAddr,
        /// How large each chunk is, in bytes.
        size: u64,
        /// How many bytes all have.
        bytes: u64,
        /// Where the digests go.
        digests: PathBuf,
    },
    /// Reads chunks.
    Read {
        farm: PathBuf,
        address: SocketAddr,
        /// Which there are.
        digests: PathBuf,
        /// How many requests are under way.
        in_flight: usize,
        /// How many chunks each names.
        batch: usize,
        /// How many bytes are read.
        bytes: u64,
        /// How many of the chunks are read, over and over; `None`: all.
        distinct: Option<usize>,
        /// What its datagrams are like.
        datagrams: Datagrams,
    },
    /// Writes chunks that are all new, each with a request of its own.
    Write {
        farm: PathBuf,
        address: SocketAddr,
        /// How large each is, in bytes.
        size: usize,
        in_flight: usize,
        /// How many go in one request; each request is acknowledged as a whole.
        together: usize,
        chunks: u64,
        /// What their bytes come from.
        seed: u64,
    },
    /// Asks which chunks are there; for each that is, one that is not.
    Presence {
        farm: PathBuf,
        address: SocketAddr,
        digests: PathBuf,
        /// How many digests are asked for.
        count: usize,
    },
    /// Asks for chunks on many connections, and reads on half of them only.
    Hold {
        farm: PathBuf,
        address: SocketAddr,
        digests: PathBuf,
        connections: usize,
        in_flight: usize,
        /// How many bytes those that read get, together.
        bytes: u64,
    },
    /// Writes more than is taken; tells what was sent.
    Press(Press),
    /// Reads from a pump.
    Pump {
        farm: PathBuf,
        address: SocketAddr,
        bytes: u64,
        datagrams: Datagrams,
    },
}

/// Does it.
///
/// # Errors
///
/// If the cache or the pump does not do its part.
pub(crate) async fn load(load: Load) -> Result<Took> {
    match load {
        Load::Fill {
            farm,
            address,
            size,
            bytes,
            digests,
        } => {
            let client = client(&farm, address).await?;
            fill(&client, (size, bytes / size), &digests).await
        }
        Load::Read {
            farm,
            address,
            digests,
            in_flight,
            batch,
            bytes,
            distinct,
            datagrams,
        } => {
            let connection = dial(&farm, address, datagrams).await?;
            let mut digests = load_digests(&digests)?;
            digests.truncate(distinct.unwrap_or(usize::MAX));
            read_warm(&connection, &digests, bytes, (in_flight, batch, distinct)).await
        }
        Load::Write {
            farm,
            address,
            size,
            in_flight,
            together,
            chunks,
            seed,
        } => {
            let client = client(&farm, address).await?;
            more::write(&client, (size, chunks, seed), (in_flight, together)).await
        }
        Load::Presence {
            farm,
            address,
            digests,
            count,
        } => {
            let client = client(&farm, address).await?;
            more::presence(&client, &load_digests(&digests)?, count).await
        }
        Load::Hold {
            farm,
            address,
            digests,
            connections,
            in_flight,
            bytes,
        } => {
            let digests = load_digests(&digests)?;
            let many = (connections, in_flight);
            more::hold((&farm, address), &digests, many, bytes).await
        }
        Load::Press(press) => more::press(&press).await,
        Load::Pump {
            farm,
            address,
            bytes,
            datagrams,
        } => pump::receive((&farm, address), bytes, datagrams).await,
    }
}

/// Reads so many bytes when windows, datagrams and the blocks that say where chunks are have got their size.
async fn read_warm(
    connection: &Connection,
    digests: &[Digest],
    bytes: u64,
    (in_flight, batch, distinct): (usize, usize, Option<usize>),
) -> Result<Took> {
    let size = digests[0].size();
    let count = usize::try_from(bytes / size)?;
    let warm = (count / 8).max(distinct.map_or(0, |count| 3 * count));
    let client = CacheClient::new(connection.clone(), team());
    read(&client, digests, (warm, in_flight, batch)).await?;
    let received = || (connection.datagram_bytes().1, connection.datagrams().1);
    let before = received();
    let watch = Stopwatch::start();
    read(&client, digests, (count, in_flight, batch)).await?;
    let took = Took::of(watch.elapsed(), count as u64, count as u64 * size);
    let after = received();
    Ok(Took {
        datagram_bytes: (after.0 - before.0).checked_div(after.1 - before.1),
        ..took
    })
}

async fn client(farm: &Path, address: SocketAddr) -> Result<CacheClient> {
    let connection = dial(farm, address, Datagrams::default()).await?;
    Ok(CacheClient::new(connection, team()))
}

async fn fill(client: &CacheClient, (size, count): (u64, u64), keep: &Path) -> Result<Took> {
    let length = usize::try_from(size)?;
    let watch = Stopwatch::start();
    let mut writers = JoinSet::new();
    for filler in 0..FILLERS as u64 {
        let client = client.clone();
        writers.spawn(async move {
            let (send, receive) = mpsc::channel(16);
            let made = async move {
                let mut digests = Vec::new();
                for at in (filler..count).step_by(FILLERS) {
                    let chunk = raw(Noise::new(size ^ (at << 24)).bytes(length).into());
                    digests.push(chunk.digest);
                    if send.send(chunk).await.is_err() {
                        break;
                    }
                }
                digests
            };
            let (written, digests) = tokio::join!(client.write_chunks(receive), made);
            written?;
            anyhow::Ok(digests)
        });
    }
    let mut digests = Vec::new();
    while let Some(written) = writers.join_next().await {
        digests.extend(written??);
    }
    let took = Took::of(watch.elapsed(), count, count * size);
    keep_digests(keep, &digests)?;
    Ok(took)
}

/// A chunk that is not worth compressing.
pub(crate) fn raw(body: Bytes) -> EncodedChunk {
    EncodedChunk {
        digest: Digest::of(&body),
        encoding: Encoding::Raw,
        body,
    }
}

/// Writes digests to a file.
///
/// # Errors
///
/// If it cannot be written.
pub(crate) fn keep_digests(file: &Path, digests: &[Digest]) -> Result<()> {
    let rows = digests.iter().map(|digest| {
        let size = digest.size().to_le_bytes();
        [&digest.hash()[..], &size[..]].concat()
    });
    Ok(fs::write(file, rows.collect::<Vec<_>>().concat())?)
}

/// Reads digests from a file.
///
/// # Errors
///
/// If it cannot be read.
pub(crate) fn load_digests(file: &Path) -> Result<Vec<Digest>> {
    let bytes = fs::read(file)?;
    let (rows, _) = bytes.as_chunks::<40>();
    ensure!(!rows.is_empty(), "nothing was written");
    let digest = |row: &[u8; 40]| {
        let (hash, size) = row.split_first_chunk().expect("a row starts with a hash");
        let size = size.try_into().expect("a row ends with a length");
        Digest::from_parts(*hash, u64::from_le_bytes(size))
    };
    Ok(rows.iter().map(digest).collect())
}

/// Reads `count` chunks, over and over if there are not so many.
pub(crate) async fn read(
    client: &CacheClient,
    digests: &[Digest],
    (count, in_flight, batch): (usize, usize, usize),
) -> Result<()> {
    let digests: Arc<[Digest]> = digests.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..in_flight {
        let (client, digests, next) = (client.clone(), Arc::clone(&digests), Arc::clone(&next));
        readers.spawn(async move {
            loop {
                let first = next.fetch_add(batch, Ordering::Relaxed);
                if count <= first {
                    return anyhow::Ok(());
                }
                let asked =
                    (first..(first + batch).min(count)).map(|at| digests[at % digests.len()]);
                let asked: Vec<Digest> = asked.collect();
                let expected = asked.len();
                let (out, mut chunks) = mpsc::channel(64);
                let taken = async {
                    let mut taken = 0;
                    while chunks.recv().await.is_some() {
                        taken += 1;
                    }
                    taken
                };
                let (read, taken) = tokio::join!(client.read_chunks(asked, out), taken);
                read?;
                ensure!(taken == expected, "{taken} of {expected} chunks came");
            }
        });
    }
    while let Some(done) = readers.join_next().await {
        done??;
    }
    Ok(())
}
