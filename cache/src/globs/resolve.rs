//! Where a path of a view really leads: links are resolved as if the view's root were `/`.

use std::{collections::VecDeque, io};

use protocol::path::TreePath;
use rustix::fs::{AtFlags, FileType, readlinkat, statat};

use crate::beneath::Root;

/// How many links are followed for one path; what Linux follows.
const LINKS_MAX: usize = 40;

/// What is at a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Directory,
    /// A regular file, a pipe or a device.
    File,
    Symlink,
    /// A socket: nothing that is kept.
    Socket,
}

/// Resolves paths of one view.
#[derive(Debug)]
pub(super) struct Resolver {
    root: Root,
}

impl Resolver {
    pub(super) fn new(root: Root) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Where `path` leads when all links in it are followed, and what is there. The root is `None`.
    /// Nothing if something is missing, or links lead in a circle.
    pub(super) fn resolve(&self, path: &TreePath) -> Option<(Option<TreePath>, Kind)> {
        let mut names: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut kind = Kind::Directory;
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at.pop();
                    kind = Kind::Directory;
                    continue;
                }
                _ => at.push(name),
            }
            let here = TreePath::new(at.join(&b'/')).ok()?;
            kind = self.kind(&here).ok()?;
            if kind == Kind::Symlink {
                links += 1;
                if LINKS_MAX < links {
                    return None;
                }
                let target = self.target(&here).ok()?;
                at.pop();
                if target.starts_with(b"/") {
                    at.clear();
                }
                for name in target.split(|&byte| byte == b'/').rev() {
                    names.push_front(name.to_vec());
                }
                kind = Kind::Directory;
            } else if kind != Kind::Directory && !names.is_empty() {
                return None;
            }
        }
        if at.is_empty() {
            return Some((None, Kind::Directory));
        }
        let path = TreePath::new(at.join(&b'/')).ok()?;
        Some((Some(path), kind))
    }

    /// What is at `path`; links are not followed.
    pub(super) fn kind(&self, path: &TreePath) -> io::Result<Kind> {
        let directory = self.root.directory(path.parent().as_ref())?;
        let stat = statat(&directory, path.name(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(kind_of(FileType::from_raw_mode(stat.st_mode)))
    }

    /// The text of the link at `path`.
    pub(super) fn target(&self, path: &TreePath) -> io::Result<Vec<u8>> {
        let directory = self.root.directory(path.parent().as_ref())?;
        let target = readlinkat(&directory, path.name(), Vec::new())?;
        Ok(target.into_bytes())
    }
}

pub(super) fn kind_of(of: FileType) -> Kind {
    match of {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Socket => Kind::Socket,
        _ => Kind::File,
    }
}
