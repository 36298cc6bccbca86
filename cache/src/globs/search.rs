//! Walks a view as far as a pattern reaches.

use std::{io, path::Path, rc::Rc};

use protocol::path::TreePath;
use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::{
    GlobError,
    pattern::Pattern,
    resolve::{Kind, Resolver, kind_of},
};
use crate::{beneath::Root, ongoing};

/// How many entries below directories that links led to are looked at for one pattern. The largest real
/// dependency trees hold some 130,000; links that lead to each other have any number.
const LINKED_ENTRIES_MAX: u64 = 1_000_000;

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
    linked_entries_max: u64,
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
    through: Rc<[TreePath]>,
}

/// Where a search is.
struct Walk<'a> {
    pattern: &'a Pattern,
    links: Links<'a>,
    pending: Vec<Pending>,
    /// Where the walk started.
    start: Option<TreePath>,
    /// How many entries were met below directories that links led to.
    linked: u64,
}

impl Search {
    pub(super) fn new(root: &Path) -> Result<Self, GlobError> {
        let opened = Root::open(root).map_err(|source| GlobError::Root {
            path: root.to_owned(),
            source,
        })?;
        Ok(Self {
            resolver: Resolver::new(opened),
            linked_entries_max: LINKED_ENTRIES_MAX,
        })
    }

    /// The same with another limit for what is reached through links.
    #[cfg(test)]
    pub(super) const fn with_linked_entries_max(mut self, entries: u64) -> Self {
        self.linked_entries_max = entries;
        self
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
            let (real, kind) = self.followed(links, start, (real, kind));
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

    /// What is at `real`, which the pattern knows as `path`, and where, if links there are treated so.
    fn followed(
        &self,
        links: Links<'_>,
        path: &TreePath,
        (real, kind): (TreePath, Kind),
    ) -> (TreePath, Kind) {
        if kind != Kind::Symlink || matches!(links, Links::Kept) {
            return (real, kind);
        }
        match self.resolver.resolve(&real) {
            Some((Some(to), of)) if !self.stays(links, path, (&real, &to)) => (to, of),
            _ => (real, kind),
        }
    }

    /// Whether the link at `real`, known as `path`, that leads to `to` stays one.
    fn stays(&self, links: Links<'_>, path: &TreePath, (real, to): (&TreePath, &TreePath)) -> bool {
        let Links::KeptInside(base) = links else {
            return false;
        };
        let target = self.resolver.target(real).unwrap_or_default();
        base.is_none_or(|base| to.is_within(base)) && is_inside(&target, path, base)
    }

    fn walk(
        &self,
        (pattern, links): (&Pattern, Links<'_>),
        path: Option<TreePath>,
        real: Option<TreePath>,
        visit: &mut dyn FnMut(&Visit<'_>),
    ) -> Result<(), GlobError> {
        let mut walk = Walk {
            pattern,
            links,
            pending: Vec::new(),
            start: real.clone(),
            linked: 0,
        };
        walk.pending.push(Pending {
            path,
            real,
            depth: 0,
            through: Rc::default(),
        });
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
        ongoing::check().map_err(failed)?;
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
            let (real, found) = self.followed(walk.links, &path, (real, kind));
            if !at.through.is_empty() {
                walk.linked += 1;
                if self.linked_entries_max < walk.linked {
                    let limit = self.linked_entries_max;
                    return Err(GlobError::TooManyLinked {
                        path: shown(),
                        limit,
                    });
                }
            }
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

/// Whether a link with this text, at `path`, leads to something in `base` in every place to which `base` is
/// brought: without naming the root, and without leaving `base` on the way.
fn is_inside(target: &[u8], path: &TreePath, base: Option<&TreePath>) -> bool {
    if target.starts_with(b"/") || base.is_some_and(|base| !path.is_within(base)) {
        return false;
    }
    let above = base.map_or(0, |base| base.components().count());
    let mut depth = path.components().count() - 1 - above;
    for name in target.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if depth == 0 => return false,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

impl Walk<'_> {
    /// Has the directory at `path`, which is at `real`, listed later. One that a link leads to is not, where
    /// that would go in a circle.
    fn enter(&mut self, at: &Pending, (path, real): (TreePath, TreePath), is_linked: bool) {
        let mut through = Rc::clone(&at.through);
        if is_linked {
            let mut here = at.real.iter().chain(&self.start);
            if here.any(|here| here.is_within(&real)) || through.contains(&real) {
                return;
            }
            through = through.iter().chain([&real]).cloned().collect();
        }
        self.pending.push(Pending {
            path: Some(path),
            real: Some(real),
            depth: at.depth + 1,
            through,
        });
    }
}
