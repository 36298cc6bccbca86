//! The files that logs are written to: the offset rules, and syncing many files at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use protocol::{
    build::BuildId,
    message::work::{LOG_BYTES_MAX, LOG_PIECE_BYTES_MAX},
};

use super::{AppendLogError, LogKey, Logs};
use crate::{directory, disk};

/// How many logs are kept open. Past it the ones that are used least are closed, and opened again when
/// they are written to. A quarter of the 1,024 files that a process may usually have open: connections to
/// the metrics, the journal and readers of logs need some, too.
const OPEN_MAX: usize = 256;
/// How many bytes the disk has to have free for logs to be written: half of what it has to have for builds
/// to be taken, so that facts about those that run find room.
const FREE_BYTES_MIN: u64 = crate::session::submit::FREE_BYTES_MIN / 2;
/// How many bytes of a log are written again at once.
const REWRITE_BYTES: usize = 1024 * 1024;

/// What a piece that starts at byte `offset` adds to a log of `length` bytes: nothing, if all of it is
/// there; `None`, if bytes before it are missing.
pub fn new_part(length: u64, offset: u64, bytes: &[u8]) -> Option<&[u8]> {
    let known = length.checked_sub(offset)?;
    let known = usize::try_from(known).unwrap_or(usize::MAX);
    Some(bytes.get(known..).unwrap_or_default())
}

/// The logs that are open for writing. Has one owner, the writer's task.
#[derive(Debug)]
pub(crate) struct LogFiles {
    logs: Arc<Logs>,
    open: BTreeMap<LogKey, OpenLog>,
    /// How many may be open at once.
    open_max: usize,
    /// How many bytes have to be free for one to grow.
    free_bytes_min: u64,
    /// Counts appends, to know who was used last.
    clock: u64,
    /// Logs of which a sync has failed: what the system shows of them may be in its memory only, so they
    /// are written again before they are used. As many as could be open, or fewer.
    doubtful: BTreeSet<LogKey>,
}

#[derive(Debug)]
struct OpenLog {
    file: File,
    /// How many bytes there are.
    length: u64,
    /// How many of them are durable for certain.
    durable: u64,
    used: u64,
}

impl LogFiles {
    /// Files on a disk that is nearly full.
    #[cfg(test)]
    pub(crate) const fn on_a_full_disk(logs: Arc<Logs>) -> Self {
        let mut files = Self::new(logs);
        files.free_bytes_min = u64::MAX;
        files
    }

    /// The files of `logs`, none of them open.
    pub(crate) const fn new(logs: Arc<Logs>) -> Self {
        Self {
            logs,
            open: BTreeMap::new(),
            open_max: OPEN_MAX,
            free_bytes_min: FREE_BYTES_MIN,
            clock: 0,
            doubtful: BTreeSet::new(),
        }
    }

    /// Whether the disk has room for more of logs: the last of it is for the journal, without which nothing
    /// goes on. A disk that does not say has.
    pub(crate) fn has_room(&self) -> bool {
        let free = directory::free_bytes(self.logs.directory());
        free.map_or(true, |free| self.free_bytes_min <= free)
    }

    /// Whether a piece makes its log longer, so that it needs room.
    pub(crate) fn grows(&self, key: LogKey, offset: u64, bytes: &[u8]) -> bool {
        let known = self.open.get(&key).map(|log| log.length);
        let known = known.or_else(|| self.logs.lock().get(&key).copied());
        let path = self.logs.path(key);
        let length = known.or_else(|| Some(path.metadata().ok()?.len()));
        new_part(length.unwrap_or(0), offset, bytes).is_some_and(|new| !new.is_empty())
    }

    /// Writes a piece; what is there already is left as it is. Nothing is durable before
    /// [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// If the piece leaves a gap or is too long, or the system refuses; then it changes nothing.
    pub(crate) fn append(
        &mut self,
        key: LogKey,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), AppendLogError> {
        if usize::try_from(LOG_PIECE_BYTES_MAX).is_ok_and(|max| max < bytes.len()) {
            let bytes = bytes.len();
            return Err(AppendLogError::PieceTooLarge { bytes });
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if LOG_BYTES_MAX < end {
            return Err(AppendLogError::TooLong { end });
        }
        let path = self.logs.path(key);
        if 0 < offset && !self.open.contains_key(&key) && !path.exists() {
            // It went with its build, and is not to come back for what is still on its way.
            return Err(AppendLogError::Gap { offset, length: 0 });
        }
        let failed = |source| AppendLogError::Io {
            path: path.clone(),
            source,
        };
        self.clock += 1;
        let clock = self.clock;
        let log = self.opened(key, &path).map_err(failed)?;
        log.used = clock;
        let length = log.length;
        let Some(new) = new_part(length, offset, bytes) else {
            return Err(AppendLogError::Gap { offset, length });
        };
        if new.is_empty() {
            if !bytes.is_empty() {
                metrics::counter!("grange_messages_ignored_total", "reason" => "duplicate")
                    .increment(1);
            }
            return Ok(());
        }
        if let Err(error) = log.file.write_all_at(new, length) {
            // Readers go by what is durable, so a rest that cannot be cut off is no harm: it is written over.
            let _cut = log.file.set_len(length);
            return Err(failed(error));
        }
        log.length = end;
        Ok(())
    }

    /// Makes durable what was written to a log; gives how many bytes it has.
    ///
    /// # Errors
    ///
    /// If the system refuses; what was appended since the last sync has to be sent again.
    pub(crate) fn sync(&mut self, key: LogKey) -> Result<u64, AppendLogError> {
        let path = self.logs.path(key);
        if self.doubtful.contains(&key) {
            let source = io::Error::other("an earlier sync has failed");
            return Err(AppendLogError::Io { path, source });
        }
        let Some(log) = self.open.get_mut(&key) else {
            // It was closed to make room, and synced before.
            return match fs::metadata(&path) {
                Ok(found) => Ok(found.len()),
                Err(source) => Err(AppendLogError::Io { path, source }),
            };
        };
        match disk::sync(&log.file) {
            Ok(()) => {
                log.durable = log.length;
                self.logs.lock().insert(key, log.length);
                Ok(log.length)
            }
            Err(source) => {
                self.doubt(key);
                Err(AppendLogError::Io { path, source })
            }
        }
    }

    /// Gives up a log whose sync has failed. Nobody knows what the file holds behind what was synced before,
    /// and a second sync would not say: it has to come again.
    fn doubt(&mut self, key: LogKey) {
        if let Some(log) = self.open.remove(&key) {
            let _cut = log.file.set_len(log.durable);
            self.doubtful.insert(key);
        }
    }

    /// Closes a log that nobody writes to any more.
    pub(crate) fn close(&mut self, key: LogKey) {
        if let Some(log) = self.open.remove(&key)
            && log.durable == log.length
        {
            // From now on all that is in the file is durable.
            self.logs.lock().remove(&key);
        }
    }

    /// Closes all logs of a build.
    pub(crate) fn close_all(&mut self, build: BuildId) {
        self.open.retain(|key, _| key.job.build != build);
        self.doubtful.retain(|key| key.job.build != build);
        self.logs.lock().retain(|key, _| key.job.build != build);
    }

    fn opened(&mut self, key: LogKey, path: &Path) -> io::Result<&mut OpenLog> {
        if !self.open.contains_key(&key) {
            self.close_idle()?;
            let file = open(path)?;
            // What stands behind what was acknowledged was never promised, and comes again.
            let acknowledged = self.logs.lock().get(&key).copied();
            if let Some(acknowledged) = acknowledged
                && acknowledged < file.metadata()?.len()
            {
                file.set_len(acknowledged)?;
            }
            let length = file.metadata()?.len();
            // File systems make a file longer only when its new bytes are written, so what a start finds is
            // whole. That it is durable is made certain here, before anybody goes by it: the program before
            // may have been killed between writing and syncing, and what it had acknowledged is never cut.
            let is_doubtful = self.doubtful.contains(&key);
            let settled = settle(&file, length, is_doubtful);
            if settled.is_err() {
                self.doubtful.insert(key);
            }
            settled?;
            self.doubtful.remove(&key);
            self.logs.lock().insert(key, length);
            let log = OpenLog {
                file,
                length,
                durable: length,
                used: self.clock,
            };
            self.open.insert(key, log);
        }
        Ok(self.open.get_mut(&key).expect("it was just put there"))
    }

    /// Makes room for one more.
    fn close_idle(&mut self) -> io::Result<()> {
        if self.open.len() < self.open_max {
            return Ok(());
        }
        let idle = self.open.iter().min_by_key(|(_, log)| log.used);
        let (&key, log) = idle.expect("there are as many as may be");
        if let Err(error) = disk::sync(&log.file) {
            self.doubt(key);
            return Err(error);
        }
        self.logs.lock().remove(&key);
        self.open.remove(&key);
        Ok(())
    }
}

/// Makes durable what a log holds; one that is in doubt is written again, because after a failed sync the
/// system takes the bytes in its memory for written.
fn settle(file: &File, length: u64, is_doubtful: bool) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let mut at = 0;
    let mut bytes = vec![0; if is_doubtful { REWRITE_BYTES } else { 0 }];
    while is_doubtful && at < length {
        let count = file.read_at(&mut bytes, at)?;
        if count == 0 {
            break;
        }
        file.write_all_at(&bytes[..count], at)?;
        at += count as u64;
    }
    disk::sync(file)
}

/// Opens a log, making it and its directory durably if need be.
fn open(path: &Path) -> io::Result<File> {
    let mut options = directory::private();
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let parent = path.parent().expect("logs are in their build's directory");
    match fs::create_dir(parent) {
        Ok(()) => directory::sync_parent(parent)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let file = options.create(true).truncate(false).open(path)?;
    directory::sync_parent(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
