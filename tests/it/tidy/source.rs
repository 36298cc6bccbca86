//! The project's own files, as the house rules read them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The crates of the workspace.
pub(super) const CRATES: &[&str] = &[
    "protocol",
    "buildspec",
    "scheduler",
    "report",
    "transport",
    "cache",
    "coordinator",
    "worker",
    "cli",
    "testkit",
    "tests",
    "benches",
];

/// A Rust file of the project.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// From the root of the project, like `cache/src/lib.rs`.
    pub(super) path: String,
    /// What is in it.
    pub(super) text: String,
}

impl SourceFile {
    /// The text up to the file's unit tests.
    pub(super) fn without_tests(&self) -> &str {
        let tests = self.text.find("#[cfg(test)]\nmod tests {");
        &self.text[..tests.unwrap_or(self.text.len())]
    }

    /// Numbered lines of code before the tests, comments left out.
    pub(super) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = (1..).zip(self.without_tests().lines());
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// The root of the project.
pub(super) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("`tests` lies in the project")
        .to_owned()
}

/// All Rust files of the named crates, sorted by path.
pub(super) fn rust_files(crates: &[&str]) -> Vec<SourceFile> {
    let mut files = Vec::new();
    for name in crates {
        collect(&root().join(name), &mut files);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() >= crates.len(), "each crate has a file");
    files
}

fn collect(directory: &Path, files: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.ends_with("target") || path.ends_with("benches/peers") {
                continue;
            }
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root()).unwrap();
            files.push(SourceFile {
                path: relative.to_str().unwrap().to_owned(),
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

/// Fails with a list of what breaks a rule.
#[track_caller]
pub(super) fn none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}
