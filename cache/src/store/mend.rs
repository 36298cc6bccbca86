//! Making a damaged database whole: columns that cannot be read are rebuilt from what of them can, and then
//! the rows are made to agree with each other, so that nothing is promised that is not there.
//!
//! What is lost is missing after that: who has it brings it again, or makes it again.

use std::collections::BTreeMap;

use super::{
    error::Trouble,
    key::ChunkKey,
    ranks::AGES,
    rebuild::{self, Rebuilt},
    rocks::{self, Batch, Column, Rocks, TOTALS},
    row::{self, Fact, StoredEntry, Totals, Usage},
};

/// How many rows are changed in one batch.
const CHANGED_AT_ONCE: usize = 10_000;
/// What such a batch takes about, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// What is known of the damage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Suspect {
    /// What the database said; it mostly names a file.
    Said(String),
    /// Nothing: everything is read.
    All,
}

/// Makes the database whole. `check_room` says whether the disk has room for so many bytes more; where it has not
/// for what is to be made anew, that stays as it is, and the note that mending has not ended does, too.
pub(super) fn mend(
    rocks: &mut Rocks,
    suspect: &Suspect,
    check_room: impl Fn(u64) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let directory = rocks.directory.clone();
    let disk = |source| Trouble::disk(&directory, source);
    // What was made anew then, and what is to agree with it, nobody knows any more.
    let is_half_mended = rebuild::is_half_mended(&directory);
    rebuild::mark(&directory, "").map_err(disk)?;
    let reads_all = is_half_mended || *suspect == Suspect::All;
    let damaged = damaged(rocks, suspect, reads_all)?;
    if damaged.is_empty() && !reads_all {
        tracing::warn!(
            ?suspect,
            "nothing of the store was found damaged, so nothing is made anew"
        );
        return rebuild::unmark(&directory).map_err(disk);
    }
    for &column in &damaged {
        let Rebuilt { rows, gaps } = rocks.rebuild(column, &check_room)?;
        tracing::warn!(
            ?column,
            rows,
            gaps,
            "a damaged column of the store was made anew"
        );
        metrics::counter!("grange_cache_columns_rebuilt_total").increment(1);
    }
    reconcile(rocks, is_half_mended || damaged.contains(&Column::Chunks))?;
    if reads_all || damaged.contains(&Column::Owners) {
        note_owners(rocks)?;
    }
    rocks.flush()?;
    rebuild::unmark(&directory).map_err(disk)
}

/// Which columns are damaged.
fn damaged(rocks: &Rocks, suspect: &Suspect, reads_all: bool) -> Result<Vec<Column>, Trouble> {
    let table = match suspect {
        Suspect::Said(said) => table_in(said),
        Suspect::All => None,
    };
    let named = table.and_then(|table| rocks.column_of(table));
    let mut damaged = Vec::new();
    for column in Column::ALL {
        // Reading all chunks takes long, so that is done if they are meant.
        let is_read = reads_all || column != Column::Chunks;
        if named == Some(column) || is_read && !rocks.is_whole(column)? {
            damaged.push(column);
        }
    }
    // A table that is not in use any more, because its column was made anew, says nothing of the others.
    let may_be_chunks = damaged.is_empty() && table.is_none() && !reads_all;
    if may_be_chunks && !rocks.is_whole(Column::Chunks)? {
        damaged.push(Column::Chunks);
    }
    Ok(damaged)
}

/// The name of the table that is named in `said`, like `000012.sst`.
fn table_in(said: &str) -> Option<&str> {
    let dot = said.find(".sst")?;
    let digits = said[..dot].bytes().rev().take_while(u8::is_ascii_digit);
    let digits = digits.count();
    (0 < digits).then(|| &said[dot - digits..dot + 4])
}

/// What is known of a chunk.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    fact: Option<Fact>,
    references: u64,
}

/// Makes the rows agree with each other; `reads_chunks`: looks at every chunk whether it is there.
fn reconcile(rocks: &Rocks, reads_chunks: bool) -> Result<(), Trouble> {
    let mut changes = Changes::new(rocks);
    let mut known = BTreeMap::new();
    entries(rocks, &mut changes, &mut known)?;
    for row in rocks.rows_from(Column::Facts, &[]) {
        let (key, value) = row?;
        if let Some(chunk) = ChunkKey::from_bytes(&key) {
            let chunk: &mut Known = known.entry(chunk).or_default();
            chunk.fact = Fact::decode(&value).ok();
        }
    }
    for row in rocks.rows_from(Column::Owners, &[]) {
        let (key, _) = row?;
        if let Some(chunk) = key
            .first_chunk::<36>()
            .and_then(|key| ChunkKey::from_bytes(key))
        {
            known.entry(chunk).or_default();
        }
    }
    let mut totals = Totals::default();
    for (chunk, known) in known {
        let stored = match known.fact {
            Some(fact) if !reads_chunks || !fact.is_present() => fact.stored,
            _ => stored(rocks, &chunk)?,
        };
        let fact = Fact {
            stored,
            references: known.references,
        };
        if fact.is_present() {
            totals.chunks += 1;
            totals.bytes += chunk.size();
            totals.stored += stored;
        } else {
            changes.forget_chunk(&chunk)?;
        }
        let counts = fact.is_present() || fact.references != 0;
        if counts && known.fact != Some(fact) {
            changes.put(Column::Facts, chunk.as_bytes(), &fact.encode())?;
        } else if !counts {
            changes.delete(Column::Facts, chunk.as_bytes())?;
        }
    }
    changes.put(Column::Meta, TOTALS, &totals.encode())?;
    let ages = rocks.get(Column::Meta, AGES)?;
    if ages.is_some_and(|ages| row::decode_ages(&ages).is_err()) {
        changes.delete(Column::Meta, AGES)?;
    }
    changes.commit()
}

/// Deletes entries of which a part is lost, and what is left of those; counts what the others keep.
fn entries(
    rocks: &Rocks,
    changes: &mut Changes<'_>,
    known: &mut BTreeMap<ChunkKey, Known>,
) -> Result<(), Trouble> {
    for row in rocks.rows_from(Column::Entries, &[]) {
        let (key, value) = row?;
        let closure = rocks.get(Column::Closures, &key)?;
        let closure = closure.and_then(|closure| row::decode_closure(&closure).ok());
        let (Some(stored), Some(closure)) = (entry_of(&value, closure.as_deref()), closure) else {
            for column in [Column::Entries, Column::Closures, Column::Used] {
                changes.delete(column, &key)?;
            }
            continue;
        };
        for chunk in closure {
            known.entry(chunk).or_default().references += 1;
        }
        let usage = rocks.get(Column::Used, &key)?;
        if usage.is_none_or(|usage| Usage::decode(&usage).is_err()) {
            let usage = Usage {
                used: stored.entry.written,
                ..Usage::default()
            };
            changes.put(Column::Used, &key, &usage.encode())?;
        }
    }
    for column in [Column::Closures, Column::Used] {
        for row in rocks.rows_from(column, &[]) {
            let (key, _) = row?;
            if rocks.get(Column::Entries, &key)?.is_none() {
                changes.delete(column, &key)?;
            }
        }
    }
    Ok(())
}

/// The entry of a row, if this is its closure: one of them may be older than the other.
fn entry_of(row: &[u8], closure: Option<&[ChunkKey]>) -> Option<StoredEntry> {
    let stored = StoredEntry::decode(row).ok()?;
    let closure = closure?;
    let bytes: u64 = closure.iter().map(ChunkKey::size).sum();
    let fits = stored.chunks == closure.len() as u64 && stored.bytes == bytes;
    fits.then_some(stored)
}

/// Notes that teams may read the chunks of their entries: who kept an entry had all of it.
fn note_owners(rocks: &Rocks) -> Result<(), Trouble> {
    let mut changes = Changes::new(rocks);
    for row in rocks.rows_from(Column::Entries, &[]) {
        let (key, value) = row?;
        let (Some(closure), Ok(stored)) = (
            rocks.get(Column::Closures, &key)?,
            StoredEntry::decode(&value),
        ) else {
            continue;
        };
        let closure = row::decode_closure(&closure)?;
        let facts = closure.iter().map(|chunk| &chunk.as_bytes()[..]);
        let facts = rocks.get_many(Column::Facts, facts)?;
        for (chunk, fact) in closure.iter().zip(facts) {
            let fact = fact.as_deref().map(Fact::decode).transpose()?;
            if fact.is_some_and(|fact| fact.is_present()) {
                changes.put(Column::Owners, &chunk.owner(&stored.entry.team), &[])?;
            }
        }
    }
    changes.commit()
}

/// What a chunk takes in the store, in bytes; zero: it cannot be read.
fn stored(rocks: &Rocks, chunk: &ChunkKey) -> Result<u64, Trouble> {
    match rocks.get(Column::Chunks, chunk.as_bytes()) {
        Ok(value) => Ok(value.map_or(0, |value| value.len() as u64)),
        Err(error) if rocks::is_damage(&error) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Changes of rows, written some at a time.
struct Changes<'a> {
    rocks: &'a Rocks,
    batch: Batch<'a>,
    count: usize,
}

impl<'a> Changes<'a> {
    fn new(rocks: &'a Rocks) -> Self {
        Self {
            rocks,
            batch: rocks.batch(BATCH_BYTES),
            count: 0,
        }
    }

    fn put(&mut self, column: Column, key: &[u8], value: &[u8]) -> Result<(), Trouble> {
        self.batch.put(column, key, value);
        self.counted()
    }

    fn delete(&mut self, column: Column, key: &[u8]) -> Result<(), Trouble> {
        self.batch.delete(column, key);
        self.counted()
    }

    /// Deletes the bytes of a chunk, and who may know of it.
    fn forget_chunk(&mut self, chunk: &ChunkKey) -> Result<(), Trouble> {
        let start = chunk.as_bytes();
        for row in self.rocks.rows_from(Column::Owners, start) {
            let (key, _) = row?;
            if !key.starts_with(start) {
                break;
            }
            self.delete(Column::Owners, &key)?;
        }
        self.delete(Column::Chunks, start)
    }

    fn counted(&mut self) -> Result<(), Trouble> {
        self.count += 1;
        if self.count < CHANGED_AT_ONCE {
            return Ok(());
        }
        self.count = 0;
        let full = std::mem::replace(&mut self.batch, self.rocks.batch(BATCH_BYTES));
        Ok(full.commit()?)
    }

    fn commit(self) -> Result<(), Trouble> {
        Ok(self.batch.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_found_in_what_the_database_says() {
        let said = "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in \
                    /data/store/000012.sst offset 0 size 100";
        assert_eq!(table_in(said), Some("000012.sst"));
        assert_eq!(table_in("Corruption: bad .sst"), None);
        assert_eq!(table_in("Corruption: Blob CRC mismatch"), None);
    }
}
