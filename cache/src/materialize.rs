//! From a tree at the cache to a directory.
//!
//! Everything is written aside, in a directory whose name starts with [`PARTIAL_PREFIX`], verified, and
//! then renamed, so that nobody sees half a tree under its final name. Nothing is ever written outside:
//! no link is followed. Each chunk is fetched once, in whichever order it comes, with a bounded number
//! in memory.

mod parents;
mod place;
mod plan;
mod restore;
mod unpack;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use protocol::{blob::TreeRef, digest::Digest, path::TreePath, tree::EntryKind};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::warn;

pub use self::{
    place::{PARTIAL_PREFIX, remove_partials, remove_tree},
    plan::{Contents, PlanError},
};
use self::{
    place::{Partial, merge, permissions_of},
    plan::Plan,
    unpack::{Settings, USUAL_DIRECTORY, Unpacking},
};
use crate::{
    beneath::Root,
    capture::Dialect,
    client::{CacheClient, CacheError, ReadChunk},
    download::{FetchError, fetch_tree},
    ongoing::{owned, spawn_blocking},
    progress::{Progress, Transfer},
};

/// How many chunks may wait to be written, 2 MiB each at most.
const READ_CHUNKS_MAX: usize = 8;
/// How many threads write. Creating files waits for the file system's locks more than for a processor.
const WRITERS: usize = 4;

/// How a tree is put back.
#[derive(Clone, Debug)]
pub struct Materialize {
    /// What whiteouts and opaque directories become. With [`Dialect::Plain`] a tree that has some is
    /// refused.
    pub dialect: Dialect,
    /// Whose everything is then.
    pub owner: Owner,
    /// The time of all entries whose attributes have none, in nanoseconds since 1970. `None`: when they
    /// are written.
    pub default_modified: Option<i64>,
    /// Who may look into the directory that the tree becomes.
    pub root: RootMode,
    /// Where to count.
    pub progress: Progress,
}

/// The mode of the directory that a tree becomes, of which the tree says nothing. One into which a tree is put keeps
/// its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RootMode {
    /// Everybody may look into it, whatever the process's mask says: a sandbox may run as somebody else.
    Usual,
    /// As that of any directory that the process makes; but if an empty one gives way, that one's.
    Masked,
}

/// Whose everything is that is put back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// Keep the owners that were captured, as far as we are permitted to.
    Keep,
    /// It is our own; set-user-id and set-group-id bits and capabilities are left out, since they would
    /// lend our rights.
    Own,
}

/// Why a tree could not be put back. The target is then as it was before, unless the variant says
/// otherwise.
#[derive(Debug, thiserror::Error)]
pub enum MaterializeError {
    /// There is something under the target's name.
    #[error("`{}` is there already", target.display())]
    Exists {
        /// The target.
        target: PathBuf,
    },
    /// The directory beside or in which to unpack cannot be written to.
    #[error("failed to make a directory in `{}`", directory.display())]
    Aside {
        /// Where.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The unpacked tree cannot be renamed to its final name.
    #[error("failed to rename what was unpacked to `{}`", target.display())]
    Rename {
        /// The target.
        target: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An entry cannot be written: the disk is full, a device may not be made.
    #[error("failed to write `{path}`")]
    Write {
        /// Which entry.
        path: TreePath,
        /// What the system says.
        source: io::Error,
    },
    /// The chunks of a file do not make it up: the layout is wrong.
    #[error("`{path}` was put together to something else than {expected}")]
    Corrupt {
        /// Which file.
        path: TreePath,
        /// What it should be.
        expected: Digest,
    },
    /// Something of another kind, or a link, is where an entry belongs. Entries before it, in tree
    /// order, are in their places.
    #[error("something else is in the way of `{path}`")]
    InTheWay {
        /// Which entry.
        path: TreePath,
    },
    /// Bytes that are kept on this machine cannot be read.
    #[error("failed to read the bytes of files")]
    Local {
        /// What the system says.
        source: io::Error,
    },
    /// Tree, attributes and layout do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Tree, attributes or layout cannot be fetched.
    #[error(transparent)]
    Fetch(Box<FetchError>),
    /// The cache.
    #[error(transparent)]
    Cache(Box<CacheError>),
}

impl MaterializeError {
    /// As [`CacheError::is_missing`].
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_missing(),
            Self::Cache(error) => error.is_missing(),
            _ => false,
        }
    }
}

impl From<FetchError> for MaterializeError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Box::new(error))
    }
}

impl From<CacheError> for MaterializeError {
    fn from(error: CacheError) -> Self {
        Self::Cache(Box::new(error))
    }
}

/// Where the bytes of files come from.
pub trait ChunkSource: Sync {
    /// Sends each of `chunks` to `out`, in any order; each is what its digest says. Ends early, without an
    /// error, when nobody receives from `out` any more.
    ///
    /// # Errors
    ///
    /// If one cannot be had.
    fn send_chunks(
        &self,
        chunks: Vec<Digest>,
        out: mpsc::Sender<ReadChunk>,
    ) -> impl Future<Output = Result<(), MaterializeError>> + Send;
}

impl ChunkSource for CacheClient {
    async fn send_chunks(
        &self,
        chunks: Vec<Digest>,
        out: mpsc::Sender<ReadChunk>,
    ) -> Result<(), MaterializeError> {
        Ok(self.read_chunks(chunks, out).await?)
    }
}

/// Puts a tree back as the directory `target`, which must not be there, or be empty.
///
/// What is there afterwards is not synced: after a power cut it may be damaged, so whoever keeps it has
/// to know whether the system went down in between.
///
/// # Errors
///
/// If the tree cannot be fetched or does not verify, or something cannot be written.
///
/// # Cancel safety
///
/// May be dropped at any time; what was written is removed, or left under a name that
/// [`remove_partials`] knows.
pub async fn materialize(
    client: &CacheClient,
    tree: &TreeRef,
    target: &Path,
    options: Materialize,
) -> Result<Transfer, MaterializeError> {
    let contents = fetch_tree(client, tree).await?.into();
    materialize_contents(client, contents, target, options).await
}

/// As [`materialize`], of a tree that was fetched before, and may have been given other attributes; its
/// bytes may be elsewhere than at a cache.
///
/// # Errors
///
/// As for [`materialize`].
pub async fn materialize_contents(
    source: &impl ChunkSource,
    contents: Contents,
    target: &Path,
    options: Materialize,
) -> Result<Transfer, MaterializeError> {
    let exists = || MaterializeError::Exists {
        target: target.to_owned(),
    };
    if is_occupied(target).await {
        return Err(exists());
    }
    let to = target.to_owned();
    let root = options.root;
    let place = move |unpacking: &Unpacking, partial: &Partial| {
        unpacking.finish_directories(unpacking.root(), |_| true)?;
        let permissions = match root {
            RootMode::Usual => USUAL_DIRECTORY,
            RootMode::Masked => permissions_of(&to).unwrap_or(unpacking.fresh.permissions),
        };
        partial
            .rename(&to, permissions)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists
                | io::ErrorKind::DirectoryNotEmpty
                | io::ErrorKind::NotADirectory => MaterializeError::Exists { target: to },
                _ => MaterializeError::Rename { target: to, source },
            })
    };
    unpack(source, contents, beside(target), options, place).await
}

/// Where what becomes `target` is unpacked: in the directory that it is in.
pub fn beside(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Puts a tree back into the directory `directory`, which is there and may hold other things.
///
/// Everything is unpacked and verified first. Then files take their places one by one: those that are
/// there are replaced, directories that are there stay as they are, and a link in the place of a
/// directory is an error.
///
/// # Errors
///
/// As for [`materialize`], and [`MaterializeError::InTheWay`].
pub async fn materialize_into(
    client: &CacheClient,
    tree: &TreeRef,
    directory: &Path,
    options: Materialize,
) -> Result<Transfer, MaterializeError> {
    let contents = fetch_tree(client, tree).await?.into();
    materialize_contents_into(client, contents, directory, options).await
}

/// As [`materialize_into`], of a tree that was fetched before.
///
/// # Errors
///
/// As for [`materialize_into`].
pub async fn materialize_contents_into(
    client: &CacheClient,
    contents: Contents,
    directory: &Path,
    options: Materialize,
) -> Result<Transfer, MaterializeError> {
    let target = directory.to_owned();
    let place = move |unpacking: &Unpacking, partial: &Partial| {
        let root = Root::open(&target).map_err(|source| MaterializeError::Aside {
            directory: target,
            source,
        })?;
        merge(unpacking, &root)?;
        // All that is left in it are directories that were there already.
        partial.remove().map_err(|source| MaterializeError::Rename {
            target: partial.path.clone(),
            source,
        })
    };
    unpack(client, contents, directory, options, place).await
}

async fn is_occupied(target: &Path) -> bool {
    let target = target.to_owned();
    let look = move || match std::fs::read_dir(&target) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => target.symlink_metadata().is_ok(),
    };
    spawn_blocking(look).await.expect("looking does not panic")
}

/// Unpacks a tree in a fresh directory in `directory`, and hands it to `place`.
async fn unpack(
    source: &impl ChunkSource,
    contents: Contents,
    directory: &Path,
    options: Materialize,
    place: impl FnOnce(&Unpacking, &Partial) -> Result<(), MaterializeError> + Send + 'static,
) -> Result<Transfer, MaterializeError> {
    let settings = Settings {
        owner: options.owner,
        default_modified: options.default_modified,
    };
    let directory = directory.to_owned();
    let dialect = options.dialect;
    let (unpacking, partial) = blocking(move || {
        let plan = Plan::new(contents, dialect)?;
        let aside = |source| MaterializeError::Aside {
            directory: directory.clone(),
            source,
        };
        let partial = Partial::create(&directory).map_err(aside)?;
        let root = partial.root().map_err(aside)?;
        let unpacking = Unpacking::new(plan, settings, root).map_err(aside)?;
        Ok((Arc::new(unpacking), partial))
    })
    .await?;
    let mut transfer = totals(&unpacking.plan);
    let distinct = unpacking.plan.files.iter().map(|file| file.digest.size());
    options.progress.expect(transfer.files, distinct.sum());
    let moved = write_files(source, &unpacking, &options.progress).await?;
    transfer.chunks_moved = transfer.chunks;
    transfer.bytes_moved = moved;
    blocking(move || {
        unpacking.link()?;
        place(&unpacking, &partial)?;
        partial.keep();
        let refused = unpacking.refused.load(Ordering::Relaxed);
        if refused > 0 {
            warn!(attributes = refused, "could not restore some attributes");
        }
        Ok(transfer)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MaterializeError> + Send + 'static,
) -> Result<T, MaterializeError> {
    spawn_blocking(work)
        .await
        .expect("unpacking does not panic")
}

fn totals(plan: &Plan) -> Transfer {
    let entries = plan.contents.tree.entries().iter();
    let files = entries.filter(|entry| matches!(entry.kind, EntryKind::File { .. }));
    Transfer {
        files: files.count() as u64,
        bytes: plan.contents.tree.bytes(),
        chunks: plan.uses.iter().filter(|uses| !uses.is_empty()).count() as u64,
        ..Transfer::default()
    }
}

/// Fetches the chunks and writes them into their files. Gives how many bytes came over the network.
async fn write_files(
    source: &impl ChunkSource,
    unpacking: &Arc<Unpacking>,
    progress: &Progress,
) -> Result<u64, MaterializeError> {
    let plan = &unpacking.plan;
    let is_used = |&index: &usize| !plan.uses[index].is_empty();
    let wanted: Vec<usize> = (0..plan.uses.len()).filter(is_used).collect();
    if wanted.is_empty() {
        let unpacking = Arc::clone(unpacking);
        return blocking(move || unpacking.lay_out().map(|()| 0)).await;
    }
    let digests = wanted
        .iter()
        .map(|&index| plan.contents.layout.chunks[index]);
    let (out, chunks) = mpsc::channel(READ_CHUNKS_MAX);
    let read = source.send_chunks(digests.collect(), out);
    let write = write_chunks(unpacking, &wanted, chunks, progress);
    let (read, written) = tokio::join!(read, write);
    // A failed write ends the reading without an error, a failed read the writing.
    let (count, moved) = written?;
    read?;
    if count != wanted.len() {
        let what = "read chunks";
        return Err(CacheError::Answer { what }.into());
    }
    Ok(moved)
}

/// Writes what comes; gives how many of the `wanted` chunks came, and the bytes that travelled.
async fn write_chunks(
    unpacking: &Arc<Unpacking>,
    wanted: &[usize],
    mut chunks: mpsc::Receiver<ReadChunk>,
    progress: &Progress,
) -> Result<(usize, u64), MaterializeError> {
    let mut writing = JoinSet::new();
    let result = hand_out(unpacking, wanted, &mut chunks, &mut writing, progress).await;
    // Also after a failure: nobody may write any more when what was written is removed.
    drop(chunks);
    while writing.join_next().await.is_some() {}
    result
}

async fn hand_out(
    unpacking: &Arc<Unpacking>,
    wanted: &[usize],
    chunks: &mut mpsc::Receiver<ReadChunk>,
    writing: &mut JoinSet<Result<u64, MaterializeError>>,
    progress: &Progress,
) -> Result<(usize, u64), MaterializeError> {
    let laying_out = Arc::clone(unpacking);
    writing.spawn_blocking(owned(move || laying_out.lay_out().map(|()| 0)));
    let mut came = vec![false; wanted.len()];
    let (mut count, mut moved) = (0, 0);
    while let Some(chunk) = chunks.recv().await {
        // Twice would be a mistake of the cache, and would end files too early.
        if std::mem::replace(&mut came[chunk.index], true) {
            continue;
        }
        count += 1;
        moved += chunk.bytes_moved;
        progress.moved(chunk.bytes_moved);
        if WRITERS <= writing.len() {
            written(writing.join_next().await, progress)?;
        }
        let unpacking = Arc::clone(unpacking);
        let index = wanted[chunk.index];
        writing.spawn_blocking(owned(move || unpacking.write_chunk(index, &chunk.bytes)));
    }
    while let Some(done) = writing.join_next().await {
        written(Some(done), progress)?;
    }
    Ok((count, moved))
}

type Joined = Result<Result<u64, MaterializeError>, tokio::task::JoinError>;

fn written(done: Option<Joined>, progress: &Progress) -> Result<(), MaterializeError> {
    if let Some(done) = done {
        progress.advance(done.expect("writing does not panic")?);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
