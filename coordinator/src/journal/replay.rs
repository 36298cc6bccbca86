//! Opening a journal: which files are there, whether they follow each other, and what stands in them.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Journal, OpenJournalError, Replayed, create_file,
    frame::{self, HEADER_BYTES, Wrong},
    storage::Storage,
};
use crate::record::ReplayError;

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

/// What [`Journal::open_on`] does.
pub(super) fn open(
    storage: Box<dyn Storage>,
    replay: &mut dyn FnMut(Replayed<'_>) -> Result<(), ReplayError>,
) -> Result<Journal, OpenJournalError> {
    let list = |what| {
        let names = list(storage.as_ref(), what);
        names.map_err(|source| failed("read directory", storage.path(""), source))
    };
    let (states, facts) = (list(STATE)?, list(FACTS)?);
    let mut reader = Reader {
        storage,
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
    let mut last = None;
    for (index, &first) in facts.iter().enumerate() {
        let is_last = index + 1 == facts.len();
        let chained = first == reader.next || (index == 0 && first < reader.next);
        if !chained {
            return Err(reader.missing());
        }
        last = Some((first, reader.facts(first, is_last)?));
    }
    let Some((first, read)) = last else {
        if state_at != 0 {
            return Err(reader.missing());
        }
        return reader.begin(0);
    };
    if reader.next < state_at {
        return Err(reader.missing());
    }
    if read.whole.is_empty() {
        return reader.begin(first);
    }
    reader.go_on(first, read, state_at)
}

/// What was found of a file of facts, in bytes.
struct Read {
    /// Its header and its groups; empty if not even the header is whole.
    whole: Vec<u8>,
    /// Where the last group starts in that; 0 if there is only the header.
    last: usize,
    /// How much there is.
    length: u64,
}

/// The way through the files of a journal.
struct Reader<'a> {
    storage: Box<dyn Storage>,
    replay: &'a mut dyn FnMut(Replayed<'_>) -> Result<(), ReplayError>,
    /// The number of the next record.
    next: u64,
    since_state: (u64, u64),
    state_bytes: u64,
}

impl Reader<'_> {
    fn state(&mut self, next: u64) -> Result<(), OpenJournalError> {
        let (path, bytes) = self.read(&state_name(next))?;
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

    /// Replays a file of facts.
    fn facts(&mut self, first: u64, is_last: bool) -> Result<Read, OpenJournalError> {
        let (path, mut bytes) = self.read(&facts_name(first))?;
        let length = bytes.len() as u64;
        let none = Read {
            whole: Vec::new(),
            last: 0,
            length,
        };
        match frame::read_file_header(frame::MAGIC_FACTS, &bytes) {
            Ok(found) if found == first => {}
            Ok(_) => return Err(refuse(&path, 16, Wrong::Damaged(MISNAMED))),
            Err(Wrong::Torn) if is_last => return Ok(none),
            Err(_) if is_last && bytes.iter().all(|&byte| byte == 0) => return Ok(none),
            Err(wrong) => return Err(refuse(&path, 0, wrong)),
        }
        let (mut at, mut last, mut number) = (HEADER_BYTES, 0, first);
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
            (last, at) = (at, group.records.end);
        }
        self.since_state.1 += at as u64;
        bytes.truncate(at);
        Ok(Read {
            whole: bytes,
            last,
            length,
        })
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
            path: self.storage.path(""),
            from: self.next,
        }
    }

    fn read(&self, name: &str) -> Result<(PathBuf, Vec<u8>), OpenJournalError> {
        let path = self.storage.path(name);
        match self.storage.read(name) {
            Ok(bytes) => Ok((path, bytes)),
            Err(source) => Err(failed("read", path, source)),
        }
    }

    /// Begins the file whose first record has the number `first`, anew if it is there.
    fn begin(mut self, first: u64) -> Result<Journal, OpenJournalError> {
        let name = facts_name(first);
        create_file(self.storage.as_mut(), &name, first)
            .map_err(|source| failed("create", self.storage.path(&name), source))?;
        Ok(self.finish(name, HEADER_BYTES as u64))
    }

    /// Goes on behind what is whole of the file whose first record has the number `first`.
    fn go_on(mut self, first: u64, read: Read, state_at: u64) -> Result<Journal, OpenJournalError> {
        let name = facts_name(first);
        let length = read.whole.len() as u64;
        let storage = self.storage.as_mut();
        if length < read.length {
            let cut = storage.cut(&name, length);
            cut.map_err(|source| failed("cut the torn end of", storage.path(&name), source))?;
        }
        settle(storage, &name, &read)
            .map_err(|source| failed("sync", storage.path(&name), source))?;
        remove_before(storage, state_at)
            .map_err(|source| failed("clean", storage.path(""), source))?;
        Ok(self.finish(name, length))
    }

    fn finish(self, file: String, length: u64) -> Journal {
        Journal {
            storage: self.storage,
            file,
            length,
            set_aside: length,
            next: self.next,
            since_state: self.since_state,
            state_bytes: self.state_bytes,
        }
    }
}

/// Makes durable what was replayed: the program before may have been killed between writing a group and
/// syncing it, and what follows from a fact is said as soon as it is known. Files before the last were
/// synced before that one was begun. Its last group is written again, because after a failed sync the
/// system takes the bytes in its memory for written.
fn settle(storage: &mut dyn Storage, name: &str, read: &Read) -> io::Result<()> {
    storage.write_at(name, &read.whole[read.last..], read.last as u64)?;
    storage.sync(name)?;
    storage.sync_names()
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

pub(super) fn failed(action: &'static str, path: PathBuf, source: io::Error) -> OpenJournalError {
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

/// The numbers in the names of the files of a kind, ascending.
fn list(storage: &dyn Storage, kind: &str) -> io::Result<Vec<u64>> {
    let names = storage.list()?;
    // Others, such as what was being written when the program stopped, are none of ours.
    let numbers = names.iter().filter_map(|name| name.strip_prefix(kind));
    let mut numbers: Vec<u64> = numbers.filter_map(|number| number.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes the files whose records are all in the state before the record with the number `state_at`, and
/// states that were not written to their end.
pub(super) fn remove_before(storage: &mut dyn Storage, state_at: u64) -> io::Result<()> {
    let facts = list(storage, FACTS)?;
    let old_facts = facts.iter().zip(facts.iter().skip(1));
    for (&first, _) in old_facts.filter(|&(_, &following)| following <= state_at) {
        storage.remove(&facts_name(first))?;
    }
    for next in list(storage, STATE)? {
        if next < state_at {
            storage.remove(&state_name(next))?;
        }
    }
    for name in storage.list()? {
        if name.ends_with(".new") {
            storage.remove(&name)?;
        }
    }
    Ok(())
}
