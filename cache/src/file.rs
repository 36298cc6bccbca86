//! One file below a directory, whole, wherever its path leads.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use protocol::path::TreePath;
use rustix::fs::{Mode, OFlags};

use crate::beneath::Root;

/// The bytes of the file at `path` below `root`; `None`, if it is longer than `bytes_max` or no file. Blocks.
///
/// # Errors
///
/// If it cannot be opened or read; links are not followed, so a path with one cannot be opened.
pub fn read_file(root: &Path, path: &TreePath, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    // A pipe that nobody writes to would block.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = Root::open(root)?.open_at(path, flags, Mode::empty())?;
    let file = File::from(opened);
    let of = file.metadata()?;
    if !of.is_file() || bytes_max < of.len() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    // It may have grown meanwhile.
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= bytes_max);
    Ok(fits.then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn only_files_that_are_there_and_short_enough_are_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/a"), "hay").unwrap();
        symlink("a", dir.path().join("d/link")).unwrap();
        let read = |path: &str, bytes_max: u64| {
            let path = TreePath::new(path).unwrap();
            read_file(dir.path(), &path, bytes_max)
        };
        assert_eq!(read("d/a", 3).unwrap().as_deref(), Some(&b"hay"[..]));
        assert_eq!(read("d/a", 2).unwrap(), None);
        assert_eq!(read("d", 10).unwrap(), None);
        assert!(read("d/link", 10).is_err() && read("d/b", 10).is_err());
    }
}
