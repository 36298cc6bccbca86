//! From a checkout to a source tree: what git would take along, and what a build may see of git.
//!
//! Ignored files stay behind (`.gitignore` at all levels and `.git/info/exclude`; the user's own global
//! excludes do not count, or the same checkout would be another source for somebody else), but tracked
//! files never do. Nothing of who checked out, and when, travels: of attributes only hard links are
//! kept.

mod config;
mod git;
mod index;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use ignore::{DirEntry, WalkBuilder};
use protocol::path::{PathError, TreePath};

pub use self::config::ConfigError;
use self::git::Repository;
use crate::{
    capture::{CaptureError, Captured, Subject},
    selection::Selection,
};

/// Why a source could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be listed.
    #[error("failed to list source directory `{}`", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// What the walk says.
        source: ignore::Error,
    },
    /// The directory itself cannot be found.
    #[error("failed to open source directory `{}`", path.display())]
    Open {
        /// The directory.
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
    /// The git repository is not in the source directory: this is an additional worktree or a
    /// submodule. Build from the main checkout, or leave git out (`--no-git`).
    #[error("the git repository of this checkout is elsewhere, in `{}`", path.display())]
    GitElsewhere {
        /// Where.
        path: PathBuf,
    },
    /// A git directory cannot be read.
    #[error("failed to read `{path}`")]
    Git {
        /// What.
        path: TreePath,
        /// What the system says.
        source: io::Error,
    },
    /// A git configuration cannot be understood, so that nobody can say what secrets it holds. Mend it,
    /// or leave git out (`--no-git`).
    #[error("failed to take credentials out of `{path}`")]
    Config {
        /// Which.
        path: TreePath,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// Something in it cannot be read, or changes.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// What of the source in `directory` goes to the farm, with what a build may see of its git repository if
/// `with_git`. Blocks. Gives the commit that is checked out, too; `None` if there is none.
///
/// In a checkout, directories without files are left out as git does; elsewhere they are kept. Git
/// directories go along as they are, but that credentials, headers, rewrites of URLs and everything
/// that names programs or files of this machine are taken out of their configurations. Without
/// `with_git` nothing called `.git` goes along.
///
/// # Errors
///
/// If something cannot be listed, if a configuration of git cannot be read or understood, or if the
/// repository is outside of the directory.
pub fn list_source(
    directory: &Path,
    with_git: bool,
) -> Result<(Subject, Option<String>), SourceError> {
    let directory = directory
        .canonicalize()
        .map_err(|source| SourceError::Open {
            path: directory.to_owned(),
            source,
        })?;
    let repository = git::find(&directory);
    let mut listed = list(&directory, repository.as_ref())?;
    if let Some(repository) = &repository {
        add_tracked(&directory, repository, &mut listed.paths);
    }
    let mut replaced = BTreeMap::new();
    let mut whole = BTreeSet::new();
    if with_git {
        check_git_is_inside(&directory)?;
        for git in listed.git {
            if directory
                .join(as_path(&git))
                .symlink_metadata()
                .is_ok_and(|of| of.is_dir())
            {
                replaced.append(&mut git::replacements(&directory, &git)?);
            }
            whole.insert(git);
        }
    }
    let selection = Selection::Listed {
        paths: listed.paths,
        whole,
    };
    let subject = Subject::checkout(directory, selection, replaced);
    Ok((subject, repository.and_then(|of| of.commit())))
}

/// Captures the source in `directory`, as [`list_source`] finds it. Blocks.
///
/// # Errors
///
/// As for [`list_source`], and if something cannot be read or changes meanwhile.
pub fn capture_source(
    directory: &Path,
    with_git: bool,
) -> Result<(Captured, Option<String>), SourceError> {
    let (subject, commit) = list_source(directory, with_git)?;
    Ok((subject.run()?, commit))
}

/// What a walk of a source finds.
struct Listed {
    paths: BTreeSet<TreePath>,
    /// Everything called `.git`: directories, and files that say where the repository is.
    git: Vec<TreePath>,
}

fn list(directory: &Path, repository: Option<&Repository>) -> Result<Listed, SourceError> {
    let in_git = repository.is_some();
    let walk = WalkBuilder::new(directory)
        .hidden(false)
        .ignore(false)
        .git_global(false)
        // Above a repository's topmost directory, and above what is no checkout, nothing counts.
        .parents(in_git)
        .require_git(in_git)
        .filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git")
        .build();
    let mut listed = Listed {
        paths: BTreeSet::new(),
        git: Vec::new(),
    };
    for entry in walk {
        let entry = entry.map_err(|source| SourceError::List {
            path: directory.to_owned(),
            source,
        })?;
        let is_directory = entry.file_type().is_some_and(|of| of.is_dir());
        let path = relative(directory, &entry)?;
        if is_directory && entry.path().join(".git").symlink_metadata().is_ok() {
            let git = match &path {
                Some(path) => path.join(b".git"),
                None => TreePath::new(".git"),
            };
            listed.git.push(git.map_err(|source| SourceError::Name {
                directory: entry.path().display().to_string(),
                source,
            })?);
        }
        if let Some(path) = path
            && !(in_git && is_directory)
        {
            listed.paths.insert(path);
        }
    }
    Ok(listed)
}

/// The path of an entry below `directory`; `None` for that itself.
fn relative(directory: &Path, entry: &DirEntry) -> Result<Option<TreePath>, SourceError> {
    let path = entry.path().strip_prefix(directory);
    let path = path.expect("the walk stays below where it starts");
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let path = TreePath::new(path.as_os_str().as_bytes());
    path.map(Some).map_err(|source| SourceError::Name {
        directory: directory.display().to_string(),
        source,
    })
}

/// Adds what git tracks, also where a pattern would have it ignored.
fn add_tracked(directory: &Path, repository: &Repository, paths: &mut BTreeSet<TreePath>) {
    let Ok(prefix) = directory.strip_prefix(&repository.top) else {
        return;
    };
    let prefix = prefix.as_os_str().as_bytes();
    for path in repository.tracked() {
        if prefix.is_empty() {
            paths.insert(path);
        } else if let Some(below) = path.as_bytes().strip_prefix(prefix)
            && let Some(below) = below.strip_prefix(b"/")
        {
            paths.extend(TreePath::new(below));
        }
    }
}

/// Refuses a topmost `.git` that only says where the repository is: git would not work without it.
/// Inner ones may: those of submodules lead into the topmost one.
fn check_git_is_inside(directory: &Path) -> Result<(), SourceError> {
    let git = directory.join(".git");
    match git.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => Err(SourceError::GitElsewhere {
            path: git::elsewhere(&git).unwrap_or(git),
        }),
        Ok(metadata) if metadata.is_symlink() => Err(SourceError::GitElsewhere {
            path: git.read_link().unwrap_or(git),
        }),
        _ => Ok(()),
    }
}

fn as_path(path: &TreePath) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

#[cfg(test)]
mod tests;
