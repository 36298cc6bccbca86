//! The version of what is kept in a cache's directory, in a file beside the database: it is read before
//! the database is opened, because a newer one may have columns that this program does not know.

use std::{fs, io, io::Write as _, path::Path};

use super::error::OpenStoreError;

/// The version that this program writes.
const VERSION: u32 = 1;

/// Checks the version of the store in `directory`, or marks it with the current one if it is new.
pub(super) fn check(directory: &Path) -> Result<(), OpenStoreError> {
    let path = directory.join("version");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return write(directory, &path)
                .map_err(|source| OpenStoreError::Directory { path, source });
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
    if VERSION < version {
        return Err(OpenStoreError::Newer {
            directory: directory.to_owned(),
            found: version,
            known: VERSION,
        });
    }
    Ok(())
}

/// Writes the version so that it is there as a whole or not at all.
fn write(directory: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let temporary = directory.join("version.new");
    let mut file = fs::File::create(&temporary)?;
    writeln!(file, "{VERSION}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(directory)?.sync_all()
}
