//! What a source tells about its git repository: where that is, its commit, its tracked files, its
//! configurations. Nothing here runs git: it might run what the configuration names.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use protocol::path::TreePath;

use super::{SourceError, config::sanitize};

/// How long a file that names one reference may be, in bytes.
const REFERENCE_BYTES_MAX: u64 = 4096;
/// How long a configuration may be, in bytes.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// How long the list of packed references or the index may be, in bytes: some million entries.
const LIST_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// How many references may lead to each other.
const SYMBOLIC_MAX: usize = 5;

/// The repository that a directory is a checkout of.
#[derive(Debug)]
pub(super) struct Repository {
    /// The checkout's topmost directory.
    pub(super) top: PathBuf,
    /// Where HEAD and the index are.
    directory: PathBuf,
    /// Where references are: the same, but for additional worktrees.
    common: PathBuf,
}

/// Finds the repository that `directory` (absolute) lies in.
pub(super) fn find(directory: &Path) -> Option<Repository> {
    let top = directory
        .ancestors()
        .find(|at| at.join(".git").symlink_metadata().is_ok())?;
    let git = top.join(".git");
    let directory = if git.is_dir() {
        git
    } else {
        top.join(elsewhere(&git)?)
    };
    let common = read(&directory.join("commondir"), REFERENCE_BYTES_MAX)
        .map_or_else(|| directory.clone(), |to| directory.join(path_of(&to)));
    Some(Repository {
        top: top.to_owned(),
        directory,
        common,
    })
}

/// Where a `.git` that is a file says the repository is.
pub(super) fn elsewhere(git: &Path) -> Option<PathBuf> {
    let bytes = read(git, REFERENCE_BYTES_MAX)?;
    Some(path_of(bytes.strip_prefix(b"gitdir:")?))
}

impl Repository {
    /// The commit that is checked out, as hex; `None` if there is none, or references are kept in a form
    /// that is not read here.
    pub(super) fn commit(&self) -> Option<String> {
        let mut reference = read(&self.directory.join("HEAD"), REFERENCE_BYTES_MAX)?;
        for _ in 0..SYMBOLIC_MAX {
            let text = reference.trim_ascii();
            let Some(name) = text.strip_prefix(b"ref:") else {
                return hash(text);
            };
            let name = TreePath::new(name.trim_ascii()).ok()?;
            let path = OsStr::from_bytes(name.as_bytes());
            // References of one worktree (`refs/bisect`) are beside its HEAD, the others are shared.
            let loose = read(&self.directory.join(path), REFERENCE_BYTES_MAX)
                .or_else(|| read(&self.common.join(path), REFERENCE_BYTES_MAX));
            match loose {
                Some(bytes) => reference = bytes,
                None => return self.packed(&name),
            }
        }
        None
    }

    fn packed(&self, name: &TreePath) -> Option<String> {
        let packed = read(&self.common.join("packed-refs"), LIST_BYTES_MAX)?;
        packed.split(|&byte| byte == b'\n').find_map(|line| {
            let space = line.iter().position(|&byte| byte == b' ')?;
            let (commit, of) = line.split_at(space);
            (of.trim_ascii() == name.as_bytes()).then(|| hash(commit))?
        })
    }

    /// The paths that git tracks, relative to the topmost directory; none if the index cannot be read.
    pub(super) fn tracked(&self) -> Vec<TreePath> {
        let index = read(&self.directory.join("index"), LIST_BYTES_MAX).unwrap_or_default();
        let commit_bytes = match self.commit() {
            Some(commit) if commit.len() == 64 => 32,
            _ => 20,
        };
        super::index::paths(&index, commit_bytes)
    }
}

/// A commit's hash, if `text` is one: SHA-1 or SHA-256 in hex.
fn hash(text: &[u8]) -> Option<String> {
    let is_hash = matches!(text.len(), 40 | 64) && text.iter().all(u8::is_ascii_hexdigit);
    is_hash.then(|| String::from_utf8_lossy(text).to_lowercase())
}

/// A path as git writes it into a file of its own: up to the end of the line.
fn path_of(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes.trim_ascii()).into()
}

/// A small regular file; `None` if it is not there, something else, or too long.
fn read(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let file = fs::File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || limit < metadata.len() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Files that keep credentials in a git directory.
const SECRET_FILES: [&str; 4] = [".git-credentials", ".netrc", "cookies", "credentials"];
/// Where a git directory has no configurations, but many files, or files with names that people choose.
const SKIPPED: [&str; 7] = [
    "hooks", "info", "lfs", "logs", "objects", "refs", "rr-cache",
];

/// Replacements for the files below the git directory `git` (relative to `root`) that must not travel as
/// they are.
pub(super) fn replacements(
    root: &Path,
    git: &TreePath,
) -> Result<BTreeMap<TreePath, Bytes>, SourceError> {
    let mut replaced = BTreeMap::new();
    let mut pending = vec![git.clone()];
    while let Some(at) = pending.pop() {
        let directory = root.join(OsStr::from_bytes(at.as_bytes()));
        let failed = |source: io::Error| SourceError::Git {
            path: at.clone(),
            source,
        };
        // Submodules and worktrees have such directories in this one, under any names.
        let is_git = directory.join("HEAD").is_file();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let kind = entry.file_type().map_err(failed)?;
            let path = at.join(name.as_bytes());
            let path = path.map_err(|source| SourceError::Name {
                directory: at.to_string(),
                source,
            })?;
            let is = |names: &[&str]| names.iter().any(|of| *of == name);
            if kind.is_dir() && !(is_git && is(&SKIPPED)) {
                pending.push(path);
            } else if kind.is_file() && is_git && is(&["config", "config.worktree"]) {
                let bytes = sanitized(&entry.path(), &path)?;
                replaced.insert(path, bytes);
            } else if kind.is_file() && is_git && is(&SECRET_FILES) {
                replaced.insert(path, Bytes::new());
            }
        }
    }
    Ok(replaced)
}

fn sanitized(file: &Path, path: &TreePath) -> Result<Bytes, SourceError> {
    let bytes = read(file, CONFIG_BYTES_MAX).ok_or_else(|| SourceError::Git {
        path: path.clone(),
        source: io::ErrorKind::FileTooLarge.into(),
    })?;
    let sanitized = sanitize(&bytes).map_err(|source| SourceError::Config {
        path: path.clone(),
        source,
    })?;
    Ok(sanitized.into())
}
