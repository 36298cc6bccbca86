//! From a directory of this machine to a tree at the cache, with a local index of what was put the last
//! time: what has not changed is not read, and what the cache has is not sent. What is read is sent while
//! more is read, so most of it is read once, and looked at again in the end.

use std::sync::Arc;

use protocol::{blob::TreeRef, digest::Digest};
use tokio::sync::mpsc;
use tracing::warn;

use crate::{
    capture::{CaptureError, Captured, Found, FoundKind, Seen, Subject, open_root, recheck},
    client::{CacheClient, CacheError},
    clock::Clock,
    cutting::Chunk,
    index::{IndexedFiles, LocalIndex, Whole, fingerprint, is_settled},
    ongoing::spawn_blocking,
    progress::{Progress, Transfer},
    upload::{Sent, UploadError, Uploaded, WAITING_CHUNKS_MAX, send_missing, upload_known},
};

/// Why a directory could not be put into the cache.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It cannot be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// What was read cannot be sent.
    #[error(transparent)]
    Upload(#[from] UploadError),
}

/// What came of putting a directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Put {
    /// The tree, durable at the cache and held there for a while; an entry keeps it for longer.
    pub tree: TreeRef,
    /// What was moved for it.
    pub transfer: Transfer,
    /// How many of its files were not read, because they are as they were the last time.
    pub files_known: u64,
}

/// Brings what `subject` is of a directory to the cache. With an `index` only what has changed since it was put
/// the last time is read; it is brought up to date. An index is of one subject.
///
/// # Errors
///
/// If something cannot be read or changes meanwhile, or the cache cannot be reached or refuses. An index
/// that cannot be read or written is none.
///
/// # Cancel safety
///
/// May be dropped at any time; threads that read end with the file they are at.
pub async fn put(
    client: &CacheClient,
    subject: Subject,
    index: Option<LocalIndex>,
    progress: &Progress,
) -> Result<Put, PutError> {
    let subject = Arc::new(subject);
    let looking = {
        let (subject, index) = (Arc::clone(&subject), index.clone());
        blocking(move || look(&subject, index.as_ref()))
    };
    let looked = looking.await?;
    if let Some(whole) = &looked.unchanged
        && is_there(client, whole).await.map_err(UploadError::from)?
    {
        return Ok(as_before(whole, progress));
    }
    let (files, bytes) = looked.totals();
    progress.expect(files, bytes);
    let (out, chunks) = mpsc::channel(WAITING_CHUNKS_MAX);
    let reading = {
        let (subject, index) = (Arc::clone(&subject), index.clone());
        async move {
            let reading = blocking(move || read(&subject, looked, index.as_ref(), out));
            reading.await.map_err(PutError::from)
        }
    };
    let sending = async {
        let sending = send_missing(client, chunks, progress);
        sending.await.map_err(PutError::from)
    };
    let (read, sent) = tokio::try_join!(reading, sending)?;
    finish(client, (subject, index), (read, sent), progress).await
}

/// Sends what was `read` and not yet `sent`, and checks that nothing of it has changed since.
async fn finish(
    client: &CacheClient,
    (subject, index): (Arc<Subject>, Option<LocalIndex>),
    (mut read, sent): (Read, Sent),
    progress: &Progress,
) -> Result<Put, PutError> {
    let seen = std::mem::take(&mut read.captured.seen);
    let (known, now) = (read.captured.known, read.now);
    let mut uploaded = upload_known(client, read.captured, &read.files, progress).await?;
    uploaded.transfer.chunks_moved += sent.chunks;
    uploaded.transfer.bytes_moved += sent.bytes;
    let checking = blocking(move || {
        let root = open_root(subject.root())?;
        recheck(&root, &seen)?;
        Ok::<_, CaptureError>(seen)
    });
    let seen = checking.await?;
    let put = Put {
        tree: uploaded.tree.clone(),
        transfer: uploaded.transfer,
        files_known: known,
    };
    if let Some(index) = index {
        let fingerprint = read.fingerprint;
        blocking(move || keep(&index, (seen, now), fingerprint, uploaded)).await;
    }
    Ok(put)
}

/// Whether the cache still has all that came of a directory.
async fn is_there(client: &CacheClient, whole: &Whole) -> Result<bool, CacheError> {
    let missing = client.find_missing(&all_chunks(whole)).await?;
    Ok(missing.is_empty())
}

/// What comes of a directory that is as it was the last time.
fn as_before(whole: &Whole, progress: &Progress) -> Put {
    progress.expect(whole.files, whole.bytes);
    progress.skip(whole.bytes);
    Put {
        tree: whole.tree.clone(),
        transfer: Transfer {
            files: whole.files,
            bytes: whole.bytes,
            chunks: whole.chunks.len() as u64,
            ..Transfer::default()
        },
        files_known: whole.files,
    }
}

/// What a walk saw.
struct Looked {
    found: Vec<Found>,
    /// When the walk began, in nanoseconds since 1970.
    now: i64,
    fingerprint: Option<Digest>,
    /// What came of the same the last time.
    unchanged: Option<Whole>,
}

impl Looked {
    /// How many files there are, and how many bytes.
    fn totals(&self) -> (u64, u64) {
        let is_file = |entry: &&Found| matches!(entry.kind, FoundKind::File);
        let sizes = self.found.iter().filter(is_file).map(|file| file.size);
        sizes.fold((0, 0), |(files, bytes), size| {
            (files + 1, u64::saturating_add(bytes, size))
        })
    }
}

fn look(subject: &Subject, index: Option<&LocalIndex>) -> Result<Looked, CaptureError> {
    let now = i64::try_from(Clock::wall().0).unwrap_or(0);
    let now = now.saturating_mul(1_000_000);
    let found = subject.capture()?.look()?;
    let fingerprint = index.and_then(|_| fingerprint(&found, now));
    let unchanged = index
        .filter(|_| fingerprint.is_some())
        .and_then(LocalIndex::whole)
        .filter(|whole| whole.fingerprint == fingerprint);
    Ok(Looked {
        found,
        now,
        fingerprint,
        unchanged,
    })
}

/// What was read, and what was known.
struct Read {
    captured: Captured,
    files: IndexedFiles,
    now: i64,
    fingerprint: Option<Digest>,
}

/// Reads what is not known; its chunks go to `out`.
fn read(
    subject: &Subject,
    looked: Looked,
    index: Option<&LocalIndex>,
    out: mpsc::Sender<Chunk>,
) -> Result<Read, CaptureError> {
    let files = index.and_then(LocalIndex::files).unwrap_or_default();
    let capture = subject.capture()?;
    let captured = capture.read(looked.found, Some(&files), Some(out))?;
    Ok(Read {
        captured,
        files,
        now: looked.now,
        fingerprint: looked.fingerprint,
    })
}

fn keep(
    index: &LocalIndex,
    (seen, now): (Vec<Seen>, i64),
    fingerprint: Option<Digest>,
    uploaded: Uploaded,
) {
    let can_be_known = |of: &Seen| of.is_plain && is_settled(of.file.stamp.changed, now);
    let stamps = seen.into_iter().filter(can_be_known).map(|of| of.file);
    let whole = Whole {
        fingerprint,
        tree: uploaded.tree,
        chunks: uploaded.chunks,
        files: uploaded.transfer.files,
        bytes: uploaded.transfer.bytes,
    };
    let files = IndexedFiles::new(stamps.collect(), uploaded.units);
    if let Err(error) = index.keep(&whole, &files) {
        warn!(%error, "could not keep what was read; it will be read again");
    }
}

fn all_chunks(whole: &Whole) -> Vec<Digest> {
    let TreeRef {
        tree,
        attributes,
        layout,
    } = &whole.tree;
    let blobs = [tree, attributes, layout].into_iter();
    let of_blobs = blobs.flat_map(|blob| &blob.chunks);
    of_blobs.chain(&whole.chunks).copied().collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = spawn_blocking(work).await;
    done.expect("reading does not panic")
}

#[cfg(test)]
mod tests;
