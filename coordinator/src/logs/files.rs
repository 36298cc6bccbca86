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
mod tests {
    use protocol::job::JobId;

    use super::*;

    fn bytes(logs: &Logs, build: BuildId) -> u64 {
        logs.lengths(build).unwrap().values().sum()
    }

    const KEY: LogKey = LogKey {
        job: JobId {
            build: BuildId(7),
            index: 3,
        },
        attempt: 1,
    };

    fn opened(home: &Path) -> (Arc<Logs>, LogFiles) {
        let logs = Arc::new(Logs::open(home.join("logs")).unwrap());
        (Arc::clone(&logs), LogFiles::new(logs))
    }

    #[test]
    fn bytes_are_appended_once_by_their_offset() {
        let home = tempfile::tempdir().unwrap();
        let (logs, mut files) = opened(home.path());
        files.append(KEY, 0, b"hello").unwrap();
        assert_eq!(files.sync(KEY).unwrap(), 5);
        files.append(KEY, 0, b"HELLO").unwrap();
        files.append(KEY, 3, b"LO, world").unwrap();
        assert_eq!(files.sync(KEY).unwrap(), 12);
        assert_eq!(logs.read(KEY, 0, 100).unwrap(), b"hello, world");
        assert_eq!(logs.read(KEY, 7, 3).unwrap(), b"wor");
        assert_eq!(logs.read(KEY, 12, 3).unwrap(), b"");
    }

    #[test]
    fn a_gap_is_refused_and_says_where_to_go_on() {
        let home = tempfile::tempdir().unwrap();
        let (logs, mut files) = opened(home.path());
        files.append(KEY, 0, b"ab").unwrap();
        let error = files.append(KEY, 3, b"d").unwrap_err();
        assert!(matches!(
            error,
            AppendLogError::Gap {
                offset: 3,
                length: 2
            }
        ));
        files.sync(KEY).unwrap();
        assert_eq!(logs.read(KEY, 0, 10).unwrap(), b"ab");
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let (_, mut files) = opened(home.path());
        let error = files.append(KEY, LOG_BYTES_MAX, b"x").unwrap_err();
        assert!(matches!(error, AppendLogError::TooLong { .. }));
        let piece = vec![0; usize::try_from(LOG_PIECE_BYTES_MAX).unwrap() + 1];
        let error = files.append(KEY, 0, &piece).unwrap_err();
        assert!(matches!(error, AppendLogError::PieceTooLarge { .. }));
    }

    #[test]
    fn readers_see_only_what_is_durable() {
        let home = tempfile::tempdir().unwrap();
        let (logs, mut files) = opened(home.path());
        files.append(KEY, 0, b"abc").unwrap();
        assert_eq!(logs.read(KEY, 0, 10).unwrap(), b"");
        assert_eq!(bytes(&logs, BuildId(7)), 0);
        files.sync(KEY).unwrap();
        assert_eq!(logs.read(KEY, 0, 10).unwrap(), b"abc");
        files.append(KEY, 3, b"def").unwrap();
        assert_eq!(logs.read(KEY, 0, 10).unwrap(), b"abc");
        files.sync(KEY).unwrap();
        files.close(KEY);
        assert_eq!(logs.read(KEY, 0, 10).unwrap(), b"abcdef");
        assert_eq!(logs.lengths(BuildId(7)).unwrap()[&KEY], 6);
    }

    #[test]
    fn after_a_start_the_log_is_there_and_goes_on_where_it_was() {
        let home = tempfile::tempdir().unwrap();
        let (_, mut files) = opened(home.path());
        files.append(KEY, 0, b"abc").unwrap();
        files.sync(KEY).unwrap();
        drop(files);
        let (logs, mut files) = opened(home.path());
        assert_eq!(logs.read(KEY, 1, 10).unwrap(), b"bc");
        // An empty piece asks how much there is.
        files.append(KEY, 0, b"").unwrap();
        assert_eq!(files.sync(KEY).unwrap(), 3);
        files.append(KEY, 1, b"XYde").unwrap();
        assert_eq!(files.sync(KEY).unwrap(), 5);
        assert_eq!(logs.read(KEY, 0, 10).unwrap(), b"abcde");
    }

    #[test]
    fn a_sync_that_fails_cuts_nothing_that_was_acknowledged() {
        let home = tempfile::tempdir().unwrap();
        let (_, mut files) = opened(home.path());
        files.append(KEY, 0, b"abc").unwrap();
        files.sync(KEY).unwrap();
        drop(files);
        // Opened again, after a start and after it was closed: its first sync fails.
        let (logs, mut files) = opened(home.path());
        for _ in 0..2 {
            files.append(KEY, 3, b"def").unwrap();
            disk::seen::fail(1);
            files.sync(KEY).unwrap_err();
            assert_eq!(fs::read(logs.path(KEY)).unwrap(), b"abc");
            assert_eq!(logs.read(KEY, 0, 10).unwrap(), b"abc");
            // It is written again before it counts.
            files.append(KEY, 0, b"").unwrap();
            assert_eq!(files.sync(KEY).unwrap(), 3);
            files.close(KEY);
        }
        files.append(KEY, 3, b"def").unwrap();
        assert_eq!(files.sync(KEY).unwrap(), 6);
    }

    #[test]
    fn what_a_killed_program_left_unsynced_is_synced_before_it_is_acknowledged() {
        let home = tempfile::tempdir().unwrap();
        let (logs, mut files) = opened(home.path());
        files.append(KEY, 0, b"abc").unwrap();
        drop(files);
        let path = logs.path(KEY);
        let (_, mut files) = opened(home.path());
        disk::seen::fail(1);
        files.append(KEY, 0, b"").unwrap_err();
        files.sync(KEY).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        disk::seen::forget();
        files.append(KEY, 0, b"").unwrap();
        assert!(disk::seen::is_synced(&path));
        assert_eq!(files.sync(KEY).unwrap(), 3);
    }

    #[test]
    fn a_log_that_is_closed_to_make_room_and_not_synced_is_not_acknowledged() {
        let home = tempfile::tempdir().unwrap();
        let (_, mut files) = opened(home.path());
        files.open_max = 1;
        files.append(KEY, 0, b"abc").unwrap();
        disk::seen::fail(1);
        let other = LogKey { attempt: 2, ..KEY };
        files.append(other, 0, b"x").unwrap_err();
        files.sync(KEY).unwrap_err();
    }

    #[test]
    fn attempts_have_logs_of_their_own_and_go_with_their_build() {
        let home = tempfile::tempdir().unwrap();
        let (logs, mut files) = opened(home.path());
        let second = LogKey { attempt: 2, ..KEY };
        let other = LogKey {
            job: JobId {
                build: BuildId(8),
                index: 0,
            },
            attempt: 1,
        };
        for (key, text) in [(KEY, "lost"), (second, "again"), (other, "other")] {
            files.append(key, 0, text.as_bytes()).unwrap();
            files.sync(key).unwrap();
        }
        assert_eq!(logs.read(KEY, 0, 10).unwrap(), b"lost");
        assert_eq!(logs.read(second, 0, 10).unwrap(), b"again");
        assert_eq!(bytes(&logs, BuildId(7)), 9);
        for key in [KEY, second, other] {
            files.close(key);
        }
        logs.delete(BuildId(7)).unwrap();
        logs.delete(BuildId(7)).unwrap();
        assert_eq!(logs.lengths(BuildId(7)).unwrap().len(), 0);
        assert_eq!(bytes(&logs, BuildId(8)), 5);
    }

    #[test]
    fn many_logs_can_be_written_at_once_with_few_open_files() {
        let home = tempfile::tempdir().unwrap();
        let (logs, mut files) = opened(home.path());
        let key = |index| LogKey {
            job: JobId {
                build: BuildId(7),
                index,
            },
            attempt: 1,
        };
        files.open_max = 4;
        let count = 12;
        for index in 0..count {
            files.append(key(index), 0, b"a").unwrap();
        }
        assert_eq!(files.open.len(), 4);
        for index in 0..count {
            files.append(key(index), 1, b"b").unwrap();
            assert_eq!(files.sync(key(index)).unwrap(), 2);
        }
        assert_eq!(bytes(&logs, BuildId(7)), 2 * u64::from(count));
    }
}
