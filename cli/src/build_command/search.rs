//! `codebuild-glob-search`: the files that match patterns, by line.

use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use super::{HashError, globs};

/// The files below `root` that match a pattern, relative to it, sorted; directories are none.
///
/// # Errors
///
/// If there is no pattern, one makes no sense, or a directory cannot be read.
pub(super) fn search(root: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, HashError> {
    let globs = globs(patterns)?;
    let mut files = Vec::new();
    for entry in WalkBuilder::new(root).standard_filters(false).build() {
        let entry = entry.map_err(|source| HashError::Walk { source })?;
        // A link to a file is a file to a test tool.
        let is_file = match entry.file_type() {
            Some(kind) if kind.is_symlink() => entry.path().is_file(),
            Some(kind) => kind.is_file(),
            None => false,
        };
        let path = entry.path().strip_prefix(root);
        let path = path.unwrap_or_else(|_| entry.path());
        if is_file && globs.is_match(path) {
            files.push(path.to_owned());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_relative_and_sorted_and_directories_are_none() {
        let root = tempfile::tempdir().unwrap();
        for path in ["b/test_b.py", "test_a.py", "b/c/test_c.py", "b/other.txt"] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir(root.path().join("test_d.py")).unwrap();
        let found = |patterns: &[&str]| {
            let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
            let found = search(root.path(), &patterns).unwrap();
            let shown = found.iter().map(|path| path.display().to_string());
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found(&["*.py"]), "test_a.py");
        assert_eq!(
            found(&["**/test_*.py"]),
            "b/c/test_c.py b/test_b.py test_a.py"
        );
        assert_eq!(found(&["test_a.py", "b/*.txt"]), "b/other.txt test_a.py");
        assert_eq!(found(&["nothing"]), "");
        assert!(search(root.path(), &[]).is_err());
    }
}
