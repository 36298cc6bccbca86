//! Reading: presence, entries, counts. Everything here blocks.

use metrics::counter;
use protocol::{
    access::Trust,
    digest::Digest,
    message::cache::{ENTRIES_LISTED_MAX, Entry, EntrySummary, Stats, UseStats},
    name::{Namespace, Team},
};

use super::{
    Shared, Store, Trouble,
    change::Change,
    key::{self, ChunkKey},
    lock,
    rocks::{Column, Rocks},
    row::{self, Fact, StoredEntry, Usage, Uses},
};
use crate::clock::Clock;

/// How many bytes one listing, or the counts of uses, may take, so that they fit in a frame.
const LISTED_BYTES_MAX: usize = 3 << 20;

/// How many counts of uses one answer has.
pub(super) const USES_LISTED_MAX: usize = 1000;

/// An entry that may be given.
#[derive(Clone, Debug)]
pub(crate) struct FoundEntry {
    pub(crate) entry: Entry,
    /// The distinct chunks of its closure. All of them are held.
    pub(crate) closure: Vec<ChunkKey>,
}

impl Store {
    /// Which of `chunks` the team has here. They are held.
    pub(crate) fn present(&self, team: &Team, chunks: &[Digest]) -> Result<Vec<bool>, Trouble> {
        let rocks = self.shared.rocks()?;
        // Sorted keys share the blocks that they are looked up in.
        let keys = sorted(chunks);
        let quiet = self.shared.condemned.quiet_since();
        let mut found = self.shared.owned(&rocks, team, &keys)?;
        self.hold(&found);
        if quiet.is_none() || self.shared.condemned.quiet_since() != quiet {
            // A collection may not have seen the holds; what it condemned counts as gone.
            let chunks: Vec<ChunkKey> = found.iter().map(|&(chunk, _)| chunk).collect();
            let condemned = self.shared.condemned.among(&chunks);
            found = self.shared.owned(&rocks, team, &found)?;
            found.retain(|(chunk, _)| !condemned.contains(chunk));
        }
        let mut present = vec![false; chunks.len()];
        for (_, index) in found {
            present[index] = true;
        }
        Ok(present)
    }

    /// The entry under `key`, if it is trusted at least as far as `trust` and all of it is there.
    pub(crate) fn entry(&self, key: &[u8], trust: Trust) -> Result<Option<FoundEntry>, Trouble> {
        let rocks = self.shared.rocks()?;
        let Some(stored) = rocks.get(Column::Entries, key)? else {
            return Ok(None);
        };
        let entry = StoredEntry::decode(&stored)?.entry;
        let closure = rocks.get(Column::Closures, key)?;
        let closure = closure.as_deref().map(row::decode_closure).transpose()?;
        let Some(closure) = closure.filter(|_| trust <= entry.trust) else {
            return Ok(None);
        };
        if !self.absent(&closure)?.is_empty() {
            return Ok(None);
        }
        Ok(Some(FoundEntry { entry, closure }))
    }

    /// Notes that the entry under `key` was read to be used, if the writer is not too busy.
    pub(crate) fn touch(&self, key: Vec<u8>) {
        let at = Clock::wall();
        self.try_change(Change::Touch { key, at });
    }

    /// Which of `chunks`, ascending, the team may not read yet.
    pub(crate) fn not_owned(
        &self,
        team: &Team,
        chunks: &[ChunkKey],
    ) -> Result<Vec<ChunkKey>, Trouble> {
        let rocks = self.shared.rocks()?;
        let owners: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.owner(team)).collect();
        let there = rocks.contains(Column::Owners, owners.iter().map(Vec::as_slice))?;
        let missing = chunks.iter().zip(there).filter(|(_, there)| !there);
        Ok(missing.map(|(&chunk, _)| chunk).collect())
    }

    /// A page of the entries of `namespace` whose keys start with `prefix`, behind the key `after`, if
    /// they are trusted at least as far as `trust`; and whether there are more.
    pub(crate) fn list(
        &self,
        namespace: &Namespace,
        (prefix, after): (&str, &str),
        trust: Trust,
    ) -> Result<(Vec<(String, EntrySummary)>, bool), Trouble> {
        let rocks = self.shared.rocks()?;
        let start = key::entries(namespace, prefix);
        let after = key::entries(namespace, after);
        let from = std::cmp::max(&start, &after);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for row in rocks.rows_from(Column::Entries, from) {
            let (row, value) = row?;
            if !row.starts_with(&start) {
                break;
            }
            let Some(path) = key::path_of(&row).filter(|_| *row != *after) else {
                continue;
            };
            if ENTRIES_LISTED_MAX as usize <= entries.len() || LISTED_BYTES_MAX <= bytes {
                return Ok((entries, true));
            }
            let stored = StoredEntry::decode(&value)?;
            if stored.entry.trust < trust {
                continue;
            }
            let used = rocks.get(Column::Used, &row)?;
            let usage = used.as_deref().map(Usage::decode).transpose()?;
            let summary = EntrySummary {
                written: stored.entry.written,
                used: usage.map_or(stored.entry.written, |usage| usage.used),
                bytes: stored.bytes,
                chunks: stored.chunks,
            };
            bytes += path.len() + size_of::<EntrySummary>();
            entries.push((path.to_owned(), summary));
        }
        Ok((entries, false))
    }

    /// The counts; of uses a page of those of `team`, or of all, behind the row `after`.
    pub(crate) fn stats(&self, team: Option<&Team>, after: &[u8]) -> Result<Stats, Trouble> {
        let rocks = self.shared.rocks()?;
        let totals = *lock(&self.shared.totals);
        let start = team.map_or_else(Vec::new, |team| format!("{team}/").into_bytes());
        let from = std::cmp::max(&start[..], after);
        let (mut uses, mut more) = (Vec::new(), false);
        let mut bytes = 0;
        for row in rocks.rows_from(Column::Uses, from) {
            let (row, value) = row?;
            if !row.starts_with(&start) {
                break;
            }
            if *row == *after {
                continue;
            }
            if USES_LISTED_MAX <= uses.len() || LISTED_BYTES_MAX <= bytes {
                more = true;
                break;
            }
            bytes += row.len() + size_of::<UseStats>();
            let Some((team, project, key)) = key::parse_uses(&row) else {
                continue;
            };
            let count = Uses::decode(&value)?;
            uses.push(UseStats {
                team,
                project,
                key: key.to_owned(),
                restored: count.restored,
                missed: count.missed,
                saved: count.saved,
                bytes_restored: count.bytes_restored,
                restore_millis: count.restore_millis,
                made_millis: count.made_millis,
                estimated: count.estimated,
            });
        }
        Ok(Stats {
            chunks: totals.chunks,
            bytes: totals.bytes,
            bytes_stored: totals.stored,
            bytes_free: self.shared.free()?,
            uses,
            more,
        })
    }

    fn hold(&self, chunks: &[(ChunkKey, usize)]) {
        let now = self.shared.clock.now();
        for (chunk, _) in chunks {
            self.shared.holds.hold(chunk.hash(), now);
        }
    }
}

/// The keys of `chunks`, ascending, and where they stand among them.
pub(super) fn sorted(chunks: &[Digest]) -> Vec<(ChunkKey, usize)> {
    let keys = chunks.iter().enumerate();
    let keys = keys.filter_map(|(index, digest)| Some((ChunkKey::of(digest)?, index)));
    let mut keys: Vec<(ChunkKey, usize)> = keys.collect();
    keys.sort_unstable();
    keys
}

impl Shared {
    /// Those of `keys`, ascending, that the team has.
    pub(super) fn owned(
        &self,
        rocks: &Rocks,
        team: &Team,
        keys: &[(ChunkKey, usize)],
    ) -> Result<Vec<(ChunkKey, usize)>, Trouble> {
        let since = self.known.since();
        let known = self.known.among(team, keys.iter().map(|(chunk, _)| chunk));
        let unknown = keys.iter().zip(&known).filter(|(_, known)| !**known);
        let unknown: Vec<&ChunkKey> = unknown.map(|((chunk, _), _)| chunk).collect();
        counter!("grange_cache_known_hits_total").increment((keys.len() - unknown.len()) as u64);
        counter!("grange_cache_known_misses_total").increment(unknown.len() as u64);
        let there = has_rows(rocks, team, &unknown)?;
        let new = unknown.into_iter().zip(&there).filter(|(_, there)| **there);
        self.known.bring(team, new.map(|(chunk, _)| chunk), since);
        let mut there = there.into_iter();
        let found = keys
            .iter()
            .zip(known)
            .filter(|(_, known)| *known || there.next().unwrap_or(false));
        Ok(found.map(|(&key, _)| key).collect())
    }
}

/// Whether the team has each of `chunks`, ascending, as the database says.
fn has_rows(rocks: &Rocks, team: &Team, chunks: &[&ChunkKey]) -> Result<Vec<bool>, Trouble> {
    if chunks.is_empty() {
        return Ok(Vec::new());
    }
    // All keys in one piece of memory, since there may be 65,536.
    let length = size_of::<ChunkKey>() + team.as_str().len();
    let mut owners = Vec::with_capacity(chunks.len() * length);
    for chunk in chunks {
        owners.extend_from_slice(chunk.as_bytes());
        owners.extend_from_slice(team.as_str().as_bytes());
    }
    Ok(rocks.contains(Column::Owners, owners.chunks_exact(length))?)
}

/// Those of `chunks`, ascending, whose bytes are not there.
pub(super) fn absent_of(rocks: &Rocks, chunks: &[ChunkKey]) -> Result<Vec<ChunkKey>, Trouble> {
    let keys = chunks.iter().map(|chunk| chunk.as_bytes().as_slice());
    let mut absent = Vec::new();
    for (&chunk, fact) in chunks.iter().zip(rocks.get_many(Column::Facts, keys)?) {
        let fact = fact.as_deref().map(Fact::decode).transpose()?;
        if !fact.is_some_and(|fact| fact.is_present()) {
            absent.push(chunk);
        }
    }
    Ok(absent)
}
