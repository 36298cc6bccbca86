//! Brings a tree that was unpacked aside to where it belongs. Blocks.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use protocol::{path::TreePath, tree::EntryKind};
use rustix::{
    fs::{AtFlags, FileType, renameat, statat},
    io::Errno,
};

use super::{
    MaterializeError,
    parents::open_or_create,
    unpack::{USUAL_DIRECTORY, Unpacking, write_error},
};
use crate::{
    beneath::Root,
    ongoing::{self, owned},
};

/// How the names of directories start in which a tree is being unpacked. What a killed program left
/// behind is known by it, see [`remove_partials`].
pub const PARTIAL_PREFIX: &str = ".grange-partial-";

/// How many names are tried. Only what was left behind by an earlier program with this one's process id
/// is in the way.
const NAMES_MAX: usize = 10_000;

/// A directory in which a tree is being unpacked.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) path: PathBuf,
    /// Whether what is in it is still to be thrown away.
    unfinished: bool,
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
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                created => {
                    let unfinished = true;
                    return created.map(|()| Self { path, unfinished });
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Gives it its final name. An empty directory of that name gives way.
    pub(crate) fn rename(&self, target: &Path) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o755))?;
        fs::rename(&self.path, target)
    }

    /// What was in it is where it belongs.
    pub(crate) fn keep(mut self) {
        self.unfinished = false;
    }

    /// Takes it away with all that it holds.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

/// Removes what programs that are no more left half-unpacked in `directory`. Blocks.
///
/// What a program of this machine unpacks meanwhile stays; what one of another machine does in a
/// directory that both share does not.
///
/// # Errors
///
/// If the directory cannot be read, or something in it not removed.
pub fn remove_partials(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_abandoned) {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether something of this name was being unpacked by a program that is no more.
fn is_abandoned(name: &str) -> bool {
    let numbers = name.strip_prefix(PARTIAL_PREFIX);
    let process = numbers.and_then(|numbers| numbers.split('-').next()?.parse::<u32>().ok());
    let processes = Path::new("/proc");
    // Where that is not there, nobody is known to have ended.
    let is_known = processes.join("self").exists();
    process.is_some_and(|process| is_known && !processes.join(process.to_string()).exists())
}

/// Removes a directory with all that it holds, also what is in directories that nobody may write to
/// (as Go's module cache has). Blocks.
///
/// # Errors
///
/// If something in it cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

fn make_writable(path: &Path) -> io::Result<()> {
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            // Of the entry itself: links to directories are none.
            if entry.file_type()?.is_dir() {
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
