//! The logs of attempts: append-only files `logs/<build>/<job>.<attempt>`, whose bytes are addressed by
//! their offset, appended once and durable before anybody is told of them.
//!
//! [`writer`] is the one task that appends; everybody else reads. What a lost attempt wrote is kept.

pub(crate) mod files;
pub(crate) mod writer;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::{
    build::BuildId,
    job::JobId,
    message::work::{LOG_BYTES_MAX, LOG_PIECE_BYTES_MAX},
};

use crate::directory::{self, DirectoryError};

/// Names one attempt's log.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct LogKey {
    /// The job.
    pub job: JobId,
    /// Which try, from 1.
    pub attempt: u32,
}

/// The logs of all builds, for reading.
#[derive(Debug)]
pub(crate) struct Logs {
    directory: PathBuf,
    /// How much is durable of the logs that are being written; of others, all that is there.
    open: Mutex<BTreeMap<LogKey, u64>>,
}

impl Logs {
    /// The logs in `directory`, which is made if need be.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub(crate) fn open(directory: PathBuf) -> Result<Self, DirectoryError> {
        directory::create(&directory)?;
        Ok(Self {
            directory,
            open: Mutex::default(),
        })
    }

    /// Where they are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many durable bytes each log of a build has, by job and attempt. Reads the disk.
    ///
    /// # Errors
    ///
    /// If the disk cannot be read.
    pub(crate) fn lengths(&self, build: BuildId) -> io::Result<BTreeMap<LogKey, u64>> {
        let mut lengths = BTreeMap::new();
        let entries = match fs::read_dir(self.build_directory(build)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(lengths),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let Some(key) = parse_name(build, &entry.file_name()) else {
                continue;
            };
            lengths.insert(key, entry.metadata()?.len());
        }
        let open = self.lock();
        for (key, length) in &mut lengths {
            if let Some(&durable) = open.get(key) {
                *length = durable;
            }
        }
        Ok(lengths)
    }

    /// How many durable bytes a log has. May read the disk.
    ///
    /// # Errors
    ///
    /// If the disk cannot be read.
    pub(crate) fn length(&self, key: LogKey) -> io::Result<u64> {
        if let Some(&durable) = self.lock().get(&key) {
            return Ok(durable);
        }
        match fs::metadata(self.path(key)) {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The builds that have logs. Reads the disk.
    ///
    /// # Errors
    ///
    /// If the disk cannot be read.
    pub(crate) fn builds(&self) -> io::Result<Vec<BuildId>> {
        let mut builds = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            builds.extend(name.to_str().and_then(|name| name.parse::<BuildId>().ok()));
        }
        Ok(builds)
    }

    /// Up to `bytes_max` durable bytes of a log from `offset` on; none at its end. Reads the disk.
    ///
    /// # Errors
    ///
    /// If the disk cannot be read.
    pub(crate) fn read(&self, key: LogKey, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let file = match File::open(self.path(key)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // Looked up after the file was opened: what is durable is in it.
        let durable = self.lock().get(&key).copied();
        let length = durable.map_or_else(|| Ok(file.metadata()?.len()), io::Result::Ok)?;
        let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(bytes_max)];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Deletes the logs of a build that has ended. Nothing to delete is fine.
    ///
    /// # Errors
    ///
    /// If the system refuses; some may be deleted.
    pub(crate) fn delete(&self, build: BuildId) -> io::Result<()> {
        match fs::remove_dir_all(self.build_directory(build)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn build_directory(&self, build: BuildId) -> PathBuf {
        self.directory.join(build.to_string())
    }

    fn path(&self, key: LogKey) -> PathBuf {
        let name = format!("{}.{}", key.job.index, key.attempt);
        self.build_directory(key.job.build).join(name)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LogKey, u64>> {
        // Nothing is done under the lock that could leave it half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse_name(build: BuildId, name: &std::ffi::OsStr) -> Option<LogKey> {
    let (index, attempt) = name.to_str()?.split_once('.')?;
    Some(LogKey {
        job: JobId {
            build,
            index: index.parse().ok()?,
        },
        attempt: attempt.parse().ok()?,
    })
}

/// Why bytes were not appended to a log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendLogError {
    /// Bytes before them are missing: send from `durable` on.
    #[error("log piece starts at byte {offset}, but the log has {length} bytes")]
    Gap {
        /// Where the piece starts.
        offset: u64,
        /// How many bytes there are.
        length: u64,
    },
    /// The log would be too long: the sender should have cut it.
    #[error("log piece ends at byte {end}, at most {LOG_BYTES_MAX} are kept")]
    TooLong {
        /// Where the piece ends.
        end: u64,
    },
    /// The piece is larger than any may be.
    #[error("log piece has {bytes} bytes, at most {LOG_PIECE_BYTES_MAX} are allowed")]
    PieceTooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// The disk refuses. Nothing of the piece counts; try again.
    #[error("failed to write log `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
