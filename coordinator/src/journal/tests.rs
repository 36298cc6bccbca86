//! The journal as a whole: what was appended comes back, whatever happens to the files' end.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;
use crate::disk;

/// Opens the journal and gives what it replays, as text.
fn open(directory: &Path) -> Result<(Journal, Vec<String>), OpenJournalError> {
    let mut seen = Vec::new();
    let journal = Journal::open(directory, &mut |replayed| {
        let (kind, bytes) = match replayed {
            Replayed::State(bytes) => ("state", bytes),
            Replayed::Record(bytes) => ("record", bytes),
        };
        let value: serde_json::Value = serde_json::from_slice(bytes)?;
        seen.push(format!("{kind} {value}"));
        Ok(())
    })?;
    Ok((journal, seen))
}

fn append(journal: &mut Journal, records: &[u32]) {
    let records: Vec<_> = records
        .iter()
        .map(|record| record.to_string().into_bytes())
        .collect();
    journal.append(&records).unwrap();
}

/// A journal with the records 0 to 5 in three groups, and the path of its only file.
fn sample(directory: &Path) -> PathBuf {
    let (mut journal, _) = open(directory).unwrap();
    append(&mut journal, &[0, 1]);
    append(&mut journal, &[2]);
    append(&mut journal, &[3, 4, 5]);
    journal.path()
}

fn records(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|record| format!("record {record}")).collect()
}

#[test]
fn what_was_appended_comes_back_in_order_after_each_of_many_starts() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let (mut journal, seen) = open(home.path()).unwrap();
        assert_eq!(seen, records(0..2 * round));
        append(&mut journal, &[2 * round, 2 * round + 1]);
    }
}

#[test]
fn a_torn_end_is_cut_at_every_byte_and_appending_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let whole = fs::read(sample(home.path())).unwrap();
    let last = whole.len() - (frame::HEADER_BYTES + 6);
    for end in last..whole.len() {
        let path = home.path().join(format!("{end}/journal"));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(replay::facts_name(0)), &whole[..end]).unwrap();
        let (mut journal, seen) = open(&path).unwrap();
        assert_eq!(seen, records(0..3), "cut at {end}");
        append(&mut journal, &[3]);
        assert_eq!(open(&path).unwrap().1, records(0..4), "cut at {end}");
    }
}

#[test]
fn what_a_killed_program_left_unsynced_is_durable_before_it_counts() {
    let home = tempfile::tempdir().unwrap();
    let path = sample(home.path());
    // A program that is killed after it wrote the last group and before it synced leaves the same bytes.
    disk::seen::forget();
    let (journal, seen) = open(home.path()).unwrap();
    assert_eq!(seen, records(0..6));
    assert!(disk::seen::is_synced(&path));
    assert!(disk::seen::is_synced(home.path()));
    assert_eq!(fs::metadata(&path).unwrap().len(), journal.length);
    drop(journal);
    // If it cannot be made durable, nothing of it is said.
    disk::seen::fail(1);
    let message = open(home.path()).unwrap_err().to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert_eq!(open(home.path()).unwrap().1, records(0..6));
}

#[test]
fn the_last_group_is_written_again_as_after_a_failed_sync_it_may_be_in_memory_only() {
    let home = tempfile::tempdir().unwrap();
    let path = sample(home.path());
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let whole = fs::read(&path).unwrap();
    let old = before - std::time::Duration::from_secs(60);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(old)
        .unwrap();
    open(home.path()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), whole);
    assert_ne!(fs::metadata(&path).unwrap().modified().unwrap(), old);
}

#[test]
fn a_flipped_bit_stops_the_start_and_names_file_and_offset() {
    let home = tempfile::tempdir().unwrap();
    let path = sample(home.path());
    let whole = fs::read(&path).unwrap();
    let second = 2 * frame::HEADER_BYTES + 4;
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x04;
        fs::write(&path, &flipped).unwrap();
        let error = open(home.path()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        if (second..second + frame::HEADER_BYTES + 2).contains(&at) {
            let expected = format!("at byte {second}:");
            assert!(message.contains(&expected), "byte {at}: {message}");
            assert!(message.contains("put back a copy"), "{message}");
        }
    }
}

#[test]
fn a_file_that_ends_early_before_another_is_damage_and_not_torn() {
    let home = tempfile::tempdir().unwrap();
    let path = sample(home.path());
    let (mut journal, _) = open(home.path()).unwrap();
    journal.begin_file().unwrap();
    append(&mut journal, &[6]);
    assert_eq!(open(home.path()).unwrap().1, records(0..7));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(
        open(home.path()),
        Err(OpenJournalError::Damaged { .. })
    ));
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        open(home.path()),
        Err(OpenJournalError::Missing { from: 0, .. })
    ));
}

#[test]
fn a_state_takes_the_place_of_the_files_before_it() {
    let home = tempfile::tempdir().unwrap();
    sample(home.path());
    let (mut journal, _) = open(home.path()).unwrap();
    journal.put_state(b"\"six\"").unwrap();
    append(&mut journal, &[6, 7]);
    let expected = ["state \"six\"", "record 6", "record 7"];
    assert_eq!(open(home.path()).unwrap().1, expected);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);

    let (mut journal, _) = open(home.path()).unwrap();
    journal.put_state(b"\"eight\"").unwrap();
    drop(journal);
    assert_eq!(open(home.path()).unwrap().1, ["state \"eight\""]);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
}

#[test]
fn a_stop_at_any_step_of_putting_the_state_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let first = sample(home.path());
    let kept = fs::read(&first).unwrap();
    let (mut journal, _) = open(home.path()).unwrap();
    // Only the next file is there yet, or half of its header.
    journal.begin_file().unwrap();
    assert_eq!(open(home.path()).unwrap().1, records(0..6));
    let next = journal.path();
    fs::write(&next, &fs::read(&next).unwrap()[..7]).unwrap();
    assert_eq!(open(home.path()).unwrap().1, records(0..6));
    // Half of the state is there.
    let half = home.path().join("state-00000000000000000006.new");
    fs::write(&half, b"grst").unwrap();
    assert_eq!(open(home.path()).unwrap().1, records(0..6));
    assert!(!half.exists());
    // The state is there, and the old file is still.
    let (mut journal, _) = open(home.path()).unwrap();
    journal.put_state(b"6").unwrap();
    fs::write(&first, kept).unwrap();
    assert_eq!(open(home.path()).unwrap().1, ["state 6"]);
    assert!(!first.exists());
}

#[test]
fn a_state_is_put_beside_the_facts_that_follow_and_a_stop_in_the_middle_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    sample(home.path());
    let (mut journal, _) = open(home.path()).unwrap();
    let place = journal.begin_state().unwrap();
    append(&mut journal, &[6]);
    // Killed before the state is there.
    assert_eq!(open(home.path()).unwrap().1, records(0..7));
    append(&mut journal, &[7]);
    assert!(!journal.wants_state());
    place.put(b"\"six\"").unwrap();
    append(&mut journal, &[8]);
    let expected = ["state \"six\"", "record 6", "record 7", "record 8"];
    assert_eq!(open(home.path()).unwrap().1, expected);
    // What was begun and never put is in the way of nothing.
    drop(journal.begin_state().unwrap());
    append(&mut journal, &[9]);
    journal.put_state(b"10").unwrap();
    assert_eq!(open(home.path()).unwrap().1, ["state 10"]);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
}

#[test]
fn a_damaged_state_stops_the_start() {
    let home = tempfile::tempdir().unwrap();
    sample(home.path());
    let (mut journal, _) = open(home.path()).unwrap();
    journal.put_state(b"6").unwrap();
    let path = home.path().join(replay::state_name(6));
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&path, flipped).unwrap();
        let message = open(home.path()).unwrap_err().to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        fs::write(&path, &whole[..at]).unwrap();
        open(home.path()).unwrap_err();
    }
    fs::write(&path, whole).unwrap();
    fs::remove_file(home.path().join(replay::facts_name(6))).unwrap();
    assert!(matches!(
        open(home.path()),
        Err(OpenJournalError::Missing { from: 6, .. })
    ));
}

#[test]
fn a_newer_journal_is_refused_and_both_versions_are_named() {
    let home = tempfile::tempdir().unwrap();
    let path = sample(home.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[8..12].copy_from_slice(&3_u32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let message = open(home.path()).unwrap_err().to_string();
    assert!(
        message.contains("version 3")
            && message.contains("up to 1")
            && message.contains("at byte 8")
            && message.contains(path.to_str().unwrap())
            && message.contains("use the program that wrote it"),
        "{message}"
    );
}

#[test]
fn a_record_that_is_not_understood_stops_the_start() {
    let home = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(home.path()).unwrap();
    journal.append(&[b"no json".to_vec()]).unwrap();
    assert!(matches!(
        open(home.path()),
        Err(OpenJournalError::Record { offset: 32, .. })
    ));
}

/// Files of which one may not be read, as the superuser never sees it.
#[derive(Debug)]
struct Forbidden(Files, String);

impl Storage for Forbidden {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        if name == self.1 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.0.read(name)
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.create(name, bytes)
    }

    fn write_at(&mut self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(name, bytes, offset)
    }

    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.0.cut(name, length)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.0.sync(name)
    }

    fn replace(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        self.0.replace(name, parts)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
}

#[test]
fn a_file_that_may_not_be_read_is_named_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let path = sample(home.path());
    let whole = fs::read(&path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let forbidden = Forbidden(Files::open(home.path()).unwrap(), name);
    let refused = Journal::open_on(Box::new(forbidden), &mut |_| Ok(()));
    let message = refused.unwrap_err().to_string();
    for part in [
        "no permission",
        path.to_str().unwrap(),
        "byte 0",
        "change its owner",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn a_full_disk_refuses_the_records_and_leaves_the_journal_whole() {
    let home = tempfile::tempdir().unwrap();
    sample(home.path());
    let (mut journal, _) = open(home.path()).unwrap();
    // Writes to this device fail as on a full disk; cutting it is refused, too.
    let name = journal.file.clone();
    std::os::unix::fs::symlink("/dev/full", home.path().join("full")).unwrap();
    journal.file = "full".to_owned();
    assert!(journal.append(&[b"6".to_vec()]).is_err());
    journal.file = name;
    fs::remove_file(home.path().join("full")).unwrap();
    append(&mut journal, &[6]);
    assert_eq!(open(home.path()).unwrap().1, records(0..7));
}

#[test]
fn room_for_facts_is_set_aside_and_given_back_when_a_file_is_done() {
    let home = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(home.path()).unwrap();
    append(&mut journal, &[0]);
    let first = home.path().join(&journal.file);
    let taken = |path: &Path| path.metadata().unwrap().blocks() * 512;
    assert!(ROOM_BYTES_MIN <= taken(&first), "{}", taken(&first));
    assert_eq!(first.metadata().unwrap().len(), journal.length);
    let place = journal.begin_state().unwrap();
    append(&mut journal, &[1]);
    assert!(taken(&first) < ROOM_BYTES_MIN, "{}", taken(&first));
    assert!(ROOM_BYTES_MIN <= taken(&home.path().join(&journal.file)));
    drop(place);
    drop(journal);
    let (mut journal, known) = open(home.path()).unwrap();
    assert_eq!(known, records(0..2));
    append(&mut journal, &[2]);
    assert_eq!(open(home.path()).unwrap().1, records(0..3));
}

#[test]
fn a_full_disk_takes_facts_for_as_long_as_room_was_set_aside() {
    let home = tempfile::tempdir().unwrap();
    let is_full = Arc::new(AtomicBool::new(false));
    let storage = Cramped {
        files: Files::open(home.path()).unwrap(),
        room: BTreeMap::new(),
        is_full: Arc::clone(&is_full),
    };
    let mut journal = Journal::open_on(Box::new(storage), &mut |_| Ok(())).unwrap();
    append(&mut journal, &[0]);
    is_full.store(true, Ordering::Relaxed);
    // No next file can be begun, and no state be put; what is there goes on.
    journal.begin_state().unwrap_err();
    let record = format!("{:?}", "7".repeat(64 * 1024)).into_bytes();
    let mut taken = 0;
    let refused = loop {
        match journal.append(std::slice::from_ref(&record)) {
            Ok(()) => taken += record.len() as u64,
            Err(refused) => break refused,
        }
    };
    assert!(ROOM_BYTES_MIN <= taken, "{taken} bytes");
    assert!(taken <= ROOM_BYTES, "{taken} bytes");
    assert!(
        matches!(refused, AppendError::NotWritten { .. }),
        "{refused}"
    );
    is_full.store(false, Ordering::Relaxed);
    append(&mut journal, &[1]);
    let (_, known) = open(home.path()).unwrap();
    assert_eq!(known.len() as u64, 2 + taken / record.len() as u64);
}

/// Files on a disk that can be full: then nothing is written but where room was set aside.
#[derive(Debug)]
struct Cramped {
    files: Files,
    room: BTreeMap<String, u64>,
    is_full: Arc<AtomicBool>,
}

impl Cramped {
    fn check(&self, fits: bool) -> io::Result<()> {
        match fits || !self.is_full.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

impl Storage for Cramped {
    fn path(&self, name: &str) -> PathBuf {
        self.files.path(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.files.read(name)
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.check(false)?;
        self.files.create(name, bytes)
    }

    fn write_at(&mut self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        let room = self.room.get(name).copied().unwrap_or(0);
        self.check(offset + bytes.len() as u64 <= room)?;
        self.files.write_at(name, bytes, offset)
    }

    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.room.insert(name.to_owned(), length);
        self.files.cut(name, length)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.files.sync(name)
    }

    fn set_aside(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.check(false)?;
        self.room.insert(name.to_owned(), bytes);
        Ok(())
    }

    fn replace(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        self.check(false)?;
        self.files.replace(name, parts)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }
}

#[test]
fn a_state_is_wanted_after_many_records() {
    let home = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(home.path()).unwrap();
    let records = vec![b"1".to_vec(); usize::try_from(RECORDS_PER_STATE).unwrap()];
    journal.append(&records[1..]).unwrap();
    assert!(!journal.wants_state());
    journal.append(&records[..1]).unwrap();
    assert!(journal.wants_state());
    let (mut journal, _) = open(home.path()).unwrap();
    assert!(journal.wants_state(), "also after a start");
    journal.put_state(b"0").unwrap();
    assert!(!journal.wants_state());
}
