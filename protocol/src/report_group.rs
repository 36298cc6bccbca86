//! Reports of a build: which files make them, and what became of them.

use serde::{Deserialize, Serialize};

use crate::blob::Blob;

/// How many reports a unit may have: the groups of a buildspec, and one discovered for each format.
pub const REPORTS_MAX: usize = 100;

/// A group of the `reports` section of a buildspec.
///
/// Patterns are as written: variables in them are expanded, and globs looked up, where the build ran.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReportSpec {
    /// The group's name, which may hold variables.
    pub group: String,
    /// The format of its files, as buildspecs name it; empty: the default.
    pub format: String,
    /// Which files, relative to the base directory; at least one pattern.
    pub files: Vec<String>,
    /// Where they lie; `None`: in the source directory.
    pub base_directory: Option<String>,
    /// Whether the files' directories do not count.
    pub discard_paths: bool,
}

/// A report that is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReportRef {
    /// The group's name, after expansion.
    pub group: String,
    /// The format of its files.
    pub format: String,
    /// What it says, on a line for people.
    pub summary: String,
    /// What it says, in full.
    pub content: Blob,
}
