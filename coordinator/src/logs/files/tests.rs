//! Tests of the logs' files.

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
