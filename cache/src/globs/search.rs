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

/// How many links to directories are followed on the way to one file, and for one pattern: more than anybody
/// means, and few enough that links which lead to each other end soon.
const FOLLOWED_DEEP_MAX: usize = 8;
const FOLLOWED_MAX: usize = 10_000;

/// What becomes of links that a pattern with wildcards meets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Links<'a> {
    /// They stay links.
    Kept,
    /// What they lead to stands in their place; those that lead to nothing stay links.
    Followed,
    /// The same, but those that lead to what is in this directory, without naming the root, stay links.
    KeptInside(Option<&'a TreePath>),
}

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
    /// The directories that links led to on the way here.
    through: Vec<TreePath>,
}

/// Where a search is.
struct Walk<'a> {
    pattern: &'a Pattern,
    links: Links<'a>,
    pending: Vec<Pending>,
    /// How many links to directories were followed.
    followed: usize,
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

    /// Shows everything that `pattern` means to `visit`. Links are followed where the pattern has no
    /// wildcards yet, and gives the paths of these; what becomes of others say `links`.
    pub(super) fn run(
        &self,
        pattern: &Pattern,
        links: Links<'_>,
        visit: &mut dyn FnMut(&Visit<'_>),
    ) -> Result<Vec<TreePath>, GlobError> {
        let nothing = Vec::new();
        if pattern.is_outside() {
            return Ok(nothing);
        }
        let Some(start) = pattern.start() else {
            self.walk((pattern, links), None, None, visit)?;
            return Ok(nothing);
        };
        if pattern.is_literal() {
            // The last name is not followed: a link is kept as such.
            let Some(real) = self.place(start) else {
                return Ok(nothing);
            };
            let Ok(kind) = self.resolver.kind(&real) else {
                return Ok(nothing);
            };
            let (real, kind) = self.followed(links, real, kind);
            if kind == Kind::Socket {
                return Ok(nothing);
            }
            visit(&Visit {
                path: start,
                real: &real,
                kind,
            });
            return Ok(self.links(start.parent()));
        }
        match self.resolver.resolve(start) {
            Some((real, Kind::Directory)) => {
                self.walk((pattern, links), Some(start.clone()), real, visit)?;
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

    /// What is at `real`, and where, if links there are treated so.
    fn followed(&self, links: Links<'_>, real: TreePath, kind: Kind) -> (TreePath, Kind) {
        if kind != Kind::Symlink || matches!(links, Links::Kept) {
            return (real, kind);
        }
        match self.resolver.resolve(&real) {
            Some((Some(to), of)) if !self.stays(links, &real, &to) => (to, of),
            _ => (real, kind),
        }
    }

    /// Whether the link at `real` that leads to `to` stays one.
    fn stays(&self, links: Links<'_>, real: &TreePath, to: &TreePath) -> bool {
        let Links::KeptInside(base) = links else {
            return false;
        };
        let target = self.resolver.target(real).unwrap_or_default();
        !target.starts_with(b"/") && base.is_none_or(|base| to.is_within(base))
    }

    fn walk(
        &self,
        (pattern, links): (&Pattern, Links<'_>),
        path: Option<TreePath>,
        real: Option<TreePath>,
        visit: &mut dyn FnMut(&Visit<'_>),
    ) -> Result<(), GlobError> {
        let start = Pending {
            path,
            real,
            depth: 0,
            through: Vec::new(),
        };
        let mut walk = Walk {
            pattern,
            links,
            pending: vec![start],
            followed: 0,
        };
        while let Some(at) = walk.pending.pop() {
            if pattern.reaches_below(at.depth) {
                self.list(&mut walk, &at, visit)?;
            }
        }
        Ok(())
    }

    fn list(
        &self,
        walk: &mut Walk<'_>,
        at: &Pending,
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
            let (real, found) = self.followed(walk.links, real, kind);
            if found != Kind::Socket && walk.pattern.matches(&path) {
                visit(&Visit {
                    path: &path,
                    real: &real,
                    kind: found,
                });
            }
            if found == Kind::Directory {
                walk.enter(at, (path, real), kind == Kind::Symlink);
            }
        }
        Ok(())
    }
}

impl Walk<'_> {
    /// Has the directory at `path`, which is at `real`, listed later. One that a link leads to is not, where
    /// that would go in a circle.
    fn enter(&mut self, at: &Pending, (path, real): (TreePath, TreePath), is_linked: bool) {
        let mut through = at.through.clone();
        if is_linked {
            let is_above = at.real.as_ref().is_some_and(|here| here.is_within(&real));
            let is_known = through.contains(&real);
            let is_far = FOLLOWED_DEEP_MAX <= through.len() || FOLLOWED_MAX <= self.followed;
            if is_above || is_known || is_far {
                return;
            }
            self.followed += 1;
            through.push(real.clone());
        }
        self.pending.push(Pending {
            path: Some(path),
            real: Some(real),
            depth: at.depth + 1,
            through,
        });
    }
}
