//! The clients of a cache that evicts: writers with a skewed pattern, and builds that have holds.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use cache::eviction::{Random, Worth, Zipf};
use protocol::digest::Digest;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{
    clock::{Stopwatch, wall},
    entries::Shelf,
};

/// How large all chunks are, in bytes.
const CHUNK_BYTES: u64 = 128 << 10;
/// How many entries are come back to.
const KEYS: u64 = 2_000;
/// Of ten uses, so many are of entries that are never used again.
const ONCE_OF_TEN: u64 = 2;
/// From this number on keys are used once only.
const ONCE: u64 = 1 << 40;
/// How many uses of one writer are under way.
const WRITERS: u64 = 4;
/// How many chunks of an entry that is there are read.
const READ_CHUNKS: usize = 4;
/// How many chunks a build holds without an entry, and how many in one.
const HELD_CHUNKS: u64 = 8;
/// Where seeds of chunks begin that builds hold.
const HELD: u64 = 1 << 50;

/// What a client does.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Load {
    /// Uses entries until so many bytes were stored; says [`Wrote`].
    Write {
        farm: PathBuf,
        address: SocketAddr,
        seed: u64,
        bytes: u64,
    },
    /// So many builds hold what they have, and renew their holds so often, until there is a file of this
    /// name; says [`Held`].
    Hold {
        farm: PathBuf,
        address: SocketAddr,
        builds: u64,
        renew_millis: u64,
        hold_millis: u64,
        until: PathBuf,
    },
}

/// One use of an entry.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Use {
    /// When, in milliseconds of the time of day.
    pub(crate) at: u64,
    pub(crate) key: u64,
    pub(crate) is_hit: bool,
}

/// What a writer did.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Wrote {
    pub(crate) seconds: f64,
    /// The bytes of new chunks.
    pub(crate) bytes: u64,
    /// How often it was refused.
    pub(crate) refused: u64,
    pub(crate) uses: Vec<Use>,
}

/// What builds saw.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Held {
    /// How often all holds were renewed.
    pub(crate) renewals: u64,
    /// How many chunks and entries were not there when their holds were renewed, or wrong at the end.
    pub(crate) lost: u64,
    /// How often they were renewed only when they had ended, on a machine that is too busy: then what they
    /// were of was written again.
    pub(crate) late: u64,
    /// The longest time between two renewals, in milliseconds: a busy machine may make it longer than a
    /// hold.
    pub(crate) longest_millis: u64,
    /// What the store had of chunks, in bytes, at each renewal.
    pub(crate) live: Vec<u64>,
}

/// What an entry is worth: 128 KiB to 8 MiB, made at 1 to 32 MB/s.
pub(crate) fn worth(key: u64) -> Worth {
    let mut random = Random(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let chunks = 1_u64 << (random.below(4) + random.below(4));
    let bytes = chunks * CHUNK_BYTES;
    let rate = 1_000_u64 << random.below(6);
    Worth {
        bytes,
        made_millis: (bytes / rate).max(1),
    }
}

fn seeds(key: u64) -> Vec<u64> {
    let count = worth(key).bytes / CHUNK_BYTES;
    (0..count).map(|at| (key << 8) + at).collect()
}

/// Writes until enough was stored.
///
/// # Errors
///
/// If the cache fails.
pub(crate) async fn write(
    (farm, address): (PathBuf, SocketAddr),
    seed: u64,
    bytes: u64,
) -> Result<Wrote> {
    let shelf = Shelf::dial(&farm, address, CHUNK_BYTES).await?;
    let stored = Arc::new(AtomicU64::new(0));
    let refused = Arc::new(AtomicU64::new(0));
    let uses = Arc::new(Mutex::new(Vec::new()));
    let watch = Stopwatch::start();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (shelf, stored) = (shelf.clone(), Arc::clone(&stored));
        let (refused, uses) = (Arc::clone(&refused), Arc::clone(&uses));
        writers.spawn(async move {
            let mut random = Random(seed * WRITERS + writer);
            let zipf = Zipf::new(KEYS);
            let mut once = ONCE + ((seed * WRITERS + writer) << 20);
            while stored.load(Ordering::Relaxed) < bytes {
                let key = if random.below(10) < ONCE_OF_TEN {
                    once += 1;
                    once
                } else {
                    zipf.draw(&mut random)
                };
                let at = wall().0;
                let path = format!("dependency/bench/{key}");
                let entry = shelf.get(&path).await?;
                let is_hit = entry.is_some();
                lock(&uses).push(Use { at, key, is_hit });
                if let Some(entry) = entry {
                    let chunks = entry.blobs.iter().map(|blob| blob.digest);
                    let chunks: Vec<Digest> = chunks.take(READ_CHUNKS).collect();
                    let damaged = shelf.damaged(&chunks).await;
                    anyhow::ensure!(damaged == 0, "{damaged} chunks of {path} were lost");
                } else {
                    let made = worth(key).made_millis;
                    let put = shelf.put(&path, &seeds(key), made).await?;
                    stored.fetch_add(put.stored, Ordering::Relaxed);
                    refused.fetch_add(put.refused, Ordering::Relaxed);
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let uses = std::mem::take(&mut *lock(&uses));
    Ok(Wrote {
        seconds: watch.elapsed().as_secs_f64(),
        bytes: stored.load(Ordering::Relaxed),
        refused: refused.load(Ordering::Relaxed),
        uses,
    })
}

/// What builds hold.
struct Holders {
    shelf: Shelf,
    builds: u64,
    /// Of chunks that are uploaded and in no entry yet.
    digests: Vec<Digest>,
}

impl Holders {
    fn path(build: u64) -> String {
        format!("dependency/held/{build}")
    }

    /// Writes what builds have, if it is not there.
    async fn bring(&mut self) -> Result<()> {
        self.digests.clear();
        for build in 0..self.builds {
            let first = HELD + (build << 8);
            let seeds = first..first + HELD_CHUNKS;
            let chunks: Vec<_> = seeds.map(|seed| self.shelf.chunk(seed)).collect();
            self.digests.extend(chunks.iter().map(|chunk| chunk.digest));
            self.shelf.write(chunks).await?;
            // And an entry that the build has looked up.
            let seeds: Vec<u64> = (first + HELD_CHUNKS..first + 2 * HELD_CHUNKS).collect();
            self.shelf.put(&Self::path(build), &seeds, 1).await?;
        }
        Ok(())
    }

    /// Renews all holds; gives how many of them were of nothing.
    async fn renew(&self) -> Result<u64> {
        let mut lost = self.shelf.client.find_missing(&self.digests).await?.len() as u64;
        for build in 0..self.builds {
            lost += u64::from(self.shelf.get(&Self::path(build)).await?.is_none());
        }
        Ok(lost)
    }
}

/// Holds what builds have until it is to end, and renews the holds after the first of the two times; they
/// last for the second.
///
/// # Errors
///
/// If the cache fails.
pub(crate) async fn hold(
    (farm, address): (PathBuf, SocketAddr),
    builds: u64,
    (renew, hold): (Duration, Duration),
    until: PathBuf,
) -> Result<Held> {
    let mut holders = Holders {
        shelf: Shelf::dial(&farm, address, CHUNK_BYTES).await?,
        builds,
        digests: Vec::new(),
    };
    let mut held = Held::default();
    holders.bring().await?;
    // From before the first of all holds was taken to after the last of them was renewed.
    let mut watch = Stopwatch::start();
    holders.renew().await?;
    while !fs::exists(&until)? {
        tokio::time::sleep(renew).await;
        let next = Stopwatch::start();
        let lost = holders.renew().await?;
        let apart = watch.elapsed();
        held.longest_millis = held.longest_millis.max(u64::try_from(apart.as_millis())?);
        held.renewals += 1;
        watch = next;
        if apart < hold {
            held.lost += lost;
        } else {
            held.late += 1;
            holders.bring().await?;
            watch = Stopwatch::start();
            holders.renew().await?;
        }
        held.live
            .push(holders.shelf.client.stats().await?.bytes_stored);
    }
    let mut digests = holders.digests.clone();
    for build in 0..builds {
        let entry = holders.shelf.get(&Holders::path(build)).await?;
        let blobs = entry.into_iter().flat_map(|entry| entry.blobs);
        digests.extend(blobs.map(|blob| blob.digest));
    }
    if watch.elapsed() < hold {
        held.lost += holders.shelf.damaged(&digests).await as u64;
    }
    Ok(held)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
