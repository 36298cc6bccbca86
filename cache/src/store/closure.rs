//! The closure of an entry: the distinct chunks of everything that it names.

use std::collections::BTreeSet;

use protocol::{
    blob::{Blob, TreeRef},
    digest::{Digest, Hasher},
    layout::Layout,
    message::cache::{ChunkHeader, Entry},
    name::Team,
};

use super::{ClosureError, ReadAnswer, Store, key::ChunkKey, row::CLOSURE_CHUNKS_MAX};
use crate::compression;

/// How large a layout may be, in bytes. A tree of a million files in a quarter of a million chunks has
/// half of it; it is read into memory.
const LAYOUT_BYTES_MAX: u64 = 64 << 20;

impl Store {
    /// The distinct chunks of everything that `entry` names, ascending. Layouts are read, so their
    /// chunks have to be there for `team`; whether the others are is checked when the entry is kept.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// If the entry makes no sense, names too much, or a layout is not there.
    pub(crate) fn closure(
        &self,
        entry: &Entry,
        team: &Team,
    ) -> Result<Vec<ChunkKey>, ClosureError> {
        let mut closure = Closure::default();
        for blob in &entry.blobs {
            closure.add_blob(blob, "a blob")?;
        }
        for tree in entry.trees.iter().chain(&entry.outlines) {
            closure.add_tree(tree)?;
        }
        for tree in &entry.trees {
            let bytes = self.read_layout(&tree.layout, team)?;
            let chunks = Layout::decode_chunks(&bytes).map_err(|source| ClosureError::Layout {
                digest: tree.layout.digest,
                source,
            })?;
            for chunk in chunks {
                closure.add(&chunk, "a tree")?;
            }
        }
        Ok(closure.chunks.into_iter().collect())
    }

    fn read_layout(&self, blob: &Blob, team: &Team) -> Result<Vec<u8>, ClosureError> {
        const PART: &str = "a layout";
        let error = |reason| ClosureError::Blob {
            part: PART,
            digest: blob.digest,
            reason,
        };
        if LAYOUT_BYTES_MAX < blob.digest.size() {
            return Err(error("it is over 64 MiB"));
        }
        let mut bytes = Vec::new();
        let mut hasher = Hasher::default();
        for &digest in &blob.chunks {
            let ReadAnswer::Found { encoding, body } = self.read_one(team, &digest)? else {
                return Err(ClosureError::Missing { part: PART, digest });
            };
            let header = ChunkHeader {
                index: 0,
                digest,
                encoding,
                body_bytes: 0,
            };
            let chunk = compression::decode(&header, body)
                .map_err(|_| ClosureError::Missing { part: PART, digest })?;
            hasher.update(&chunk);
            bytes.extend_from_slice(&chunk);
        }
        if hasher.finish() == blob.digest {
            Ok(bytes)
        } else {
            Err(error("its chunks have other bytes"))
        }
    }
}

#[derive(Debug, Default)]
struct Closure {
    chunks: BTreeSet<ChunkKey>,
}

impl Closure {
    fn add_tree(&mut self, tree: &TreeRef) -> Result<(), ClosureError> {
        self.add_blob(&tree.tree, "a tree")?;
        self.add_blob(&tree.attributes, "a tree's attributes")?;
        self.add_blob(&tree.layout, "a layout")
    }

    fn add_blob(&mut self, blob: &Blob, part: &'static str) -> Result<(), ClosureError> {
        let mut bytes = 0_u64;
        for chunk in &blob.chunks {
            self.add(chunk, part)?;
            bytes = bytes.saturating_add(chunk.size());
        }
        if bytes == blob.digest.size() {
            Ok(())
        } else {
            Err(ClosureError::Blob {
                part,
                digest: blob.digest,
                reason: "its chunks have another length",
            })
        }
    }

    fn add(&mut self, digest: &Digest, part: &'static str) -> Result<(), ClosureError> {
        let chunk = ChunkKey::of(digest).ok_or(ClosureError::Blob {
            part,
            digest: *digest,
            reason: "a chunk has 1 to 2,097,152 bytes",
        })?;
        self.chunks.insert(chunk);
        if CLOSURE_CHUNKS_MAX < self.chunks.len() as u64 {
            return Err(ClosureError::TooMany {
                limit: CLOSURE_CHUNKS_MAX,
            });
        }
        Ok(())
    }
}
