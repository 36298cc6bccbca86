//! Making room: chunks that nobody needs go, and when the budget is used up, entries that are least worth
//! keeping.

use std::time::Duration;

use protocol::time::WallTime;

use super::{
    Store, Trouble,
    change::{Applied, Change, DELETED_AT_ONCE_MAX, Victim},
    disk_usage,
    gate::Stays,
    key::{self, ChunkKey},
    rocks::Column,
    row::{Fact, Usage, Uses},
    space::{self, DiskUsage},
};
use crate::{
    clock::Clock,
    eviction::{self, Queues, Targets},
};

/// How many chunks are collected in one batch: some milliseconds of the writer's time.
const COLLECTED_AT_ONCE: usize = 1024;
/// How often one sweep evicts and rewrites, one after the other. Each try that finds too little garbage
/// evicts a sixteenth more, so this is down to a third of what is alive.
const ROUNDS: u32 = 16;
/// How long a sweep waits for files to go that are not in use any more, and how often it looks: they are
/// deleted a little later, and while somebody reads from them they stay.
const LINGER_INTERVAL: Duration = Duration::from_millis(10);
const LINGER_LOOKS: usize = 50;
/// How long counts of uses are kept after the last use, in milliseconds: 90 days. Keys that come from
/// lock files are never used again when these change.
const USES_AGE_MAX_MILLIS: u64 = 90 * 24 * 3600 * 1000;
/// How the keys of entries start that are not evicted: they belong to builds, and go with these.
const OF_BUILDS: [&str; 3] = ["source/", "snapshot/", "artifact/"];

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Swept {
    /// How many entries were evicted.
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
    /// What counts of it, and of what is only in memory and in the log: that comes to files.
    counted: u64,
    /// What the files may take, in bytes: the budget, or less if the disk has less.
    limit: u64,
    /// What of it is kept for what files grow by on their own.
    reserve: u64,
}

impl Room {
    fn targets(&self, tries: u32) -> Targets {
        Targets::of(self.limit, self.reserve, tries)
    }

    /// Whether the files take more than they are to when room has been made.
    fn is_short(&self) -> bool {
        self.targets(0).files < self.counted
    }
}

/// Chunks that no entry names.
#[derive(Debug, Default)]
struct Loose {
    /// Those that nobody holds.
    chunks: Vec<ChunkKey>,
    /// Behind which to go on; `None`: there are no more.
    last: Option<ChunkKey>,
}

impl Store {
    /// Deletes what no entry names and nobody holds; and while the store takes more than `budget` bytes
    /// on the disk, or more than the disk has for it, entries, those first that are least worth keeping.
    pub(crate) async fn sweep(&self, budget: u64) -> Result<Swept, Trouble> {
        let mut swept = Swept::default();
        self.forget_uses(Clock::wall()).await?;
        self.collect(&mut swept).await?;
        // A damaged chunk or table would end what gets the disk back, and stop all writes.
        if !self.is_in_doubt() && self.shared.doubt.of_rows().is_none() {
            self.make_room(budget, &mut swept).await?;
        }
        Ok(swept)
    }

    /// Evicts entries and gets the disk back, until the files take no more than they are to.
    async fn make_room(&self, budget: u64, swept: &mut Swept) -> Result<(), Trouble> {
        let mut room = self.measure(budget).await?;
        // What the disk is short of may be taken by the log alone.
        let is_short = room.is_short() || self.is_short_of_room();
        if is_short && self.shared.sizes.blob_file() * 2 < room.used.log {
            // The log keeps what the files have too.
            self.blocking(|store| Ok(store.shared.rocks()?.flush()?))
                .await?;
            room = self.measure(budget).await?;
        }
        let mut tries = 0;
        // What is left over waits for the next sweep: new chunks come meanwhile.
        for _ in 0..ROUNDS {
            if !room.is_short() {
                break;
            }
            let targets = room.targets(tries);
            let alive = self.alive().await?;
            let is_too_much = targets.live < alive;
            let evicted = swept.evicted;
            if is_too_much {
                self.evict(alive - targets.evicted, swept).await?;
            }
            let reclaimed = self.reclaim(targets.files, room.used.log).await?;
            room = self.settled(budget).await?;
            if reclaimed {
                continue;
            }
            if is_too_much && swept.evicted == evicted {
                if room.is_short() {
                    self.give_up().await?;
                }
                break;
            }
            // There is not enough garbage: more has to go.
            tries += 1;
        }
        Ok(())
    }

    /// Nothing more can go, and nothing can be got back.
    async fn give_up(&self) -> Result<(), Trouble> {
        let stays = self.blocking(|store| store.stays()).await?;
        let Stays { held, kept } = stays;
        tracing::warn!(held, kept, "what stays leaves no room for more");
        self.shared.gate.exhausted(stays);
        Ok(())
    }

    /// What stays of all chunks. What is neither held nor named goes with the next sweep.
    fn stays(&self) -> Result<Stays, Trouble> {
        let rocks = self.shared.rocks()?;
        let now = self.shared.clock.now();
        let mut stays = Stays::default();
        for row in rocks.rows_from(Column::Facts, &[]) {
            let (key, value) = row?;
            let Some(chunk) = ChunkKey::from_bytes(&key) else {
                continue;
            };
            let fact = Fact::decode(&value)?;
            if self.shared.holds.is_held(chunk.hash(), now) {
                stays.held += fact.stored;
            } else if fact.references != 0 {
                stays.kept += fact.stored;
            }
        }
        Ok(stays)
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
            let shared = &store.shared;
            let rocks = shared.rocks()?;
            shared.measure(&rocks);
            let buffered = rocks.buffered_bytes();
            let (used, free) = (disk_usage(&store)?, shared.free()?);
            let sizes = shared.sizes;
            // On a disk that is short the place of the log is kept free, and that of what is flushed.
            let kept_free = shared.free_low_water + sizes.log() + sizes.blob_file();
            let disk = eviction::limit(used.all, free, kept_free);
            let (counted, reserve) = match disk < budget {
                true => (used.all - used.log, 0),
                false => (
                    used.all + buffered,
                    eviction::reserve(budget, sizes.reserve()),
                ),
            };
            Ok(Room {
                used,
                counted,
                limit: budget.min(disk),
                reserve,
            })
        });
        let room = measured.await?;
        metrics::gauge!("grange_cache_disk_bytes").set(super::as_float(room.used.all));
        metrics::gauge!("grange_cache_disk_limit_bytes").set(super::as_float(room.limit));
        Ok(room)
    }

    /// Measures when the files are gone that are not in use any more.
    async fn settled(&self, budget: u64) -> Result<Room, Trouble> {
        for _ in 0..LINGER_LOOKS {
            let room = self.measure(budget).await?;
            let in_use = self.blocking(|store| Ok(store.shared.rocks()?.used_bytes()?));
            let there = room.used.all - room.used.log;
            if !room.is_short() || there < in_use.await? + self.shared.sizes.blob_file() {
                return Ok(room);
            }
            tokio::time::sleep(LINGER_INTERVAL).await;
        }
        self.measure(budget).await
    }

    /// What the store would take if all that was deleted were off the disk, in bytes.
    async fn alive(&self) -> Result<u64, Trouble> {
        let rows = self.blocking(|store| Ok(store.shared.rocks()?.rows_bytes()?));
        let rows = rows.await?;
        Ok(super::lock(&self.shared.totals).stored + rows)
    }

    /// Gets the disk back from what was deleted: it is there until its files are rewritten. Says whether
    /// there was anything to get.
    async fn reclaim(&self, files: u64, log: u64) -> Result<bool, Trouble> {
        let enough = files.saturating_sub(log);
        self.blocking(move |store| {
            let shared = &store.shared;
            let rocks = shared.rocks()?;
            let before = rocks.used_bytes()?;
            if before + rocks.buffered_bytes() <= enough {
                return Ok(false);
            }
            let database = (&*rocks, shared.place.database.as_path());
            let part_max = shared.sizes.rewritten();
            space::reclaim(database, (enough, part_max), &shared.ending)?;
            Ok(rocks.used_bytes()? < before)
        })
        .await
    }

    /// Evicts entries until `excess` bytes as stored are free, or none is left that may go.
    async fn evict(&self, excess: u64, swept: &mut Swept) -> Result<(), Trouble> {
        let mut queues = self.blocking(|store| store.candidates()).await?;
        let mut freed = 0;
        let at_once = usize::try_from(DELETED_AT_ONCE_MAX).expect("it is small");
        let mut victims: Vec<Victim> = Vec::new();
        while freed < excess {
            let next = std::iter::from_fn(|| queues.pop());
            let next = next.take(at_once - victims.len());
            victims.extend(next.map(|(key, standing)| Victim { key, standing }));
            if victims.is_empty() {
                break;
            }
            let change = Change::Evict {
                victims: victims.clone(),
                enough: excess - freed,
            };
            if let Applied::Evicted {
                seen,
                entries,
                chunks,
                stored,
            } = self.change(change).await?
            {
                // The others are the next.
                victims.drain(..seen);
                freed += stored;
                swept.evicted += entries;
                swept.chunks += chunks;
                swept.stored += stored;
                metrics::counter!("grange_cache_entries_evicted_total").increment(entries);
                metrics::counter!("grange_cache_chunks_collected_total").increment(chunks);
            }
        }
        Ok(())
    }

    /// Deletes what no entry names and nobody holds.
    async fn collect(&self, swept: &mut Swept) -> Result<(), Trouble> {
        let mut after = None;
        loop {
            let loose = self.blocking(move |store| store.loose(after)).await?;
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
                return Ok(());
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

    /// All entries that may be evicted.
    fn candidates(&self) -> Result<Queues<Vec<u8>>, Trouble> {
        let rocks = self.shared.rocks()?;
        let mut queues = Queues::new(self.shared.ranks.ages());
        for row in rocks.rows_from(Column::Used, &[]) {
            let (key, value) = row?;
            let is_evictable = key::path_of(&key)
                .is_some_and(|path| OF_BUILDS.iter().all(|start| !path.starts_with(start)));
            if is_evictable {
                let usage = Usage::decode(&value)?;
                queues.insert(key.into_vec(), usage.standing, usage.worth);
            }
        }
        Ok(queues)
    }

    /// Runs what blocks where it may.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let store = self.clone();
        let done = {
            let store = store.clone();
            tokio::task::spawn_blocking(move || work(store)).await
        };
        store.seen(done.unwrap_or(Err(Trouble::Closed)))
    }

    /// What came of a look at the database, unless that is damaged: then it is to be mended first.
    pub(super) fn seen<T>(&self, done: Result<T, Trouble>) -> Result<T, Trouble> {
        match done {
            Err(Trouble::Database { source }) if self.shared.look_at(&source) => {
                Err(Trouble::Stopped)
            }
            done => done,
        }
    }
}
