//! Making room: chunks that nobody needs go, and when the disk's budget is used up, dependency caches
//! that were not used for long.

use std::sync::atomic::Ordering;

use super::{
    Store, Trouble,
    change::{Applied, Change},
    disk_usage,
    key::{self, ChunkKey},
    rocks::Column,
    row::{self, Fact, StoredEntry},
};
use crate::eviction::{self, Candidate};

/// How many chunks are collected in one batch: some milliseconds of the writer's time.
const COLLECTED_AT_ONCE: usize = 1024;
/// Of the budget, how much is free when evicting stops, as a divisor: a quarter. To get the disk back,
/// all that is alive is written anew; so that is worth it only for much.
const SLACK_DIVISOR: u64 = 4;
/// How keys of entries start that may be evicted.
const EVICTABLE: &str = "dependency/";

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Swept {
    /// How many dependency caches went.
    pub(crate) evicted: u64,
    /// How many chunks went.
    pub(crate) chunks: u64,
    /// What those took, in bytes.
    pub(crate) stored: u64,
}

/// Chunks that no entry names.
#[derive(Debug, Default)]
struct Loose {
    /// Those that nobody holds.
    chunks: Vec<ChunkKey>,
    /// What the others take, in bytes.
    held: u64,
    /// Behind which to go on; `None`: there are no more.
    last: Option<ChunkKey>,
}

impl Store {
    /// Deletes what no entry names and nobody holds; and while the store takes more than `budget` bytes
    /// on the disk, dependency caches, least recently used first.
    pub(crate) async fn sweep(&self, budget: u64) -> Result<Swept, Trouble> {
        let mut swept = Swept::default();
        let held = self.collect(&mut swept).await?;
        let used = self.blocking(|store| disk_usage(&store)).await?;
        metrics::gauge!("grange_cache_disk_bytes").set(super::as_float(used));
        if used <= budget {
            return Ok(swept);
        }
        // What is only held goes by itself when the holds end: no reason to evict more.
        let target = budget - budget / SLACK_DIVISOR;
        let kept = super::lock(&self.shared.totals).stored.saturating_sub(held);
        if target < kept {
            self.evict(kept - target, &mut swept).await?;
            self.collect(&mut swept).await?;
        }
        // What was deleted is on the disk until its files are rewritten.
        if self.shared.garbage.swap(0, Ordering::Relaxed) != 0 {
            self.blocking(move |store| Ok(store.shared.rocks()?.reclaim(budget)?))
                .await?;
        }
        Ok(swept)
    }

    /// Deletes dependency caches until what only they kept takes `excess` bytes, or none is left.
    async fn evict(&self, excess: u64, swept: &mut Swept) -> Result<(), Trouble> {
        let candidates = self.blocking(|store| store.candidates()).await?;
        for key in eviction::choose(candidates, excess) {
            let deleted = self.change(Change::DeleteEntry { key }).await?;
            if let Applied::Deleted { count, .. } = deleted {
                swept.evicted += count;
                metrics::counter!("grange_cache_entries_evicted_total").increment(count);
            }
        }
        Ok(())
    }

    /// Deletes what no entry names and nobody holds. Gives the bytes of what no entry names, but
    /// somebody holds.
    async fn collect(&self, swept: &mut Swept) -> Result<u64, Trouble> {
        let mut after = None;
        let mut held = 0;
        loop {
            let loose = self.blocking(move |store| store.loose(after)).await?;
            held += loose.held;
            if !loose.chunks.is_empty() {
                let chunks = loose.chunks;
                let collected = self.change(Change::Collect { chunks }).await?;
                if let Applied::Collected { chunks, stored } = collected {
                    swept.chunks += chunks;
                    swept.stored += stored;
                    self.shared.garbage.fetch_add(stored, Ordering::Relaxed);
                    metrics::counter!("grange_cache_chunks_collected_total").increment(chunks);
                }
            }
            if loose.last.is_none() {
                return Ok(held);
            }
            after = loose.last;
        }
    }

    /// The next chunks behind `after` that no entry names.
    fn loose(&self, after: Option<ChunkKey>) -> Result<Loose, Trouble> {
        let rocks = self.shared.rocks()?;
        let now = self.shared.clock.now();
        let start: &[u8] = after.as_ref().map_or(&[], |key| key.as_bytes());
        let mut loose = Loose::default();
        for row in rocks.rows_from(Column::Facts, start) {
            let (key, value) = row?;
            let Some(chunk) = ChunkKey::from_bytes(&key).filter(|key| Some(*key) != after) else {
                continue;
            };
            let fact = Fact::decode(&value)?;
            if fact.references != 0 {
                continue;
            }
            if self.shared.holds.is_held(chunk.hash(), now) {
                loose.held += fact.stored;
                continue;
            }
            loose.chunks.push(chunk);
            if loose.chunks.len() == COLLECTED_AT_ONCE {
                loose.last = Some(chunk);
                break;
            }
        }
        Ok(loose)
    }

    /// All dependency caches.
    fn candidates(&self) -> Result<Vec<Candidate>, Trouble> {
        let rocks = self.shared.rocks()?;
        let mut candidates = Vec::new();
        for row in rocks.rows_from(Column::Entries, &[]) {
            let (key, value) = row?;
            if !key::path_of(&key).is_some_and(|path| path.starts_with(EVICTABLE)) {
                continue;
            }
            let stored = StoredEntry::decode(&value)?;
            let used = rocks.get(Column::Used, &key)?;
            let used = used.as_deref().map(row::decode_used).transpose()?;
            candidates.push(Candidate {
                key: key.into_vec(),
                used: used.unwrap_or(stored.entry.written),
                bytes: stored.bytes,
            });
        }
        Ok(candidates)
    }

    /// Runs what blocks where it may.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let store = self.clone();
        let work = tokio::task::spawn_blocking(move || work(store));
        work.await.unwrap_or(Err(Trouble::Closed))
    }
}
