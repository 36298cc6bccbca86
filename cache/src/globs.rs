//! Which files the patterns of a buildspec mean: for artifacts, and for dependency caches.
//!
//! A pattern is looked up below the root of a file system view (a sandbox's, say) that is not left: links
//! are resolved as if the root were `/`. `*` stands for any characters of one name, also at its start
//! for the dot of a hidden one; `**` for any number of names. `?`, `[a-z]` and `{a,b}` are known, too.

mod pattern;
mod resolve;
mod search;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use protocol::{
    artifact::ArtifactsSpec,
    path::{PathError, TreePath},
};

use self::{
    pattern::Pattern,
    resolve::Kind,
    search::{Links, Search, Visit},
};

/// Why patterns could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum GlobError {
    /// The pattern cannot be understood. Its author has to mend it.
    #[error("`{pattern}` is no pattern")]
    Pattern {
        /// The pattern, as written.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// The pattern has more `**` inside of names than anybody means.
    #[error("`{pattern}` has too many `**` inside of names")]
    TooManyStars {
        /// The pattern, as written.
        pattern: String,
    },
    /// A directory cannot be read.
    #[error("failed to read `{path}`")]
    Read {
        /// Which, as a path of the view.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The root of the view cannot be opened.
    #[error("failed to open directory `{}`", path.display())]
    Root {
        /// The root.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A path is longer than a tree allows.
    #[error("failed to name an entry of `{directory}`")]
    Name {
        /// Where the entry is.
        directory: String,
        /// What is wrong with its path.
        source: PathError,
    },
    /// No directory is there for the base directory of artifacts. The build has to make it first.
    #[error("no matching base directory path found for {pattern}")]
    NoBaseDirectory {
        /// The base directory, as written.
        pattern: String,
    },
    /// Links lead to more than anybody means, to each other perhaps. The author has to leave them out, or to keep
    /// them as links.
    #[error(
        "links lead to more than {limit} files, the last of them in `{path}`: leave them out by \
         `exclude-paths`, or keep them as links by `enable-symlinks: yes`"
    )]
    TooManyLinked {
        /// The directory where that was noticed, as a path of the view.
        path: String,
        /// How many may be reached through links.
        limit: u64,
    },
    /// Not one pattern of the artifacts matches a file. The build has to make some first.
    #[error("no matching artifact paths found")]
    NoArtifacts,
}

/// Where patterns are looked up.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The root of the file system that the build sees.
    pub root: &'a Path,
    /// What relative patterns are relative to, in the view; `None`: its root.
    pub directory: Option<&'a TreePath>,
}

/// The files that are an artifact.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ArtifactFiles {
    /// By their paths in the artifact, where in the view they are. No path lies below another.
    pub files: BTreeMap<TreePath, TreePath>,
    /// The patterns that matched nothing, as written, in order.
    pub unmatched: Vec<String>,
}

/// The entries that a dependency cache keeps.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CachedPaths {
    /// Each of these by itself, in the view.
    pub paths: BTreeSet<TreePath>,
    /// Each of these directories with all that it holds, in the view.
    pub whole: BTreeSet<TreePath>,
    /// The patterns that matched nothing, as written, in order.
    pub unmatched: Vec<String>,
}

/// Looks up the files of an artifact, variables in the patterns being expanded already. Blocks.
///
/// Patterns match files, not directories. Links are followed, those that lead to nothing excepted; with
/// `enable_symlinks` those stay links that lead to something in the base directory, unless paths are discarded
/// and with them what links say.
///
/// # Errors
///
/// If a pattern cannot be understood, a directory not be read, links lead to too much, or there is nothing to
/// publish.
pub fn find_artifacts(view: View<'_>, spec: &ArtifactsSpec) -> Result<ArtifactFiles, GlobError> {
    artifacts_of(&Search::new(view.root)?, view, spec)
}

fn artifacts_of(
    search: &Search,
    view: View<'_>,
    spec: &ArtifactsSpec,
) -> Result<ArtifactFiles, GlobError> {
    let bases = match &spec.base_directory {
        None => vec![view.directory.cloned()],
        Some(base) => base_directories(search, view, base)?,
    };
    let mut found = ArtifactFiles::default();
    let mut matched = vec![false; spec.files.len()];
    for base in &bases {
        let base = base.as_ref();
        let excluded = spec.exclude_paths.iter();
        let excluded: Vec<_> = excluded
            .map(|pattern| Pattern::parse(pattern, base))
            .collect::<Result<_, _>>()?;
        for (number, text) in spec.files.iter().enumerate() {
            let pattern = Pattern::parse(text, base)?;
            let links = match spec.enable_symlinks && !spec.discard_paths {
                true => Links::KeptInside(base),
                false => Links::Followed,
            };
            search.run(&pattern, links, &mut |visit: &Visit<'_>| {
                if visit.kind == Kind::Directory
                    || excluded.iter().any(|pattern| pattern.matches(visit.path))
                {
                    return;
                }
                matched[number] = true;
                if let Some(to) = artifact_path(visit.path, base, spec.discard_paths) {
                    found.files.insert(to, visit.real.clone());
                }
            })?;
        }
    }
    let unmatched = spec
        .files
        .iter()
        .zip(matched)
        .filter(|(_, matched)| !matched);
    found.unmatched = unmatched.map(|(pattern, _)| pattern.clone()).collect();
    if found.files.is_empty() {
        return Err(GlobError::NoArtifacts);
    }
    drop_what_lies_below_files(&mut found.files);
    Ok(found)
}

/// Looks up the directories that a base directory, which may be a pattern, means. Links are followed.
fn base_directories(
    search: &Search,
    view: View<'_>,
    base: &str,
) -> Result<Vec<Option<TreePath>>, GlobError> {
    let pattern = Pattern::parse(base, view.directory)?;
    let mut found = BTreeSet::new();
    if pattern.is_literal() {
        match pattern.start() {
            None => return Ok(vec![None]),
            Some(start) => {
                let real = search.resolver().resolve(start);
                if let Some((real, Kind::Directory)) = real {
                    // `None`, should a link lead to the root itself.
                    return Ok(vec![real]);
                }
            }
        }
    } else {
        search.run(&pattern, Links::Followed, &mut |visit: &Visit<'_>| {
            if visit.kind == Kind::Directory {
                found.insert(Some(visit.real.clone()));
            }
        })?;
    }
    if found.is_empty() {
        let pattern = base.to_owned();
        return Err(GlobError::NoBaseDirectory { pattern });
    }
    Ok(found.into_iter().collect())
}

/// Where in the artifact the file at `path` belongs; `None` for one that an absolute pattern found outside
/// of the base directory and that keeps no path.
fn artifact_path(path: &TreePath, base: Option<&TreePath>, discard: bool) -> Option<TreePath> {
    if discard {
        return TreePath::new(path.name()).ok();
    }
    match base {
        Some(base) if path.is_within(base) => {
            let below = path.as_bytes().get(base.as_bytes().len() + 1..)?;
            TreePath::new(below).ok()
        }
        // An absolute pattern: the file keeps its whole path.
        _ => Some(path.clone()),
    }
}

/// With several base directories, one may have a file where another has a directory: the file wins, so
/// that what is left can be put into one tree.
fn drop_what_lies_below_files(files: &mut BTreeMap<TreePath, TreePath>) {
    let mut last: Option<TreePath> = None;
    files.retain(|path, _| {
        let below = last.as_ref().is_some_and(|last| path.is_within(last));
        if !below {
            last = Some(path.clone());
        }
        !below
    });
}

/// Looks up what the patterns of a dependency cache mean, variables being expanded already. Blocks.
///
/// Everything that matches is kept, also empty directories and links, these as they are; a pattern without
/// wildcards that names a directory means all that it holds. Where a pattern leads through a link, the
/// link is kept, and what it leads to.
///
/// # Errors
///
/// If a pattern cannot be understood or a directory not be read.
pub fn find_cached(view: View<'_>, patterns: &[String]) -> Result<CachedPaths, GlobError> {
    let search = Search::new(view.root)?;
    let mut found = CachedPaths::default();
    for text in patterns {
        let pattern = Pattern::parse(text, view.directory)?;
        let mut matched = false;
        let links = search.run(&pattern, Links::Kept, &mut |visit: &Visit<'_>| {
            matched = true;
            if visit.kind == Kind::Directory && pattern.is_literal() {
                found.whole.insert(visit.real.clone());
            } else {
                found.paths.insert(visit.real.clone());
            }
        })?;
        if matched {
            found.paths.extend(links);
        } else {
            found.unmatched.push(text.clone());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
