//! The data directory: one coordinator at a time, of a version that understands it, and small files in
//! it that are replaced whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::disk;

/// The version of what this program keeps in its data directory.
const VERSION: u32 = 1;

/// A data directory that this process alone uses, until it is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be made, read or written: look at its owner, its mode and the disk.
    #[error("failed to {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another coordinator runs on it. Stop that one, or name another directory.
    #[error("data directory `{}` is in use by another coordinator", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A newer program has written it. Use that one, or a directory of its own.
    #[error(
        "data directory `{}` is of version {found}; this program knows versions up to {VERSION}",
        path.display()
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The version that it says.
        found: u32,
    },
    /// Its version file says no version. The directory is something else's, or damaged.
    #[error("`{}` holds {found:?}, which is no version", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
}

impl Directory {
    /// Takes the directory at `path`, making it if need be.
    ///
    /// # Errors
    ///
    /// If another coordinator has it, a newer one has written it, or the system refuses.
    pub(crate) fn open(path: &Path) -> Result<Self, DirectoryError> {
        create(path)?;
        let lock_path = path.join("lock");
        let lock = private()
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|source| failed("open", &lock_path, source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let path = path.to_owned();
                return Err(DirectoryError::Locked { path });
            }
            Err(error) => return Err(failed("lock", &lock_path, error.into())),
        }
        check_version(path)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The path of what is called `name` in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of the directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes the disk has left for this process.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        free_bytes(&self.path)
    }
}

/// How many bytes the file system below `path` has free for us.
///
/// # Errors
///
/// If the system does not say.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn check_version(directory: &Path) -> Result<(), DirectoryError> {
    let path = directory.join("version");
    match fs::read_to_string(&path) {
        Ok(found) => match found.trim().parse() {
            Ok(found) if VERSION < found => Err(DirectoryError::Newer {
                path: directory.to_owned(),
                found,
            }),
            Ok(VERSION) => Ok(()),
            Ok(_) => write_version(&path),
            Err(_) => Err(DirectoryError::Version { path, found }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_version(&path),
        Err(source) => Err(failed("read", &path, source)),
    }
}

/// Says from here on that programs of older versions may not understand what is kept.
fn write_version(path: &Path) -> Result<(), DirectoryError> {
    let text = format!("{VERSION}\n");
    replace(path, &[text.as_bytes()]).map_err(|source| failed("write", path, source))
}

/// Makes the directory at `path`, and those above it, for this user only and durably.
///
/// # Errors
///
/// If the system refuses.
pub(crate) fn create(path: &Path) -> Result<(), DirectoryError> {
    let missing: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| failed("create directory", path, source))?;
    for made in missing {
        sync_parent(made).map_err(|source| failed("sync the parent of", made, source))?;
    }
    Ok(())
}

/// Puts `parts`, one after the other, in place of the file at `path`, so that a reader, and a start after a
/// power cut, finds either the old bytes or the new ones.
///
/// # Errors
///
/// If the system refuses; the old file is there still.
pub(crate) fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = private().create(true).truncate(true).open(&temporary)?;
    for part in parts {
        file.write_all(part)?;
    }
    disk::sync_all(&file)?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes durable that the file at `path` is there, or is not there any more.
///
/// # Errors
///
/// If the system refuses.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .expect("files of the coordinator are in a directory");
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    disk::sync_all(&File::open(parent)?)
}

/// How files of the coordinator are opened: read and written by this user only.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_coordinator_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("farm/coordinator");
        let first = Directory::open(&path).unwrap();
        assert!(matches!(
            Directory::open(&path),
            Err(DirectoryError::Locked { .. })
        ));
        drop(first);
        Directory::open(&path).unwrap();
    }

    #[test]
    fn a_directory_of_a_newer_version_is_refused_and_both_are_named() {
        let home = tempfile::tempdir().unwrap();
        drop(Directory::open(home.path()).unwrap());
        fs::write(home.path().join("version"), "7\n").unwrap();
        let message = Directory::open(home.path()).unwrap_err().to_string();
        assert!(
            message.contains("version 7") && message.contains("up to 1"),
            "{message}"
        );
        fs::write(home.path().join("version"), "new").unwrap();
        let message = Directory::open(home.path()).unwrap_err().to_string();
        assert!(message.contains("\"new\""), "{message}");
    }

    #[test]
    fn a_replaced_file_is_whole_and_nothing_is_left_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("members");
        replace(&path, &[b"o", b"ne"]).unwrap();
        replace(&path, &[b"two"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_older_directory_is_of_this_version_from_its_first_start_on() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("version");
        fs::write(&version, "0\n").unwrap();
        drop(Directory::open(folder.path()).unwrap());
        assert_eq!(fs::read_to_string(version).unwrap(), "1\n");
    }
}
