//! Whole entries: what another tier needs to have them again, and what is missing here of one. Blocks.

use super::{
    Store, Trouble,
    key::ChunkKey,
    read::absent_of,
    rocks::Column,
    row::{self, StoredEntry, Usage},
};

/// An entry with all that it takes to have it again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct WholeEntry {
    pub(crate) stored: StoredEntry,
    /// Its distinct chunks, ascending.
    pub(crate) closure: Vec<ChunkKey>,
    /// How long it took to make what it names, in milliseconds; zero: not known.
    pub(crate) made_millis: u64,
}

/// Some entries, by row.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<(Vec<u8>, StoredEntry)>,
    /// The row behind which the next page begins; `None`: there is none.
    pub(crate) last: Option<Vec<u8>>,
}

impl Store {
    /// The entry under `row`, if all of it is there. Nothing of it is held, and it does not count as read: chunks
    /// may go at any moment.
    pub(crate) fn whole_entry(&self, row: &[u8]) -> Result<Option<WholeEntry>, Trouble> {
        let rocks = self.shared.rocks()?;
        let stored = rocks.get(Column::Entries, row)?;
        let closure = rocks.get(Column::Closures, row)?;
        let (Some(stored), Some(closure)) = (stored, closure) else {
            return Ok(None);
        };
        let closure = row::decode_closure(&closure)?;
        if !absent_of(&rocks, &closure)?.is_empty() {
            return Ok(None);
        }
        let used = rocks.get(Column::Used, row)?;
        let usage = used.as_deref().map(Usage::decode).transpose()?;
        Ok(Some(WholeEntry {
            stored: StoredEntry::decode(&stored)?,
            closure,
            made_millis: usage.map_or(0, |usage| usage.worth.made_millis),
        }))
    }

    /// Those of `chunks`, ascending, that are not there. The others are held.
    pub(crate) fn absent(&self, chunks: &[ChunkKey]) -> Result<Vec<ChunkKey>, Trouble> {
        let now = self.shared.clock.now();
        for chunk in chunks {
            self.shared.holds.hold(chunk.hash(), now);
        }
        // Held before it is looked at: what is there now stays, but for what is just being deleted.
        let condemned = self.shared.condemned.among(chunks);
        let mut absent = absent_of(&*self.shared.rocks()?, chunks)?;
        if !condemned.is_empty() {
            absent.extend(condemned);
            absent.sort_unstable();
            absent.dedup();
        }
        Ok(absent)
    }

    /// The next entries behind the row `after`, at most `count` of them, and the last row that was looked at;
    /// `None`: there is none. What is damaged is left out.
    pub(crate) fn entries_behind(&self, after: &[u8], count: usize) -> Result<Page, Trouble> {
        let rocks = self.shared.rocks()?;
        let mut page = Page::default();
        for row in rocks.rows_from(Column::Entries, after) {
            let (row, value) = row?;
            if *row == *after {
                continue;
            }
            let row = row.into_vec();
            page.last = Some(row.clone());
            match StoredEntry::decode(&value) {
                Ok(stored) => page.entries.push((row, stored)),
                Err(error) => tracing::warn!(%error, "a row of an entry is damaged"),
            }
            if count <= page.entries.len() {
                break;
            }
        }
        Ok(page)
    }
}
