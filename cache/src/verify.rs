//! Reads all of a tree at the cache, and checks every file against its own digest, without writing any.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::{
    blob::TreeRef,
    digest::{Digest, Hasher},
    layout::{Layout, Piece},
    path::TreePath,
    tree::{EntryKind, Tree},
};
use tokio::sync::mpsc;

use crate::{
    client::{CacheClient, CacheError},
    download::{FetchError, fetch_tree},
    packing::distinct_files,
    progress::Progress,
};

/// How many chunks are in memory at a time, 2 MiB each at most.
const CHUNKS_AT_ONCE: usize = 32;

/// Why a tree is not what it says.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The layout is of another tree. Whoever put it is broken; put it again.
    #[error("layout has {found} files, its tree has {expected}")]
    Files {
        /// Distinct files of the tree that are not empty.
        expected: usize,
        /// Files of the layout.
        found: usize,
    },
    /// The chunks of a file do not make it up.
    #[error("`{path}` is put together to {found} and not to {expected}")]
    Corrupt {
        /// A path of the file.
        path: TreePath,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Tree, attributes or layout cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A chunk cannot be read; or it is missing or damaged, and whoever has it has to bring it again.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl VerifyError {
    /// Whether something of the tree is missing, or is not what it should be. Else nobody knows how the tree is:
    /// the cache was not reached, or could not look.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Files { .. } | Self::Corrupt { .. } => true,
            Self::Fetch(FetchError::Cache(error)) | Self::Cache(error) => error.is_missing(),
            Self::Fetch(
                FetchError::TooLarge { .. }
                | FetchError::Mismatch { .. }
                | FetchError::Decode { .. }
                | FetchError::OtherTree { .. },
            ) => true,
        }
    }
}

/// What was verified.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Verified {
    /// Files of the tree, equal ones counted each time.
    pub files: u64,
    /// Distinct bytes that were read and checked.
    pub bytes: u64,
}

/// Reads all of a tree, and checks it.
///
/// # Errors
///
/// At the first thing that is missing or not what it should be.
pub async fn verify_tree(
    client: &CacheClient,
    tree: &TreeRef,
    progress: &Progress,
) -> Result<Verified, VerifyError> {
    let (tree, _, layout) = fetch_tree(client, tree).await?;
    let files = distinct_files(&tree);
    if files.len() != layout.files.len() {
        return Err(VerifyError::Files {
            expected: files.len(),
            found: layout.files.len(),
        });
    }
    let is_file = |kind: &EntryKind| matches!(kind, EntryKind::File { .. });
    let entries = tree.entries().iter();
    let verified = Verified {
        files: entries.filter(|entry| is_file(&entry.kind)).count() as u64,
        bytes: files.iter().map(Digest::size).sum(),
    };
    progress.expect(verified.files, verified.bytes);
    let mut reading = Reading {
        client,
        tree: &tree,
        files: &files,
        hasher: Hasher::default(),
        progress,
    };
    let mut group = Vec::new();
    let mut chunks = BTreeSet::new();
    for (file, pieces) in layout.files.iter().enumerate() {
        for (index, &piece) in pieces.iter().enumerate() {
            if chunks.len() == CHUNKS_AT_ONCE && !chunks.contains(&piece.chunk) {
                reading.check(&layout, &group, &chunks).await?;
                group.clear();
                chunks.clear();
            }
            chunks.insert(piece.chunk);
            group.push((file, piece, index + 1 == pieces.len()));
        }
    }
    reading.check(&layout, &group, &chunks).await?;
    Ok(verified)
}

/// The pieces of files, in order.
struct Reading<'a> {
    client: &'a CacheClient,
    tree: &'a Tree,
    files: &'a [Digest],
    /// Of the file that is being put together.
    hasher: Hasher,
    progress: &'a Progress,
}

impl Reading<'_> {
    /// Reads `chunks` and adds the pieces of `group` to their files; the last of each ends its file.
    async fn check(
        &mut self,
        layout: &Layout,
        group: &[(usize, Piece, bool)],
        chunks: &BTreeSet<u32>,
    ) -> Result<(), VerifyError> {
        let numbers: Vec<u32> = chunks.iter().copied().collect();
        let bytes = self.read(layout, &numbers).await?;
        for (file, piece, is_last) in group {
            let Some(chunk) = bytes.get(&piece.chunk) else {
                let what = "read chunks";
                return Err(CacheError::Answer { what }.into());
            };
            let start = piece.offset as usize;
            self.hasher
                .update(&chunk[start..start + piece.length as usize]);
            self.progress.advance(u64::from(piece.length));
            if !is_last {
                continue;
            }
            let found = std::mem::take(&mut self.hasher).finish();
            if found != self.files[*file] {
                return Err(self.corrupt(*file, found));
            }
        }
        Ok(())
    }

    async fn read(
        &self,
        layout: &Layout,
        numbers: &[u32],
    ) -> Result<BTreeMap<u32, Bytes>, CacheError> {
        let digest = |&number: &u32| layout.chunks[number as usize];
        let (out, mut read) = mpsc::channel(CHUNKS_AT_ONCE);
        let reading = self
            .client
            .read_chunks(numbers.iter().map(digest).collect(), out);
        let receiving = async {
            let mut bytes = BTreeMap::new();
            while let Some(chunk) = read.recv().await {
                self.progress.moved(chunk.bytes_moved);
                bytes.insert(numbers[chunk.index], chunk.bytes);
            }
            bytes
        };
        let (done, bytes) = tokio::join!(reading, receiving);
        done.map(|()| bytes)
    }

    fn corrupt(&self, file: usize, found: Digest) -> VerifyError {
        let expected = self.files[file];
        let is_it = |kind: &EntryKind| matches!(kind, EntryKind::File { digest, .. } if *digest == expected);
        let entry = self.tree.entries().iter().find(|entry| is_it(&entry.kind));
        VerifyError::Corrupt {
            path: entry.expect("distinct files are of entries").path.clone(),
            expected,
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        attributes::Attributes,
        message::{Refusal, RefusalCode},
    };
    use transport::StreamError;

    use super::*;
    use crate::{
        capture::{Dialect, capture},
        compression::DecodeChunkError,
        fixture::{Cache, cache, grow_tree},
        selection::Selection,
        upload::{upload_blob, upload_tree},
    };

    async fn verify(cache: &Cache, tree: &TreeRef) -> Result<Verified, VerifyError> {
        verify_tree(&cache.client, tree, &Progress::default()).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_whole_tree_is_read_and_one_whose_files_are_swapped_is_refused() {
        let cache = cache().await;
        let root = tempfile::tempdir().unwrap();
        grow_tree(root.path(), 11, 300);
        let captured = capture(root.path(), &Selection::All, Dialect::Plain).unwrap();
        let (reference, _) = upload_tree(&cache.client, captured, &Progress::default())
            .await
            .unwrap();
        let verified = verify(&cache, &reference).await.unwrap();
        assert!(
            verified.files > 100 && verified.bytes > 1_000_000,
            "{verified:?}"
        );

        // All its chunks are whole, but they are said to be other files.
        let (_, _, mut layout) = fetch_tree(&cache.client, &reference).await.unwrap();
        let length = |pieces: &Vec<Piece>| pieces.iter().map(|piece| u64::from(piece.length)).sum();
        let lengths: Vec<u64> = layout.files.iter().map(length).collect();
        let equal = |&(a, b): &(usize, usize)| lengths[a] == lengths[b];
        let mut pairs = (0..lengths.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
        let (a, b) = pairs.find(equal).expect("two files of one length");
        layout.files.swap(a, b);
        let layout = layout.encode(&reference.tree.digest);
        let layout = upload_blob(&cache.client, layout).await.unwrap();
        let swapped = TreeRef {
            layout,
            ..reference
        };
        let refused = verify(&cache, &swapped).await.unwrap_err();
        assert!(matches!(refused, VerifyError::Corrupt { .. }), "{refused}");
    }

    #[test]
    fn what_keeps_the_cache_from_answering_is_no_damage() {
        let digest = Digest::of(b"chunk");
        let what = "read chunks";
        let refused = |code| CacheError::Refused {
            what,
            source: Refusal::new(code, "no"),
        };
        let source = StreamError::Reset;
        for (error, expected) in [
            (CacheError::MissingChunk { digest }, true),
            (
                CacheError::Corrupt {
                    digest,
                    source: DecodeChunkError::NoBody { digest },
                },
                true,
            ),
            (CacheError::Stream { what, source }, false),
            (CacheError::Answer { what }, false),
            (refused(RefusalCode::Internal), false),
            (refused(RefusalCode::Unavailable), false),
            (refused(RefusalCode::PermissionDenied), false),
        ] {
            let said = error.to_string();
            let error = VerifyError::from(FetchError::from(error));
            assert_eq!(error.is_damage(), expected, "{said}");
            let VerifyError::Fetch(FetchError::Cache(error)) = error else {
                panic!("{said}");
            };
            assert_eq!(VerifyError::from(error).is_damage(), expected, "{said}");
        }
        let of_others = FetchError::Mismatch { digest };
        assert!(VerifyError::from(of_others).is_damage());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_empty_tree_is_whole() {
        let cache = cache().await;
        let tree = Tree::default();
        let digest = Digest::of(&tree.encode());
        let attributes = Attributes::default().encode(&digest);
        let layout = Layout::default().encode(&digest);
        let reference = TreeRef {
            tree: upload_blob(&cache.client, tree.encode()).await.unwrap(),
            attributes: upload_blob(&cache.client, attributes).await.unwrap(),
            layout: upload_blob(&cache.client, layout).await.unwrap(),
        };
        let verified = verify(&cache, &reference).await.unwrap();
        assert_eq!(verified, Verified::default());
    }
}
