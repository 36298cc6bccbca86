//! Whether files are still what was read.
//!
//! Who reads a file only once may have read it between two writes to it, and nothing else would tell.

use std::{io, os::fd::OwnedFd};

use protocol::path::TreePath;
use rustix::{
    fs::{AtFlags, statat},
    io::Errno,
};

use super::{CaptureError, Seen, Stamp, hashing::stamp_of};
use crate::{beneath::Root, ongoing};

/// Looks at each file of `seen` that was read, below `root`, as it was found there. Blocks.
///
/// # Errors
///
/// The first one that is not what it was when it was read is named.
pub(crate) fn recheck(root: &Root, seen: &[Seen]) -> Result<(), CaptureError> {
    let mut directory = None;
    for Seen { file, .. } in seen.iter().filter(|file| !file.is_known) {
        let path = || file.path.clone();
        let now = look(root, &file.path, &mut directory);
        let now = now.map_err(|source| CaptureError::Read {
            path: path(),
            source,
        })?;
        if now != Some(file.stamp) {
            return Err(CaptureError::Changed { path: path() });
        }
    }
    Ok(())
}

/// The stamp of what is at `path`; `None`: nothing is. The directory that it is in stays open for the next one, which
/// mostly is in the same.
fn look(
    root: &Root,
    path: &TreePath,
    directory: &mut Option<(Option<TreePath>, OwnedFd)>,
) -> io::Result<Option<Stamp>> {
    ongoing::check()?;
    let parent = path.parent();
    if directory.as_ref().is_none_or(|(of, _)| *of != parent) {
        let opened = match root.directory(parent.as_ref()) {
            Err(e) if is_gone(&e) => return Ok(None),
            opened => opened?,
        };
        *directory = Some((parent, opened));
    }
    let (_, below) = directory.as_ref().expect("it was opened");
    match statat(below, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        found => Ok(Some(stamp_of(&found?))),
    }
}

/// Whether a directory is not there any more, or something else is in its place.
pub(super) fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    gone.map(|e| Some(e.raw_os_error()))
        .contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::{MetadataExt, symlink},
        path::Path,
    };

    use super::*;
    use crate::capture::Subject;

    /// Writes as many bytes as there were, until the system's clock has gone on, and puts back the time that it can.
    fn write_unnoticed(path: &Path) {
        let before = path.metadata().unwrap();
        let changed = |of: &fs::Metadata| (of.ctime(), of.ctime_nsec());
        while changed(&path.metadata().unwrap()) == changed(&before) {
            fs::write(path, "two").unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_file_that_changes_after_it_was_read_is_refused_by_name() {
        let changes: [fn(&Path); 5] = [
            |root| write_unnoticed(&root.join("sub/file")),
            |root| fs::write(root.join("sub/file"), "longer").unwrap(),
            |root| fs::remove_file(root.join("sub/file")).unwrap(),
            |root| fs::rename(root.join("sub"), root.join("moved")).unwrap(),
            |root| {
                fs::rename(root.join("sub"), root.join("moved")).unwrap();
                symlink("moved", root.join("sub")).unwrap();
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("sub")).unwrap();
            for name in ["before", "sub/file", "sub/last"] {
                fs::write(dir.path().join(name), "one").unwrap();
            }
            let root = Root::open(dir.path()).unwrap();
            let mut seen = Subject::all(dir.path().to_owned()).run().unwrap().seen;
            recheck(&root, &seen).unwrap();
            change(dir.path());
            let refused = recheck(&root, &seen).unwrap_err();
            let refused = refused.to_string();
            assert!(
                refused.starts_with("`sub/file` changes"),
                "change {number}: {refused}"
            );
            // What was not read was not read between two writes either.
            seen.iter_mut().for_each(|of| of.is_known = true);
            recheck(&root, &seen).unwrap();
        }
    }
}
