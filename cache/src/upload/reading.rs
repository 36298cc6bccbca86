//! Reads captured files again, as chunks, and checks that they are still what was captured. Blocks.

use std::{
    io::{self, Read},
    sync::atomic::{AtomicUsize, Ordering},
};

use protocol::{digest::Digest, path::TreePath};
use tokio::sync::mpsc;

use super::UploadError;
use crate::{
    capture::Sources,
    cutting::{Chunk, cut_file, hand_on},
    packing::Unit,
};

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

impl Reading {
    /// Reads units until there are no more, and sends their chunks to `out`. Gives, for each unit that it
    /// read, its index and its chunks in order. Fails if nobody receives from `out` any more.
    pub(super) fn run(
        &self,
        out: &mpsc::Sender<Chunk>,
    ) -> Result<Vec<(usize, Vec<Digest>)>, UploadError> {
        let mut read = Vec::new();
        while let Some(&index) = self.wanted.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let chunks = match &self.units[index] {
                Unit::Pack(files) => self.read_pack(files, out),
                Unit::Alone(file) => self.read_alone(*file, out),
            };
            if chunks.is_err() {
                // The other threads need not go on.
                self.next.store(self.wanted.len(), Ordering::Relaxed);
            }
            read.push((index, chunks?));
        }
        Ok(read)
    }

    /// Reads whole files into one chunk.
    fn read_pack(
        &self,
        files: &[usize],
        out: &mpsc::Sender<Chunk>,
    ) -> Result<Vec<Digest>, UploadError> {
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
                return Err(self.changed(file));
            }
        }
        let chunk = hand_on(bytes.into(), out);
        let chunk = chunk.map_err(|source| self.failed(files[0], source))?;
        Ok(vec![chunk])
    }

    /// Reads a file that has chunks of its own.
    fn read_alone(
        &self,
        file: usize,
        out: &mpsc::Sender<Chunk>,
    ) -> Result<Vec<Digest>, UploadError> {
        let expected = self.files[file];
        let source = self.open(file);
        let cut = source.and_then(|source| cut_file(source, expected.size(), out));
        let (found, chunks) = cut.map_err(|source| self.failed(file, source))?;
        match found == expected {
            true => Ok(chunks),
            false => Err(self.changed(file)),
        }
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
