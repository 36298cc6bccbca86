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
/// `view`. The names are looked for in `layers` first, which are small; then, if one is missing that must
/// be there, everywhere: it is a file of the machine itself. Nothing may change meanwhile. Blocks.
///
/// # Errors
///
/// If something cannot be read.
pub(super) fn of_changed(
    index: &Path,
    view: &Path,
    layers: &[PathBuf],
) -> io::Result<Vec<BTreeSet<TreePath>>> {
    let mut search = Search {
        view,
        wanted: noted(index)?,
        names: BTreeMap::new(),
    };
    for layer in layers {
        if !search.wanted.is_empty() {
            search.walk(layer)?;
        }
    }
    if !search.is_complete() {
        search.walk(view)?;
    }
    Ok(search.names.into_values().map(|(_, names)| names).collect())
}

struct Search<'a> {
    view: &'a Path,
    wanted: BTreeSet<Look>,
    /// How many names each file has, and those that were found.
    names: BTreeMap<(Look, u64, u64), (u64, BTreeSet<TreePath>)>,
}

impl Search<'_> {
    /// Whether all names of all that is wanted were found.
    fn is_complete(&self) -> bool {
        let found = |look: &Look| self.names.keys().any(|(found, ..)| found == look);
        let all = |(count, names): &(u64, BTreeSet<TreePath>)| *count <= names.len() as u64;
        self.wanted.iter().all(found) && self.names.values().all(all)
    }

    /// Looks at everything in the view that `root`, the view or a layer under it, has a name for.
    fn walk(&mut self, root: &Path) -> io::Result<()> {
        // The view of a sandbox is a link of `/proc`.
        let device = fs::metadata(root)?.dev();
        let mut pending = vec![PathBuf::new()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(root.join(&directory))? {
                let entry = entry?;
                let path = directory.join(entry.file_name());
                if !entry.file_type()?.is_dir() {
                    self.look_at(path);
                } else if entry.metadata().is_ok_and(|found| found.dev() == device) {
                    // What is mounted is not part of the overlay.
                    pending.push(path);
                }
            }
        }
        Ok(())
    }

    fn look_at(&mut self, path: PathBuf) {
        // What a layer has may be gone from the view.
        let Ok(found) = fs::symlink_metadata(self.view.join(&path)) else {
            return;
        };
        if self.wanted.contains(&look(&found))
            && let Ok(path) = TreePath::new(path.as_os_str().as_bytes())
        {
            let file = (look(&found), found.dev(), found.ino());
            let (_, names) = self
                .names
                .entry(file)
                .or_insert_with(|| (found.nlink(), BTreeSet::new()));
            names.insert(path);
        }
    }
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
        let place = |name: &str| folder.path().join(name);
        let (index, view) = (place("index"), place("view"));
        fs::create_dir_all(&index).unwrap();
        fs::create_dir_all(view.join("opt/deep")).unwrap();
        assert_eq!(of_changed(&index, &view, &[]).unwrap(), []);
        fs::write(view.join("opt/a"), "changed").unwrap();
        fs::write(view.join("opt/other"), "not changed").unwrap();
        fs::hard_link(view.join("opt/a"), view.join("opt/deep/b")).unwrap();
        fs::hard_link(view.join("opt/a"), index.join("00fb21")).unwrap();
        // As the view of a sandbox is: a link on another file system.
        let elsewhere = fs::File::open(&view).unwrap();
        let view = std::os::fd::AsRawFd::as_raw_fd(&elsewhere);
        let view = format!("/proc/self/fd/{view}");
        let names = |names: &[&str]| -> BTreeSet<_> {
            let name = |name: &&str| TreePath::new(*name).unwrap();
            names.iter().map(name).collect()
        };
        let both = names(&["opt/a", "opt/deep/b"]);
        let found = of_changed(&index, Path::new(&view), &[]).unwrap();
        assert_eq!(found, std::slice::from_ref(&both));
        // A layer that knows one of them does not hide the other.
        let layer = place("layer");
        fs::create_dir_all(layer.join("opt")).unwrap();
        fs::write(layer.join("opt/a"), "as it was").unwrap();
        fs::write(layer.join("opt/gone"), "as it was").unwrap();
        let found = of_changed(&index, Path::new(&view), &[layer]).unwrap();
        assert_eq!(found, [both]);
    }

    #[test]
    fn an_overlay_without_an_index_has_no_such_files() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("index");
        assert_eq!(of_changed(&missing, folder.path(), &[]).unwrap(), []);
    }
}
