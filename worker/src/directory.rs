//! The worker's data directory: one worker at a time, of a version that understands it.
//!
//! `layers` holds unpacked layers and outlives the worker. `attempts` holds what running attempts need
//! and `units` the state of units at isolation level `host`; what a worker before this one left there
//! belongs to nobody any more, and is removed at the start.

mod before;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use protocol::worker::Incarnation;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tracing::warn;

use crate::{layers::remove, sandbox::await_keepers};

/// The version of what this program keeps in its data directory.
const VERSION: u32 = 1;

/// A data directory that this process alone uses, until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    lock: File,
    /// The process that had it before, if nothing that it started runs any more.
    before: Option<Incarnation>,
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
    /// Another worker runs on it. Stop that one, or name another directory.
    #[error("data directory `{}` is in use by another worker", path.display())]
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
    #[error("`{}` holds `{found}`, which is no version", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
}

impl DataDirectory {
    /// Takes the directory at `path`, making it if need be, and removes what a worker before left
    /// half-done. Blocking.
    ///
    /// # Errors
    ///
    /// If another worker has it, a newer one has written it, or the system refuses.
    pub(crate) fn open(path: &Path) -> Result<Self, DirectoryError> {
        create(path)?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let path = path.to_owned();
                return Err(DirectoryError::Locked { path });
            }
            Err(error) => return Err(failed("lock", &lock_path)(error.into())),
        }
        check_version(path)?;
        let mut directory = Self {
            path: path.to_owned(),
            lock,
            before: None,
        };
        match await_keepers(&directory.keepers(), &directory.units()) {
            Ok(true) => directory.before = before::read(&directory.process(), &directory.lock),
            Ok(false) => warn!("what a worker before started may run on"),
            Err(error) => warn!(%error, "keepers of a worker before cannot be waited for"),
        }
        for area in [directory.attempts(), directory.units()] {
            clean_up(&area);
            create(&area)?;
        }
        Ok(directory)
    }

    /// The process that had the directory before this one, if it is certain that nothing of what that one
    /// started runs any more.
    pub(crate) const fn before(&self) -> Option<Incarnation> {
        self.before
    }

    /// Takes the directory as the process `incarnation`. Blocking.
    pub(crate) fn take(&self, incarnation: Incarnation) {
        if let Err(error) = before::write(&self.process(), &self.lock, incarnation) {
            // The process after this one knows less than it could, and its predecessor's leases run out.
            warn!(%error, "which process has the data directory cannot be written down");
        }
    }

    /// Which process has the directory.
    fn process(&self) -> PathBuf {
        self.path.join("process")
    }

    /// All of it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where certificate and key are.
    pub(crate) fn identity(&self) -> PathBuf {
        self.path.join("identity")
    }

    /// What keepers hold as long as anything of theirs runs.
    pub(crate) fn keepers(&self) -> PathBuf {
        self.path.join("keepers")
    }

    /// Where unpacked layers are.
    pub(crate) fn layers(&self) -> PathBuf {
        self.path.join("layers")
    }

    /// Where running attempts keep what they need.
    pub(crate) fn attempts(&self) -> PathBuf {
        self.path.join("attempts")
    }

    /// Where the state of units is at isolation level `host`.
    pub(crate) fn units(&self) -> PathBuf {
        self.path.join("units")
    }
}

/// Removes what a worker before left in `area`. What cannot be removed is no reason not to start: every
/// attempt and every unit makes its own directory anew, and says so if it cannot.
fn clean_up(area: &Path) {
    for entry in fs::read_dir(area).into_iter().flatten().flatten() {
        if let Err(error) = remove(&entry.path()) {
            warn!(path = %entry.path().display(), %error, "what a worker before left stays");
        }
    }
}

fn create(path: &Path) -> Result<(), DirectoryError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(failed("create", path))
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
            // Programs of older versions may not understand what this one writes.
            Ok(_) => write_version(directory, &path).map_err(failed("write", &path)),
            Err(_) => Err(DirectoryError::Version { path, found }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_version(directory, &path).map_err(failed("write", &path))
        }
        Err(source) => Err(failed("read", &path)(source)),
    }
}

/// Writes the version whole or not at all, so that a start that was broken off does not spoil the next.
fn write_version(directory: &Path, path: &Path) -> io::Result<()> {
    let aside = directory.join("version.new");
    let mut file = File::create(&aside)?;
    file.write_all(format!("{VERSION}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(directory)?.sync_all()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |source| DirectoryError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_worker_left_is_removed_and_layers_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker");
        drop(DataDirectory::open(&path).unwrap());
        fs::create_dir_all(path.join("attempts/7/upper")).unwrap();
        fs::create_dir_all(path.join("units/x")).unwrap();
        fs::create_dir_all(path.join("layers/y")).unwrap();
        // Another test that starts a process has a copy of the lock until that runs its program.
        let directory = loop {
            match DataDirectory::open(&path) {
                Err(DirectoryError::Locked { .. }) => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        assert!(!directory.attempts().join("7").exists());
        assert!(!directory.units().join("x").exists());
        assert!(directory.layers().join("y").exists());
    }

    #[test]
    fn what_a_keeper_of_a_host_left_is_killed_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker");
        let units = path.join("units");
        let sleep = |mark: PathBuf| {
            let mut sleep = std::process::Command::new("sleep");
            sleep.arg("1000").env("GRANGE_SANDBOX", mark);
            sleep.spawn().unwrap()
        };
        let mut left = sleep(units.join("0/work"));
        let mut other = sleep(folder.path().join("worker-2/units/0/work"));
        drop(DataDirectory::open(&path).unwrap());
        assert!(left.try_wait().unwrap().is_some());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_process_knows_the_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(folder.path()).unwrap();
        assert_eq!(first.before(), None);
        first.take(Incarnation(7));
        drop(first);
        let second = DataDirectory::open(folder.path()).unwrap();
        assert_eq!(second.before(), Some(Incarnation(7)));
    }

    #[test]
    fn two_workers_cannot_share_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DataDirectory::open(folder.path()).unwrap();
        let second = DataDirectory::open(folder.path());
        assert!(matches!(second, Err(DirectoryError::Locked { .. })));
    }

    #[test]
    fn a_newer_directory_is_refused_with_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("version"), "7\n").unwrap();
        let refused = DataDirectory::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("of version 7"), "{refused}");
        assert!(refused.contains("up to 1"), "{refused}");
    }

    #[test]
    fn an_older_directory_is_of_this_version_from_its_first_start_on() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("version");
        fs::write(&version, "0\n").unwrap();
        drop(DataDirectory::open(folder.path()).unwrap());
        assert_eq!(fs::read_to_string(version).unwrap(), "1\n");
    }
}
