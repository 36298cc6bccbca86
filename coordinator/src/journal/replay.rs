//! Opening a journal: which files are there, whether they follow each other, and what stands in them.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    Journal, OpenJournalError, Replayed, create_file,
    frame::{self, HEADER_BYTES, Wrong},
};
use crate::{directory, record::ReplayError};

const FACTS: &str = "facts-";
const STATE: &str = "state-";

/// What a file of facts is called whose first record has the number `first`.
pub(super) fn facts_name(first: u64) -> String {
    format!("{FACTS}{first:020}")
}

/// What a file is called that holds the state before the record with the number `next`.
pub(super) fn state_name(next: u64) -> String {
    format!("{STATE}{next:020}")
}

/// What [`Journal::open`] does.
pub(super) fn open(
    directory: &Path,
    replay: &mut dyn FnMut(Replayed<'_>) -> Result<(), ReplayError>,
) -> Result<Journal, OpenJournalError> {
    directory::create(directory).map_err(|error| match error {
        directory::DirectoryError::Io { path, source, .. } => {
            failed("create directory", &path, source)
        }
        other => failed("create directory", directory, io::Error::other(other)),
    })?;
    let list = |what| {
        let names = list(directory, what);
        names.map_err(|source| failed("read directory", directory, source))
    };
    let (states, facts) = (list(STATE)?, list(FACTS)?);
    let mut reader = Reader {
        directory,
        replay,
        next: 0,
        since_state: (0, 0),
        state_bytes: 0,
    };
    if let Some(&next) = states.last() {
        reader.state(next)?;
    }
    let state_at = reader.next;
    // Files whose records are all in the state are left over from a stop in the middle of removing them.
    let start = facts.iter().rposition(|&first| first <= state_at);
    let facts = &facts[start.unwrap_or(0)..];
    let (mut last, mut length) = (None, 0);
    for (index, &first) in facts.iter().enumerate() {
        let is_last = index + 1 == facts.len();
        let chained = first == reader.next || (index == 0 && first < reader.next);
        if !chained {
            return Err(reader.missing());
        }
        length = reader.facts(first, is_last)?;
        last = Some(first);
    }
    let Some(first) = last else {
        if state_at != 0 {
            return Err(reader.missing());
        }
        return reader.begin(0);
    };
    if reader.next < state_at {
        return Err(reader.missing());
    }
    if length == 0 {
        return reader.begin(first);
    }
    let path = directory.join(facts_name(first));
    let file = open_file(&path)?;
    cut(&file, length).map_err(|source| failed("cut the torn end of", &path, source))?;
    remove_before(directory, state_at).map_err(|source| failed("clean", directory, source))?;
    Ok(reader.finish(file, path, length))
}

/// The way through the files of a journal.
struct Reader<'a> {
    directory: &'a Path,
    replay: &'a mut dyn FnMut(Replayed<'_>) -> Result<(), ReplayError>,
    /// The number of the next record.
    next: u64,
    since_state: (u64, u64),
    state_bytes: u64,
}

impl Reader<'_> {
    fn state(&mut self, next: u64) -> Result<(), OpenJournalError> {
        let path = self.directory.join(state_name(next));
        let bytes = read(&path)?;
        let found = frame::read_file_header(frame::MAGIC_STATE, &bytes)
            .map_err(|wrong| refuse(&path, 0, wrong))?;
        let body = bytes[HEADER_BYTES..].split_at_checked(blake3::OUT_LEN);
        let (hash, state) = body.ok_or_else(|| refuse(&path, 0, Wrong::Torn))?;
        if found != next {
            return Err(refuse(&path, 16, Wrong::Damaged(MISNAMED)));
        }
        if blake3::hash(state).as_bytes() != hash {
            let wrong = "the state does not match its checksum";
            return Err(refuse(&path, HEADER_BYTES, Wrong::Damaged(wrong)));
        }
        (self.replay)(Replayed::State(state)).map_err(|source| OpenJournalError::Record {
            path,
            offset: HEADER_BYTES as u64,
            source,
        })?;
        self.next = next;
        self.state_bytes = bytes.len() as u64;
        Ok(())
    }

    /// Replays a file of facts; gives how much of it is whole, 0 if not even its header is.
    fn facts(&mut self, first: u64, is_last: bool) -> Result<u64, OpenJournalError> {
        let path = self.directory.join(facts_name(first));
        let bytes = read(&path)?;
        match frame::read_file_header(frame::MAGIC_FACTS, &bytes) {
            Ok(found) if found == first => {}
            Ok(_) => return Err(refuse(&path, 16, Wrong::Damaged(MISNAMED))),
            Err(Wrong::Torn) if is_last => return Ok(0),
            Err(_) if is_last && bytes.iter().all(|&byte| byte == 0) => return Ok(0),
            Err(wrong) => return Err(refuse(&path, 0, wrong)),
        }
        let (mut at, mut number) = (HEADER_BYTES, first);
        loop {
            let group = match frame::read_group(&bytes, at) {
                Ok(Some(group)) => group,
                Ok(None) => break,
                Err(Wrong::Torn) if is_last => {
                    tracing::warn!(
                        path = %path.display(), offset = at, bytes = bytes.len() - at,
                        "torn end of journal cut off"
                    );
                    break;
                }
                Err(wrong) => return Err(refuse(&path, at, wrong)),
            };
            if group.first != number {
                return Err(refuse(
                    &path,
                    at,
                    Wrong::Damaged("records are out of order"),
                ));
            }
            let lines = bytes[group.records.clone()].split_inclusive(|&byte| byte == b'\n');
            for line in lines {
                if self.next <= number {
                    self.record(&path, at, line)?;
                }
                number += 1;
            }
            if number != group.first + u64::from(group.count) {
                return Err(refuse(&path, at, Wrong::Damaged("records are missing")));
            }
            at = group.records.end;
        }
        self.since_state.1 += at as u64;
        Ok(at as u64)
    }

    fn record(&mut self, path: &Path, at: usize, line: &[u8]) -> Result<(), OpenJournalError> {
        (self.replay)(Replayed::Record(line)).map_err(|source| OpenJournalError::Record {
            path: path.to_owned(),
            offset: at as u64,
            source,
        })?;
        self.next += 1;
        self.since_state.0 += 1;
        Ok(())
    }

    fn missing(&self) -> OpenJournalError {
        OpenJournalError::Missing {
            path: self.directory.to_owned(),
            from: self.next,
        }
    }

    /// Begins the file whose first record has the number `first`, anew if it is there.
    fn begin(self, first: u64) -> Result<Journal, OpenJournalError> {
        let path = self.directory.join(facts_name(first));
        let file = create_file(&path, first).map_err(|source| failed("create", &path, source))?;
        Ok(self.finish(file, path, HEADER_BYTES as u64))
    }

    fn finish(self, file: File, path: PathBuf, length: u64) -> Journal {
        Journal {
            directory: self.directory.to_owned(),
            file,
            path,
            length,
            next: self.next,
            since_state: self.since_state,
            state_bytes: self.state_bytes,
        }
    }
}

const MISNAMED: &str = "the file's name and its first record do not match";

fn refuse(path: &Path, offset: usize, wrong: Wrong) -> OpenJournalError {
    let path = path.to_owned();
    let wrong = match wrong {
        Wrong::Newer(found) => {
            let known = frame::VERSION;
            return OpenJournalError::Newer { path, found, known };
        }
        Wrong::Header => "the header is not that of a journal file",
        Wrong::Torn => "the file ends early, although others follow it",
        Wrong::Damaged(wrong) => wrong,
    };
    OpenJournalError::Damaged {
        path,
        offset: offset as u64,
        wrong,
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> OpenJournalError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::PermissionDenied {
        OpenJournalError::Permission { path, source }
    } else {
        OpenJournalError::Io {
            action,
            path,
            source,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, OpenJournalError> {
    fs::read(path).map_err(|source| failed("read", path, source))
}

fn open_file(path: &Path) -> Result<File, OpenJournalError> {
    let file = directory::private().open(path);
    file.map_err(|source| failed("open", path, source))
}

/// Cuts a file to `length` bytes, durably; does nothing if it is no longer than that.
fn cut(file: &File, length: u64) -> io::Result<()> {
    if length < file.metadata()?.len() {
        file.set_len(length)?;
        file.sync_all()?;
    }
    Ok(())
}

/// The numbers in the names of the files of a kind, ascending.
fn list(directory: &Path, kind: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(kind));
        // Others, such as what was being written when the program stopped, are none of ours.
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes the files whose records are all in the state before the record with the number `state_at`, and
/// states that were not written to their end.
pub(super) fn remove_before(directory: &Path, state_at: u64) -> io::Result<()> {
    let facts = list(directory, FACTS)?;
    let old_facts = facts.iter().zip(facts.iter().skip(1));
    for (&first, _) in old_facts.filter(|&(_, &following)| following <= state_at) {
        fs::remove_file(directory.join(facts_name(first)))?;
    }
    for next in list(directory, STATE)? {
        if next < state_at {
            fs::remove_file(directory.join(state_name(next)))?;
        }
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
