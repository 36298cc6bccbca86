//! What was put into the cache from a directory of this machine, so that what has not changed since is
//! not read again.
//!
//! Two things are kept. One is short: what a walk over the whole directory saw, and the tree that came of
//! it; if the next walk sees the same, that is the tree. The other has each file with its stamp (device,
//! inode, length, the times of its last changes) and digest, and each unit that was read with its chunks.
//! An index only saves work: whether the cache still has the chunks is asked each time, and without an
//! index, or with one that is damaged, everything is read.

mod bytes;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process,
};

use protocol::{
    blob::TreeRef,
    digest::{Digest, Hasher, hex},
    path::TreePath,
    tree::EntryKind,
};

use crate::capture::{Found, FoundKind, Stamp, Stamped, Subject};

/// How long before the walk a file has to have been left alone for its stamp to tell it from what it may
/// become, in nanoseconds. Times of files move on with the kernel's tick, every 10 ms at most.
const SETTLED_NANOS: i64 = 100_000_000;
/// The same on a file system that only keeps seconds, or every second one.
const SETTLED_COARSE_NANOS: i64 = 3_000_000_000;
/// How much of an index is read at most, in bytes: a tree of as many entries as there may be has less.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// What a walk saw, and what came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Whole {
    /// What the walk saw, see [`fingerprint`]; `None`: something had changed only just before.
    pub(crate) fingerprint: Option<Digest>,
    /// The tree.
    pub(crate) tree: TreeRef,
    /// The chunks of its files.
    pub(crate) chunks: Vec<Digest>,
    /// How many files it has, and how many bytes.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Files as they were when they were read, and units with their chunks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct IndexedFiles {
    /// In tree order.
    files: Vec<Stamped>,
    units: Units,
}

impl IndexedFiles {
    pub(crate) const fn new(files: Vec<Stamped>, units: Units) -> Self {
        Self { files, units }
    }

    /// What the file at `path` is, if it still has this stamp.
    pub(crate) fn digest(&self, path: &TreePath, stamp: &Stamp) -> Option<Digest> {
        let found = self.files.binary_search_by(|file| file.path.cmp(path));
        let file = &self.files[found.ok()?];
        (file.stamp == *stamp).then_some(file.digest)
    }

    /// The chunks of a unit, in order.
    pub(crate) fn chunks(&self, name: &[u8; 32]) -> Option<&[Digest]> {
        self.units.get(name).map(Vec::as_slice)
    }
}

/// What units were cut into, by [`unit_name`].
pub(crate) type Units = BTreeMap<[u8; 32], Vec<Digest>>;

/// What tells a unit from all others: the digests of its files, in order.
pub(crate) fn unit_name<'a>(files: impl IntoIterator<Item = &'a Digest>) -> [u8; 32] {
    let mut hasher = Hasher::default();
    for file in files {
        hasher.update(file.hash());
        hasher.update(&file.size().to_le_bytes());
    }
    *hasher.finish().hash()
}

/// Whether a change after the moment `now` would give a file that last changed at `changed` another
/// stamp; both in nanoseconds since 1970.
pub(crate) const fn is_settled(changed: i64, now: i64) -> bool {
    let needed = if changed % 1_000_000_000 == 0 {
        SETTLED_COARSE_NANOS
    } else {
        SETTLED_NANOS
    };
    changed < now.saturating_sub(needed)
}

/// All that a walk saw, which began at the moment `now`; `None` if something had changed only just
/// before, so that another change might not be seen.
pub(crate) fn fingerprint(found: &[Found], now: i64) -> Option<Digest> {
    if !found.iter().all(|entry| is_settled(entry.changed, now)) {
        return None;
    }
    let mut hasher = Hasher::default();
    let mut row = Vec::new();
    for entry in found {
        row.clear();
        let path = entry.path.as_bytes();
        row.extend((path.len() as u64).to_le_bytes());
        row.extend_from_slice(path);
        for number in [entry.node.0, entry.node.1, entry.size] {
            row.extend(number.to_le_bytes());
        }
        for time in [entry.modified, entry.changed] {
            row.extend(time.to_le_bytes());
        }
        let links = u32::from(entry.shared_node.is_some());
        for number in [entry.mode, entry.owner.0, entry.owner.1, links] {
            row.extend(number.to_le_bytes());
        }
        // What else there is to an entry changes the time of its last change.
        row.push(match &entry.kind {
            FoundKind::File => 0,
            FoundKind::Other(EntryKind::Directory { .. }) => 1,
            FoundKind::Other(EntryKind::Symlink { .. }) => 2,
            FoundKind::Other(_) => 3,
        });
        hasher.update(&row);
    }
    Some(hasher.finish())
}

/// The file of an index.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalIndex {
    file: PathBuf,
}

impl LocalIndex {
    /// The index in `directory` of `subject`, whose root is a full path.
    pub fn new(directory: &Path, subject: &Subject) -> Self {
        let mut name = subject.root().as_os_str().as_bytes().to_vec();
        // No path has a zero byte.
        name.push(0);
        name.extend(subject.kind());
        let name = hex(&Digest::of(&name).hash()[..16]);
        Self {
            file: directory.join(name),
        }
    }

    /// What the walk saw the last time. Blocks.
    pub(crate) fn whole(&self) -> Option<Whole> {
        bytes::decode_whole(&self.read("whole")?)
    }

    /// The files of the last time. Blocks.
    pub(crate) fn files(&self) -> Option<IndexedFiles> {
        bytes::decode_files(&self.read("files")?)
    }

    /// Keeps both for the next time. Blocks.
    ///
    /// # Errors
    ///
    /// If they cannot be written; then some of it is as it was.
    pub(crate) fn keep(&self, whole: &Whole, files: &IndexedFiles) -> io::Result<()> {
        self.write("files", &bytes::encode_files(&files.files, &files.units))?;
        self.write("whole", &bytes::encode_whole(whole))
    }

    /// What is there; `None` if there is nothing, or it is damaged.
    fn read(&self, part: &str) -> Option<Vec<u8>> {
        let path = self.file.with_extension(part);
        let size = path.metadata().ok()?.len();
        if INDEX_BYTES_MAX < size {
            return None;
        }
        let mut bytes = fs::read(path).ok()?;
        let end = bytes.len().checked_sub(32)?;
        let is_whole = Digest::of(&bytes[..end]).hash() == &bytes[end..];
        bytes.truncate(end);
        is_whole.then_some(bytes)
    }

    /// Writes it aside and renames it, so that others read either what was there or this.
    fn write(&self, part: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.file.with_extension(part);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let aside = self
            .file
            .with_extension(format!("{part}-{}", process::id()));
        let whole = [bytes, Digest::of(bytes).hash()].concat();
        let written = fs::write(&aside, whole).and_then(|()| fs::rename(&aside, &path));
        if written.is_err() {
            // It may not even have been made.
            let _left = fs::remove_file(&aside);
        }
        written
    }
}
