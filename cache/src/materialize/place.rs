//! Brings a tree that was unpacked aside to where it belongs. Blocks.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use protocol::{path::TreePath, tree::EntryKind};
use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fstat, fstatfs,
        lstat, open, renameat, statat,
    },
    io::Errno,
    process::geteuid,
};

use super::{
    MaterializeError,
    parents::open_or_create,
    unpack::{USUAL_DIRECTORY, Unpacking, write_error},
};
use crate::{
    beneath::{DIRECTORY, Root},
    ongoing::{self, owned},
};

/// How the names of directories start in which a tree is being unpacked. What a killed program left
/// behind is known by it, see [`remove_partials`].
pub const PARTIAL_PREFIX: &str = ".grange-partial-";

/// How many names are tried. Only what was left behind by an earlier program with this one's process id, or is
/// unpacked by one in another container, is in the way.
const NAMES_MAX: usize = 10_000;

/// A directory in which a tree is being unpacked.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) path: PathBuf,
    /// Whether what is in it is still to be thrown away.
    unfinished: bool,
    /// The directory, locked: says that it is no leftover.
    directory: OwnedFd,
}

impl Drop for Partial {
    /// Removes what was given up. Not here, where a task may be that must not block; and if the program
    /// ends first, the name tells what it is.
    fn drop(&mut self) {
        if self.unfinished {
            let path = std::mem::take(&mut self.path);
            thread::spawn(owned(move || remove_tree(&path)));
        }
    }
}

impl Partial {
    /// Makes a fresh one in `directory`.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        for _ in 0..NAMES_MAX {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{PARTIAL_PREFIX}{}-{number}", process::id());
            let path = directory.join(name);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created?,
            }
            // Before it was locked somebody may have taken it for a leftover.
            if let Some(directory) = lock(&path)?
                && is_at(&directory, &path)?
            {
                return Ok(Self {
                    path,
                    unfinished: true,
                    directory,
                });
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The directory itself, which stays locked for as long as this is open too.
    pub(crate) fn root(&self) -> io::Result<Root> {
        Ok(self.directory.try_clone()?.into())
    }

    /// Gives it its final mode and name. An empty directory of that name gives way.
    pub(crate) fn rename(&self, target: &Path, permissions: u32) -> io::Result<()> {
        fchmod(&self.directory, Mode::from_raw_mode(permissions))?;
        fs::rename(&self.path, target)
    }

    /// What was in it is where it belongs.
    pub(crate) fn keep(mut self) {
        self.unfinished = false;
    }

    /// Takes it away with all that it holds.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_locked(&self.path, &self.directory)
    }
}

/// Locks a directory; `None`: it is not there, or another program has it. On a file system without locks everybody
/// does: who unpacks there is in nobody's way, and [`remove_partials`] leaves it alone.
pub(super) fn lock(path: &Path) -> io::Result<Option<OwnedFd>> {
    let directory = match open(path, DIRECTORY.union(OFlags::NOFOLLOW), Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(None),
        _ => Ok(Some(directory)),
    }
}

/// Whether this open directory is what is at `path`.
fn is_at(directory: &OwnedFd, path: &Path) -> io::Result<bool> {
    let node = |stat: Stat| (stat.st_dev, stat.st_ino);
    match lstat(path) {
        Err(Errno::NOENT) => Ok(false),
        found => Ok(node(found?) == node(fstat(directory)?)),
    }
}

/// Removes what programs of this user that are no more left half-unpacked in `directory`, if that is there. Blocks.
///
/// What a program unpacks meanwhile is locked, and stays. Where locks may be seen by one machine only, everything
/// stays: on network file systems, and on those of FUSE, which may be such.
///
/// # Errors
///
/// If the directory cannot be read, or something in it not removed; then the rest is removed all the same.
pub fn remove_partials(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut all = Ok(());
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_bytes().starts_with(PARTIAL_PREFIX.as_bytes()) {
            let removed = match remove_leftover(&entry.path()) {
                // Somebody else has removed it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            all = all.and(removed);
        }
    }
    all
}

/// Removes a directory in which something was unpacked, if it is sure that nobody does any more.
fn remove_leftover(path: &Path) -> io::Result<()> {
    if !is_own(&lstat(path)?) {
        return Ok(());
    }
    let directory = open(path, DIRECTORY.union(OFlags::NOFOLLOW), Mode::empty())?;
    let is_left = is_locked_for_all(&directory)?
        && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok();
    // Until it was locked, something else may have got its name.
    if is_left && is_at(&directory, path)? && is_own(&fstat(&directory)?) {
        return remove_locked(path, &directory);
    }
    Ok(())
}

/// Whether it is a directory that is this user's alone, as all are that are made to unpack in.
fn is_own(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Directory
        && found.st_uid == geteuid().as_raw()
        && Mode::from_raw_mode(found.st_mode) & RIGHTS == Mode::RWXU
}

/// What the owner, the group and all others may do.
const RIGHTS: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

/// Whether everybody who can see this directory sees who has locked it.
fn is_locked_for_all(directory: &OwnedFd) -> io::Result<bool> {
    Ok(!LOCKED_FOR_ONE.contains(&fstatfs(directory)?.f_type))
}

/// File systems on which a lock may be seen by one machine only, or be none.
const LOCKED_FOR_ONE: [i64; 6] = [
    NFS_SUPER_MAGIC,
    CIFS_SUPER_MAGIC,
    SMB2_SUPER_MAGIC,
    FUSE_SUPER_MAGIC,
    V9FS_MAGIC,
    CEPH_SUPER_MAGIC,
];

// As `linux/magic.h` has them.
const NFS_SUPER_MAGIC: i64 = 0x6969;
const CIFS_SUPER_MAGIC: i64 = 0xff53_4d42;
const SMB2_SUPER_MAGIC: i64 = 0xfe53_4d42;
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;
const V9FS_MAGIC: i64 = 0x0102_1997;
const CEPH_SUPER_MAGIC: i64 = 0x00c3_6400;

/// What owner, group and others may do with the directory at `path`; `None`: there is none.
pub(super) fn permissions_of(path: &Path) -> Option<u32> {
    let found = lstat(path).ok()?;
    let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    is_directory.then_some(found.st_mode & RIGHTS.as_raw_mode())
}

/// Removes a directory with all that it holds, also what is in directories that nobody may write to
/// (as Go's module cache has). Blocks.
///
/// # Errors
///
/// If something in it cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    remove(path, || {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    })
}

/// The same for one that is open, whatever has its name meanwhile.
fn remove_locked(path: &Path, directory: &OwnedFd) -> io::Result<()> {
    remove(path, || Ok(fchmod(directory, Mode::RWXU)?))
}

/// Removes a directory with all that it holds; if something may not be written to, after `make_writable` did that for
/// the directory itself.
fn remove(path: &Path, make_writable: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            make_writable()?;
            make_writable_below(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

fn make_writable_below(path: &Path) -> io::Result<()> {
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            // Of the entry itself: links to directories are none.
            if entry.file_type()?.is_dir() {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700))?;
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Moves what was unpacked into the directory `target`, which may hold other things. What it holds under
/// the same paths is replaced, but directories stay as they are, and no link is followed.
pub(crate) fn merge(unpacking: &Unpacking, target: &Root) -> Result<(), MaterializeError> {
    let entries = unpacking.plan.contents.tree.entries();
    let mut fresh = vec![false; entries.len()];
    let mut moved: Option<&TreePath> = None;
    for (index, entry) in entries.iter().enumerate() {
        ongoing::check().map_err(|source| write_error(&entry.path, source))?;
        if moved.is_some_and(|moved| entry.path.is_within(moved)) {
            fresh[index] = true;
            continue;
        }
        let is_directory = matches!(entry.kind, EntryKind::Directory { .. });
        if move_entry(unpacking, target, &entry.path, is_directory)? {
            fresh[index] = true;
            moved = is_directory.then_some(&entry.path);
        }
    }
    unpacking.finish_directories(target, |index| fresh[index])
}

/// Moves one entry to its place, a directory with all that it holds; `false` if it is a directory and
/// there is one already.
fn move_entry(
    unpacking: &Unpacking,
    target: &Root,
    path: &TreePath,
    is_directory: bool,
) -> Result<bool, MaterializeError> {
    let failed = |source: io::Error| match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => {
            MaterializeError::InTheWay { path: path.clone() }
        }
        _ => write_error(path, source),
    };
    let parent = path.parent();
    let to = open_or_create(target, parent.as_ref(), &|_| USUAL_DIRECTORY).map_err(failed)?;
    let from = unpacking
        .root()
        .directory(parent.as_ref())
        .map_err(|source| write_error(path, source))?;
    if is_directory {
        match statat(&to, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Ok(false);
            }
            Ok(_) => return Err(MaterializeError::InTheWay { path: path.clone() }),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(failed(e.into())),
        }
    }
    renameat(&from, path.name(), &to, path.name()).map_err(|e| failed(e.into()))?;
    Ok(true)
}
