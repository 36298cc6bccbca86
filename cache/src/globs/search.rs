//! Walks a view as far as a pattern reaches.

use std::{io, path::Path};

use protocol::path::TreePath;
use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::{
    GlobError,
    pattern::Pattern,
    resolve::{Kind, Resolver, kind_of},
};
use crate::beneath::Root;

/// Looks patterns up in one view.
#[derive(Debug)]
pub(super) struct Search {
    resolver: Resolver,
}

/// Something that matches.
#[derive(Debug)]
pub(super) struct Visit<'a> {
    /// The path that matches.
    pub(super) path: &'a TreePath,
    /// Where it is, the links at the pattern's beginning being followed.
    pub(super) real: &'a TreePath,
    pub(super) kind: Kind,
}

/// A directory that is yet to be listed.
struct Pending {
    path: Option<TreePath>,
    real: Option<TreePath>,
    /// How many names it is below the pattern's start.
    depth: usize,
}

impl Search {
    pub(super) fn new(root: &Path) -> Result<Self, GlobError> {
        let opened = Root::open(root).map_err(|source| GlobError::Root {
            path: root.to_owned(),
            source,
        })?;
        Ok(Self {
            resolver: Resolver::new(opened),
        })
    }

    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Shows everything that `pattern` means to `visit`. Links are followed only where the pattern has no
    /// wildcards yet; gives the paths of these.
    pub(super) fn run(
        &self,
        pattern: &Pattern,
        visit: &mut dyn FnMut(&Visit<'_>),
    ) -> Result<Vec<TreePath>, GlobError> {
        let nothing = Vec::new();
        if pattern.is_outside() {
            return Ok(nothing);
        }
        let Some(start) = pattern.start() else {
            self.walk(pattern, None, None, visit)?;
            return Ok(nothing);
        };
        if pattern.is_literal() {
            // The last name is not followed: a link is kept as such.
            let Some(real) = self.place(start) else {
                return Ok(nothing);
            };
            match self.resolver.kind(&real) {
                Err(_) | Ok(Kind::Socket) => return Ok(nothing),
                Ok(kind) => visit(&Visit {
                    path: start,
                    real: &real,
                    kind,
                }),
            }
            return Ok(self.links(start.parent()));
        }
        match self.resolver.resolve(start) {
            Some((real, Kind::Directory)) => {
                self.walk(pattern, Some(start.clone()), real, visit)?;
                Ok(self.links(Some(start.clone())))
            }
            _ => Ok(nothing),
        }
    }

    /// Where the directory of `path` leads, with the last name as it is.
    fn place(&self, path: &TreePath) -> Option<TreePath> {
        let Some(parent) = path.parent() else {
            return Some(path.clone());
        };
        match self.resolver.resolve(&parent)? {
            (Some(parent), Kind::Directory) => parent.join(path.name()).ok(),
            (None, Kind::Directory) => TreePath::new(path.name()).ok(),
            _ => None,
        }
    }

    /// The links that are passed on the way to `path`, by where they are.
    fn links(&self, path: Option<TreePath>) -> Vec<TreePath> {
        let mut links = Vec::new();
        let mut at = path;
        while let Some(path) = at {
            if let Some(real) = self.place(&path)
                && matches!(self.resolver.kind(&real), Ok(Kind::Symlink))
            {
                links.push(real);
            }
            at = path.parent();
        }
        links
    }

    fn walk(
        &self,
        pattern: &Pattern,
        path: Option<TreePath>,
        real: Option<TreePath>,
        visit: &mut dyn FnMut(&Visit<'_>),
    ) -> Result<(), GlobError> {
        let depth = 0;
        let mut pending = vec![Pending { path, real, depth }];
        while let Some(at) = pending.pop() {
            if pattern.reaches_below(at.depth) {
                self.list(pattern, &at, &mut pending, visit)?;
            }
        }
        Ok(())
    }

    fn list(
        &self,
        pattern: &Pattern,
        at: &Pending,
        pending: &mut Vec<Pending>,
        visit: &mut dyn FnMut(&Visit<'_>),
    ) -> Result<(), GlobError> {
        let shown = || {
            at.path
                .as_ref()
                .map_or_else(|| "/".to_owned(), ToString::to_string)
        };
        let failed = |source: io::Error| GlobError::Read {
            path: shown(),
            source,
        };
        let directory = match self.resolver.root().directory(at.real.as_ref()) {
            // It went away meanwhile: as if it had gone before.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            directory => directory.map_err(failed)?,
        };
        for entry in Dir::read_from(&directory).map_err(|e| failed(e.into()))? {
            let entry = entry.map_err(|e| failed(e.into()))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown => match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(_) => continue,
                },
                file_type => file_type,
            };
            let kind = kind_of(file_type);
            let below = |directory: Option<&TreePath>| {
                let path = match directory {
                    Some(directory) => directory.join(name),
                    None => TreePath::new(name),
                };
                path.map_err(|source| GlobError::Name {
                    directory: shown(),
                    source,
                })
            };
            let (path, real) = (below(at.path.as_ref())?, below(at.real.as_ref())?);
            if kind != Kind::Socket && pattern.matches(&path) {
                visit(&Visit {
                    path: &path,
                    real: &real,
                    kind,
                });
            }
            if kind == Kind::Directory {
                pending.push(Pending {
                    path: Some(path),
                    real: Some(real),
                    depth: at.depth + 1,
                });
            }
        }
        Ok(())
    }
}
