//! From a captured directory, or a run of bytes, to chunks at the cache.
//!
//! Files are read and cut; the cache is asked which of the chunks it lacks; those are compressed, and sent. All
//! of this goes on at the same time, and what waits for the next step does so within bounds: at no time are more
//! than about a hundred megabytes in memory, however large the tree is. A capture may hand on its chunks while it
//! reads (see `put`); what it did not hand on is read once more, and verified against what was captured.

mod reading;

use std::{
    collections::HashSet,
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

use self::reading::Reading;
use crate::{
    capture::{Captured, Sources},
    chunking::{WINDOW_BYTES, cut, cut_outline},
    client::{CacheClient, CacheError},
    compression::{EncodedChunk, encode},
    cutting::Chunk,
    download::TREE_BYTES_MAX,
    index::{IndexedFiles, Units, unit_name},
    ongoing::{self, owned},
    packing::{self, Unit, distinct_files, pack},
    progress::{Progress, Transfer},
};

/// How many bytes of chunks may wait after each step, when they are read, found to be missing, and compressed:
/// enough that the step goes on while the next one waits for a disk, the cache or the network.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The same in chunks, if each is as long as it may be.
pub(crate) const WAITING_CHUNKS_MAX: usize = WAITING_BYTES_MAX / WINDOW_BYTES;
/// How many bytes the cache is asked about at once; they wait in memory for the answer.
const BATCH_BYTES: u64 = WAITING_BYTES_MAX as u64 / 2;

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
    /// What is known of the directory takes more bytes than anybody fetches: it has too many entries, or too much
    /// is known of them. Nothing refers to what was sent before.
    #[error("directory takes {bytes} bytes of {what}, at most {limit} are allowed")]
    TooLarge {
        /// Its tree, attributes or layout.
        what: &'static str,
        /// How many bytes that has.
        bytes: u64,
        /// How many it may have.
        limit: u64,
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
/// If a file changed since it was captured; if tree, attributes or layout have more than [`TREE_BYTES_MAX`], so
/// that nobody could fetch them; or if the cache cannot be reached or refuses. What was sent before stays there for
/// a while; trying again sends only the rest.
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
    pub(crate) units: Units,
}

/// As [`upload_tree`]; units whose chunks are `known` are read only if the cache lacks one of those, and those not
/// that were sent while they were captured.
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
        units,
        ..
    } = captured;
    let mut transfer = Transfer {
        files: count_files(&tree),
        bytes: tree.bytes(),
        ..Transfer::default()
    };
    let tree_bytes = within(TREE_BYTES_MAX, ("tree", tree.encode()))?;
    let digest = Digest::of(&tree_bytes);
    let attributes_bytes = within(TREE_BYTES_MAX, ("attributes", attributes.encode(&digest)))?;
    let (layout, units, sent) =
        upload_files(client, (&tree, sources), (known, units), progress).await?;
    transfer.chunks = layout.chunks.len() as u64;
    let layout_bytes = within(TREE_BYTES_MAX, ("layout", layout.encode(&digest)))?;
    let ((tree, tree_sent), (attributes, attributes_sent), (layout_blob, layout_sent)) = tokio::try_join!(
        send_blob(client, (tree_bytes, cut_outline), progress),
        send_blob(client, (attributes_bytes, cut_outline), progress),
        send_blob(client, (layout_bytes, cut_outline), progress),
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
/// If they have more than [`TREE_BYTES_MAX`], so that nobody could fetch them; or if the cache cannot be reached or
/// refuses.
pub async fn upload_attributes(
    client: &CacheClient,
    tree: &TreeRef,
    attributes: &Attributes,
) -> Result<TreeRef, UploadError> {
    let bytes = attributes.encode(&tree.tree.digest);
    let bytes = within(TREE_BYTES_MAX, ("attributes", bytes))?;
    let (attributes, _) = send_blob(client, (bytes, cut_outline), &Progress::default()).await?;
    Ok(TreeRef {
        attributes,
        ..tree.clone()
    })
}

/// The bytes of `what`, if they are few enough to be fetched.
fn within(limit: u64, (what, bytes): (&'static str, Vec<u8>)) -> Result<Vec<u8>, UploadError> {
    let length = bytes.len() as u64;
    if limit < length {
        return Err(UploadError::TooLarge {
            what,
            bytes: length,
            limit,
        });
    }
    Ok(bytes)
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) chunks: u64,
    /// As they went over the network.
    pub(crate) bytes: u64,
}

fn count_files(tree: &Tree) -> u64 {
    let entries = tree.entries().iter();
    let files = entries.filter(|entry| matches!(entry.kind, EntryKind::File { .. }));
    files.count() as u64
}

/// Sends the bytes of all files, as far as they are not `sent` yet and are missing; gives where they now lie.
async fn upload_files(
    client: &CacheClient,
    (tree, sources): (&Tree, Sources),
    (known, mut sent): (&IndexedFiles, Units),
    progress: &Progress,
) -> Result<(Layout, Units, Sent), UploadError> {
    let files = distinct_files(tree);
    let units = pack(&files);
    let name = |unit: &Unit| unit_name(unit.members().iter().map(|&file| &files[file]));
    let names: Vec<_> = units.iter().map(name).collect();
    let sent_of = |name: &[u8; 32]| sent.remove(name).unwrap_or_default();
    let mut chunks: Vec<Vec<Digest>> = names.iter().map(sent_of).collect();
    let done = bytes_of(&chunks);
    let left = files.iter().map(Digest::size).sum::<u64>() - done;
    progress.expect(count_files(tree), progress.now().bytes_done + left);
    find_known(client, (&names, &mut chunks), known).await?;
    progress.skip(bytes_of(&chunks) - done);
    let is_unread = |&unit: &usize| chunks[unit].is_empty();
    let reading = Arc::new(Reading {
        paths: first_paths(tree, &files),
        wanted: (0..units.len()).filter(is_unread).collect(),
        files,
        units,
        sources,
        next: AtomicUsize::new(0),
    });
    let (out, read) = mpsc::channel(WAITING_CHUNKS_MAX);
    let mut readers = JoinSet::new();
    for _ in 0..ongoing::threads().min(reading.wanted.len()) {
        let (reading, out) = (Arc::clone(&reading), out.clone());
        readers.spawn_blocking(owned(move || reading.run(&out)));
    }
    drop(out);
    // If this fails, readers that find nobody to take their chunks end.
    let sent = match reading.wanted.is_empty() {
        true => Sent::default(),
        false => send_missing(client, read, progress).await?,
    };
    while let Some(read) = readers.join_next().await {
        for (unit, of) in read.expect("reading does not panic")? {
            chunks[unit] = of;
        }
    }
    let layout = packing::layout(&reading.files, &reading.units, &chunks);
    Ok((layout, names.into_iter().zip(chunks).collect(), sent))
}

/// How long the chunks of some units are together.
fn bytes_of(units: &[Vec<Digest>]) -> u64 {
    units.iter().flatten().map(Digest::size).sum()
}

/// Finds the chunks of units that have none yet, where they are known and the cache has all of them.
async fn find_known(
    client: &CacheClient,
    (names, chunks): (&[[u8; 32]], &mut [Vec<Digest>]),
    known: &IndexedFiles,
) -> Result<(), UploadError> {
    let mut found = Vec::new();
    for (name, of) in names.iter().zip(chunks) {
        if let Some(known) = known.chunks(name)
            && of.is_empty()
        {
            found.push((of, known));
        }
    }
    let all: Vec<Digest> = found
        .iter()
        .flat_map(|(_, known)| *known)
        .copied()
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    let missing = client.find_missing(&all).await?;
    let missing: HashSet<Digest> = missing.into_iter().map(|index| all[index]).collect();
    for (of, known) in found {
        if !known.iter().any(|chunk| missing.contains(chunk)) {
            *of = known.to_vec();
        }
    }
    Ok(())
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
pub(crate) async fn send_missing(
    client: &CacheClient,
    mut read: mpsc::Receiver<Chunk>,
    progress: &Progress,
) -> Result<Sent, UploadError> {
    let (found, missing) = mpsc::channel(WAITING_CHUNKS_MAX);
    let ask = async {
        let mut seen = HashSet::new();
        loop {
            let batch = next_batch(&mut read, &mut seen, progress).await;
            if batch.is_empty() {
                break;
            }
            for chunk in which_are_missing(client, batch, progress).await? {
                // If nobody sends any more, that is why all of this ends.
                let _taken_or_not = found.send(chunk).await;
            }
        }
        // Whoever sends is done when nobody can give it more.
        drop(found);
        Ok::<_, CacheError>(())
    };
    let ((), sent) = tokio::try_join!(ask, send(client, missing, progress))?;
    Ok(sent)
}

/// Sends what comes, and waits until it is durable.
async fn send(
    client: &CacheClient,
    chunks: mpsc::Receiver<Chunk>,
    progress: &Progress,
) -> Result<Sent, CacheError> {
    let (encoded, to_send) = mpsc::channel(WAITING_CHUNKS_MAX);
    let compressing = async { Ok::<_, CacheError>(compress(chunks, encoded, progress).await) };
    let (sent, _) = tokio::try_join!(compressing, client.write_chunks(to_send))?;
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

/// Compresses what comes, in parallel, and hands it on, until no more comes or nobody takes it any more.
async fn compress(
    mut chunks: mpsc::Receiver<Chunk>,
    out: mpsc::Sender<EncodedChunk>,
    progress: &Progress,
) -> Sent {
    let threads = ongoing::threads();
    let mut encoding = JoinSet::new();
    let mut sent = Sent::default();
    loop {
        let encoded = tokio::select! {
            Some(chunk) = chunks.recv(), if encoding.len() < threads => {
                encoding.spawn_blocking(owned(move || encode(&chunk.bytes, chunk.digest)));
                continue;
            }
            Some(encoded) = encoding.join_next() => encoded,
            else => return sent,
        };
        let chunk = encoded.expect("compressing does not panic");
        let (uncompressed, bytes) = (chunk.digest.size(), chunk.body.len() as u64);
        if out.send(chunk).await.is_err() {
            return sent;
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
        let chunk = |at| Chunk::new(bytes.slice(at));
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
    let (found, to_send) = mpsc::channel(missing.len());
    for chunk in missing {
        found.send(chunk).await.expect("there is room for all");
    }
    drop(found);
    let sent = send(client, to_send, &quiet).await?;
    progress.moved(sent.bytes);
    Ok((blob, sent))
}

#[cfg(test)]
mod tests;
