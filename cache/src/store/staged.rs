//! What a group of changes will do, before it is written: rows over those of the database, so that each
//! change sees the ones before it.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use protocol::canonical::DecodeError;

use super::{
    bulk,
    error::Trouble,
    key::ChunkKey,
    rocks::{self, Column, Rocks, TOTALS},
    row::{Fact, Totals},
    scrub,
};

/// Where a row stands.
type Place = (Column, Vec<u8>);
/// What stands there; `None`: nothing any more.
type Value = Option<Vec<u8>>;

/// Changes that are not written yet.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    rocks: &'a Rocks,
    /// Rows of all columns but the chunks'; `None`: deleted.
    rows: BTreeMap<Place, Value>,
    /// Chunks, in the order of the changes; `None`: deleted.
    chunks: Vec<(ChunkKey, Option<Bytes>)>,
    /// The sums after all changes.
    pub(super) totals: Totals,
    undo: Undo,
}

/// What was written.
#[derive(Debug)]
pub(super) struct Committed {
    /// The sums after it.
    pub(super) totals: Totals,
    /// How many bytes of chunks went past the log.
    pub(super) bulk_bytes: u64,
    /// The keys of rows of owners that were written, ascending.
    pub(super) owners: Vec<Vec<u8>>,
}

/// What the change that is being staged has replaced.
#[derive(Debug, Default)]
struct Undo {
    /// What was staged there before, if anything.
    rows: BTreeMap<Place, Option<Value>>,
    chunks: usize,
    totals: Totals,
}

impl<'a> Staged<'a> {
    /// Nothing yet, over a database whose sums are `totals`.
    pub(super) fn new(rocks: &'a Rocks, totals: Totals) -> Self {
        Self {
            rocks,
            rows: BTreeMap::new(),
            chunks: Vec::new(),
            totals,
            undo: Undo::default(),
        }
    }

    /// Starts a change.
    pub(super) fn begin(&mut self) {
        self.undo = Undo {
            rows: BTreeMap::new(),
            chunks: self.chunks.len(),
            totals: self.totals,
        };
    }

    /// Takes back all that was staged since [`begin`](Self::begin).
    pub(super) fn roll_back(&mut self) {
        let undo = std::mem::take(&mut self.undo);
        for (key, before) in undo.rows {
            match before {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        self.chunks.truncate(undo.chunks);
        self.totals = undo.totals;
    }

    pub(super) const fn rocks(&self) -> &'a Rocks {
        self.rocks
    }

    /// How many rows the change that is being staged has changed.
    pub(super) fn changed(&self) -> usize {
        self.undo.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.chunks.is_empty()
    }

    /// Reads a row with `decode`.
    pub(super) fn read<T>(
        &self,
        column: Column,
        key: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, Trouble> {
        // A borrowed key would spare an allocation, but tuples of borrows cannot be looked up.
        if let Some(row) = self.rows.get(&(column, key.to_vec())) {
            return Ok(row.as_deref().map(decode).transpose()?);
        }
        let row = self.rocks.get(column, key)?;
        Ok(row.as_deref().map(decode).transpose()?)
    }

    pub(super) fn contains(&self, column: Column, key: &[u8]) -> Result<bool, Trouble> {
        Ok(self.read(column, key, |_| Ok(()))?.is_some())
    }

    pub(super) fn put(&mut self, column: Column, key: Vec<u8>, value: Vec<u8>) {
        self.set(column, key, Some(value));
    }

    pub(super) fn delete(&mut self, column: Column, key: Vec<u8>) {
        self.set(column, key, None);
    }

    pub(super) fn fact(&self, chunk: &ChunkKey) -> Result<Option<Fact>, Trouble> {
        self.read(Column::Facts, chunk.as_bytes(), Fact::decode)
    }

    pub(super) fn put_fact(&mut self, chunk: &ChunkKey, fact: Fact) {
        self.put(Column::Facts, chunk.as_bytes().to_vec(), fact.encode());
    }

    /// Whether a chunk is what its digest says, after the changes before this one. Reads it, with a look at
    /// checksums.
    pub(super) fn is_whole(&self, chunk: &ChunkKey) -> Result<bool, Trouble> {
        let mut staged = self.chunks.iter().rev();
        let value = match staged.find(|(staged, _)| staged == chunk) {
            Some((_, value)) => value.clone(),
            None => match self.rocks.get(Column::Chunks, chunk.as_bytes()) {
                Ok(value) => value.map(|value| Bytes::copy_from_slice(&value)),
                Err(error) if rocks::is_damage(&error) => None,
                Err(error) => return Err(error.into()),
            },
        };
        Ok(value.is_some_and(|value| scrub::is_whole(chunk, &value)))
    }

    /// Puts a chunk that was not present.
    pub(super) fn put_chunk(&mut self, chunk: ChunkKey, value: Bytes) {
        self.totals.chunks += 1;
        self.totals.bytes += chunk.size();
        self.totals.stored += value.len() as u64;
        self.chunks.push((chunk, Some(value)));
    }

    /// Deletes the bytes of a chunk that is present, and who may know of it. Its fact stays.
    pub(super) fn delete_chunk(&mut self, chunk: ChunkKey, fact: Fact) -> Result<(), Trouble> {
        self.totals.chunks = self.totals.chunks.saturating_sub(1);
        self.totals.bytes = self.totals.bytes.saturating_sub(chunk.size());
        self.totals.stored = self.totals.stored.saturating_sub(fact.stored);
        self.chunks.push((chunk, None));
        let start = chunk.as_bytes();
        let mut owners = Vec::new();
        for row in self.rocks.rows_from(Column::Owners, start) {
            let (key, _) = row?;
            if !key.starts_with(start) {
                break;
            }
            owners.push(key.into_vec());
        }
        let staged = self.rows.range((Column::Owners, start.to_vec())..);
        let staged = staged
            .take_while(|((column, key), _)| *column == Column::Owners && key.starts_with(start));
        owners.extend(staged.map(|((_, key), _)| key.clone()));
        for owner in owners {
            self.delete(Column::Owners, owner);
        }
        Ok(())
    }

    /// The chunks whose bytes go.
    pub(super) fn deleted_chunks(&self) -> impl Iterator<Item = ChunkKey> {
        let deleted = self.chunks.iter().filter(|(_, value)| value.is_none());
        deleted.map(|(chunk, _)| *chunk)
    }

    /// Writes everything, durably.
    pub(super) fn commit(mut self) -> Result<Committed, rocksdb::Error> {
        let totals = self.totals;
        self.put(Column::Meta, TOTALS.to_vec(), totals.encode());
        let large = self.take_large();
        let mut bulk_bytes = 0;
        if !large.is_empty() {
            match bulk::write(self.rocks, &large) {
                // Nothing is flushed any more; what is still under way goes by the log.
                Err(error) if error.kind() == rocksdb::ErrorKind::ShutdownInProgress => {
                    let large = large.into_iter();
                    self.chunks
                        .extend(large.map(|(key, value)| (key, Some(value))));
                }
                written => {
                    written?;
                    bulk_bytes = large.iter().map(|(_, value)| value.len() as u64).sum();
                }
            }
            let (column, key) = bulk::note();
            self.delete(column, key.to_vec());
        }
        Ok(Committed {
            totals,
            bulk_bytes,
            owners: self.log()?,
        })
    }

    /// Takes out the chunks that are written in bulk, if there are enough of them.
    fn take_large(&mut self) -> Vec<(ChunkKey, Bytes)> {
        // What is deleted in the same group keeps its place in the order.
        let deleted: HashSet<ChunkKey> = self.deleted_chunks().collect();
        let is_large = |(key, value): &(ChunkKey, Option<Bytes>)| {
            let value = value.as_ref();
            value.is_some_and(|value| bulk::is_large(value.len())) && !deleted.contains(key)
        };
        let bytes = self.chunks.iter().filter(|chunk| is_large(chunk));
        let bytes = bytes.filter_map(|(_, value)| Some(value.as_ref()?.len() as u64));
        if !bulk::is_worth_it(self.rocks, bytes.sum()) {
            return Vec::new();
        }
        let large = self.chunks.extract_if(.., |chunk| is_large(chunk));
        large
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }

    /// Writes everything as one batch, by the log. Gives the keys of rows of owners, ascending.
    fn log(self) -> Result<Vec<Vec<u8>>, rocksdb::Error> {
        let value_bytes = |value: Option<usize>| ROW_OVERHEAD_BYTES + value.unwrap_or(0);
        let chunks = self.chunks.iter();
        let chunk_bytes = chunks.map(|(_, value)| value_bytes(value.as_ref().map(Bytes::len)));
        let rows = self.rows.iter();
        let row_bytes =
            rows.map(|((_, key), row)| key.len() + value_bytes(row.as_ref().map(Vec::len)));
        let mut batch = self.rocks.batch(chunk_bytes.chain(row_bytes).sum());
        for (chunk, value) in self.chunks {
            match value {
                Some(value) => batch.put(Column::Chunks, chunk.as_bytes(), &value),
                None => batch.delete(Column::Chunks, chunk.as_bytes()),
            }
        }
        let mut owners = Vec::new();
        for ((column, key), value) in self.rows {
            match &value {
                Some(value) => batch.put(column, &key, value),
                None => batch.delete(column, &key),
            }
            if column == Column::Owners && value.is_some() {
                owners.push(key);
            }
        }
        batch.commit()?;
        Ok(owners)
    }

    fn set(&mut self, column: Column, key: Vec<u8>, value: Option<Vec<u8>>) {
        let key = (column, key);
        let before = self.rows.insert(key.clone(), value);
        // What came first in this change is what is taken back to.
        self.undo.rows.entry(key).or_insert(before);
    }
}

/// What a row takes in a batch besides its value, in bytes, about: the key of a chunk, two lengths, two
/// tags.
const ROW_OVERHEAD_BYTES: usize = 48;
