//! What goes wrong in the store.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{canonical::DecodeError, digest::Digest};

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The directory is of a newer program: use that, or another directory.
    #[error(
        "the store in `{}` has format version {found}, this program knows {known} and older",
        directory.display()
    )]
    Newer {
        /// Which directory.
        directory: PathBuf,
        /// What it says.
        found: u32,
        /// What this program writes.
        known: u32,
    },
    /// The processor lacks what the database is compiled for: the cache has to be on another machine.
    #[error("this processor has no {missing}; x86-64 processors have it since 2011")]
    Processor {
        /// The instructions.
        missing: &'static str,
    },
    /// The version file holds something else than a number: the directory is damaged, or no store.
    #[error("`{}` holds `{found}`, which is no version", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
    /// A file or directory cannot be read or made.
    #[error("failed to prepare `{}` for the store", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database does not open: it is damaged, another process has it open, or the disk is full.
    #[error("failed to open the database in `{}`", directory.display())]
    Database {
        /// Which directory.
        directory: PathBuf,
        /// What the database says.
        source: Damage,
    },
    /// The database is damaged, and could not be made whole: it cannot be read at all, say.
    #[error("failed to mend the database in `{}`", directory.display())]
    Mend {
        /// Which directory.
        directory: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database is damaged, and what is damaged has to be copied, for which its disk has no room. What can be
    /// read stays as it is.
    #[error(
        "the database in `{}` is damaged, and its disk has {free} bytes left of {needed} that it takes to mend it: \
         make room, or move the cache's directory to a larger disk; nothing more is lost meanwhile",
        directory.display()
    )]
    MendRoom {
        /// Which directory.
        directory: PathBuf,
        /// How many bytes the disk has left.
        free: u64,
        /// How many it must have left.
        needed: u64,
    },
    /// The log is not where it was left, so that what was written last would be missing: mount its disk, or
    /// salvage the store without it.
    #[error(
        "the log of the database in `{}` should be in `{}`, and is not: mount its disk, or say where it is",
        database.display(), log.display()
    )]
    LogGone {
        /// Where the tables are.
        database: PathBuf,
        /// Where the log was.
        log: PathBuf,
    },
    /// The directory for the log has something else: each store has one of its own.
    #[error("`{}` is to have the store's log, and is not empty", log.display())]
    LogTaken {
        /// Which directory.
        log: PathBuf,
    },
    /// The sums that the store keeps of itself cannot be read: it is damaged.
    #[error("failed to read the sums of the store in `{}`", directory.display())]
    Totals {
        /// Which directory.
        directory: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system gives no thread.
    #[error("failed to start the store's writer")]
    Thread {
        /// What the system says.
        source: io::Error,
    },
}

/// What the database says when something is wrong, without naming it to other modules.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct Damage(#[from] rocksdb::Error);

impl OpenStoreError {
    /// Why the database in `directory` is not mended.
    pub(super) fn of_mending(directory: &Path, trouble: Trouble) -> Self {
        let directory = directory.to_owned();
        match trouble {
            Trouble::Full { free, needed, .. } => Self::MendRoom {
                directory,
                free,
                needed,
            },
            trouble => Self::Mend {
                directory,
                source: Box::new(trouble),
            },
        }
    }

    /// Whether the files are damaged, so that salvaging them would help.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Database { source, .. } => super::rocks::is_damage(&source.0),
            Self::Totals { .. } | Self::LogGone { .. } => true,
            _ => false,
        }
    }
}

/// Why the store did not do what it was asked to, for reasons of its own.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The disk is full, or nearly. Room has to be made; nothing is lost.
    #[error(
        "the disk of `{}` has {free} bytes left, {needed} are needed",
        directory.display()
    )]
    Full {
        directory: PathBuf,
        free: u64,
        needed: u64,
    },
    /// The budget is used up, and nothing more can go: it is held, since somebody was told that it is here, or
    /// belongs to entries that go with their builds only. Room comes when holds end, and when builds end or
    /// are deleted; nothing is lost.
    #[error(
        "the cache's budget of {budget} bytes is used up: {held} bytes are held, and {kept} more belong to entries \
         that are not evicted, such as those of builds; it takes more when holds end, and when builds end or are \
         deleted"
    )]
    Held { budget: u64, held: u64, kept: u64 },
    /// Writing failed before, and the store has not yet been opened again. Trying again later will do.
    #[error("the store has stopped writing after an error, and is about to open itself again")]
    Stopped,
    /// The disk of the log is away: it has to be mounted again, and then the store goes on.
    #[error("the store's log is not in `{}` any more; mount its disk", log.display())]
    LogGone { log: PathBuf },
    /// The store is being opened again, or is closed. Trying again later will do.
    #[error("the store is not open")]
    Closed,
    /// The database failed.
    #[error("the database failed")]
    Database {
        #[from]
        source: rocksdb::Error,
    },
    /// A row is not what was written.
    #[error("a row of the store is damaged")]
    Row { source: Arc<DecodeError> },
    /// The system cannot say how full the disk is.
    #[error("failed to measure the disk of `{}`", directory.display())]
    Disk {
        directory: PathBuf,
        source: Arc<io::Error>,
    },
}

impl Trouble {
    /// The system cannot say what is on the disk of `directory`.
    pub(super) fn disk(directory: &Path, source: io::Error) -> Self {
        Self::Disk {
            directory: directory.to_owned(),
            source: Arc::new(source),
        }
    }
}

impl From<DecodeError> for Trouble {
    fn from(source: DecodeError) -> Self {
        Self::Row {
            source: Arc::new(source),
        }
    }
}

/// Why an entry cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClosureError {
    /// A chunk is not there, or not for this team: upload it first.
    #[error("chunk {digest}, which {part} needs, is not in the cache")]
    Missing { part: &'static str, digest: Digest },
    /// A blob's chunks are not what it is made of.
    #[error("{part} {digest} makes no sense: {reason}")]
    Blob {
        part: &'static str,
        digest: Digest,
        reason: &'static str,
    },
    /// The bytes of a layout are none.
    #[error("layout {digest} is damaged")]
    Layout { digest: Digest, source: DecodeError },
    /// The entry names too much.
    #[error("the entry names more than {limit} distinct chunks")]
    TooMany { limit: u64 },
    /// The store has a problem of its own.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}
