//! The version of what is kept in a cache's directory, in a file beside the database: it is read before
//! the database is opened, because a newer one may have columns that this program does not know.

use std::{cmp::Ordering, fs, io, path::Path};

use super::{error::OpenStoreError, small_file};

/// The file.
const NAME: &str = "version";
/// The version that this program writes.
const VERSION: u32 = 2;

/// Checks the version of the store in `directory`, or marks it with the current one if it is new.
pub(super) fn check(directory: &Path) -> Result<(), OpenStoreError> {
    let path = directory.join(NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return write(directory).map_err(|source| OpenStoreError::Directory { path, source });
        }
        Err(source) => return Err(OpenStoreError::Directory { path, source }),
    };
    let found = text.trim_end();
    let Ok(version) = found.parse::<u32>() else {
        return Err(OpenStoreError::Version {
            found: found.chars().take(20).collect(),
            path,
        });
    };
    match version.cmp(&VERSION) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(OpenStoreError::Newer {
            directory: directory.to_owned(),
            found: version,
            known: VERSION,
        }),
        // Programs of older versions may not understand what this one writes.
        Ordering::Less => {
            write(directory).map_err(|source| OpenStoreError::Directory { path, source })
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    small_file::write(directory, NAME, format!("{VERSION}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_store_is_of_this_version_from_its_first_start_on() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("version");
        fs::write(&version, "0\n").unwrap();
        check(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(version).unwrap(), format!("{VERSION}\n"));
    }
}
