//! Rounds: what is here and should be in the cold tier is written there, whatever became of writing it behind;
//! what nobody has or asks for any more goes.
//!
//! No chunk goes before the last entry that may name it. An entry is written when all its chunks are younger
//! than half the time that things are kept, and goes when it is older than that time; a chunk goes when it is
//! older than twice that time and some days.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use protocol::{
    message::cache::keys,
    time::{Time, WallTime},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{Cold, ColdError, PAUSE, keep::label, lock, names};
use crate::{
    clock::Clock,
    store::{Store, key},
};

/// How often a round is made when nothing went wrong, and how often old chunks are looked for: that lists all
/// of the bucket.
const ROUND_INTERVAL: Duration = Duration::from_secs(3600);
const SWEEP_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// How much longer chunks stay: a chunk may be taken for young for as long as one sweep is from the next.
const SLACK: Duration = Duration::from_secs(2 * 24 * 3600);
/// How many entries of the bucket a round knows, in 24 bytes each; what is over it is written again.
const KNOWN_MAX: usize = 1 << 20;
/// How many entries of the store are looked at together.
const PAGE: usize = 256;
/// How many entries in a row may fail before a round ends: one that no server takes holds up none else.
const FAILURES_MAX: u32 = 3;

/// The names of entries in the bucket, by a part of their hash, and when they were written.
type Known = HashMap<u64, WallTime>;

impl Cold {
    /// Makes rounds until `stop`: one at once, then every hour, and soon when something was not written.
    pub(crate) async fn make_rounds(&self, store: &Store, stop: CancellationToken) {
        let mut next = Time::ZERO;
        let mut next_sweep = Time::ZERO;
        loop {
            let now = self.now();
            if next <= now || self.is_behind.swap(false, Ordering::Relaxed) {
                let sweeps = next_sweep <= now;
                let round = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    round = self.round(store, sweeps) => round,
                };
                match round {
                    Ok(()) => {
                        next = now + ROUND_INTERVAL;
                        next_sweep = if sweeps {
                            now + SWEEP_INTERVAL
                        } else {
                            next_sweep
                        };
                    }
                    Err(error) => {
                        self.is_behind.store(true, Ordering::Relaxed);
                        self.failed("make a round", &error);
                    }
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn round(&self, store: &Store, sweeps: bool) -> Result<(), ColdError> {
        if sweeps {
            lock(&self.seen).clear();
        }
        let known = self.known().await?;
        let (mut after, mut kept, mut failures) = (Vec::new(), 0_u64, 0);
        loop {
            let behind = after.clone();
            let page = store.blocking(move |store| store.entries_behind(&behind, PAGE));
            let page = page.await?;
            let Some((last, _)) = page.last() else { break };
            after = last.clone();
            for (row, stored) in page {
                let lasts = key::path_of(&row).is_some_and(keys::is_lasting);
                let Some(row) = String::from_utf8(row).ok().filter(|_| lasts) else {
                    continue;
                };
                let there = known.get(&shortened(&label(&row, &stored).name()));
                if there.is_some_and(|&modified| !self.is_aged(modified)) {
                    continue;
                }
                match self.keep(store, &row).await {
                    Ok(_) => (kept, failures) = (kept + 1, 0),
                    Err(error) if failures < FAILURES_MAX => {
                        failures += 1;
                        debug!(error = %protocol::report::Chain(&error), row, "entry not kept");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        info!(
            there = known.len(),
            kept, "the cold tier has what it should"
        );
        if sweeps {
            self.sweep_chunks().await
        } else {
            Ok(())
        }
    }

    /// What is in the bucket of entries, without what is too old, which goes.
    async fn known(&self) -> Result<Known, ColdError> {
        let mut known = Known::new();
        let mut from = None;
        loop {
            let (page, next) = self.bucket.list(names::ENTRIES, from).await?;
            let now = Clock::wall();
            let (old, young): (Vec<_>, Vec<_>) = page
                .into_iter()
                .partition(|listed| self.keep < now.since(listed.modified));
            self.delete_all(old.into_iter().map(|listed| listed.name))
                .await?;
            for listed in young {
                if known.len() < KNOWN_MAX {
                    known.insert(shortened(&listed.name), listed.modified);
                }
            }
            from = next;
            if from.is_none() {
                return Ok(known);
            }
        }
    }

    /// Deletes chunks that no entry names any more.
    async fn sweep_chunks(&self) -> Result<(), ColdError> {
        let age_max = 2 * self.keep + SLACK;
        let mut from = None;
        loop {
            let (page, next) = self.bucket.list(names::CHUNKS, from).await?;
            let now = Clock::wall();
            let old = page
                .into_iter()
                .filter(|listed| age_max < now.since(listed.modified));
            self.delete_all(old.map(|listed| listed.name)).await?;
            from = next;
            if from.is_none() {
                return Ok(());
            }
        }
    }
}

/// Part of a name's hash: among a million names, two with the same part are one in 35 million, and then
/// one of them is written an hour later than it could be.
fn shortened(name: &str) -> u64 {
    let digest = protocol::digest::Digest::of(name.as_bytes());
    u64::from_le_bytes(*digest.hash().first_chunk().expect("a hash has 32 bytes"))
}
