//! The commands that builds find on their `PATH`: links to this program, told apart by their names.

use std::{
    ffi::OsString,
    fs, io,
    io::{Write as _, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::WalkBuilder;
use protocol::digest::{Hasher, hex};

/// Prints one digest of all files that match its arguments; for cache keys.
pub(crate) const HASH_FILES: &str = "codebuild-hash-files";

/// Why files could not be hashed.
#[derive(Debug, thiserror::Error)]
enum HashError {
    /// Nothing was named.
    #[error("no pattern was given; usage: codebuild-hash-files PATTERN…")]
    NoPattern,
    /// A pattern makes no sense.
    #[error("pattern `{pattern}` makes no sense")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        source: globset::Error,
    },
    /// Nothing matches, so the digest would say nothing.
    #[error("no file matches {patterns}")]
    NothingMatches {
        /// The patterns.
        patterns: String,
    },
    /// A file cannot be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs the command `name` if it is one of these.
pub(crate) fn run(name: &str, words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if name != HASH_FILES {
        return None;
    }
    let patterns = words.map(|word| word.to_string_lossy().into_owned());
    let patterns: Vec<String> = patterns.collect();
    let (text, code) = match hash_files(Path::new("."), &patterns) {
        Ok(digest) => (writeln!(stdout(), "{digest}"), ExitCode::SUCCESS),
        Err(error) => (writeln!(stderr(), "{name}: {error}"), ExitCode::FAILURE),
    };
    Some(if text.is_ok() {
        code
    } else {
        ExitCode::FAILURE
    })
}

/// One digest of the names and contents of all files below `root` that match a pattern: 64 hex digits.
///
/// `*` stays within a directory, `**` does not; files whose names start with a dot match too.
fn hash_files(root: &Path, patterns: &[String]) -> Result<String, HashError> {
    let globs = globs(patterns)?;
    let mut files: Vec<PathBuf> = WalkBuilder::new(root)
        .standard_filters(false)
        .build()
        .flatten()
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .filter_map(|entry| entry.path().strip_prefix(root).ok().map(Path::to_owned))
        .filter(|path| globs.is_match(path))
        .collect();
    if files.is_empty() {
        return Err(HashError::NothingMatches {
            patterns: patterns.join(", "),
        });
    }
    files.sort();
    let mut all = Hasher::default();
    for path in files {
        let bytes = fs::read(root.join(&path)).map_err(|source| HashError::Read {
            path: path.clone(),
            source,
        })?;
        let mut one = Hasher::default();
        one.update(path.as_os_str().as_encoded_bytes());
        all.update(one.finish().hash());
        let mut one = Hasher::default();
        one.update(&bytes);
        all.update(one.finish().hash());
    }
    Ok(hex(all.finish().hash()))
}

fn globs(patterns: &[String]) -> Result<GlobSet, HashError> {
    if patterns.is_empty() {
        return Err(HashError::NoPattern);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let error = |source| HashError::Pattern {
            pattern: pattern.clone(),
            source,
        };
        let plain = pattern.trim_start_matches("./");
        let glob = GlobBuilder::new(plain)
            .literal_separator(true)
            .build()
            .map_err(error)?;
        set.add(glob);
    }
    set.build().map_err(|source| HashError::Pattern {
        pattern: patterns.join(", "),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(files: &[(&str, &str)], patterns: &[&str]) -> Result<String, String> {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        hash_files(root.path(), &patterns).map_err(|error| error.to_string())
    }

    #[test]
    fn content_and_names_count_and_nothing_else() {
        let one = hash(&[("a/lock", "1"), ("other", "x")], &["**/lock"]).unwrap();
        assert_eq!(one.len(), 64);
        assert_eq!(
            hash(&[("a/lock", "1"), ("other", "y")], &["**/lock"]),
            Ok(one.clone())
        );
        assert_ne!(hash(&[("a/lock", "2")], &["**/lock"]), Ok(one.clone()));
        assert_ne!(hash(&[("b/lock", "1")], &["**/lock"]), Ok(one));
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_refused() {
        assert_eq!(
            hash(&[("a/lock", "1")], &["lock"]),
            Err("no file matches lock".to_owned())
        );
        assert!(hash(&[], &[]).is_err());
    }
}
