//! What can be changed in the store, and what each change does to its rows.
//!
//! Changes are applied one after another by the one writer, so counts are read, changed and written
//! without a lock.

use bytes::Bytes;
use protocol::{
    digest::Digest,
    job::CacheUseKind,
    message::cache::{Entry, EntryKey, PutOutcome, UseRecord},
    name::Team,
    time::WallTime,
};

use super::{
    condemned::Condemned,
    error::Trouble,
    key::{self, ChunkKey},
    ranks::Ranks,
    rocks::Column,
    row::{self, Fact, StoredEntry, Usage, Uses},
    staged::Staged,
};
use crate::{
    clock::Clock,
    eviction::{Standing, Worth},
    holds::Holds,
};

/// A change to the store.
#[derive(Debug)]
pub(crate) enum Change {
    /// Take a chunk, which is verified, and note that `team` has it.
    PutChunk {
        team: Team,
        chunk: ChunkKey,
        /// One byte of encoding, and the body.
        value: Bytes,
    },
    /// Note that `team` may read `chunks`.
    Own { team: Team, chunks: Vec<ChunkKey> },
    /// Keep an entry and its closure: distinct chunks, ascending.
    PutEntry(Box<PutEntry>),
    /// Delete entries whose keys start so, up to [`DELETED_AT_ONCE_MAX`] of them.
    DeleteEntries { start: Vec<u8> },
    /// Delete these entries, at most [`DELETED_AT_ONCE_MAX`], with the chunks that only they name, one
    /// after another until `enough` bytes as stored are free.
    Evict { victims: Vec<Victim>, enough: u64 },
    /// Note that an entry was read.
    Touch { key: Vec<u8>, at: WallTime },
    /// Count what a dependency cache did.
    Record { record: UseRecord, at: WallTime },
    /// Delete these counts of uses, if they were last added to before `before`.
    ForgetUses {
        keys: Vec<Vec<u8>>,
        before: WallTime,
    },
    /// Delete those of `chunks` that no entry names and nobody holds.
    Collect { chunks: Vec<ChunkKey> },
    /// Give up a chunk whose bytes are damaged, if they still are. Who has it may bring it again.
    SetAside { chunk: ChunkKey },
    /// See whether writing works.
    Probe,
    /// A broken invariant.
    #[cfg(test)]
    Break,
}

/// An entry to keep.
#[derive(Debug)]
pub(crate) struct PutEntry {
    pub(crate) key: Vec<u8>,
    pub(crate) entry: Entry,
    pub(crate) closure: Vec<ChunkKey>,
    pub(crate) replace: bool,
    /// How long it took to make what the entry names, in milliseconds; zero: not known.
    pub(crate) made_millis: u64,
}

impl PutEntry {
    /// How many digests the row of the entry has: it may name a chunk more than once.
    fn named(&self) -> u64 {
        let trees = self.entry.trees.iter().chain(&self.entry.outlines);
        let parts = trees.flat_map(|tree| [&tree.tree, &tree.attributes, &tree.layout]);
        let blobs = self.entry.blobs.iter().chain(parts);
        blobs.map(|blob| 1 + blob.chunks.len() as u64).sum()
    }
}

/// An entry to evict.
#[derive(Clone, Debug)]
pub(crate) struct Victim {
    pub(crate) key: Vec<u8>,
    /// How it stood when it was chosen: it stays if that has changed.
    pub(crate) standing: Standing,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Applied {
    Done,
    /// Whether the chunk was new, and what it takes.
    Chunk {
        new: bool,
        stored: u64,
    },
    Put(PutOutcome),
    /// A chunk of the closure is not there for the entry's team: nothing was changed.
    Missing(Digest),
    /// The chunk is not damaged, or not any more: nothing was changed.
    Whole,
    /// How many entries went, and whether there may be more.
    Deleted {
        count: u64,
        more: bool,
    },
    /// What was evicted.
    Evicted {
        /// How many of the victims were looked at: the first of them.
        seen: usize,
        entries: u64,
        chunks: u64,
        /// What the chunks took, in bytes.
        stored: u64,
    },
    /// What was deleted.
    Collected {
        chunks: u64,
        stored: u64,
    },
}

/// How many entries go in one batch. Each may change the counts of a million chunks, but most have
/// some hundreds.
pub(crate) const DELETED_AT_ONCE_MAX: u64 = 16;
/// How many rows are staged before no further entry goes in the same change: with some hundred bytes each, and what is
/// kept to take them back, a few dozen megabytes. The largest entry alone may have more.
pub(super) const STAGED_AT_ONCE_MAX: usize = 100_000;

impl Change {
    /// The bytes it brings, about.
    pub(super) fn bytes(&self) -> u64 {
        /// What a row takes on its way through batch, log and table, about.
        const ROW_BYTES: u64 = 100;
        /// What naming a chunk takes in the row of an entry, about.
        const DIGEST_BYTES: u64 = 36;
        match self {
            Self::PutChunk { value, .. } => value.len() as u64 + 2 * ROW_BYTES,
            Self::Own { chunks, .. } | Self::Collect { chunks } => chunks.len() as u64 * ROW_BYTES,
            Self::ForgetUses { keys, .. } => keys.len() as u64 * ROW_BYTES,
            Self::PutEntry(put) => {
                put.closure.len() as u64 * 2 * ROW_BYTES + put.named() * DIGEST_BYTES
            }
            // What they stage is in memory: one or two of them go in a group.
            Self::DeleteEntries { .. } | Self::Evict { .. } => {
                STAGED_AT_ONCE_MAX as u64 * ROW_BYTES
            }
            _ => ROW_BYTES,
        }
    }

    /// Whether it brings what the budget has to have room for. Rows that come with reads, and counts, are
    /// small, and are taken when nothing else is.
    pub(super) const fn brings_content(&self) -> bool {
        matches!(self, Self::PutChunk { .. } | Self::PutEntry(_))
    }

    /// Whether it makes room, so that it is done on a full disk too.
    pub(super) const fn makes_room(&self) -> bool {
        matches!(
            self,
            Self::DeleteEntries { .. }
                | Self::Evict { .. }
                | Self::Collect { .. }
                | Self::ForgetUses { .. }
                | Self::SetAside { .. }
        )
    }
}

/// What changes look at besides the rows.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) clock: &'a Clock,
    pub(super) holds: &'a Holds,
    pub(super) condemned: &'a Condemned,
    pub(super) ranks: &'a Ranks,
}

impl Staged<'_> {
    /// Stages a change. On an error nothing of it is staged.
    pub(super) fn apply(
        &mut self,
        change: Change,
        around: &Surroundings<'_>,
    ) -> Result<Applied, Trouble> {
        self.begin();
        let applied = match change {
            Change::PutChunk { team, chunk, value } => {
                around.holds.hold(chunk.hash(), around.clock.now());
                self.take_chunk(&team, chunk, value)
            }
            Change::Own { team, chunks } => self.own(&team, &chunks),
            Change::PutEntry(put) => self.put_entry(*put, around.ranks),
            Change::DeleteEntries { start } => self.delete_entries(&start),
            Change::Evict { victims, enough } => self.evict(victims, enough, around),
            Change::Touch { key, at } => self.touch(key, at, around.ranks),
            Change::Record { record, at } => self.record(&record, at),
            Change::ForgetUses { keys, before } => self.forget_uses(keys, before),
            Change::Collect { chunks } => self.collect(&chunks, around),
            Change::SetAside { chunk } => self.set_aside(chunk),
            Change::Probe => Ok(Applied::Done),
            #[cfg(test)]
            Change::Break => panic!("a test wants it"),
        };
        if applied.is_err() {
            self.roll_back();
        }
        applied
    }

    fn take_chunk(
        &mut self,
        team: &Team,
        chunk: ChunkKey,
        value: Bytes,
    ) -> Result<Applied, Trouble> {
        let fact = self.fact(&chunk)?.unwrap_or_default();
        let stored = value.len() as u64;
        let new = !fact.is_present();
        if new {
            self.put_fact(&chunk, Fact { stored, ..fact });
            self.put_chunk(chunk, value);
        }
        self.put(Column::Owners, chunk.owner(team), Vec::new());
        Ok(Applied::Chunk { new, stored })
    }

    fn own(&mut self, team: &Team, chunks: &[ChunkKey]) -> Result<Applied, Trouble> {
        for chunk in chunks {
            if self.fact(chunk)?.is_some_and(|fact| fact.is_present()) {
                self.put(Column::Owners, chunk.owner(team), Vec::new());
            }
        }
        Ok(Applied::Done)
    }

    fn put_entry(&mut self, put: PutEntry, ranks: &Ranks) -> Result<Applied, Trouble> {
        for chunk in &put.closure {
            if !self.contains(Column::Owners, &chunk.owner(&put.entry.team))? {
                return Ok(Applied::Missing(chunk.digest()));
            }
        }
        let there = self.read(Column::Entries, &put.key, StoredEntry::decode)?;
        if let Some(there) = there
            && self.stays(&there.entry, &put)?
        {
            // Who puts it wants it to be there.
            self.touch(put.key, put.entry.written, ranks)?;
            return Ok(Applied::Put(PutOutcome::Kept));
        }
        let before = self.read(Column::Used, &put.key, Usage::decode)?;
        self.delete_entry(&put.key)?;
        let mut bytes = 0;
        for chunk in &put.closure {
            let mut fact = self.fact(chunk)?.unwrap_or_default();
            fact.references += 1;
            self.put_fact(chunk, fact);
            bytes += chunk.size();
        }
        let usage = used_again(
            before,
            (put.entry.written, bytes, put.made_millis),
            |worth| {
                let standing = before.map(|before| before.standing);
                Standing::put(worth, ranks.ages(), standing, ranks.is_back(&put.key))
            },
        );
        let stored = StoredEntry {
            entry: put.entry,
            chunks: put.closure.len() as u64,
            bytes,
        };
        let closure = row::encode_closure(&put.closure);
        self.put(Column::Closures, put.key.clone(), closure);
        self.put(Column::Used, put.key.clone(), usage.encode());
        self.put(Column::Entries, put.key, stored.encode());
        Ok(Applied::Put(PutOutcome::Stored))
    }

    /// Whether the entry that is there stays. One that is trusted further is never replaced, so that
    /// nobody can take it away from those who may only see such; one that is trusted less always is,
    /// or it would keep the place from them.
    fn stays(&self, there: &Entry, put: &PutEntry) -> Result<bool, Trouble> {
        let new = &put.entry;
        if there.trust != new.trust {
            return Ok(new.trust < there.trust);
        }
        let equal = (&there.blobs, &there.trees, &there.outlines)
            == (&new.blobs, &new.trees, &new.outlines);
        if put.replace && !equal {
            return Ok(false);
        }
        // What is not whole any more gives nobody anything.
        let closure = self.read(Column::Closures, &put.key, row::decode_closure)?;
        for chunk in closure.unwrap_or_default() {
            if !self.fact(&chunk)?.is_some_and(|fact| fact.is_present()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn delete_entries(&mut self, start: &[u8]) -> Result<Applied, Trouble> {
        let mut keys = Vec::new();
        let mut more = false;
        for row in self.rocks().rows_from(Column::Entries, start) {
            let (key, _) = row?;
            if !key.starts_with(start) {
                break;
            }
            if DELETED_AT_ONCE_MAX <= keys.len() as u64 {
                more = true;
                break;
            }
            keys.push(key);
        }
        let mut count = 0;
        for key in keys {
            if STAGED_AT_ONCE_MAX <= self.changed() {
                more = true;
                break;
            }
            count += u64::from(self.delete_entry(&key)?);
        }
        Ok(Applied::Deleted { count, more })
    }

    /// Deletes an entry and counts back what it kept. Says whether there was one.
    pub(super) fn delete_entry(&mut self, key: &[u8]) -> Result<bool, Trouble> {
        if !self.contains(Column::Entries, key)? {
            return Ok(false);
        }
        let closure = self.read(Column::Closures, key, row::decode_closure)?;
        for chunk in closure.unwrap_or_default() {
            let Some(mut fact) = self.fact(&chunk)? else {
                continue;
            };
            fact.references = fact.references.saturating_sub(1);
            if fact.references == 0 && !fact.is_present() {
                self.delete(Column::Facts, chunk.as_bytes().to_vec());
            } else {
                self.put_fact(&chunk, fact);
            }
        }
        for column in [Column::Entries, Column::Closures, Column::Used] {
            self.delete(column, key.to_vec());
        }
        Ok(true)
    }

    fn touch(&mut self, key: Vec<u8>, at: WallTime, ranks: &Ranks) -> Result<Applied, Trouble> {
        if let Some(usage) = self.read(Column::Used, &key, Usage::decode)? {
            let usage = Usage {
                used: usage.used.max(at),
                standing: usage.standing.read(usage.worth, ranks.ages()),
                ..usage
            };
            self.put(Column::Used, key, usage.encode());
        }
        Ok(Applied::Done)
    }

    fn record(&mut self, record: &UseRecord, at: WallTime) -> Result<Applied, Trouble> {
        let key = key::uses(&record.team, &record.project, &record.what.key);
        let uses = self.read(Column::Uses, &key, Uses::decode)?;
        let mut uses = uses.unwrap_or_default();
        match record.what.what {
            CacheUseKind::Restored | CacheUseKind::RestoredByFallback => {
                let worth = Worth {
                    bytes: record.what.bytes,
                    made_millis: self.made_millis(record.entry.as_ref())?,
                };
                uses.count_restore(worth, record.what.millis);
            }
            CacheUseKind::Missed => uses.missed += 1,
            CacheUseKind::Saved => uses.saved += 1,
            CacheUseKind::Kept => return Ok(Applied::Done),
        }
        uses.used = uses.used.max(at);
        self.put(Column::Uses, key, uses.encode());
        Ok(Applied::Done)
    }

    /// How long it took to make what an entry names, in milliseconds; zero: nobody has said, or it has gone.
    fn made_millis(&self, entry: Option<&EntryKey>) -> Result<u64, Trouble> {
        let Some(entry) = entry else {
            return Ok(0);
        };
        let usage = self.read(Column::Used, &key::entry(entry), Usage::decode)?;
        Ok(usage.map_or(0, |usage| usage.worth.made_millis))
    }

    fn forget_uses(&mut self, keys: Vec<Vec<u8>>, before: WallTime) -> Result<Applied, Trouble> {
        for key in keys {
            let uses = self.read(Column::Uses, &key, Uses::decode)?;
            if uses.is_some_and(|uses| uses.used < before) {
                self.delete(Column::Uses, key);
            }
        }
        Ok(Applied::Done)
    }

    pub(super) fn collect(
        &mut self,
        chunks: &[ChunkKey],
        around: &Surroundings<'_>,
    ) -> Result<Applied, Trouble> {
        around.condemned.condemn(chunks);
        let now = around.clock.now();
        let (mut count, mut stored) = (0, 0);
        for &chunk in chunks {
            if around.holds.is_held(chunk.hash(), now) {
                continue;
            }
            match self.fact(&chunk)? {
                Some(fact) if fact.references == 0 && fact.is_present() => {
                    self.delete_chunk(chunk, fact)?;
                    self.delete(Column::Facts, chunk.as_bytes().to_vec());
                    count += 1;
                    stored += fact.stored;
                }
                _ => {}
            }
        }
        Ok(Applied::Collected {
            chunks: count,
            stored,
        })
    }

    fn set_aside(&mut self, chunk: ChunkKey) -> Result<Applied, Trouble> {
        let Some(fact) = self.fact(&chunk)?.filter(Fact::is_present) else {
            return Ok(Applied::Done);
        };
        // Whoever saw the damage may have seen it before the chunk was brought again.
        if self.is_whole(&chunk)? {
            return Ok(Applied::Whole);
        }
        metrics::counter!("grange_cache_chunks_set_aside_total").increment(1);
        self.delete_chunk(chunk, fact)?;
        if fact.references == 0 {
            self.delete(Column::Facts, chunk.as_bytes().to_vec());
        } else {
            self.put_fact(&chunk, Fact { stored: 0, ..fact });
        }
        Ok(Applied::Done)
    }
}

/// How an entry is used that comes again, or for the first time, with so many bytes that took so long to
/// make; `standing` says how it stands. How long it took before counts on, a little less each time: whoever
/// makes it from what was there is quicker.
fn used_again(
    before: Option<Usage>,
    (used, bytes, made_millis): (WallTime, u64, u64),
    standing: impl FnOnce(Worth) -> Standing,
) -> Usage {
    let before_millis = before.map_or(0, |before| before.worth.made_millis);
    let made_millis = made_millis.max(before_millis - before_millis / 8);
    let worth = Worth { bytes, made_millis };
    Usage {
        used,
        worth,
        standing: standing(worth),
    }
}
