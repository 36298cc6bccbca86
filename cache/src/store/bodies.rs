//! Reading chunks: many at once, as they are stored, from the hot set or from the database. Blocks.
//!
//! Checksums of large chunks are not looked at here: the receiver verifies every chunk, and what it reports is
//! read again with them. Small ones are read with them: so the blocks that say where they are can be kept, and
//! a block takes longer to read again than a small body to sum.

use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;
use protocol::{digest::Digest, message::cache::Encoding, name::Team};

use super::{
    Store, Trouble,
    change::Change,
    key::ChunkKey,
    read::sorted,
    rocks::{self, Column, Rocks},
    row,
};
use crate::hot::HOT_CHUNK_BYTES_MAX;

/// What a chunk is stored as.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum ReadAnswer {
    /// Not there, or not for this team.
    #[default]
    Missing,
    /// There.
    Found {
        encoding: Encoding,
        /// In RocksDB's memory.
        body: Bytes,
    },
}

/// What one of many chunks is stored as.
#[derive(Debug)]
pub(crate) enum Visit<'a> {
    /// To be kept as long as one likes.
    Answer(ReadAnswer),
    /// Small, in RocksDB's memory or the hot set's, for as long as it is looked at.
    Brief { encoding: Encoding, body: &'a [u8] },
}

impl Store {
    /// Says of each of `chunks` what it is stored as, if the team has it here, and where it stands among them: of each
    /// once, in the order in which they are found.
    pub(crate) fn read(
        &self,
        team: &Team,
        chunks: &[Digest],
        mut visit: impl FnMut(usize, Visit<'_>),
    ) -> Result<(), Trouble> {
        let rocks = self.shared.rocks()?;
        let since = self.shared.hot.since();
        let mut is_missing = vec![true; chunks.len()];
        let mut say = |index: usize, found: Visit<'_>| {
            is_missing[index] = false;
            visit(index, found);
        };
        let mut cold = sorted(chunks);
        let asked = cold.len();
        let reader = self.shared.hot.reader(team);
        cold.retain(|(chunk, index)| {
            let show = |value: &[u8]| {
                let (encoding, body) = parts(value).expect("what has none is not brought");
                say(*index, Visit::Brief { encoding, body });
            };
            HOT_CHUNK_BYTES_MAX < chunk.size() || !self.shared.hot.show(reader, chunk, show)
        });
        counter!("grange_cache_hot_hits_total").increment((asked - cold.len()) as u64);
        counter!("grange_cache_hot_misses_total").increment(cold.len() as u64);
        let cold = self.shared.owned(&rocks, team, &cold)?;
        let (small, large): (Vec<_>, Vec<_>) = cold
            .into_iter()
            .partition(|(chunk, _)| chunk.size() <= HOT_CHUNK_BYTES_MAX);
        let keys = small.iter().map(|(chunk, _)| &chunk.as_bytes()[..]);
        let values = rocks.get_each(Column::Chunks, keys);
        for ((chunk, index), value) in small.iter().zip(values) {
            if let Ok(Some(value)) = &value
                && let Some((encoding, body)) = parts(value)
            {
                self.shared.hot.bring(reader, chunk, value, since);
                say(*index, Visit::Brief { encoding, body });
                continue;
            }
            let value = value.map(|value| value.map(|value| Bytes::copy_from_slice(&value)));
            let answer = self.answer(&rocks, (team, chunk), value)?;
            say(*index, Visit::Answer(answer));
        }
        for (chunk, index) in &large {
            let value = rocks::pinned_unchecked(&rocks, Column::Chunks, chunk.as_bytes());
            let answer = self.answer(&rocks, (team, chunk), value)?;
            say(*index, Visit::Answer(answer));
        }
        for (index, _) in (0..).zip(is_missing).filter(|(_, missing)| *missing) {
            visit(index, Visit::Answer(ReadAnswer::Missing));
        }
        Ok(())
    }

    /// What the chunk `digest` is stored as, if the team has it here; with a look at checksums, for what
    /// is read here.
    pub(crate) fn read_one(&self, team: &Team, digest: &Digest) -> Result<ReadAnswer, Trouble> {
        let Some(chunk) = ChunkKey::of(digest) else {
            return Ok(ReadAnswer::Missing);
        };
        let rocks = self.shared.rocks()?;
        if rocks.get(Column::Owners, &chunk.owner(team))?.is_none() {
            return Ok(ReadAnswer::Missing);
        }
        let value = rocks::pinned(&rocks, Column::Chunks, chunk.as_bytes());
        self.answer(&rocks, (team, &chunk), value)
    }

    /// What is said of a chunk that the team has, with what was found of it. One that is damaged is set
    /// aside.
    fn answer(
        &self,
        rocks: &Arc<Rocks>,
        (team, chunk): (&Team, &ChunkKey),
        value: Result<Option<Bytes>, rocksdb::Error>,
    ) -> Result<ReadAnswer, Trouble> {
        let why = match value {
            Ok(Some(value)) => match found(value) {
                Some(answer) => return Ok(answer),
                None => "it has no encoding".to_owned(),
            },
            // It was deleted just now, or what says where it is is damaged.
            Ok(None) if rocks.get(Column::Owners, &chunk.owner(team))?.is_none() => {
                return Ok(ReadAnswer::Missing);
            }
            Ok(None) => match rocks::pinned(rocks, Column::Chunks, chunk.as_bytes()) {
                Ok(Some(value)) => return Ok(found(value).unwrap_or_default()),
                Ok(None) => "it is not there, and somebody has it".to_owned(),
                Err(error) => self.why(error)?,
            },
            Err(error) => self.why(error)?,
        };
        tracing::error!(digest = %chunk.digest(), why, "chunk is damaged and is set aside, unless it is brought again first");
        self.try_change(Change::SetAside { chunk: *chunk });
        Ok(ReadAnswer::Missing)
    }

    /// What is wrong with a chunk that cannot be read; another error if it is not the chunk.
    fn why(&self, error: rocksdb::Error) -> Result<String, Trouble> {
        if !rocks::is_damage(&error) {
            return Err(error.into());
        }
        self.shared.look_at_rows(&error);
        Ok(error.to_string())
    }
}

/// A chunk from the value in its row; `None`: that is none.
fn found(value: Bytes) -> Option<ReadAnswer> {
    let (encoding, _) = parts(&value)?;
    Some(ReadAnswer::Found {
        encoding,
        body: value.slice(1..),
    })
}

/// The encoding and the body of the value in a chunk's row; `None`: that is none.
fn parts(value: &[u8]) -> Option<(Encoding, &[u8])> {
    let (&first, body) = value.split_first()?;
    Some((row::encoding_of(first)?, body))
}
