//! Lists what is below a directory.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
};

use protocol::{
    path::TreePath,
    tree::{EntryKind, TREE_ENTRIES_MAX},
};
use rustix::{
    fs::{AtFlags, Dir, FileType, Stat, fstat, major, minor, readlinkat, statat},
    io::Errno,
};

use super::{
    Capture, CaptureError, Detail, Dialect, Stamp,
    facts::{Marks, XattrList, changed, modified, xattrs},
};
use crate::{ongoing, selection::Verdict};

/// What the walk found at a path.
pub(crate) struct Found {
    pub(crate) path: TreePath,
    pub(crate) kind: FoundKind,
    /// Which of the capture's roots it is below.
    pub(crate) root: usize,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) modified: i64,
    /// When anything of it last changed, in nanoseconds since 1970.
    pub(crate) changed: i64,
    /// In bytes.
    pub(crate) size: u64,
    /// Device and inode.
    pub(crate) node: (u64, u64),
    /// The same, if it has other names.
    pub(crate) shared_node: Option<(u64, u64)>,
    /// Of directories; those of files are read with them.
    pub(crate) xattrs: XattrList,
}

impl Found {
    /// What changes when it does.
    pub(crate) const fn stamp(&self) -> Stamp {
        Stamp {
            node: self.node,
            size: self.size,
            modified: self.modified,
            changed: self.changed,
        }
    }
}

/// What it is, as far as that is known without reading it.
pub(crate) enum FoundKind {
    /// A regular file.
    File,
    /// Anything else, which is known in full.
    Other(EntryKind),
}

/// A directory that is yet to be listed.
struct Pending {
    /// `None`: the root.
    path: Option<TreePath>,
    root: usize,
    dialect: Dialect,
}

/// What a directory holds.
enum Child {
    /// Known in full.
    Ready(Found),
    /// A directory that nobody has opened yet.
    Directory(Pending),
}

/// Lists everything that the capture chooses: in tree order, but for links of other layers, which come
/// last.
pub(crate) fn walk(capture: &Capture<'_>) -> Result<Vec<Found>, CaptureError> {
    let mut found = Vec::new();
    let root = Pending {
        path: None,
        root: 0,
        dialect: capture.dialect,
    };
    let failed = |source| CaptureError::List { source };
    let directory = capture.roots[0].directory(None).map_err(failed)?;
    // Siblings by name, and what is in one before the next one: that is the order of trees.
    let mut pending = vec![list(capture, &root, &directory)?.into_iter()];
    while let Some(children) = pending.last_mut() {
        let Some(child) = children.next() else {
            pending.pop();
            continue;
        };
        if found.len() as u64 >= TREE_ENTRIES_MAX {
            return Err(CaptureError::TooMany);
        }
        ongoing::check().map_err(failed)?;
        match child {
            Child::Ready(entry) => found.push(entry),
            Child::Directory(at) => {
                let path = at.path.clone().expect("the root is no child");
                let Some((entry, directory, next)) = enter(capture, &at, path)? else {
                    continue;
                };
                let children = match next.root == at.root {
                    true => list(capture, &next, &directory)?,
                    false => list_elsewhere(capture, &next)?,
                };
                found.push(entry);
                pending.push(children.into_iter());
            }
        }
    }
    if !capture.links.is_empty() {
        add_links(capture, &mut found)?;
    }
    Ok(found)
}

/// Adds the names of changed files that are not among `found` yet, with the directories that lead there,
/// from the merged file system; and has all names of a file share a node.
fn add_links(capture: &Capture<'_>, found: &mut Vec<Found>) -> Result<(), CaptureError> {
    let known = found.iter().map(|found| found.path.clone());
    let mut known: BTreeMap<_, _> = known.zip(0..).collect();
    for (number, names) in (0..).zip(capture.links) {
        for name in names {
            let mut missing = Vec::new();
            let mut next = Some(name.clone());
            while let Some(path) = next.take_if(|path| !known.contains_key(path)) {
                next = path.parent();
                missing.push(path);
            }
            for path in missing.into_iter().rev() {
                let Some(entry) = look_up(capture, &path)? else {
                    // It was a name when they were looked up; now something else is there.
                    return Err(CaptureError::Changed { path });
                };
                known.insert(path, found.len());
                found.push(entry);
            }
            // No device has this number, so that it is nobody else's node.
            found[known[name]].shared_node = Some((u64::MAX, number));
        }
    }
    Ok(())
}

/// What is at `path` in the merged file system; `None`: nothing that is captured.
fn look_up(capture: &Capture<'_>, path: &TreePath) -> Result<Option<Found>, CaptureError> {
    let at = Pending {
        path: path.parent(),
        root: 1,
        dialect: Dialect::Plain,
    };
    let failed = |source: io::Error| CaptureError::Read {
        path: path.clone(),
        source,
    };
    let directory = capture.roots[at.root].directory(at.path.as_ref());
    let directory = directory.map_err(failed)?;
    let stat = statat(&directory, path.name(), AtFlags::SYMLINK_NOFOLLOW);
    let stat = stat.map_err(|e| failed(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let entered = enter(capture, &at, path.clone())?;
        return Ok(entered.map(|(entry, _, _)| entry));
    }
    look(&directory, &at, path.clone(), &stat)
}

/// Lists a directory of the merged file system in place of the one in the upper directory.
fn list_elsewhere(capture: &Capture<'_>, at: &Pending) -> Result<Vec<Child>, CaptureError> {
    let directory = capture.roots[at.root].directory(at.path.as_ref());
    let directory = directory.map_err(|source| not_listed(at, source))?;
    list(capture, at, &directory)
}

fn not_listed(at: &Pending, source: io::Error) -> CaptureError {
    match at.path.clone() {
        Some(path) => CaptureError::Read { path, source },
        None => CaptureError::List { source },
    }
}

/// Lists one directory, by name.
fn list(
    capture: &Capture<'_>,
    at: &Pending,
    directory: &OwnedFd,
) -> Result<Vec<Child>, CaptureError> {
    let failed = |e: Errno| not_listed(at, e.into());
    let mut names = Vec::new();
    for name in Dir::read_from(directory).map_err(failed)? {
        let name = name.map_err(failed)?;
        let name = name.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    let mut children = Vec::with_capacity(names.len());
    for name in names {
        let path = below(at.path.as_ref(), name.to_bytes())?;
        let verdict = capture.selection.of(&path);
        if verdict == Verdict::Skip {
            continue;
        }
        let stat = match statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went away between listing and looking: as if it had gone before.
            Err(Errno::NOENT) => continue,
            Err(e) => {
                let source = e.into();
                return Err(CaptureError::Read { path, source });
            }
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if verdict == Verdict::Lead && !is_directory {
            continue;
        }
        if is_directory {
            children.push(Child::Directory(Pending {
                path: Some(path),
                root: at.root,
                dialect: at.dialect,
            }));
        } else if let Some(entry) = look(directory, at, path, &stat)? {
            children.push(Child::Ready(entry));
        }
    }
    Ok(children)
}

fn below(directory: Option<&TreePath>, name: &[u8]) -> Result<TreePath, CaptureError> {
    let path = match directory {
        Some(directory) => directory.join(name),
        None => TreePath::new(name),
    };
    path.map_err(|source| CaptureError::Name {
        directory: directory.map_or_else(|| ".".to_owned(), ToString::to_string),
        source,
    })
}

/// What is at `path`, which is no directory; `None` for sockets, except in an upper directory.
fn look(
    directory: &OwnedFd,
    at: &Pending,
    path: TreePath,
    stat: &Stat,
) -> Result<Option<Found>, CaptureError> {
    let device = |block| EntryKind::Device {
        block,
        major: major(stat.st_rdev),
        minor: minor(stat.st_rdev),
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FoundKind::File,
        FileType::Symlink => {
            let target = readlinkat(directory, path.name(), Vec::new());
            let target = target.map_err(|e| CaptureError::Read {
                path: path.clone(),
                source: e.into(),
            })?;
            FoundKind::Other(EntryKind::Symlink {
                target: target.into_bytes(),
            })
        }
        FileType::Fifo => FoundKind::Other(EntryKind::Fifo),
        FileType::CharacterDevice if at.dialect == Dialect::Overlay && stat.st_rdev == 0 => {
            FoundKind::Other(EntryKind::Whiteout)
        }
        FileType::CharacterDevice => FoundKind::Other(device(false)),
        FileType::BlockDevice => FoundKind::Other(device(true)),
        // It may stand where a lower layer has something.
        FileType::Socket if at.dialect == Dialect::Overlay => FoundKind::Other(EntryKind::Whiteout),
        _ => return Ok(None),
    };
    Ok(Some(entry(path, kind, at.root, stat)))
}

/// What is known of the directory at `path`, the directory itself, and where what it holds is to be
/// listed; `None` if it went away.
fn enter(
    capture: &Capture<'_>,
    at: &Pending,
    path: TreePath,
) -> Result<Option<(Found, OwnedFd, Pending)>, CaptureError> {
    let failed = |source: io::Error| CaptureError::Read {
        path: path.clone(),
        source,
    };
    let directory = match capture.roots[at.root].directory(Some(&path)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        directory => directory.map_err(failed)?,
    };
    let stat = fstat(&directory).map_err(|e| failed(e.into()))?;
    let (xattrs, marks) = match capture.detail {
        Detail::Full => xattrs(directory.as_fd(), at.dialect).map_err(failed)?,
        Detail::Checkout => (Vec::new(), Marks::default()),
    };
    let mut next = Pending {
        path: Some(path.clone()),
        root: at.root,
        dialect: at.dialect,
    };
    if marks.redirected {
        if capture.roots.len() < 2 {
            return Err(CaptureError::Redirected { path });
        }
        next.root = 1;
        next.dialect = Dialect::Plain;
    }
    let opaque = marks.opaque || marks.redirected;
    let kind = FoundKind::Other(EntryKind::Directory { opaque });
    let mut found = entry(path, kind, at.root, &stat);
    found.xattrs = xattrs;
    Ok(Some((found, directory, next)))
}

fn entry(path: TreePath, kind: FoundKind, root: usize, stat: &Stat) -> Found {
    let node = (stat.st_dev, stat.st_ino);
    // Directories have names of their own, and overlayfs makes many whiteouts names of one.
    let countable = match &kind {
        FoundKind::File => true,
        FoundKind::Other(kind) => {
            !matches!(kind, EntryKind::Directory { .. } | EntryKind::Whiteout)
        }
    };
    Found {
        path,
        kind,
        root,
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        modified: modified(stat),
        changed: changed(stat),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        node,
        shared_node: (countable && stat.st_nlink > 1).then_some(node),
        xattrs: Vec::new(),
    }
}
