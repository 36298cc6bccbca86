//! Where the bytes of a captured tree are until they are stored.

use std::{collections::BTreeMap, fs::File, io, sync::Arc};

use bytes::Bytes;
use protocol::{digest::Digest, path::TreePath};
use rustix::fs::{Mode, OFlags};

use crate::beneath::Root;

/// Where the bytes of each distinct file are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    pub(super) roots: Vec<Arc<Root>>,
    pub(super) files: BTreeMap<Digest, Source>,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// On disk, below one of the roots.
    Disk { root: usize, path: TreePath },
    /// In memory: what stands in the place of a file's own bytes.
    Memory(Bytes),
}

impl Sources {
    /// Opens the file with this digest.
    pub(crate) fn open(&self, digest: &Digest) -> io::Result<Box<dyn io::Read>> {
        match self.get(digest) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Source::Memory(bytes)) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            Some(Source::Disk { root, path }) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                let file = self.root(*root).open_at(path, flags, Mode::empty())?;
                Ok(Box::new(File::from(file)))
            }
        }
    }

    /// Where the bytes of the file with this digest are.
    pub(crate) fn get(&self, digest: &Digest) -> Option<&Source> {
        self.files.get(digest)
    }

    /// The directory that a source is in.
    pub(crate) fn root(&self, index: usize) -> &Root {
        &self.roots[index]
    }
}
