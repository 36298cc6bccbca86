//! Reads captured files again, as chunks, and checks that they are still what was captured. Blocks.

use std::{
    io::{self, Read},
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use protocol::{
    digest::{Digest, Hasher},
    path::TreePath,
};
use tokio::sync::mpsc;

use super::UploadError;
use crate::{
    capture::Sources,
    chunking::{WINDOW_BYTES, first_cut},
    packing::Unit,
};

/// A chunk that was read.
pub(super) struct Chunk {
    pub(super) digest: Digest,
    pub(super) bytes: Bytes,
}

/// What several threads read together.
pub(super) struct Reading {
    /// The distinct files of the tree.
    pub(super) files: Vec<Digest>,
    /// A path of each, for messages.
    pub(super) paths: Vec<TreePath>,
    pub(super) units: Vec<Unit>,
    /// Which of them are to be read, ascending.
    pub(super) wanted: Vec<usize>,
    pub(super) sources: Sources,
    /// Which of the wanted units is to be read next.
    pub(super) next: AtomicUsize,
}

/// Nobody wants more chunks.
struct Unwanted;

/// Why a unit was not read to its end.
enum Stop {
    Failed(UploadError),
    Unwanted,
}

impl From<UploadError> for Stop {
    fn from(error: UploadError) -> Self {
        Self::Failed(error)
    }
}

impl From<Unwanted> for Stop {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}

impl Reading {
    /// Reads units until there are no more, and sends their chunks to `out`. Gives, for each unit that it
    /// read, its index and its chunks in order. Ends early if nobody receives from `out` any more.
    pub(super) fn run(
        &self,
        out: &mpsc::Sender<Chunk>,
    ) -> Result<Vec<(usize, Vec<Digest>)>, UploadError> {
        let mut read = Vec::new();
        loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&index) = self.wanted.get(next) else {
                return Ok(read);
            };
            let chunks = match &self.units[index] {
                Unit::Pack(files) => self.read_pack(files, out),
                Unit::Alone(file) if self.files[*file].size() <= WINDOW_BYTES as u64 => {
                    self.read_pack(&[*file], out)
                }
                Unit::Alone(file) => self.read_big(*file, out),
            };
            match chunks {
                Ok(chunks) => read.push((index, chunks)),
                Err(Stop::Unwanted) => return Ok(read),
                Err(Stop::Failed(error)) => {
                    // The other threads need not go on.
                    self.next.store(self.wanted.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    }

    /// Reads whole files into one chunk.
    fn read_pack(&self, files: &[usize], out: &mpsc::Sender<Chunk>) -> Result<Vec<Digest>, Stop> {
        let mut bytes = Vec::new();
        for &file in files {
            let start = bytes.len();
            let expected = &self.files[file];
            let read = self.open(file).and_then(|source| {
                // One byte more than there should be tells a file that grew.
                source.take(expected.size() + 1).read_to_end(&mut bytes)
            });
            read.map_err(|source| self.failed(file, source))?;
            if !expected.matches(&bytes[start..]) {
                return Err(Stop::Failed(self.changed(file)));
            }
        }
        let digest = send(bytes.into(), out)?;
        Ok(vec![digest])
    }

    /// Reads a file that is larger than a chunk, and cuts it.
    fn read_big(&self, file: usize, out: &mpsc::Sender<Chunk>) -> Result<Vec<Digest>, Stop> {
        let expected = self.files[file];
        let failed = |source| self.failed(file, source);
        let source = self.open(file).map_err(failed)?;
        let mut source = source.take(expected.size() + 1);
        let mut hasher = Hasher::default();
        let mut chunks = Vec::new();
        let mut window = Vec::with_capacity(WINDOW_BYTES);
        loop {
            let room = WINDOW_BYTES - window.len();
            let wanted = u64::try_from(room).expect("it is at most 2 MiB");
            let read = source.by_ref().take(wanted).read_to_end(&mut window);
            let read = read.map_err(failed)?;
            hasher.update(&window[window.len() - read..]);
            let length = first_cut(&window);
            if length == 0 {
                break;
            }
            let rest = window.split_off(length);
            let chunk = std::mem::replace(&mut window, rest);
            window.reserve_exact(WINDOW_BYTES - window.len());
            chunks.push(send(chunk.into(), out)?);
        }
        // Not earlier: what was sent before is good for nothing then, but harms nobody.
        if hasher.finish() != expected {
            return Err(Stop::Failed(self.changed(file)));
        }
        Ok(chunks)
    }

    fn open(&self, file: usize) -> io::Result<Box<dyn Read>> {
        self.sources.open(&self.files[file])
    }

    fn failed(&self, file: usize, source: io::Error) -> UploadError {
        let path = self.paths[file].clone();
        if source.kind() == io::ErrorKind::NotFound {
            return UploadError::Changed { path };
        }
        UploadError::Read { path, source }
    }

    fn changed(&self, file: usize) -> UploadError {
        let path = self.paths[file].clone();
        UploadError::Changed { path }
    }
}

fn send(bytes: Bytes, out: &mpsc::Sender<Chunk>) -> Result<Digest, Unwanted> {
    let digest = Digest::of(&bytes);
    let chunk = Chunk { digest, bytes };
    out.blocking_send(chunk).map_err(|_| Unwanted)?;
    Ok(digest)
}
