//! Writes a tree into an empty directory, chunk by chunk, in any order. Blocks.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use protocol::{
    digest::{Digest, Hasher},
    path::TreePath,
    tree::EntryKind,
};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, XattrFlags, fsetxattr, ftruncate, linkat, makedev,
        mkdirat, mknodat, symlinkat,
    },
    io::{Errno, pread, pwrite},
};

use super::{
    MaterializeError, Owner,
    plan::{Plan, Use, outside_holes},
    restore::{restore_entry, restore_file},
};
use crate::beneath::Root;

/// How much is read at once to verify a file.
const BUFFER_BYTES: usize = 256 * 1024;
/// What things are created with, until everything in them is written.
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
const PRIVATE_DIRECTORY: Mode = Mode::from_raw_mode(0o700);

/// A tree that is being written.
#[derive(Debug)]
pub(crate) struct Unpacking {
    pub(crate) plan: Plan,
    pub(crate) settings: Settings,
    root: Root,
    /// For each distinct file how many of its pieces are not written yet.
    left: Vec<AtomicU32>,
    /// How many attributes the file system or our rights did not allow to be restored.
    pub(crate) refused: AtomicU64,
}

/// How entries are put back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) owner: Owner,
    /// What entries without a time get, in nanoseconds since 1970.
    pub(crate) default_modified: Option<i64>,
}

impl Unpacking {
    pub(crate) fn new(plan: Plan, settings: Settings, root: Root) -> Self {
        let left = plan.files.iter().map(|file| AtomicU32::new(file.pieces));
        Self {
            left: left.collect(),
            plan,
            settings,
            root,
            refused: AtomicU64::new(0),
        }
    }

    /// The directory that is written into.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// Creates everything that has no bytes.
    pub(crate) fn lay_out(&self) -> Result<(), MaterializeError> {
        let mut parents = Parents::new(&self.root);
        for (index, entry) in self.plan.contents.tree.entries().iter().enumerate() {
            if self.plan.hard_link(index).is_some() {
                continue;
            }
            let failed = |source| write_error(&entry.path, source);
            let parent = parents.of(&entry.path).map_err(failed)?;
            self.create(parent, index).map_err(failed)?;
        }
        for &index in &self.plan.empty {
            self.write_whole(index, &[])?;
        }
        Ok(())
    }

    fn create(&self, parent: BorrowedFd<'_>, index: usize) -> io::Result<()> {
        let entry = self.plan.entry(index);
        let name = entry.path.name();
        let node = |of, device| mknodat(parent, name, of, PRIVATE_FILE, device);
        match &entry.kind {
            EntryKind::File { .. } => return Ok(()),
            EntryKind::Directory { .. } => {
                mkdirat(parent, name, PRIVATE_DIRECTORY)?;
                return Ok(());
            }
            EntryKind::Symlink { target } => symlinkat(target.as_slice(), parent, name)?,
            EntryKind::Whiteout => {
                node(FileType::CharacterDevice, makedev(0, 0))?;
                return Ok(());
            }
            EntryKind::Fifo => node(FileType::Fifo, 0)?,
            EntryKind::Device {
                block,
                major,
                minor,
            } => {
                let of = if *block {
                    FileType::BlockDevice
                } else {
                    FileType::CharacterDevice
                };
                node(of, makedev(*major, *minor))?;
            }
        }
        restore_entry(self, parent, index)
    }

    /// Writes what the chunk at `index` of the layout is used for, and finishes the files that are then
    /// complete. Returns how many bytes of distinct files that were.
    pub(crate) fn write_chunk(&self, index: usize, bytes: &[u8]) -> Result<u64, MaterializeError> {
        let mut written = 0;
        for of in &self.plan.uses[index] {
            let file = &self.plan.files[of.file];
            let piece = &bytes[of.in_chunk..of.in_chunk + of.length];
            if file.pieces == 1 {
                self.check(&file.digest, piece, file.entries[0])?;
            }
            for &entry in &file.entries {
                let has_holes = self
                    .plan
                    .attributes(entry)
                    .is_some_and(|of| !of.holes.is_empty());
                if file.pieces == 1 && !has_holes {
                    self.write_whole(entry, piece)?;
                } else {
                    let path = &self.plan.entry(entry).path;
                    self.write_piece(entry, of, piece)
                        .map_err(|source| write_error(path, source))?;
                }
            }
            written += of.length as u64;
            if self.left[of.file].fetch_sub(1, Ordering::AcqRel) == 1 {
                self.complete(of.file)?;
            }
        }
        Ok(written)
    }

    fn check(&self, digest: &Digest, bytes: &[u8], entry: usize) -> Result<(), MaterializeError> {
        if digest.matches(bytes) {
            return Ok(());
        }
        Err(MaterializeError::Corrupt {
            path: self.plan.entry(entry).path.clone(),
            expected: *digest,
        })
    }

    /// Writes a file whose bytes are all here.
    fn write_whole(&self, entry: usize, bytes: &[u8]) -> Result<(), MaterializeError> {
        let path = &self.plan.entry(entry).path;
        let write = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let file = self.root.open_at(path, flags, PRIVATE_FILE)?;
            write_all(file.as_fd(), bytes, 0)?;
            restore_file(self, file.as_fd(), entry)
        };
        write().map_err(|source| write_error(path, source))
    }

    /// Writes a part of a file, but for its holes.
    fn write_piece(&self, entry: usize, of: &Use, piece: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let file = self
            .root
            .open_at(&self.plan.entry(entry).path, flags, PRIVATE_FILE)?;
        let holes = match self.plan.attributes(entry) {
            Some(of) => of.holes.as_slice(),
            None => &[],
        };
        let end = of.in_file + of.length as u64;
        for (start, end) in outside_holes(holes, of.in_file, end) {
            let within = |at: u64| usize::try_from(at - of.in_file).expect("it is in the piece");
            write_all(file.as_fd(), &piece[within(start)..within(end)], start)?;
        }
        Ok(())
    }

    /// Verifies and finishes a file whose pieces are all written, unless it was written as a whole.
    fn complete(&self, number: usize) -> Result<(), MaterializeError> {
        let file = &self.plan.files[number];
        for &entry in &file.entries {
            let holes = self.plan.attributes(entry).map_or(0, |of| of.holes.len());
            if file.pieces == 1 && holes == 0 {
                continue;
            }
            let path = &self.plan.entry(entry).path;
            let failed = |source| write_error(path, source);
            let open = self.root.open_at(path, OFlags::RDWR, Mode::empty());
            let opened = open.map_err(failed)?;
            ftruncate(&opened, file.digest.size()).map_err(|e| failed(e.into()))?;
            if hash(&opened).map_err(failed)? != file.digest {
                return Err(MaterializeError::Corrupt {
                    path: path.clone(),
                    expected: file.digest,
                });
            }
            restore_file(self, opened.as_fd(), entry).map_err(failed)?;
        }
        Ok(())
    }

    /// Gives things their second names. Every file has to be written.
    pub(crate) fn link(&self) -> Result<(), MaterializeError> {
        for (index, entry) in self.plan.contents.tree.entries().iter().enumerate() {
            let Some(first) = self.plan.hard_link(index) else {
                continue;
            };
            let link = || {
                let old = &self.plan.entry(first).path;
                let from = self.root.directory(old.parent().as_ref())?;
                let to = self.root.directory(entry.path.parent().as_ref())?;
                let name = entry.path.name();
                io::Result::Ok(linkat(&from, old.name(), &to, name, AtFlags::empty())?)
            };
            link().map_err(|source| write_error(&entry.path, source))?;
        }
        Ok(())
    }

    /// Gives directories their attributes, innermost first, since what is done in one changes its time.
    /// They are below `root`; `chosen` says which.
    pub(crate) fn finish_directories(
        &self,
        root: &Root,
        chosen: impl Fn(usize) -> bool,
    ) -> Result<(), MaterializeError> {
        for (index, entry) in self.plan.contents.tree.entries().iter().enumerate().rev() {
            let EntryKind::Directory { opaque } = entry.kind else {
                continue;
            };
            if !chosen(index) {
                continue;
            }
            let finish = || {
                let directory = root.directory(Some(&entry.path))?;
                if opaque {
                    fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty())?;
                }
                restore_file(self, directory.as_fd(), index)
            };
            finish().map_err(|source| write_error(&entry.path, source))?;
        }
        Ok(())
    }
}

/// What makes a directory opaque for overlayfs.
const OPAQUE: &str = "trusted.overlay.opaque";

/// The directory that was worked in last, since entries of one follow each other; creates those that
/// the tree does not list.
struct Parents<'a> {
    root: &'a Root,
    open: Option<(Option<TreePath>, OwnedFd)>,
}

impl<'a> Parents<'a> {
    fn new(root: &'a Root) -> Self {
        Self { root, open: None }
    }

    fn of(&mut self, path: &TreePath) -> io::Result<BorrowedFd<'_>> {
        let parent = path.parent();
        if self.open.as_ref().is_none_or(|(open, _)| *open != parent) {
            let directory = open_or_create(self.root, parent.as_ref())?;
            self.open = Some((parent, directory));
        }
        let (_, directory) = self.open.as_ref().expect("it was just opened");
        Ok(directory.as_fd())
    }
}

/// Opens a directory; creates it, and those that lead to it, if it is not there.
pub(crate) fn open_or_create(root: &Root, path: Option<&TreePath>) -> io::Result<OwnedFd> {
    let (Some(path), Err(e)) = (path, root.directory(path)) else {
        return root.directory(path);
    };
    if e.kind() != io::ErrorKind::NotFound {
        return Err(e);
    }
    let outer = open_or_create(root, path.parent().as_ref())?;
    match mkdirat(&outer, path.name(), Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => root.directory(Some(path)),
        Err(e) => Err(e.into()),
    }
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = pwrite(file, bytes, at)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

fn hash(file: &OwnedFd) -> io::Result<Digest> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hasher = Hasher::default();
    let mut at = 0;
    loop {
        let length = pread(file, &mut *buffer, at)?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
}

pub(crate) fn write_error(path: &TreePath, source: io::Error) -> MaterializeError {
    MaterializeError::Write {
        path: path.clone(),
        source,
    }
}
