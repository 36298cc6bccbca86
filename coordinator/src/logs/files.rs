//! The files that logs are written to: the offset rules, and syncing many files at once.

use std::{
    collections::BTreeMap,
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
use crate::directory;

/// How many logs are kept open. Past it the ones that are used least are closed, and opened again when
/// they are written to; a farm of a thousand slots needs no more.
const OPEN_MAX: usize = 1_000;

/// The logs that are open for writing. Has one owner, the writer's task.
#[derive(Debug)]
pub(crate) struct LogFiles {
    logs: Arc<Logs>,
    open: BTreeMap<LogKey, OpenLog>,
    /// How many may be open at once.
    open_max: usize,
    /// Counts appends, to know who was used last.
    clock: u64,
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
    /// The files of `logs`, none of them open.
    pub(crate) const fn new(logs: Arc<Logs>) -> Self {
        Self {
            logs,
            open: BTreeMap::new(),
            open_max: OPEN_MAX,
            clock: 0,
        }
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
        let failed = |source| AppendLogError::Io {
            path: path.clone(),
            source,
        };
        self.clock += 1;
        let clock = self.clock;
        let log = self.opened(key, &path).map_err(failed)?;
        log.used = clock;
        let length = log.length;
        if length < offset {
            return Err(AppendLogError::Gap { offset, length });
        }
        let known = usize::try_from(length - offset).unwrap_or(usize::MAX);
        let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) else {
            return Ok(());
        };
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
        let Some(log) = self.open.get_mut(&key) else {
            // It was closed to make room, and synced before.
            return match fs::metadata(&path) {
                Ok(found) => Ok(found.len()),
                Err(source) => Err(AppendLogError::Io { path, source }),
            };
        };
        if let Err(source) = log.file.sync_data() {
            // After a failed sync nobody knows what the file holds behind what was synced before, and a
            // second sync would not say: it has to come again.
            let _cut = log.file.set_len(log.durable);
            self.open.remove(&key);
            return Err(AppendLogError::Io { path, source });
        }
        log.durable = log.length;
        self.logs.lock().insert(key, log.length);
        Ok(log.length)
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
        self.logs.lock().retain(|key, _| key.job.build != build);
    }

    fn opened(&mut self, key: LogKey, path: &Path) -> io::Result<&mut OpenLog> {
        if !self.open.contains_key(&key) {
            self.close_idle()?;
            let file = open(path)?;
            let length = file.metadata()?.len();
            // File systems make a file longer only when its new bytes are written, so what a start finds is
            // whole; that it is durable, the first sync says.
            self.logs.lock().entry(key).or_insert(length);
            let log = OpenLog {
                file,
                length,
                durable: 0,
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
        log.file.sync_data()?;
        self.logs.lock().remove(&key);
        self.open.remove(&key);
        Ok(())
    }
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

    fn logs(home: &Path) -> (Arc<Logs>, LogFiles) {
        let logs = Arc::new(Logs::open(home.join("logs")).unwrap());
        (Arc::clone(&logs), LogFiles::new(logs))
    }

    #[test]
    fn bytes_are_appended_once_by_their_offset() {
        let home = tempfile::tempdir().unwrap();
        let (logs, mut files) = logs(home.path());
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
        let (logs, mut files) = logs(home.path());
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
        let (_, mut files) = logs(home.path());
        let error = files.append(KEY, LOG_BYTES_MAX, b"x").unwrap_err();
        assert!(matches!(error, AppendLogError::TooLong { .. }));
        let piece = vec![0; usize::try_from(LOG_PIECE_BYTES_MAX).unwrap() + 1];
        let error = files.append(KEY, 0, &piece).unwrap_err();
        assert!(matches!(error, AppendLogError::PieceTooLarge { .. }));
    }

    #[test]
    fn readers_see_only_what_is_durable() {
        let home = tempfile::tempdir().unwrap();
        let (logs, mut files) = logs(home.path());
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
        let (_, mut files) = logs(home.path());
        files.append(KEY, 0, b"abc").unwrap();
        files.sync(KEY).unwrap();
        drop(files);
        let (logs, mut files) = logs(home.path());
        assert_eq!(logs.read(KEY, 1, 10).unwrap(), b"bc");
        // An empty piece asks how much there is.
        files.append(KEY, 0, b"").unwrap();
        assert_eq!(files.sync(KEY).unwrap(), 3);
        files.append(KEY, 1, b"XYde").unwrap();
        assert_eq!(files.sync(KEY).unwrap(), 5);
        assert_eq!(logs.read(KEY, 0, 10).unwrap(), b"abcde");
    }

    #[test]
    fn attempts_have_logs_of_their_own_and_go_with_their_build() {
        let home = tempfile::tempdir().unwrap();
        let (logs, mut files) = logs(home.path());
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
        let (logs, mut files) = logs(home.path());
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
