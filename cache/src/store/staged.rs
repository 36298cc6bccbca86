//! What a group of changes will do, before it is written: rows over those of the database, so that each
//! change sees the ones before it.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::canonical::DecodeError;

use super::{
    error::Trouble,
    key::ChunkKey,
    rocks::{Column, Rocks, TOTALS},
    row::{Fact, Totals},
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

/// What the change that is being staged has replaced.
#[derive(Debug, Default)]
struct Undo {
    /// What stood there before, if anything was staged.
    rows: Vec<(Place, Option<Value>)>,
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
            rows: Vec::new(),
            chunks: self.chunks.len(),
            totals: self.totals,
        };
    }

    /// Takes back all that was staged since [`begin`](Self::begin).
    pub(super) fn roll_back(&mut self) {
        let undo = std::mem::take(&mut self.undo);
        for (key, before) in undo.rows.into_iter().rev() {
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
    pub(super) fn commit(mut self) -> Result<Totals, rocksdb::Error> {
        let totals = self.totals;
        let encoded = totals.encode();
        self.put(Column::Meta, TOTALS.to_vec(), encoded);
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
        for ((column, key), value) in self.rows {
            match value {
                Some(value) => batch.put(column, &key, &value),
                None => batch.delete(column, &key),
            }
        }
        batch.commit()?;
        Ok(totals)
    }

    fn set(&mut self, column: Column, key: Vec<u8>, value: Option<Vec<u8>>) {
        let key = (column, key);
        let before = self.rows.insert(key.clone(), value);
        self.undo.rows.push((key, before));
    }
}

/// What a row takes in a batch besides its value, in bytes, about: the key of a chunk, two lengths, two
/// tags.
const ROW_OVERHEAD_BYTES: usize = 48;
