//! A checkout as a source tree: what of it goes along to a build, and what stays at home.
//!
//! What `.gitignore` names stays. `.git` goes along, because build scripts ask git for versions; its
//! settings go through [`git_config`], which keeps what git needs and no credentials.

mod git_config;
mod head;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ignore::WalkBuilder;
use protocol::path::{PathError, TreePath};

pub use self::git_config::GitConfigError;
use crate::{
    capture::{Capture, CaptureError, Captured, Detail, Dialect, open_root},
    selection::Selection,
};

/// The directory in which git keeps what it knows.
const GIT: &str = ".git";

/// Why a checkout could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Something cannot be listed: permissions, or the disk.
    #[error("failed to list the source tree `{}`", directory.display())]
    Walk {
        /// The source tree.
        directory: PathBuf,
        /// What, and why.
        source: ignore::Error,
    },
    /// A name cannot be in a tree.
    #[error("failed to name an entry of the source tree")]
    Name {
        /// What is wrong with it.
        source: PathError,
    },
    /// `.git` only says where the repository is, and that is not in the tree. Build without git, or
    /// from the repository's main checkout.
    #[error(
        "`{}` is a file, so this is a worktree or submodule whose repository lies elsewhere; build \
         with `--no-git`, or from the main checkout",
        path.display()
    )]
    GitElsewhere {
        /// The file.
        path: PathBuf,
    },
    /// Git's settings cannot be read, and so cannot be cleaned.
    #[error("failed to read git's settings in `{}`", path.display())]
    ReadConfig {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Git's settings make no sense, and so cannot be cleaned. Build without git, or mend them.
    #[error("failed to clean git's settings in `{}`", path.display())]
    CleanConfig {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: GitConfigError,
    },
    /// The files cannot be read.
    #[error("failed to read the source tree `{}`", directory.display())]
    Capture {
        /// The source tree.
        directory: PathBuf,
        /// What, and why.
        source: CaptureError,
    },
}

/// Captures the checkout in `directory`, with or without `.git`, and says which commit is checked out;
/// `None` if there is no git or no commit. Blocks.
///
/// Links are taken as they are and never followed, so none can lead outside or in a circle.
///
/// # Errors
///
/// If anything of it cannot be read, or changes while it is read.
pub fn capture_source(
    directory: &Path,
    with_git: bool,
) -> Result<(Captured, Option<String>), SourceError> {
    let git = directory.join(GIT);
    let git_directory = git.is_dir();
    if with_git && !git_directory && git.exists() {
        return Err(SourceError::GitElsewhere { path: git });
    }
    let mut paths = BTreeSet::new();
    list(directory, &checkout_walk(directory), &mut paths)?;
    let mut replaced = BTreeMap::new();
    if with_git && git_directory {
        let mut of_git = BTreeSet::new();
        list(
            directory,
            WalkBuilder::new(&git).standard_filters(false),
            &mut of_git,
        )?;
        replaced = cleaned_configs(directory, &of_git)?;
        paths.extend(of_git);
    }
    let error = |source| SourceError::Capture {
        directory: directory.to_owned(),
        source,
    };
    let capture = Capture {
        roots: vec![open_root(directory).map_err(error)?],
        selection: &Selection::paths(paths),
        dialect: Dialect::Plain,
        detail: Detail::Checkout,
        replaced,
    };
    Ok((capture.run().map_err(error)?, head::commit(&git)))
}

/// Everything but `.git` and what the tree's own ignore files name.
fn checkout_walk(directory: &Path) -> WalkBuilder {
    let mut walk = WalkBuilder::new(directory);
    walk.standard_filters(false)
        .git_ignore(true)
        .git_exclude(true)
        .require_git(false)
        .filter_entry(|entry| entry.depth() != 1 || entry.file_name() != GIT);
    walk
}

/// Adds what a walk finds to `paths`, relative to `directory`.
fn list(
    directory: &Path,
    walk: &WalkBuilder,
    paths: &mut BTreeSet<TreePath>,
) -> Result<(), SourceError> {
    for entry in walk.build() {
        let entry = entry.map_err(|source| SourceError::Walk {
            directory: directory.to_owned(),
            source,
        })?;
        let relative = entry.path().strip_prefix(directory).unwrap_or(entry.path());
        if relative.as_os_str().is_empty() {
            continue;
        }
        let path = TreePath::new(relative.as_os_str().as_bytes());
        paths.insert(path.map_err(|source| SourceError::Name { source })?);
    }
    Ok(())
}

/// What stands in the place of each of git's files of settings.
fn cleaned_configs(
    directory: &Path,
    of_git: &BTreeSet<TreePath>,
) -> Result<BTreeMap<TreePath, Bytes>, SourceError> {
    let is_config = |path: &&TreePath| {
        // `.git/config`, those of submodules in `.git/modules`, and those of worktrees.
        let in_refs = path.as_bytes().starts_with(b".git/refs/")
            || path.as_bytes().starts_with(b".git/logs/")
            || path.as_bytes().starts_with(b".git/objects/");
        matches!(path.name(), b"config" | b"config.worktree") && !in_refs
    };
    let mut cleaned = BTreeMap::new();
    for path in of_git.iter().filter(is_config) {
        let on_disk = directory.join(Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())));
        let is_file = fs::symlink_metadata(&on_disk).is_ok_and(|metadata| metadata.is_file());
        if !is_file {
            continue;
        }
        let text = fs::read(&on_disk).map_err(|source| SourceError::ReadConfig {
            path: on_disk.clone(),
            source,
        })?;
        let clean = git_config::clean(&text).map_err(|source| SourceError::CleanConfig {
            path: on_disk.clone(),
            source,
        })?;
        cleaned.insert(path.clone(), Bytes::from(clean));
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests;
