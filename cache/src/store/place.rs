//! Where the files of the database are. Its log may be on a disk of its own: what is written is synced there,
//! and no flush or compaction is in the way.
//!
//! A directory that gets the log gets a tag, which the cache's directory notes beside the path. So a log that
//! is not where it was (a disk that is not mounted) is never taken for one that has nothing, nor one that was
//! given up for the one in use, and no two stores share one.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
};

use protocol::digest::hex;

use super::{
    error::{Damage, OpenStoreError},
    rocks::{Care, Rocks},
    sizes::Sizes,
    small_file::write,
};

/// In the cache's directory, while the log is not in the database's: the tag, a line feed, the log's directory.
const NOTE: &str = "log-directory";
/// In the log's directory: the tag.
const OWNER: &str = "log-of";
/// The same, while it is being written.
const OWNER_NEW: &str = "log-of.new";
/// How many bytes are drawn for a tag: no two are equal.
const TAG_BYTES: usize = 16;

/// Where the files of the database are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Place {
    /// The tables, the blob files, and the log if it has no place of its own.
    pub(super) database: PathBuf,
    /// The log, if it has a place of its own.
    pub(super) log: Option<LogPlace>,
}

/// A directory that has nothing but the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LogPlace {
    pub(super) path: PathBuf,
    tag: String,
}

impl Place {
    /// Where the database of the cache in `directory` has its files, as was noted.
    pub(super) fn found(directory: &Path) -> Result<Self, OpenStoreError> {
        let note = directory.join(NOTE);
        let log = match fs::read(&note) {
            Ok(text) => Some(parse(&text).ok_or_else(|| unreadable(note))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(OpenStoreError::Directory { path: note, source }),
        };
        Ok(Self {
            database: directory.join("store"),
            log,
        })
    }

    /// Where the log is.
    pub(super) fn log(&self) -> &Path {
        let log = self.log.as_ref().map(|log| log.path.as_path());
        log.unwrap_or(&self.database)
    }

    /// Looks whether the log is where it was.
    pub(super) fn check(&self) -> Result<(), OpenStoreError> {
        match &self.log {
            Some(log) if !has_tag(&log.path, &log.tag) => Err(OpenStoreError::LogGone {
                database: self.database.clone(),
                log: log.path.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The same place, if the log's directory is called `wanted` now: its disk is mounted elsewhere, say.
    pub(super) fn renamed(
        mut self,
        directory: &Path,
        wanted: Option<&Path>,
    ) -> Result<Self, OpenStoreError> {
        if let (Some(log), Some(wanted)) = (&mut self.log, wanted)
            && log.path != wanted
            && has_tag(wanted, &log.tag)
        {
            wanted.clone_into(&mut log.path);
            note(directory, Some(log))?;
        }
        Ok(self)
    }

    /// The place without a log that is not where it was: whoever asks for this has decided to go on without
    /// what that had.
    pub(super) fn without_lost_log(mut self, directory: &Path) -> Result<Self, OpenStoreError> {
        if self.check().is_err() {
            note(directory, None)?;
            self.log = None;
        }
        Ok(self)
    }

    /// Moves the log of the cache in `directory` to `wanted`, or to the database if that is `None`: the
    /// tables get all that is in it first. Gives where the files are then.
    ///
    /// An end in the middle of this leaves the log where it was.
    pub(super) fn moved(
        self,
        directory: &Path,
        wanted: Option<&Path>,
        sizes: Sizes,
    ) -> Result<Self, OpenStoreError> {
        let moved = match self.log.as_ref().map(|log| log.path.as_path()) == wanted {
            true => self,
            false => self.move_to(directory, wanted, sizes)?,
        };
        if moved.log.is_some() {
            // What an end in the middle of moving has left.
            clear(&moved.database)?;
        }
        Ok(moved)
    }

    fn move_to(
        self,
        directory: &Path,
        wanted: Option<&Path>,
        sizes: Sizes,
    ) -> Result<Self, OpenStoreError> {
        let error = |source| OpenStoreError::Database {
            directory: self.database.clone(),
            source: Damage::from(source),
        };
        let rocks = Rocks::open(&self, sizes, Care::Usual).map_err(error)?;
        let log = wanted.map(claim).transpose()?;
        rocks.flush().map_err(error)?;
        drop(rocks);
        note(directory, log.as_ref())?;
        let former = self.log();
        clear(former)?;
        tracing::info!(from = %former.display(), to = ?wanted, "the store's log has moved");
        Ok(Self {
            log,
            database: self.database,
        })
    }
}

fn parse(note: &[u8]) -> Option<LogPlace> {
    let end = note.iter().position(|&byte| byte == b'\n')?;
    let (tag, path) = (&note[..end], &note[end + 1..]);
    Some(LogPlace {
        path: PathBuf::from(OsString::from_vec(path.to_vec())),
        tag: String::from_utf8(tag.to_vec()).ok()?,
    })
}

fn unreadable(path: PathBuf) -> OpenStoreError {
    let source = io::Error::new(io::ErrorKind::InvalidData, "it names no directory");
    OpenStoreError::Directory { path, source }
}

/// Whether the log with this tag is in `directory`.
fn has_tag(directory: &Path, tag: &str) -> bool {
    fs::read(directory.join(OWNER)).is_ok_and(|found| found == tag.as_bytes())
}

/// Makes `path` the directory of a log. It has to be empty: no other store has its log there then.
fn claim(path: &Path) -> Result<LogPlace, OpenStoreError> {
    let error = |source| OpenStoreError::Directory {
        path: path.to_owned(),
        source,
    };
    // Chunks of all teams pass through it.
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(error)?;
    // The first is in the root of a file system of its own from the start, the others are what an end in the
    // middle of this leaves: whoever has a log here has a file of it, too.
    let nothing = ["lost+found", OWNER, OWNER_NEW];
    for file in fs::read_dir(path).map_err(error)? {
        let name = file.map_err(error)?.file_name();
        if !nothing.iter().any(|nothing| name == **nothing) {
            return Err(OpenStoreError::LogTaken {
                log: path.to_owned(),
            });
        }
    }
    let mut tag = [0; TAG_BYTES];
    let drawn = fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut tag));
    drawn.map_err(error)?;
    let tag = hex(&tag);
    write(path, OWNER, tag.as_bytes()).map_err(error)?;
    Ok(LogPlace {
        path: path.to_owned(),
        tag,
    })
}

/// Notes where the log of the cache in `directory` is.
fn note(directory: &Path, log: Option<&LogPlace>) -> Result<(), OpenStoreError> {
    let noted = match log {
        Some(log) => {
            let text = [log.tag.as_bytes(), b"\n", log.path.as_os_str().as_bytes()].concat();
            write(directory, NOTE, &text)
        }
        None => fs::remove_file(directory.join(NOTE))
            .and_then(|()| fs::File::open(directory)?.sync_all()),
    };
    noted.map_err(|source| OpenStoreError::Directory {
        path: directory.join(NOTE),
        source,
    })
}

/// Removes what is left of a log in a directory that is not its place any more.
fn clear(directory: &Path) -> Result<(), OpenStoreError> {
    let error = |source| OpenStoreError::Directory {
        path: directory.to_owned(),
        source,
    };
    for file in fs::read_dir(directory).map_err(error)? {
        let path = file.map_err(error)?.path();
        if path.extension().is_some_and(|found| found == "log") {
            fs::remove_file(&path).map_err(error)?;
        }
    }
    match fs::remove_file(directory.join(OWNER)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error(source)),
        _ => Ok(()),
    }
}
