//! The commands that builds find on their `PATH`: links to this program, told apart by their names.

mod breakpoint;
mod search;
mod shard;
mod tests_run;

use std::{
    error::Error as _,
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::WalkBuilder;
use protocol::digest::hex;
use sha2::{Digest as _, Sha256};

/// Prints one digest of all files that match its arguments; for cache keys.
pub(crate) const HASH_FILES: &str = "codebuild-hash-files";

/// Prints the files that match its arguments.
const GLOB_SEARCH: &str = "codebuild-glob-search";

/// Runs the tests of one shard.
const TESTS_RUN: &str = "codebuild-tests-run";

/// Pauses a build that is debugged.
const BREAKPOINT: &str = "codebuild-breakpoint";

/// Ends a pause.
const RESUME: &str = "codebuild-resume";

/// The names of all of them.
pub(crate) const ALL: [&str; 5] = [HASH_FILES, GLOB_SEARCH, TESTS_RUN, BREAKPOINT, RESUME];

/// How much of a file is read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Why files could not be found or hashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HashError {
    /// Nothing was named.
    #[error("no pattern was given")]
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
    /// A directory cannot be read, so nobody knows what is in it.
    #[error("failed to look through the tree")]
    Walk {
        /// Where, and why.
        source: ignore::Error,
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
    let ended = match name {
        HASH_FILES => print(hash_files(Path::new("."), &texts(words))),
        GLOB_SEARCH => {
            let files = search::search(Path::new("."), &texts(words));
            print(files.map(|files| lines(&files)))
        }
        TESTS_RUN => tests_run::run(words),
        BREAKPOINT => breakpoint::pause(),
        RESUME => breakpoint::resume(),
        breakpoint::SHELL_NAME => breakpoint::become_shell(),
        _ => return None,
    };
    Some(ended.unwrap_or_else(|why| {
        let told = writeln!(stderr(), "{name}: {why}");
        // The status says it, too.
        drop(told);
        ExitCode::FAILURE
    }))
}

/// The patterns that a command is given, relative to where it is: absolute ones too, that lead there.
fn texts(words: impl Iterator<Item = OsString>) -> Vec<String> {
    let here = std::env::current_dir().unwrap_or_default();
    let texts = words.map(|word| {
        let path = Path::new(&word);
        let path = path.strip_prefix(&here).unwrap_or(path);
        path.to_string_lossy().into_owned()
    });
    texts.collect()
}

fn lines(files: &[PathBuf]) -> String {
    let lines: Vec<_> = files.iter().map(|path| path.to_string_lossy()).collect();
    lines.join("\n")
}

/// Prints what was found, with an end of line if it is anything.
fn print(found: Result<String, HashError>) -> Result<ExitCode, String> {
    let text = found.map_err(|error| {
        let cause = error.source().map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    })?;
    let end = if text.is_empty() { "" } else { "\n" };
    let written = write!(stdout(), "{text}{end}");
    written.map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// One SHA-256 of the names and contents of all files below `root` that match a pattern: 64 hex digits.
///
/// `*` stays within a directory, `**` does not; files whose names start with a dot match too.
fn hash_files(root: &Path, patterns: &[String]) -> Result<String, HashError> {
    let globs = globs(patterns)?;
    let mut files = Vec::new();
    for entry in WalkBuilder::new(root).standard_filters(false).build() {
        let entry = entry.map_err(|source| HashError::Walk { source })?;
        let is_file = entry.file_type().is_some_and(|kind| kind.is_file());
        let path = entry
            .path()
            .strip_prefix(root)
            .unwrap_or_else(|_| entry.path());
        if is_file && globs.is_match(path) {
            files.push(path.to_owned());
        }
    }
    if files.is_empty() {
        return Err(HashError::NothingMatches {
            patterns: patterns.join(", "),
        });
    }
    files.sort();
    let mut hashed = Vec::with_capacity(files.len());
    for path in files {
        match hash_file(&root.join(&path)) {
            Ok(content) => hashed.push((path, content)),
            Err(source) => return Err(HashError::Read { path, source }),
        }
    }
    Ok(hash_hashed(&hashed))
}

/// What [`HASH_FILES`] prints for files with these SHA-256 of their contents, by path.
pub(crate) fn hash_hashed(files: &[(PathBuf, [u8; 32])]) -> String {
    let mut all = Sha256::new();
    for (path, content) in files {
        all.update(Sha256::digest(path.as_os_str().as_encoded_bytes()));
        all.update(content);
    }
    hex(&all.finalize())
}

/// The digest of a file's content, a piece at a time.
fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut content = Sha256::new();
    loop {
        let count = match file.read(&mut piece) {
            Ok(0) => return Ok(content.finalize().into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        content.update(&piece[..count]);
    }
}

/// The patterns as one set.
///
/// # Errors
///
/// If there are none, or one makes no sense.
pub(crate) fn globs(patterns: &[String]) -> Result<GlobSet, HashError> {
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
    use std::fs;

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
    fn without_debugging_a_breakpoint_does_nothing() {
        for name in [BREAKPOINT, RESUME] {
            assert_eq!(run(name, std::iter::empty()), Some(ExitCode::SUCCESS));
        }
        assert_eq!(run("codebuild", std::iter::empty()), None);
    }

    #[test]
    fn content_and_names_count_and_nothing_else() {
        let one = hash(&[("a/lock", "1"), ("other", "x")], &["**/lock"]).unwrap();
        // What `sha256sum` makes of the digests of the name and of the content.
        let expected = "d037678f86794526f1396b95ad939fb6e82916bf4f2853d873316b827a8122a1";
        assert_eq!(one, expected);
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
