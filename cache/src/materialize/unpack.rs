//! Writes a tree into an empty directory, chunk by chunk, in any order. Blocks.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    thread,
};

use protocol::{
    digest::{Digest, Hasher},
    path::TreePath,
    tree::EntryKind,
};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, XattrFlags, fsetxattr, fstat, ftruncate, linkat, makedev,
        mkdirat, mknodat, openat, symlinkat, unlinkat,
    },
    io::{Errno, pread, pwrite},
};

use super::{
    MaterializeError, Owner,
    parents::Parents,
    plan::{Plan, Use, outside_holes},
    restore::{Made, restore_entry, restore_file, wanted_mode},
};
use crate::{beneath::Root, ongoing};

/// How much is read at once to verify a file.
const BUFFER_BYTES: usize = 256 * 1024;
/// What is created in more than one step has until its last one.
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
/// A directory of another mode than the usual one is created with this, and gets its own at the end.
const PRIVATE_DIRECTORY: u32 = 0o700;
/// The usual one.
pub(super) const USUAL_DIRECTORY: u32 = 0o755;
/// What may be set when something is created.
const PERMISSIONS: u32 = 0o777;
/// The name of a file that is only there to look at what new files get.
const PROBE: &str = "probe";
/// How many threads give directories their attributes: the rest of the machine may have other work.
const FINISHERS_MAX: usize = 4;

/// A tree that is being written.
#[derive(Debug)]
pub(crate) struct Unpacking {
    pub(crate) plan: Plan,
    pub(crate) settings: Settings,
    root: Root,
    /// For each distinct file how many of its pieces are not written yet.
    left: Vec<AtomicU32>,
    /// What new files get here without asking.
    pub(crate) fresh: Fresh,
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

/// What new files get without asking: so much need not be restored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    /// The permissions that the process's mask and the directory's access list let pass.
    pub(crate) permissions: u32,
    /// User and group.
    pub(crate) owner: (u32, u32),
    /// Whether directories get a bit more than they ask for, which hands on their group.
    pub(crate) inherits: bool,
}

impl Fresh {
    /// Finds out in the directory `root`, which is empty.
    fn probe(root: &Root) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let all = Mode::from_raw_mode(PERMISSIONS);
        let file = openat(root.as_fd(), PROBE, flags, all)?;
        let stat = fstat(&file);
        unlinkat(root.as_fd(), PROBE, AtFlags::empty())?;
        let stat = stat?;
        let inherits = fstat(root.as_fd())?.st_mode & 0o2000 != 0;
        Ok(Self {
            inherits,
            permissions: stat.st_mode & PERMISSIONS,
            owner: (stat.st_uid, stat.st_gid),
        })
    }
}

impl Unpacking {
    /// Prepares to unpack into `root`, which is empty.
    pub(crate) fn new(plan: Plan, settings: Settings, root: Root) -> io::Result<Self> {
        let left = plan.files.iter().map(|file| AtomicU32::new(file.pieces));
        Ok(Self {
            left: left.collect(),
            plan,
            settings,
            fresh: Fresh::probe(&root)?,
            root,
            refused: AtomicU64::new(0),
        })
    }

    /// The directory that is written into.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// Creates everything that has no bytes; files may be written meanwhile, and what they need may be
    /// there already.
    pub(crate) fn lay_out(&self) -> Result<(), MaterializeError> {
        let mut parents = self.parents();
        for (index, entry) in self.plan.contents.tree.entries().iter().enumerate() {
            if self.plan.hard_link(index).is_some() {
                continue;
            }
            let failed = |source| write_error(&entry.path, source);
            ongoing::check().map_err(failed)?;
            let parent = parents.of(&entry.path).map_err(failed)?;
            self.create(parent, index).map_err(failed)?;
        }
        for &index in &self.plan.empty {
            self.write_whole(&mut parents, index, &[])?;
        }
        Ok(())
    }

    fn parents(&self) -> Parents<'_> {
        Parents::new(&self.root, |path| self.directory_mode(path))
    }

    /// What the directory at `path` is created with.
    fn directory_mode(&self, path: &TreePath) -> u32 {
        match self.plan.contents.tree.find(path) {
            Some((index, _)) if wanted_mode(self, index) != USUAL_DIRECTORY => PRIVATE_DIRECTORY,
            _ => USUAL_DIRECTORY,
        }
    }

    fn create(&self, parent: BorrowedFd<'_>, index: usize) -> io::Result<()> {
        let entry = self.plan.entry(index);
        let name = entry.path.name();
        let node = |of, device| mknodat(parent, name, of, PRIVATE_FILE, device);
        match &entry.kind {
            EntryKind::File { .. } => return Ok(()),
            EntryKind::Directory { .. } => {
                let mode = Mode::from_raw_mode(self.directory_mode(&entry.path));
                return match mkdirat(parent, name, mode) {
                    // Somebody who writes a file in it was quicker.
                    Ok(()) | Err(Errno::EXIST) => Ok(()),
                    Err(e) => Err(e.into()),
                };
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
        let mut parents = self.parents();
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
                    self.write_whole(&mut parents, entry, piece)?;
                } else {
                    let path = &self.plan.entry(entry).path;
                    self.write_piece(&mut parents, (entry, of), piece)
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
    fn write_whole(
        &self,
        parents: &mut Parents<'_>,
        entry: usize,
        bytes: &[u8],
    ) -> Result<(), MaterializeError> {
        let path = &self.plan.entry(entry).path;
        let mut write = || {
            ongoing::check()?;
            let wanted = wanted_mode(self, entry);
            let mode = Mode::from_raw_mode(wanted & PERMISSIONS);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let file = openat(parents.of(path)?, path.name(), flags | ALWAYS, mode)?;
            write_all(file.as_fd(), bytes, 0)?;
            let has_mode = wanted & !self.fresh.permissions == 0;
            restore_file(self, file.as_fd(), (entry, Made { has_mode }))
        };
        write().map_err(|source| write_error(path, source))
    }

    /// Writes a part of a file, but for its holes.
    fn write_piece(
        &self,
        parents: &mut Parents<'_>,
        (entry, of): (usize, &Use),
        piece: &[u8],
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let path = &self.plan.entry(entry).path;
        let file = openat(parents.of(path)?, path.name(), flags | ALWAYS, PRIVATE_FILE)?;
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
            let made = Made { has_mode: false };
            restore_file(self, opened.as_fd(), (entry, made)).map_err(failed)?;
        }
        Ok(())
    }

    /// Gives things their second names. Every file has to be written.
    pub(crate) fn link(&self) -> Result<(), MaterializeError> {
        let (mut from, mut to) = (self.parents(), self.parents());
        for (index, entry) in self.plan.contents.tree.entries().iter().enumerate() {
            let Some(first) = self.plan.hard_link(index) else {
                continue;
            };
            let mut link = || {
                ongoing::check()?;
                let old = &self.plan.entry(first).path;
                let (from, to) = (from.of(old)?, to.of(&entry.path)?);
                let name = entry.path.name();
                io::Result::Ok(linkat(from, old.name(), to, name, AtFlags::empty())?)
            };
            link().map_err(|source| write_error(&entry.path, source))?;
        }
        Ok(())
    }

    /// Gives directories their attributes, when all that is in them is there, since what is done in one
    /// changes its time. They are below `root`; `chosen` says which.
    pub(crate) fn finish_directories(
        &self,
        root: &Root,
        chosen: impl Fn(usize) -> bool,
    ) -> Result<(), MaterializeError> {
        let entries = self.plan.contents.tree.entries();
        let is_chosen = |&index: &usize| {
            matches!(entries[index].kind, EntryKind::Directory { .. }) && chosen(index)
        };
        let directories = (0..entries.len()).filter(is_chosen);
        let (open, closed): (Vec<_>, Vec<_>) =
            directories.partition(|&index| wanted_mode(self, index) & 0o700 == 0o700);
        let threads = thread::available_parallelism().map_or(1, Into::into);
        let threads = threads.min(FINISHERS_MAX).min(1 + open.len() / 64);
        let next = AtomicUsize::new(0);
        let finish_some = || {
            while let Some(&index) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.finish_directory(root, index)?;
            }
            Ok::<(), MaterializeError>(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|_| scope.spawn(ongoing::owned(finish_some)))
                .collect();
            let mut ended = threads.into_iter().map(thread::ScopedJoinHandle::join);
            ended.try_for_each(|ended| ended.expect("restoring does not panic"))
        })?;
        // These bar the way to what is in them, so the innermost goes first.
        let mut closed = closed.into_iter().rev();
        closed.try_for_each(|index| self.finish_directory(root, index))
    }

    fn finish_directory(&self, root: &Root, index: usize) -> Result<(), MaterializeError> {
        let entry = self.plan.entry(index);
        let finish = || {
            ongoing::check()?;
            let directory = root.directory(Some(&entry.path))?;
            if matches!(entry.kind, EntryKind::Directory { opaque: true }) {
                fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty())?;
            }
            let wanted = wanted_mode(self, index);
            let is_usual = wanted == USUAL_DIRECTORY && !self.fresh.inherits;
            let has_mode = is_usual && wanted & !self.fresh.permissions == 0;
            restore_file(self, directory.as_fd(), (index, Made { has_mode }))
        };
        finish().map_err(|source| write_error(&entry.path, source))
    }
}

/// What every file is opened with: a link in its place is an error.
const ALWAYS: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// What makes a directory opaque for overlayfs.
const OPAQUE: &str = "trusted.overlay.opaque";

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
        ongoing::check()?;
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
