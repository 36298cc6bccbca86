//! The journal: what was decided, on disk, before anybody is told.
//!
//! An append-only sequence of records, numbered from 0, in files of which each starts at some number. One
//! call of [`Journal::append`] is one group and one sync. Now and then the whole state is put beside
//! ([`Journal::put_state`]), and the files before it go. Opening replays the last state and the records
//! since, and makes them durable, because the last program may have been killed between writing and
//! syncing; a torn end is cut off; any other damage stops the start, because what follows it was promised
//! to somebody.

mod frame;
mod replay;
mod storage;

use std::{
    io,
    path::{Path, PathBuf},
};

use self::storage::Files;
pub use self::storage::Storage;
use crate::{directory::DirectoryError, record::ReplayError};

/// How long a file of facts may get, in bytes, before the next one is begun: a start reads a file whole.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long it may get if no next one can be begun, because the disk is full.
const FILE_BYTES_LIMIT: u64 = 2 * FILE_BYTES_MAX;
/// How much room at least is set aside behind what is written, in bytes: on a disk that is full what runs ends all
/// the same, and each phase leaves some hundred bytes of facts, or a few thousand.
const ROOM_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// How much is set aside at once.
const ROOM_BYTES: u64 = 2 * ROOM_BYTES_MIN;
/// How many bytes the disk has to have free beside a state that is put: as many as for logs to grow.
const STATE_FREE_BYTES_MIN: u64 = crate::session::submit::FREE_BYTES_MIN / 2;
/// After how many records the state is put beside them. Folding so many takes well under a second.
const RECORDS_PER_STATE: u64 = 20_000;
/// After how many bytes it is, if the records are large, as those of submissions are.
const BYTES_PER_STATE: u64 = 128 * 1024 * 1024;

/// The journal of one coordinator, open for appending.
#[derive(Debug)]
pub struct Journal {
    storage: Box<dyn Storage>,
    /// The name of the last file.
    file: String,
    /// How much of it is synced.
    length: u64,
    /// Up to where in it room is set aside, as far as that is known.
    set_aside: u64,
    /// The number of the next record.
    next: u64,
    /// Records and bytes since the last state.
    since_state: (u64, u64),
    /// How large that was, in bytes: a large one is written less often.
    state_bytes: u64,
}

/// What a start gets back, in order.
#[derive(Debug)]
pub enum Replayed<'a> {
    /// The whole state; at most once, before all records.
    State(&'a [u8]),
    /// A record.
    Record(&'a [u8]),
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenJournalError {
    /// A file cannot be read or written: look at the disk.
    #[error("failed to {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file belongs to somebody else. Run the coordinator as its owner, or give it to this user.
    #[error(
        "no permission to open `{}`, and nothing of it was read from byte 0 on; run the coordinator as the user \
         who owns the file, or change its owner",
        path.display()
    )]
    Permission {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what was written. What stands before the place is whole; what follows was promised to
    /// somebody, so nothing is guessed.
    #[error(
        "journal file `{}` is damaged at byte {offset}: {wrong}; put back a copy of the journal directory, \
         or move it away to start without the builds that it knows",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        wrong: &'static str,
    },
    /// A record is whole, but says nothing that this program knows. The program is older than the journal,
    /// or has a fault.
    #[error(
        "journal file `{}` has a record in the group at byte {offset} that this program does not \
         understand; use the program that wrote it",
        path.display()
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What it is that is not understood.
        source: ReplayError,
    },
    /// A newer program has written a file. Use that one.
    #[error(
        "journal file `{}` says at byte {} that it is of version {found}; this program knows versions up to \
         {known}: use the program that wrote it, or a newer one",
        path.display(),
        frame::VERSION_AT
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// Records are missing between two files, or before the first.
    #[error(
        "journal directory `{}` lacks the records from number {from} on; put back the file that has them, \
         or move the directory away to start without the builds that it knows",
        path.display()
    )]
    Missing {
        /// The directory.
        path: PathBuf,
        /// The number of the first record that is not there.
        from: u64,
    },
}

/// Why records were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// They were not written, and the journal is as before: try again, when the disk has room.
    #[error("failed to write to journal file `{}`", path.display())]
    NotWritten {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody knows what of them is on disk. Stop: the next start finds out.
    #[error("failed to sync journal file `{}`", path.display())]
    Uncertain {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Journal {
    /// Opens the journal in `directory`, making it if need be, and hands everything in it to `replay`. What
    /// was handed over is durable when this returns.
    ///
    /// # Errors
    ///
    /// If anything but the very end of the last file is not as it was written, if `replay` does not
    /// understand what it is handed, or if the system refuses.
    pub fn open(
        directory: &Path,
        replay: &mut dyn FnMut(Replayed<'_>) -> Result<(), ReplayError>,
    ) -> Result<Self, OpenJournalError> {
        let files = Files::open(directory).map_err(|error| match error {
            DirectoryError::Io { path, source, .. } => {
                replay::failed("create directory", path, source)
            }
            other => {
                let path = directory.to_owned();
                replay::failed("create directory", path, io::Error::other(other))
            }
        })?;
        Self::open_on(Box::new(files), replay)
    }

    /// Opens the journal that is kept in `storage`, and hands everything in it to `replay`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_on(
        storage: Box<dyn Storage>,
        replay: &mut dyn FnMut(Replayed<'_>) -> Result<(), ReplayError>,
    ) -> Result<Self, OpenJournalError> {
        replay::open(storage, replay)
    }

    /// Appends records, each a line of JSON without its end, and makes them durable.
    ///
    /// # Errors
    ///
    /// If they could not be written, or not be synced; see [`AppendError`] for what that means.
    ///
    /// # Panics
    ///
    /// If the records have 4 GiB: the dispatcher's groups are far smaller.
    pub fn append(&mut self, records: &[Vec<u8>]) -> Result<(), AppendError> {
        if records.is_empty() {
            return Ok(());
        }
        if FILE_BYTES_MAX <= self.length
            && let Err(source) = self.begin_file()
            && FILE_BYTES_LIMIT <= self.length
        {
            let path = self.path();
            return Err(AppendError::NotWritten { path, source });
        }
        let mut lines = records.join(&b'\n');
        lines.push(b'\n');
        let count = u32::try_from(records.len()).expect("the dispatcher's groups are bounded");
        let bytes = frame::group(self.next, count, &lines);
        self.set_room_aside(bytes.len() as u64);
        let written = self.storage.write_at(&self.file, &bytes, self.length);
        if let Err(source) = written {
            let path = self.path();
            self.set_aside = self.length;
            // What was written of it must not stand before the next group. The cut is not synced: if a power
            // cut brings a part back, that is the tail, and torn.
            return Err(match self.storage.cut(&self.file, self.length) {
                Ok(()) => AppendError::NotWritten { path, source },
                Err(_) => AppendError::Uncertain { path, source },
            });
        }
        let synced = self.storage.sync(&self.file);
        synced.map_err(|source| AppendError::Uncertain {
            path: self.path(),
            source,
        })?;
        self.length += bytes.len() as u64;
        self.next += u64::from(count);
        self.since_state.0 += u64::from(count);
        self.since_state.1 += bytes.len() as u64;
        Ok(())
    }

    /// Sets room aside for `more` bytes and for those that come after: logs and other programs may take the last
    /// of the disk, and nothing is decided without a journal. A disk that has no room for that has it for
    /// what was set aside before.
    fn set_room_aside(&mut self, more: u64) {
        let end = self.length + more;
        if end + ROOM_BYTES_MIN <= self.set_aside {
            return;
        }
        let room = end + ROOM_BYTES;
        if self.storage.set_aside(&self.file, room).is_ok() {
            self.set_aside = room;
        }
    }

    /// Whether so much was appended that [`put_state`](Self::put_state) is worth its time.
    pub(crate) fn wants_state(&self) -> bool {
        let (records, bytes) = self.since_state;
        RECORDS_PER_STATE <= records && self.state_bytes / 2 <= bytes
            || BYTES_PER_STATE.max(self.state_bytes) <= bytes
    }

    /// Puts the state after all records so far beside them, and lets the files before it go.
    ///
    /// # Errors
    ///
    /// If the system refuses; the journal is as good as before, only longer.
    pub fn put_state(&mut self, state: &[u8]) -> io::Result<()> {
        self.begin()?;
        let bytes = put(self.storage.as_mut(), self.next, state)?;
        self.state_put(bytes);
        Ok(())
    }

    /// Begins to put the state after all records so far beside them: from here on records go to the next
    /// file, and [`StatePlace::put`] may take its time beside them. Only one at a time; a stop before its
    /// end is as if it had never begun.
    ///
    /// # Errors
    ///
    /// If the system refuses; the journal is as good as before.
    pub(crate) fn begin_state(&mut self) -> io::Result<StatePlace> {
        self.begin()?;
        let beside = self.storage.beside();
        Ok(StatePlace {
            storage: beside.ok_or_else(|| io::Error::other("nothing can be written beside"))?,
            next: self.next,
        })
    }

    /// Notes that a state of so many bytes was put.
    pub(crate) const fn state_put(&mut self, bytes: u64) {
        self.state_bytes = bytes;
    }

    fn begin(&mut self) -> io::Result<()> {
        // Not again at once if it fails.
        self.since_state = (0, 0);
        self.begin_file()
    }

    /// Begins the next file, unless the last one is empty.
    fn begin_file(&mut self) -> io::Result<()> {
        let name = replay::facts_name(self.next);
        if name == self.file {
            return Ok(());
        }
        if let Err(error) = create_file(self.storage.as_mut(), &name, self.next) {
            // A file without records is no harm, but one that is half a header is in the way.
            let _gone = self.storage.remove(&name);
            return Err(error);
        }
        let header = frame::HEADER_BYTES as u64;
        let set_aside = match self.storage.set_aside(&name, header + ROOM_BYTES) {
            Ok(()) => header + ROOM_BYTES,
            // Facts go on in the last file, whose room others would take if it were given back now.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let _gone = self.storage.remove(&name);
                return Err(error);
            }
            // Not all file systems can.
            Err(_) => header,
        };
        let before = std::mem::replace(&mut self.file, name);
        // That it fails is no harm, for the file goes with the next state.
        let _released = self.storage.release(&before, self.length);
        self.length = header;
        self.set_aside = set_aside;
        Ok(())
    }

    /// Where the last file is.
    fn path(&self) -> PathBuf {
        self.storage.path(&self.file)
    }
}

/// Where a state is to be put.
#[derive(Debug)]
pub(crate) struct StatePlace {
    storage: Box<dyn Storage>,
    /// The number of the first record that is not in it.
    next: u64,
}

impl StatePlace {
    /// Puts the state there, and lets the files before it go; gives how many bytes it has on the disk.
    ///
    /// # Errors
    ///
    /// If the system refuses, or the disk is nearly full: the last of it is for facts. The journal is as good as
    /// before, only longer.
    pub(crate) fn put(mut self, state: &[u8]) -> io::Result<u64> {
        let needs = STATE_FREE_BYTES_MIN.saturating_add(state.len() as u64);
        if self.storage.free_bytes().is_some_and(|free| free < needs) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        put(self.storage.as_mut(), self.next, state)
    }
}

fn put(storage: &mut dyn Storage, next: u64, state: &[u8]) -> io::Result<u64> {
    let header = frame::file_header(frame::MAGIC_STATE, next);
    let hash = blake3::hash(state);
    // In parts: the state may take a good deal of the memory, and need not do so twice.
    let parts: [&[u8]; 3] = [&header, hash.as_bytes(), state];
    storage.replace(&replay::state_name(next), &parts)?;
    replay::remove_before(storage, next)?;
    Ok(parts.iter().map(|part| part.len() as u64).sum())
}

/// Makes a file of facts without records, durably.
fn create_file(storage: &mut dyn Storage, name: &str, first: u64) -> io::Result<()> {
    storage.create(name, &frame::file_header(frame::MAGIC_FACTS, first))
}

#[cfg(test)]
mod tests;
