//! Keys and certificates on disk: PEM files that only their owner reads, replaced as a whole.
//!
//! A file holds all that belongs together, so that a crash never leaves a key beside another key's
//! certificate.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use pem::{EncodeConfig, LineEnding, Pem};
use tempfile::NamedTempFile;

/// The largest file that is read, in bytes: many times a key and two certificates.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Keys are for their owner.
const FILE_MODE: u32 = 0o600;
/// So are the directories that hold them.
const DIRECTORY_MODE: u32 = 0o700;

/// Why a file of keys could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The disk says no: see the source.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The disk says no: see the source.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no such file: restore it, or remove it and enrol again.
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl KeepError {
    /// The file at `path` is damaged.
    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

/// Whether a file that is there already gives way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Existing {
    /// It is replaced, in one step.
    Replace,
    /// It stays, and nothing is written.
    Keep,
}

/// One part of a file: what it is, and its bytes.
pub(crate) type Part = (&'static str, Vec<u8>);

/// Reads the parts of the file at `path`, which have to be those of `tags`, in that order. `None`: there
/// is no such file.
pub(crate) fn read<const N: usize>(
    path: &Path,
    tags: [&str; N],
) -> Result<Option<[Vec<u8>; N]>, KeepError> {
    let Some(text) = read_bounded(path).map_err(|source| KeepError::Read {
        path: path.to_owned(),
        source,
    })?
    else {
        return Ok(None);
    };
    let parts =
        pem::parse_many(text).map_err(|error| KeepError::damaged(path, error.to_string()))?;
    let found: Vec<&str> = parts.iter().map(Pem::tag).collect();
    if found != tags {
        return Err(KeepError::damaged(
            path,
            format!("it holds {found:?}, not {tags:?}"),
        ));
    }
    let contents: Vec<Vec<u8>> = parts.into_iter().map(Pem::into_contents).collect();
    Ok(Some(
        contents.try_into().expect("there are as many as tags"),
    ))
}

fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// Writes `parts` to the file at `path`, creating its directory; when this returns they are on the disk.
pub(crate) fn write(path: &Path, parts: &[Part], existing: Existing) -> Result<(), KeepError> {
    let parts: Vec<Pem> = parts
        .iter()
        .map(|(tag, contents)| Pem::new(tag, contents.as_slice()))
        .collect();
    let text = pem::encode_many_config(&parts, EncodeConfig::new().set_line_ending(LineEnding::LF));
    write_whole(path, text.as_bytes(), existing).map_err(|source| KeepError::Write {
        path: path.to_owned(),
        source,
    })
}

fn write_whole(path: &Path, text: &[u8], existing: Existing) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)?;
    let mut file = NamedTempFile::new_in(directory)?;
    fs::set_permissions(file.path(), Permissions::from_mode(FILE_MODE))?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    let persisted = match existing {
        Existing::Replace => file.persist(path),
        Existing::Keep => file.persist_noclobber(path),
    };
    match persisted {
        Ok(_file) => File::open(directory)?.sync_all(),
        Err(error)
            if existing == Existing::Keep && error.error.kind() == io::ErrorKind::AlreadyExists =>
        {
            Ok(())
        }
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_reads_keys() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b/key.pem");
        write(&path, &[("KEY", vec![1])], Existing::Replace).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(read(&path, ["KEY"]).unwrap(), Some([vec![1]]));
    }

    #[test]
    fn a_file_is_replaced_or_kept_as_a_whole_and_leaves_nothing_beside_it() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("key.pem");
        for (value, existing, expected) in [
            (1, Existing::Keep, 1),
            (2, Existing::Keep, 1),
            (3, Existing::Replace, 3),
        ] {
            write(&path, &[("KEY", vec![value])], existing).unwrap();
            assert_eq!(read(&path, ["KEY"]).unwrap(), Some([vec![expected]]));
        }
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_named_and_a_missing_one_is_none() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("key.pem");
        assert_eq!(read(&path, ["KEY"]).unwrap(), None);
        fs::write(&path, b"\xff\x00 nothing").unwrap();
        let error = read(&path, ["KEY"]).unwrap_err();
        assert!(error.to_string().contains("key.pem` is damaged"), "{error}");
        write(&path, &[("OTHER", vec![1])], Existing::Replace).unwrap();
        let error = read(&path, ["KEY"]).unwrap_err();
        assert!(error.to_string().contains("OTHER"), "{error}");
    }
}
