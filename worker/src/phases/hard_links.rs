//! Changed files of an overlay that have several names.
//!
//! When a file of a lower layer that has several names is changed through one of them, all of them show
//! the change; but the upper directory has only the name that was used. The overlay notes such files in
//! its index: each is there under a name that says where it came from. The other names are found in the
//! merged file system. Without them, the next phase would see the old file there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use protocol::path::TreePath;

/// What says that two names are those of one file, although an overlay shows other numbers than the
/// directory below: its length, its mode, when it was last changed in any way, and its content.
type Look = (u64, u32, i64, i64, i64, i64);

fn look(of: &Metadata) -> Look {
    let (changed, modified) = (of.ctime(), of.mtime());
    let nanos = (of.ctime_nsec(), of.mtime_nsec());
    (of.len(), of.mode(), changed, nanos.0, modified, nanos.1)
}

/// The changed files that are noted in `index`, each by all its names in the file system that is seen at
/// `view`. Nothing may change meanwhile. Blocks.
///
/// # Errors
///
/// If something cannot be read.
pub(super) fn of_changed(index: &Path, view: &Path) -> io::Result<Vec<BTreeSet<TreePath>>> {
    let wanted = noted(index)?;
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    // The view of a sandbox is a link of `/proc`.
    let device = fs::metadata(view)?.dev();
    let mut names: BTreeMap<(Look, u64, u64), BTreeSet<TreePath>> = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(view.join(&directory))? {
            let entry = entry?;
            let Ok(found) = entry.metadata() else {
                continue;
            };
            let path = directory.join(entry.file_name());
            if found.is_dir() {
                // What is mounted is not part of the overlay.
                if found.dev() == device {
                    pending.push(path);
                }
            } else if wanted.contains(&look(&found))
                && let Ok(path) = TreePath::new(path.as_os_str().as_bytes())
            {
                let file = (look(&found), found.dev(), found.ino());
                names.entry(file).or_default().insert(path);
            }
        }
    }
    Ok(names.into_values().collect())
}

/// How the files look that are noted in `index`. Directories and whiteouts there say something else.
fn noted(index: &Path) -> io::Result<BTreeSet<Look>> {
    let entries = match fs::read_dir(index) {
        // An overlay without lower layers of its own kind has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut noted = BTreeSet::new();
    for entry in entries {
        let found = entry?.metadata()?;
        if found.is_file() {
            noted.insert(look(&found));
        }
    }
    Ok(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_of_what_is_noted_are_found_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (index, view) = (folder.path().join("index"), folder.path().join("view"));
        fs::create_dir_all(&index).unwrap();
        fs::create_dir_all(view.join("opt/deep")).unwrap();
        assert_eq!(of_changed(&index, &view).unwrap(), []);
        fs::write(view.join("opt/a"), "changed").unwrap();
        fs::write(view.join("opt/other"), "not changed").unwrap();
        fs::hard_link(view.join("opt/a"), view.join("opt/deep/b")).unwrap();
        fs::hard_link(view.join("opt/a"), index.join("00fb21")).unwrap();
        // As the view of a sandbox is: a link on another file system.
        let elsewhere = fs::File::open(&view).unwrap();
        let view = format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&elsewhere)
        );
        let found = of_changed(&index, Path::new(&view)).unwrap();
        let names = ["opt/a", "opt/deep/b"].map(|name| TreePath::new(name).unwrap());
        assert_eq!(found, [BTreeSet::from(names)]);
    }

    #[test]
    fn an_overlay_without_an_index_has_no_such_files() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("index");
        assert_eq!(of_changed(&missing, folder.path()).unwrap(), []);
    }
}
