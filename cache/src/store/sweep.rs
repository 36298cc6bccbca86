//! Making room: chunks that nobody needs go, and when the disk's budget is used up, dependency caches
//! that were not used for long.

use protocol::time::WallTime;

use super::{
    Store, Trouble,
    change::{Applied, Change},
    disk_usage,
    key::{self, ChunkKey},
    rocks::{CHUNKS_BUFFER_BYTES, Column, LOG_BYTES_MAX},
    row::{self, Fact, StoredEntry, Uses},
    space::{self, DiskUsage},
};
use crate::{
    clock::Clock,
    eviction::{self, Candidate},
};

/// How many chunks are collected in one batch: some milliseconds of the writer's time.
const COLLECTED_AT_ONCE: usize = 1024;
/// Of the budget, how much is free when evicting stops, as a divisor: a quarter. To get the disk back,
/// all that is alive is written anew; so that is worth it only for much.
const SLACK_DIVISOR: u64 = 4;
/// How long the log is at least, in bytes, when a sweep shortens it: doing that more often would make
/// many small files.
const FLUSHED_LOG_MIN: u64 = 64 << 20;
/// How often one sweep looks again whether enough was evicted: new entries may come meanwhile. What is
/// left over waits for the next sweep.
const EVICTIONS_AT_ONCE: usize = 4;
/// Of the limit, how much garbage is worth rewriting files for, as a divisor.
const GARBAGE_DIVISOR: u64 = 16;
/// The same, at least, in bytes.
const GARBAGE_MIN: u64 = 4 << 20;
/// What the log and the buffer that is being written to a file may take besides all other files, in
/// bytes; on a disk that is short their place is kept free.
const UNSORTED_BYTES_MAX: u64 = LOG_BYTES_MAX + CHUNKS_BUFFER_BYTES as u64;
/// How long counts of uses are kept after the last use, in milliseconds: 90 days. Keys that come from
/// lock files are never used again when these change.
const USES_AGE_MAX_MILLIS: u64 = 90 * 24 * 3600 * 1000;
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

/// How much room there is.
#[derive(Clone, Copy, Debug)]
struct Room {
    used: DiskUsage,
    /// What the files may take, in bytes: the budget, or less if the disk has less.
    limit: u64,
}

impl Room {
    /// Whether the store takes more than its budget, or more than the disk has for it.
    fn is_over(&self, budget: u64) -> bool {
        budget < self.used.all || self.limit < self.used.all - self.used.log
    }
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
    /// on the disk, or more than the disk has for it, dependency caches, least recently used first.
    pub(crate) async fn sweep(&self, budget: u64) -> Result<Swept, Trouble> {
        let mut swept = Swept::default();
        self.forget_uses(Clock::wall()).await?;
        let mut held = self.collect(&mut swept).await?;
        let mut room = self.measure(budget).await?;
        if room.is_over(budget) && FLUSHED_LOG_MIN <= room.used.log {
            // The log keeps what the files have too.
            self.blocking(|store| Ok(store.shared.rocks()?.flush()?))
                .await?;
            room = self.measure(budget).await?;
        }
        if !room.is_over(budget) {
            return Ok(swept);
        }
        let target = room.limit - room.limit / SLACK_DIVISOR;
        for _ in 0..EVICTIONS_AT_ONCE {
            let excess = self.kept(held).await?.saturating_sub(target);
            let evicted = swept.evicted;
            if excess != 0 {
                self.evict(excess, &mut swept).await?;
                held = self.collect(&mut swept).await?;
            }
            if swept.evicted == evicted {
                break;
            }
        }
        self.reclaim(room.limit).await?;
        Ok(swept)
    }

    /// Deletes counts of uses that nothing was added to for long before `now`.
    pub(super) async fn forget_uses(&self, now: WallTime) -> Result<(), Trouble> {
        let before = WallTime(now.0.saturating_sub(USES_AGE_MAX_MILLIS));
        let keys = self.blocking(move |store| {
            let rocks = store.shared.rocks()?;
            let mut keys = Vec::new();
            for row in rocks.rows_from(Column::Uses, &[]) {
                let (key, value) = row?;
                if Uses::decode(&value)?.used < before {
                    keys.push(key.into_vec());
                }
                if keys.len() == COLLECTED_AT_ONCE {
                    // The next sweep finds the others.
                    break;
                }
            }
            Ok(keys)
        });
        let keys = keys.await?;
        if !keys.is_empty() {
            self.change(Change::ForgetUses { keys, before }).await?;
        }
        Ok(())
    }

    async fn measure(&self, budget: u64) -> Result<Room, Trouble> {
        let measured = self.blocking(move |store| {
            let (used, free) = (disk_usage(&store)?, store.shared.free()?);
            let low_water = store.shared.free_low_water;
            let disk = eviction::limit(used.all, free, low_water + UNSORTED_BYTES_MAX);
            Ok(Room {
                used,
                limit: budget.min(disk),
            })
        });
        let room = measured.await?;
        metrics::gauge!("grange_cache_disk_bytes").set(super::as_float(room.used.all));
        metrics::gauge!("grange_cache_disk_limit_bytes").set(super::as_float(room.limit));
        Ok(room)
    }

    /// What the store would take if all that was deleted were off the disk, in bytes. What is only held,
    /// `held` bytes, goes by itself when the holds end: no reason to evict more.
    async fn kept(&self, held: u64) -> Result<u64, Trouble> {
        let rows = self.blocking(|store| Ok(store.shared.rocks()?.rows_bytes()?));
        let rows = rows.await?;
        let chunks = super::lock(&self.shared.totals).stored.saturating_sub(held);
        Ok(chunks + rows)
    }

    /// Gets the disk back from what was deleted: it is there until its files are rewritten.
    async fn reclaim(&self, limit: u64) -> Result<(), Trouble> {
        self.blocking(move |store| {
            let shared = &store.shared;
            let rocks = shared.rocks()?;
            let alive = super::lock(&shared.totals).stored + rocks.rows_bytes()?;
            let there = rocks.used_bytes()? + rocks.unflushed_bytes();
            if there.saturating_sub(alive) < GARBAGE_MIN.max(limit / GARBAGE_DIVISOR) {
                return Ok(());
            }
            // Less than the limit, so that the next chunk does not begin it all again.
            let enough = limit - limit / (2 * SLACK_DIVISOR);
            space::reclaim((&rocks, &shared.database), enough, &shared.ending)
        })
        .await
    }

    /// Deletes dependency caches until what only they named takes `excess` bytes as stored, or none is
    /// left.
    async fn evict(&self, excess: u64, swept: &mut Swept) -> Result<(), Trouble> {
        let candidates = self.blocking(|store| store.candidates()).await?;
        let mut freed = 0;
        for key in eviction::order(candidates) {
            if excess <= freed {
                break;
            }
            let deleted = self.change(Change::DeleteEntry { key }).await?;
            if let Applied::Deleted {
                count, loosened, ..
            } = deleted
            {
                freed += loosened;
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
