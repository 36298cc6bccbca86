//! From chunks at the cache to runs of bytes, and to trees, attributes and layouts.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    attributes::Attributes,
    blob::{Blob, TreeRef},
    canonical::DecodeError,
    digest::Digest,
    layout::Layout,
    path::TreePath,
    tree::{Entry, EntryKind, Tree},
};
use tokio::sync::mpsc;

use crate::{
    client::{CacheClient, CacheError, ReadChunk},
    ongoing,
};

/// How many chunks may wait to be put in their place.
const READ_CHUNKS_MAX: usize = 8;

/// How long the bytes of a tree, of attributes or of a layout may be: a few million entries. It bounds
/// what a reference can make its reader allocate; what is longer is not uploaded either.
pub const TREE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why a run of bytes could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is longer than its reader takes. Nothing was fetched.
    #[error("blob {digest} is over the {limit} bytes that are allowed here")]
    TooLarge {
        /// Which blob.
        digest: Digest,
        /// How many bytes it may have.
        limit: u64,
    },
    /// The chunks are not those of the blob: whoever named them is broken or hostile.
    #[error("the chunks of blob {digest} do not make it up")]
    Mismatch {
        /// Which blob.
        digest: Digest,
    },
    /// The bytes are not what the reference says.
    #[error("blob {digest} is no {what}")]
    Decode {
        /// Which blob.
        digest: Digest,
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The attributes or the layout are of another tree.
    #[error("{what} {digest} is of another tree")]
    OtherTree {
        /// Which blob.
        digest: Digest,
        /// What it is.
        what: &'static str,
    },
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl FetchError {
    /// As [`CacheError::is_missing`].
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Cache(error) if error.is_missing())
    }
}

/// Fetches a run of bytes of at most `limit` bytes, and verifies it.
///
/// # Errors
///
/// If it is longer, chunks are missing or do not make it up, or the cache cannot be reached or refuses.
pub async fn fetch_blob(
    client: &CacheClient,
    blob: &Blob,
    limit: u64,
) -> Result<Vec<u8>, FetchError> {
    let digest = blob.digest;
    let size = digest.size();
    if limit < size {
        return Err(FetchError::TooLarge { digest, limit });
    }
    let sizes = blob.chunks.iter().map(Digest::size);
    if sizes.fold(0, u64::saturating_add) != size {
        return Err(FetchError::Mismatch { digest });
    }
    let mut places: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
    let mut offset = 0;
    for chunk in &blob.chunks {
        places.entry(*chunk).or_default().push(offset);
        // What does not fit in memory is too large for whoever asks, whatever limit it names.
        let length = usize::try_from(chunk.size());
        offset += length.map_err(|_| FetchError::TooLarge { digest, limit })?;
    }
    let mut bytes = vec![0; offset];
    if offset > 0 {
        let (out, chunks) = mpsc::channel(READ_CHUNKS_MAX);
        let read = client.read_chunks(places.keys().copied().collect(), out);
        let ((), read) = tokio::join!(put_together(chunks, &places, &mut bytes), read);
        read?;
    }
    let verified = verify(digest, bytes).await;
    verified.ok_or(FetchError::Mismatch { digest })
}

/// The bytes, if they are what the digest names.
async fn verify(digest: Digest, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let verify = move || digest.matches(&bytes).then_some(bytes);
    let verified = ongoing::spawn_blocking(verify).await;
    verified.expect("hashing does not panic")
}

async fn put_together(
    mut chunks: mpsc::Receiver<ReadChunk>,
    places: &BTreeMap<Digest, Vec<usize>>,
    bytes: &mut [u8],
) {
    while let Some(chunk) = chunks.recv().await {
        for &place in places.get(&chunk.digest).into_iter().flatten() {
            bytes[place..place + chunk.bytes.len()].copy_from_slice(&chunk.bytes);
        }
    }
}

/// Fetches all of a tree but the bytes of its files.
///
/// # Errors
///
/// As for [`fetch_blob`], with [`TREE_BYTES_MAX`] as the limit of each of the three; and if they are not
/// what they should be, or not of one tree.
pub async fn fetch_tree(
    client: &CacheClient,
    reference: &TreeRef,
) -> Result<(Tree, Attributes, Layout), FetchError> {
    let (outline, layout) = tokio::try_join!(
        fetch_outline(client, reference),
        fetch_blob(client, &reference.layout, TREE_BYTES_MAX),
    )?;
    let (tree, attributes) = outline;
    let digest = reference.layout.digest;
    let what = "layout";
    let (of, layout) = Layout::decode(&layout).map_err(|source| FetchError::Decode {
        digest,
        what,
        source,
    })?;
    if of != reference.tree.digest {
        return Err(FetchError::OtherTree { digest, what });
    }
    Ok((tree, attributes, layout))
}

/// Fetches one file of a tree, of at most `limit` bytes, and verifies it; `None`: the tree has no file there.
///
/// # Errors
///
/// As for [`fetch_tree`]; and if the file is longer, or its chunks are missing or do not make it up.
pub async fn fetch_file(
    client: &CacheClient,
    reference: &TreeRef,
    (path, limit): (&TreePath, u64),
) -> Result<Option<Vec<u8>>, FetchError> {
    let (tree, _, layout) = fetch_tree(client, reference).await?;
    let of_file = |entry: &Entry| match &entry.kind {
        EntryKind::File { digest, .. } => Some(*digest),
        _ => None,
    };
    let Some(digest) = tree.find(path).and_then(|(_, entry)| of_file(entry)) else {
        return Ok(None);
    };
    let size = digest.size();
    if limit < size {
        return Err(FetchError::TooLarge { digest, limit });
    }
    if size == 0 {
        return Ok(Some(Vec::new()));
    }
    let mut seen = BTreeSet::new();
    let files = tree.entries().iter().filter_map(of_file);
    let mut distinct = files.filter(|digest| 0 < digest.size() && seen.insert(*digest));
    let index = distinct.position(|other| other == digest);
    let mismatch = || FetchError::Mismatch { digest };
    let pieces = index.and_then(|index| layout.files.get(index));
    let pieces = pieces.ok_or_else(mismatch)?;
    let wanted: BTreeSet<Digest> = pieces
        .iter()
        .filter_map(|piece| layout.chunks.get(piece.chunk as usize).copied())
        .collect();
    // Each has some bytes of the file, so there are no more than it has bytes.
    let (out, mut chunks) = mpsc::channel(READ_CHUNKS_MAX);
    let read = client.read_chunks(wanted.into_iter().collect(), out);
    let gather = async {
        let mut read = BTreeMap::new();
        while let Some(chunk) = chunks.recv().await {
            read.insert(chunk.digest, chunk.bytes);
        }
        read
    };
    let (gathered, read) = tokio::join!(gather, read);
    read?;
    let mut bytes = Vec::new();
    for piece in pieces {
        let chunk = layout.chunks.get(piece.chunk as usize);
        let chunk = chunk.and_then(|chunk| gathered.get(chunk));
        let from = piece.offset as usize;
        let run = chunk.and_then(|chunk| chunk.get(from..from + piece.length as usize));
        bytes.extend_from_slice(run.ok_or_else(mismatch)?);
    }
    verify(digest, bytes).await.map(Some).ok_or_else(mismatch)
}

/// Fetches a tree and its attributes.
///
/// # Errors
///
/// As for [`fetch_tree`].
pub async fn fetch_outline(
    client: &CacheClient,
    reference: &TreeRef,
) -> Result<(Tree, Attributes), FetchError> {
    let (tree, attributes) = tokio::try_join!(
        fetch_blob(client, &reference.tree, TREE_BYTES_MAX),
        fetch_blob(client, &reference.attributes, TREE_BYTES_MAX),
    )?;
    let tree = Tree::decode(&tree).map_err(|source| FetchError::Decode {
        digest: reference.tree.digest,
        what: "tree",
        source,
    })?;
    let digest = reference.attributes.digest;
    let what = "attributes";
    let decoded = Attributes::decode(&attributes).map_err(|source| FetchError::Decode {
        digest,
        what,
        source,
    });
    let (of, attributes) = decoded?;
    if of != reference.tree.digest {
        return Err(FetchError::OtherTree { digest, what });
    }
    Ok((tree, attributes))
}
