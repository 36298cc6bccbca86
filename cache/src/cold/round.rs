//! Rounds: what is here and should be in the cold tier is written there, whatever became of writing it behind;
//! what nobody has or asks for any more goes.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use protocol::{
    message::cache::keys,
    time::{Time, WallTime},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Cold, ColdError, PAGES_MAX,
    bucket::Listed,
    endless,
    keep::title,
    lock,
    names::{self, Title},
    policy,
};
use crate::{
    clock::Clock,
    store::{Store, key},
};

/// How often a round is made when nothing went wrong, and how often old chunks are looked for: that lists all
/// of the bucket.
const ROUND_INTERVAL: Duration = Duration::from_secs(3600);
const SWEEP_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked whether a round is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// How many entries of the bucket a round knows, in 24 bytes each; what is over it is written again.
const KNOWN_MAX: usize = 1 << 20;
/// How many entries of the store are looked at together.
const PAGE: usize = 256;
/// How many entries may fail because of the server before a round ends.
const FAILURES_MAX: u32 = 3;

/// The names of entries in the bucket, by a part of their hash, and when they were written.
type Known = HashMap<u64, WallTime>;

impl Cold {
    /// Makes rounds until `stop`: one at once, then every hour, and soon when something was not written.
    pub(crate) async fn make_rounds(&self, store: &Store, stop: CancellationToken) {
        let (mut next, mut next_sweep, mut failures) = (Time::ZERO, Time::ZERO, 0);
        loop {
            let now = self.clock.now();
            let is_due = next <= now && (failures == 0 || !self.is_paused(&self.writes));
            if is_due {
                let sweeps = next_sweep <= now;
                // What is not written from here on is for the round after this.
                self.is_behind.store(false, Ordering::Relaxed);
                let round = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    round = self.round(store, sweeps) => round,
                };
                match round {
                    Ok(()) => {
                        (next, failures) = (now + ROUND_INTERVAL, 0);
                        next_sweep = if sweeps {
                            now + SWEEP_INTERVAL
                        } else {
                            next_sweep
                        };
                    }
                    Err(error) => {
                        self.failed("make a round", &self.writes, &error);
                        (next, failures) = (now + policy::back_off(failures), failures + 1);
                    }
                }
            } else if self.is_behind.load(Ordering::Relaxed) && !self.is_paused(&self.writes) {
                next = now;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    async fn round(&self, store: &Store, sweeps: bool) -> Result<(), ColdError> {
        if sweeps {
            lock(&self.seen).clear();
        }
        let known = self.known().await?;
        let kept = self.keep_all(store, &known).await;
        let swept = match sweeps {
            true => self.sweep_chunks().await,
            false => Ok(()),
        };
        info!(there = known.len(), kept = ?kept.as_ref().ok(), "a round of the cold tier is over");
        kept?;
        swept
    }

    /// Writes what is here and not known there, or old there. Gives how many entries.
    async fn keep_all(&self, store: &Store, known: &Known) -> Result<u64, ColdError> {
        let (mut after, mut kept, mut failures) = (Vec::new(), 0_u64, 0);
        loop {
            let behind = after.clone();
            let page = store.blocking(move |store| store.entries_behind(&behind, PAGE));
            let page = page.await?;
            let Some(last) = page.last else {
                return Ok(kept);
            };
            after = last;
            for (row, stored) in page.entries {
                let lasts = key::path_of(&row).is_some_and(keys::is_lasting);
                let Some(row) = String::from_utf8(row).ok().filter(|_| lasts) else {
                    continue;
                };
                let there = known.get(&shortened(&title(&row, &stored).name()));
                if there.is_some_and(|&modified| !self.is_aged(modified)) {
                    continue;
                }
                match self.keep(store, &row).await {
                    Ok(_) => kept += 1,
                    Err(error) if error.is_of_server() && FAILURES_MAX <= failures => {
                        return Err(error);
                    }
                    Err(error) => {
                        // One that no server takes holds up none else.
                        failures += u32::from(error.is_of_server());
                        warn!(error = error.text(), row, "entry not kept in the cold tier");
                    }
                }
            }
        }
    }

    /// What is in the bucket of entries, without what is too old, which goes.
    async fn known(&self) -> Result<Known, ColdError> {
        let mut known = Known::new();
        let mut from = None;
        for _ in 0..PAGES_MAX {
            let (page, next) = self.bucket.list(names::ENTRIES, from).await?;
            let now = Clock::wall();
            let is_over = |modified| policy::is_entry_over(self.keep, now.since(modified));
            let (old, young): (Vec<_>, Vec<_>) = page
                .into_iter()
                .filter(|listed| Title::parse(&listed.name).is_some())
                .partition(|listed| is_over(listed.modified));
            self.delete_old(old).await;
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
        Err(endless(names::ENTRIES.to_owned()))
    }

    /// Deletes chunks that no entry names any more.
    async fn sweep_chunks(&self) -> Result<(), ColdError> {
        let mut from = None;
        for _ in 0..PAGES_MAX {
            let _nobody_relies_on_them = self.sweeping.write().await;
            let (page, next) = self.bucket.list(names::CHUNKS, from).await?;
            let now = Clock::wall();
            let old: Vec<Listed> = page
                .into_iter()
                .filter(|listed| names::chunk_hash(&listed.name).is_some())
                .filter(|listed| policy::is_chunk_over(self.keep, now.since(listed.modified)))
                .collect();
            self.delete_old(old).await;
            from = next;
            if from.is_none() {
                return Ok(());
            }
        }
        Err(endless(names::CHUNKS.to_owned()))
    }

    /// Deletes what is old; where that does not go, it goes another time.
    async fn delete_old(&self, old: Vec<Listed>) {
        let deleted = self.delete_all(old.into_iter().map(|listed| listed.name));
        if let Err(error) = deleted.await {
            warn!(error = error.text(), "what is old stays in the cold tier");
        }
    }
}

/// Part of a name's hash: among a million names, two with the same part are one in 35 million, and then
/// one of them is written an hour later than it could be.
fn shortened(name: &str) -> u64 {
    let digest = protocol::digest::Digest::of(name.as_bytes());
    u64::from_le_bytes(*digest.hash().first_chunk().expect("a hash has 32 bytes"))
}
