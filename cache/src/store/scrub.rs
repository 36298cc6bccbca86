//! Looking whether chunks still are what they were: one that somebody reports, and all of them now and
//! then. One that is damaged is set aside, so that who has it brings it again.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{digest::Digest, message::cache::ChunkHeader, name::Team};

use super::{
    Store, Trouble,
    change::{Applied, Change},
    key::ChunkKey,
    rocks::{self, Column, Rocks},
    row::{self, Fact},
};
use crate::compression;

/// How many chunks one step of a scrub reads at most: small ones take longer than their bytes say.
const STEP_CHUNKS_MAX: u64 = 4096;

/// What a step of a scrub did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Scrubbed {
    /// How many chunks were read.
    pub(crate) chunks: u64,
    /// What they take in the store, in bytes.
    pub(crate) bytes: u64,
    /// How many of them were damaged and were set aside.
    pub(crate) damaged: u64,
    /// Behind which to go on; `None`: all were read.
    pub(crate) last: Option<ChunkKey>,
}

impl Store {
    /// Reads the next chunks behind `after`, about `bytes` of them, and sets aside those that are damaged.
    pub(crate) async fn scrub(
        &self,
        after: Option<ChunkKey>,
        bytes: u64,
    ) -> Result<Scrubbed, Trouble> {
        let (mut scrubbed, damaged) = self
            .blocking(move |store| store.next_damaged(after, bytes))
            .await?;
        scrubbed.damaged = self.set_aside(damaged).await?;
        metrics::counter!("grange_cache_scrub_chunks_total").increment(scrubbed.chunks);
        metrics::counter!("grange_cache_scrub_bytes_total").increment(scrubbed.bytes);
        Ok(scrubbed)
    }

    /// Reads all that is known besides the chunks themselves; what is damaged of it is mended soon.
    pub(crate) async fn scrub_rows(&self) -> Result<(), Trouble> {
        self.blocking(|store| {
            let rocks = store.shared.rocks()?;
            for column in Column::ALL {
                if column != Column::Chunks {
                    rocks.read_all(column)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Whether a damaged chunk was met that was not set aside, so that all have to be read soon.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.shared.doubt.is_of_chunks()
    }

    /// Waits until that is so.
    pub(crate) async fn falls_into_doubt(&self) {
        self.shared.doubt.wakes().await;
    }

    /// Says that all chunks were read since.
    pub(crate) fn is_trusted_again(&self) {
        self.shared.doubt.chunks_are_whole();
    }

    /// Reads those of `chunks` that the team has, and sets aside those that are damaged; gives how many
    /// that were. These only leave memory: what others have is no matter of the team's.
    pub(crate) async fn verify(&self, team: Team, chunks: Vec<Digest>) -> Result<u64, Trouble> {
        let damaged = self.blocking(move |store| {
            let rocks = store.shared.rocks()?;
            let mut damaged = Vec::new();
            for chunk in chunks.iter().filter_map(ChunkKey::of) {
                if rocks.get(Column::Owners, &chunk.owner(&team))?.is_none() {
                    continue;
                }
                store.shared.hot.forget(std::iter::once(chunk));
                if store.is_damaged(&rocks, &chunk)? {
                    damaged.push(chunk);
                }
            }
            Ok(damaged)
        });
        self.set_aside(damaged.await?).await
    }

    /// Sets aside what was damaged, unless it has been brought again since; gives how many that were.
    pub(super) async fn set_aside(&self, damaged: Vec<ChunkKey>) -> Result<u64, Trouble> {
        let mut count = 0;
        for chunk in damaged {
            let digest = chunk.digest();
            if self.change(Change::SetAside { chunk }).await? == Applied::Whole {
                tracing::info!(%digest, "chunk was damaged, and is whole again");
            } else {
                tracing::error!(%digest, "chunk is damaged and is set aside");
                count += 1;
            }
        }
        Ok(count)
    }

    pub(super) fn next_damaged(
        &self,
        after: Option<ChunkKey>,
        bytes: u64,
    ) -> Result<(Scrubbed, Vec<ChunkKey>), Trouble> {
        let rocks = self.shared.rocks()?;
        let start: &[u8] = after.as_ref().map_or(&[], |key| key.as_bytes());
        let mut scrubbed = Scrubbed::default();
        let mut damaged = Vec::new();
        for row in rocks.rows_from(Column::Facts, start) {
            let (key, value) = row?;
            let Some(chunk) = ChunkKey::from_bytes(&key).filter(|key| Some(*key) != after) else {
                continue;
            };
            let fact = Fact::decode(&value)?;
            if !fact.is_present() {
                continue;
            }
            if self.is_damaged(&rocks, &chunk)? {
                damaged.push(chunk);
            }
            scrubbed.chunks += 1;
            scrubbed.bytes += fact.stored;
            if bytes <= scrubbed.bytes || STEP_CHUNKS_MAX <= scrubbed.chunks {
                scrubbed.last = Some(chunk);
                break;
            }
        }
        Ok((scrubbed, damaged))
    }

    /// Whether a chunk that is said to be there is not, or is not what its digest says.
    fn is_damaged(&self, rocks: &Arc<Rocks>, chunk: &ChunkKey) -> Result<bool, Trouble> {
        let value = match rocks::pinned(rocks, Column::Chunks, chunk.as_bytes()) {
            Ok(Some(value)) => value,
            // It was deleted just now, or the row that says where it is was lost.
            Ok(None) => {
                let fact = rocks.get(Column::Facts, chunk.as_bytes())?;
                let fact = fact.as_deref().map(Fact::decode).transpose()?;
                return Ok(fact.is_some_and(|fact| fact.is_present()));
            }
            Err(error) if rocks::is_damage(&error) => {
                self.shared.look_at_rows(&error);
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        };
        Ok(!is_whole(chunk, &value))
    }
}

/// Whether what the row of a chunk has is what its digest says.
pub(super) fn is_whole(chunk: &ChunkKey, value: &Bytes) -> bool {
    let Some(encoding) = value.first().and_then(|&byte| row::encoding_of(byte)) else {
        return false;
    };
    let body = value.slice(1..);
    let header = ChunkHeader {
        index: 0,
        digest: chunk.digest(),
        encoding,
        body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
    };
    compression::decode(&header, body).is_ok()
}
