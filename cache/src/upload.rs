//! From a captured directory, or a run of bytes, to chunks at the cache.
//!
//! Files are read once more, in parallel, and verified against what was captured; whole chunks go
//! through one bounded queue to whoever asks the cache which of them it lacks; only those are compressed
//! and sent. At no time more than some tens of megabytes are in memory, however large the tree is.

mod reading;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    ops::Range,
    sync::{Arc, atomic::AtomicUsize},
};

use bytes::Bytes;
use protocol::{
    attributes::Attributes,
    blob::{Blob, TreeRef},
    digest::Digest,
    layout::Layout,
    path::TreePath,
    tree::{EntryKind, Tree},
};
use tokio::{sync::mpsc, task::JoinSet};

use self::reading::{Chunk, Reading};
use crate::{
    capture::{Captured, Sources},
    chunking::{cut, cut_outline},
    client::{CacheClient, CacheError},
    compression::{EncodedChunk, encode},
    index::{IndexedFiles, unit_name},
    ongoing::{self, owned},
    packing::{self, distinct_files, pack},
    progress::{Progress, Transfer},
};

/// How many threads read and hash at a time. Two are enough to keep a disk and a network busy.
const READERS: usize = 2;
/// How many threads compress at a time.
const ENCODERS: usize = 2;
/// How many chunks that were read may wait: as much as one batch, so that reading goes on while the cache
/// is asked.
const READ_CHUNKS_MAX: usize = 16;
/// How many compressed chunks may wait to be sent. Past it, compressing waits for the network.
const ENCODED_CHUNKS_MAX: usize = 8;
/// How many bytes the cache is asked about at once, uncompressed: they wait in memory for the answer.
const BATCH_BYTES: u64 = 16 * 1024 * 1024;

/// Why something could not be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A file cannot be read any more.
    #[error("failed to read `{path}`")]
    Read {
        /// Which.
        path: TreePath,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what it was when the directory was captured. Whoever writes to it has to stop, and
    /// the directory be captured again.
    #[error("`{path}` changed while it was uploaded")]
    Changed {
        /// Which.
        path: TreePath,
    },
    /// The cache.
    #[error(transparent)]
    Cache(Box<CacheError>),
}

impl From<CacheError> for UploadError {
    fn from(error: CacheError) -> Self {
        Self::Cache(Box::new(error))
    }
}

/// Brings a captured directory to the cache, as far as that does not have it.
///
/// When this returns everything is durable there, and is held for the cache's hold time; an entry that
/// names it keeps it for longer.
///
/// # Errors
///
/// If a file changed since it was captured, or the cache cannot be reached or refuses. What was sent
/// before stays there for a while; trying again sends only the rest.
///
/// # Cancel safety
///
/// May be dropped at any time; threads that read end with the chunk they are at.
pub async fn upload_tree(
    client: &CacheClient,
    captured: Captured,
    progress: &Progress,
) -> Result<(TreeRef, Transfer), UploadError> {
    let known = IndexedFiles::default();
    let uploaded = upload_known(client, captured, &known, progress).await?;
    Ok((uploaded.tree, uploaded.transfer))
}

/// What an upload gave.
#[derive(Debug)]
pub(crate) struct Uploaded {
    pub(crate) tree: TreeRef,
    pub(crate) transfer: Transfer,
    /// The chunks of the files.
    pub(crate) chunks: Vec<Digest>,
    /// What each unit was cut into, by [`unit_name`].
    pub(crate) units: BTreeMap<[u8; 32], Vec<Digest>>,
}

/// As [`upload_tree`]; units whose chunks are `known` are read only if the cache lacks one of those.
pub(crate) async fn upload_known(
    client: &CacheClient,
    captured: Captured,
    known: &IndexedFiles,
    progress: &Progress,
) -> Result<Uploaded, UploadError> {
    let Captured {
        tree,
        attributes,
        sources,
        ..
    } = captured;
    let mut transfer = Transfer {
        files: count_files(&tree),
        bytes: tree.bytes(),
        ..Transfer::default()
    };
    let (layout, units, sent) = upload_files(client, (&tree, sources), known, progress).await?;
    transfer.chunks = layout.chunks.len() as u64;

    let tree_bytes = tree.encode();
    let digest = Digest::of(&tree_bytes);
    let ((tree, tree_sent), (attributes, attributes_sent), (layout_blob, layout_sent)) = tokio::try_join!(
        send_blob(client, (tree_bytes, cut_outline), progress),
        send_blob(client, (attributes.encode(&digest), cut_outline), progress),
        send_blob(client, (layout.encode(&digest), cut_outline), progress),
    )?;
    for sent in [sent, tree_sent, attributes_sent, layout_sent] {
        transfer.chunks_moved += sent.chunks;
        transfer.bytes_moved += sent.bytes;
    }
    Ok(Uploaded {
        tree: TreeRef {
            tree,
            attributes,
            layout: layout_blob,
        },
        transfer,
        chunks: layout.chunks,
        units,
    })
}

/// Brings a run of bytes to the cache; what is longer than a chunk is cut by content.
///
/// # Errors
///
/// If the cache cannot be reached or refuses.
pub async fn upload_blob(client: &CacheClient, bytes: Vec<u8>) -> Result<Blob, UploadError> {
    let (blob, _) = send_blob(client, (bytes, cut), &Progress::default()).await?;
    Ok(blob)
}

/// The same tree with other attributes: brings these to the cache.
///
/// # Errors
///
/// If the cache cannot be reached or refuses.
pub async fn upload_attributes(
    client: &CacheClient,
    tree: &TreeRef,
    attributes: &Attributes,
) -> Result<TreeRef, UploadError> {
    let bytes = attributes.encode(&tree.tree.digest);
    let (attributes, _) = send_blob(client, (bytes, cut_outline), &Progress::default()).await?;
    Ok(TreeRef {
        attributes,
        ..tree.clone()
    })
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    chunks: u64,
    /// As they went over the network.
    bytes: u64,
}

fn count_files(tree: &Tree) -> u64 {
    let entries = tree.entries().iter();
    let files = entries.filter(|entry| matches!(entry.kind, EntryKind::File { .. }));
    files.count() as u64
}

/// What each unit was cut into.
type Units = BTreeMap<[u8; 32], Vec<Digest>>;

/// Sends the bytes of all files, as far as they are missing; gives where they now lie.
async fn upload_files(
    client: &CacheClient,
    (tree, sources): (&Tree, Sources),
    known: &IndexedFiles,
    progress: &Progress,
) -> Result<(Layout, Units, Sent), UploadError> {
    let files = distinct_files(tree);
    progress.expect(count_files(tree), files.iter().map(Digest::size).sum());
    let units = pack(&files);
    let names: Vec<_> = units.iter().map(|unit| unit_name(unit, &files)).collect();
    let mut chunks = known_units(client, &names, known).await?;
    let is_unread = |&unit: &usize| chunks[unit].is_empty();
    let wanted: Vec<usize> = (0..units.len()).filter(is_unread).collect();
    let skipped = chunks.iter().flatten().map(Digest::size).sum();
    progress.skip(skipped);
    let reading = Arc::new(Reading {
        paths: first_paths(tree, &files),
        files,
        units,
        wanted,
        sources,
        next: AtomicUsize::new(0),
    });
    let (out, read) = mpsc::channel(READ_CHUNKS_MAX);
    let mut readers = JoinSet::new();
    for _ in 0..READERS.min(reading.wanted.len()) {
        let (reading, out) = (Arc::clone(&reading), out.clone());
        readers.spawn_blocking(owned(move || reading.run(&out)));
    }
    drop(out);
    let sent = match reading.wanted.is_empty() {
        true => Ok(Sent::default()),
        false => send_missing(client, read, progress).await,
    };
    while let Some(read) = readers.join_next().await {
        for (unit, of) in read.expect("reading does not panic")? {
            chunks[unit] = of;
        }
    }
    let sent = sent?;
    let layout = packing::layout(&reading.files, &reading.units, &chunks);
    Ok((layout, names.into_iter().zip(chunks).collect(), sent))
}

/// For each unit its chunks, if they are known and the cache has all of them; else none.
async fn known_units(
    client: &CacheClient,
    names: &[[u8; 32]],
    known: &IndexedFiles,
) -> Result<Vec<Vec<Digest>>, UploadError> {
    let chunks = names.iter().map(|name| known.chunks(name).unwrap_or(&[]));
    let mut chunks: Vec<Vec<Digest>> = chunks.map(<[Digest]>::to_vec).collect();
    let all: Vec<Digest> = chunks.iter().flatten().copied().collect();
    if all.is_empty() {
        return Ok(chunks);
    }
    let missing = client.find_missing(&all).await?;
    let missing: HashSet<Digest> = missing.into_iter().map(|index| all[index]).collect();
    for of in &mut chunks {
        if of.iter().any(|chunk| missing.contains(chunk)) {
            of.clear();
        }
    }
    Ok(chunks)
}

/// Where each of `files` (the tree's distinct ones, in their order) is first named.
fn first_paths(tree: &Tree, files: &[Digest]) -> Vec<TreePath> {
    let mut paths = Vec::with_capacity(files.len());
    for entry in tree.entries() {
        if let EntryKind::File { digest, .. } = &entry.kind
            && files.get(paths.len()) == Some(digest)
        {
            paths.push(entry.path.clone());
        }
    }
    paths
}

/// Sends what comes in and is missing, each chunk once, and waits until it is durable.
async fn send_missing(
    client: &CacheClient,
    mut read: mpsc::Receiver<Chunk>,
    progress: &Progress,
) -> Result<Sent, UploadError> {
    let (encoded, to_send) = mpsc::channel(ENCODED_CHUNKS_MAX);
    let feed = async {
        let mut sent = Sent::default();
        let mut seen = HashSet::new();
        loop {
            let batch = next_batch(&mut read, &mut seen, progress).await;
            if batch.is_empty() {
                break;
            }
            let missing = which_are_missing(client, batch, progress).await?;
            if !encode_all(missing, &encoded, &mut sent, progress).await {
                // Nobody sends any more; why is in the other result.
                break;
            }
        }
        // Whoever sends is done when nobody can give it more.
        drop(encoded);
        Ok::<_, CacheError>(sent)
    };
    let (written, sent) = tokio::join!(client.write_chunks(to_send), feed);
    let sent = sent?;
    written?;
    Ok(sent)
}

/// The next chunks that were not seen yet, up to [`BATCH_BYTES`]; empty when there are no more.
async fn next_batch(
    read: &mut mpsc::Receiver<Chunk>,
    seen: &mut HashSet<Digest>,
    progress: &Progress,
) -> Vec<Chunk> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while bytes < BATCH_BYTES
        && let Some(chunk) = read.recv().await
    {
        if seen.insert(chunk.digest) {
            bytes += chunk.digest.size();
            batch.push(chunk);
        } else {
            progress.skip(chunk.digest.size());
        }
    }
    batch
}

async fn which_are_missing(
    client: &CacheClient,
    batch: Vec<Chunk>,
    progress: &Progress,
) -> Result<Vec<Chunk>, CacheError> {
    let digests: Vec<_> = batch.iter().map(|chunk| chunk.digest).collect();
    let missing: HashSet<usize> = client.find_missing(&digests).await?.into_iter().collect();
    let mut chunks = Vec::with_capacity(missing.len());
    for (index, chunk) in batch.into_iter().enumerate() {
        if missing.contains(&index) {
            chunks.push(chunk);
        } else {
            progress.skip(chunk.digest.size());
        }
    }
    Ok(chunks)
}

/// Compresses `chunks` in parallel and hands them on; says whether somebody still takes them.
async fn encode_all(
    chunks: Vec<Chunk>,
    encoded: &mpsc::Sender<EncodedChunk>,
    sent: &mut Sent,
    progress: &Progress,
) -> bool {
    let mut encoding = JoinSet::new();
    let mut chunks = chunks.into_iter();
    loop {
        while encoding.len() < ENCODERS
            && let Some(chunk) = chunks.next()
        {
            encoding.spawn_blocking(owned(move || encode(&chunk.bytes, chunk.digest)));
        }
        let Some(chunk) = encoding.join_next().await else {
            return true;
        };
        let chunk = chunk.expect("compressing does not panic");
        let (uncompressed, bytes) = (chunk.digest.size(), chunk.body.len() as u64);
        if encoded.send(chunk).await.is_err() {
            return false;
        }
        progress.advance(uncompressed);
        progress.moved(bytes);
        sent.chunks += 1;
        sent.bytes += bytes;
    }
}

/// Says where bytes are cut.
type Cut = fn(&[u8]) -> Vec<Range<usize>>;

/// Cuts a run of bytes and sends what is missing of it.
async fn send_blob(
    client: &CacheClient,
    (bytes, cut): (Vec<u8>, Cut),
    progress: &Progress,
) -> Result<(Blob, Sent), UploadError> {
    let cut_up = move || {
        let digest = Digest::of(&bytes);
        let bytes = Bytes::from(bytes);
        let chunk = |at| {
            let bytes = bytes.slice(at);
            let digest = Digest::of(&bytes);
            Chunk { digest, bytes }
        };
        let chunks: Vec<_> = cut(&bytes).into_iter().map(chunk).collect();
        (digest, chunks)
    };
    let cutting = ongoing::spawn_blocking(cut_up).await;
    let (digest, mut chunks) = cutting.expect("cutting does not panic");
    let blob = Blob {
        digest,
        chunks: chunks.iter().map(|chunk| chunk.digest).collect(),
    };
    // What is in memory anyway may be asked about at once, and needs no stream if all of it is there.
    let mut seen = HashSet::new();
    chunks.retain(|chunk| seen.insert(chunk.digest));
    let quiet = Progress::default();
    let missing = which_are_missing(client, chunks, &quiet).await?;
    if missing.is_empty() {
        return Ok((blob, Sent::default()));
    }
    let (encoded, to_send) = mpsc::channel(ENCODED_CHUNKS_MAX);
    let feed = async {
        let mut sent = Sent::default();
        encode_all(missing, &encoded, &mut sent, &quiet).await;
        drop(encoded);
        sent
    };
    let (written, sent) = tokio::join!(client.write_chunks(to_send), feed);
    written?;
    progress.moved(sent.bytes);
    Ok((blob, sent))
}

#[cfg(test)]
mod tests;
