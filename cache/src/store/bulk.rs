//! Bulk writes: the large chunks of a large group go to a blob file at once, and not through the log, or the
//! disk would have to take their bytes twice.
//!
//! The order keeps the promise of the one batch. First the log gets a note of what is about to be written; then
//! the chunks are flushed; then one batch has what is known of them, and takes the note away. A chunk without
//! a fact is not there for anybody, so an end in the middle leaves bytes that nobody sees: the next start
//! finds the note, and deletes them.

use bytes::Bytes;
use protocol::canonical::{DecodeError, Reader, Writer};

use super::{
    error::Trouble,
    key::ChunkKey,
    rocks::{Column, Rocks},
    row::Fact,
    settings::TABLES_MERGED,
};

/// From this size on a chunk is large, in bytes as stored: below it the rows that come with a chunk are what
/// takes time, and files of many small chunks are what makes compactions long.
const LARGE_BYTES_MIN: usize = 64 << 10;
/// How many bytes of large chunks are worth a file of their own. It takes some nine syncs where the log takes one: on
/// a disk that takes 1 GB/s and syncs in 130 microseconds, the time in which it writes a megabyte or two.
const WORTH_BYTES: u64 = 4 << 20;
/// How many tables of chunks may wait to be merged: each group makes one, and while garbage is collected nothing is
/// merged. Beyond that groups go by the log, which makes one table of several, well before RocksDB holds up writes.
pub(super) const TABLES_MAX: u64 = 3 * TABLES_MERGED as u64;
/// How many chunks a note may name: more of the smallest large ones than any group has.
const CHUNKS_MAX: u64 = 1 << 16;

/// The row of [`Column::Meta`] that has the note.
const NOTE: &[u8] = b"bulk";

/// Whether a chunk whose row has so many bytes may go past the log.
pub(super) const fn is_large(value_bytes: usize) -> bool {
    LARGE_BYTES_MIN <= value_bytes
}

/// Whether so many bytes of large chunks are written in bulk.
pub(super) fn is_worth_it(rocks: &Rocks, bytes: u64) -> bool {
    WORTH_BYTES <= bytes && rocks.new_tables() < TABLES_MAX
}

/// Writes chunks to a file, durably. What is known of them has to be written next, with the deletion of [`note`].
pub(super) fn write(rocks: &Rocks, chunks: &[(ChunkKey, Bytes)]) -> Result<(), rocksdb::Error> {
    let mut note = rocks.batch(0);
    note.put(
        Column::Meta,
        NOTE,
        &encode(chunks.iter().map(|(key, _)| key)),
    );
    note.commit()?;
    for (key, value) in chunks {
        rocks.put_unlogged(Column::Chunks, key.as_bytes(), value)?;
    }
    rocks.flush_column(Column::Chunks)?;
    metrics::counter!("grange_cache_bulk_chunks_total").increment(chunks.len() as u64);
    Ok(())
}

/// The row that the batch deletes which has what is known of the chunks.
pub(super) const fn note() -> (Column, &'static [u8]) {
    (Column::Meta, NOTE)
}

/// Deletes what a bulk write left behind that did not come to its end. For a database that was just opened. What
/// cannot be deleted takes room, and hinders nothing.
pub(super) fn settle(rocks: &Rocks) {
    if let Err(trouble) = delete_unknown(rocks) {
        tracing::warn!(error = %trouble, "what a write had left that was not ended is not deleted");
    }
}

fn delete_unknown(rocks: &Rocks) -> Result<(), Trouble> {
    let Some(note) = rocks.get(Column::Meta, NOTE)? else {
        return Ok(());
    };
    let mut batch = rocks.batch(0);
    batch.delete(Column::Meta, NOTE);
    let mut deleted = 0_u64;
    for chunk in decode(&note).unwrap_or_default() {
        let fact = rocks.get(Column::Facts, chunk.as_bytes())?;
        let fact = fact.as_deref().map(Fact::decode).transpose()?;
        if !fact.is_some_and(|fact| fact.is_present()) {
            batch.delete(Column::Chunks, chunk.as_bytes());
            deleted += 1;
        }
    }
    batch.commit()?;
    tracing::info!(
        chunks = deleted,
        "deleted what a write had left that was not ended"
    );
    Ok(())
}

fn encode<'a>(chunks: impl ExactSizeIterator<Item = &'a ChunkKey>) -> Vec<u8> {
    let mut writer = Writer::new(*b"gbul", 1);
    writer.number(chunks.len() as u64);
    for chunk in chunks {
        writer.digest(&chunk.digest());
    }
    writer.finish()
}

fn decode(bytes: &[u8]) -> Result<Vec<ChunkKey>, DecodeError> {
    let mut reader = Reader::new(bytes, *b"gbul", 1)?;
    let count = reader.count("number of chunks", CHUNKS_MAX)?;
    let mut chunks = Vec::with_capacity(count.min(bytes.len() / 33));
    for _ in 0..count {
        let digest = reader.digest("chunk")?;
        chunks.push(ChunkKey::of(&digest).ok_or_else(|| reader.refuse("size of chunk"))?);
    }
    reader.finish()?;
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use protocol::digest::Digest;

    use super::*;

    #[test]
    fn a_note_has_golden_bytes_and_is_read_again() {
        let chunks = [b"one", b"two"].map(|bytes| ChunkKey::of(&Digest::of(bytes)).unwrap());
        let note = encode(chunks.iter());
        assert_eq!(decode(&note).unwrap(), chunks);
        let mut golden = b"gbul\x01\x02".to_vec();
        for chunk in &chunks {
            golden.extend_from_slice(chunk.hash());
            golden.push(3);
        }
        assert_eq!(note, golden);
        for end in 0..note.len() {
            assert!(decode(&note[..end]).is_err(), "cut at {end}");
        }
    }
}
