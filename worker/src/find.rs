//! Looks up patterns in a file system: which paths below a root they match.
//!
//! The walk never follows a link, never leaves its root, and does not go into other file systems that
//! are mounted below where it starts, like `/proc`. It blocks.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, path::Path};

use protocol::path::TreePath;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2, statat},
    io::Errno,
};

use crate::patterns::Pattern;

/// Something that a pattern matches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Match {
    /// Where, relative to the root.
    pub(crate) path: TreePath,
    /// Whether it is a directory; a link to one is not.
    pub(crate) is_directory: bool,
}

/// What each of `patterns` matches below `root`, parallel to them, in no order. Links in the path of
/// `root` itself are followed.
///
/// # Errors
///
/// If the root cannot be opened, or a directory cannot be read.
pub(crate) fn find(root: &Path, patterns: &[Pattern]) -> io::Result<Vec<Vec<Match>>> {
    let root = open(root, DIRECTORY, Mode::empty())?;
    let mut found = vec![Vec::new(); patterns.len()];
    // Patterns that start at one place share one walk.
    let mut starts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, pattern) in patterns.iter().enumerate() {
        starts.entry(pattern.start()).or_default().push(index);
    }
    for (start, indices) in starts {
        Walk {
            root: &root,
            patterns,
            indices: &indices,
        }
        .from(start, &mut found)?;
    }
    Ok(found)
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

struct Walk<'a> {
    root: &'a OwnedFd,
    patterns: &'a [Pattern],
    /// The patterns that start here.
    indices: &'a [usize],
}

impl Walk<'_> {
    fn from(&self, start: &str, found: &mut [Vec<Match>]) -> io::Result<()> {
        let start = match start {
            "" => None,
            start => match TreePath::new(start) {
                Ok(start) => Some(start),
                Err(_too_long) => return Ok(()),
            },
        };
        let Some(directory) = self.open(start.as_ref())? else {
            return self.alone(start.as_ref(), found);
        };
        if let Some(start) = &start {
            self.offer(start, true, found);
        }
        if self
            .indices
            .iter()
            .all(|&index| self.patterns[index].is_literal())
        {
            return Ok(());
        }
        let device = fstat(&directory)?.st_dev;
        let mut pending = vec![(start, directory)];
        while let Some((path, directory)) = pending.pop() {
            if fstat(&directory)?.st_dev != device {
                continue;
            }
            for (name, is_directory) in list(&directory)? {
                let below = path
                    .as_ref()
                    .map_or_else(|| TreePath::new(name.as_slice()), |path| path.join(&name));
                // A path too long for a tree can be in no tree.
                let Ok(below) = below else { continue };
                self.offer(&below, is_directory, found);
                if is_directory
                    && self.is_worth_entering(&below)
                    && let Some(directory) = self.open(Some(&below))?
                {
                    pending.push((Some(below), directory));
                }
            }
        }
        Ok(())
    }

    /// What is at `start` is no directory, or not there.
    fn alone(&self, start: Option<&TreePath>, found: &mut [Vec<Match>]) -> io::Result<()> {
        let Some(start) = start else { return Ok(()) };
        let parent = match start.parent() {
            None => Some(self.root.try_clone()?),
            Some(parent) => self.open(Some(&parent))?,
        };
        let Some(parent) = parent else { return Ok(()) };
        match statat(&parent, start.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => self.offer(start, false, found),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn offer(&self, path: &TreePath, is_directory: bool, found: &mut [Vec<Match>]) {
        for &index in self.indices {
            if self.patterns[index].matches(path) {
                found[index].push(Match {
                    path: path.clone(),
                    is_directory,
                });
            }
        }
    }

    fn is_worth_entering(&self, directory: &TreePath) -> bool {
        let depth = directory.components().count();
        let mut depths = self.indices.iter().map(|&at| self.patterns[at].depth());
        depths.any(|deepest| deepest.is_none_or(|deepest| depth < deepest))
    }

    /// `None`: it is not there, or is no directory.
    fn open(&self, path: Option<&TreePath>) -> io::Result<Option<OwnedFd>> {
        let path = path.map_or(&b"."[..], TreePath::as_bytes);
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(self.root, path, flags, Mode::empty(), resolve) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The names in a directory, and which of them are directories.
fn list(directory: &OwnedFd) -> io::Result<Vec<(Vec<u8>, bool)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(_gone) => continue,
            },
            kind => kind,
        };
        names.push((name.to_bytes().to_vec(), kind == FileType::Directory));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::patterns::Anchors;

    /// Makes a small file system and gives what `pattern` matches in it, sorted; `/` marks directories.
    #[track_caller]
    fn check(pattern: &str, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("src/dist/css")).unwrap();
        fs::create_dir_all(root.join("src/.hidden")).unwrap();
        for file in [
            "src/a.txt",
            "src/dist/b.js",
            "src/dist/css/c.css",
            "src/.hidden/d",
        ] {
            fs::write(root.join(file), file).unwrap();
        }
        symlink("/etc", root.join("src/etc")).unwrap();
        symlink("dist", root.join("src/link")).unwrap();
        let anchors = Anchors {
            source: "src",
            home: "root",
            root: "/",
        };
        let pattern = Pattern::new(pattern, &anchors).unwrap();
        let found = find(root, &[pattern]).unwrap().remove(0);
        let mut shown: Vec<_> = found
            .iter()
            .map(|found| {
                format!(
                    "{}{}",
                    found.path,
                    if found.is_directory { "/" } else { "" }
                )
            })
            .collect();
        shown.sort();
        assert_eq!(shown, expected);
    }

    #[test]
    fn patterns_find_files_links_and_directories() {
        check("*.txt", &["src/a.txt"]);
        check(
            "dist/**/*",
            &["src/dist/b.js", "src/dist/css/", "src/dist/css/c.css"],
        );
        check("**/d", &["src/.hidden/d"]);
        check("dist", &["src/dist/"]);
        check("a.txt", &["src/a.txt"]);
        check("dist/*", &["src/dist/b.js", "src/dist/css/"]);
        check("nothing/**/*", &[]);
        check("a.txt/x", &[]);
    }

    #[test]
    fn a_link_is_found_and_never_followed() {
        check("etc", &["src/etc"]);
        check("etc/passwd", &[]);
        check("etc/**/*", &[]);
        check("link/*", &[]);
    }
}
