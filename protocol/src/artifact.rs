//! What a build publishes: the selection that a buildspec makes, before it is looked up in the tree.

use serde::{Deserialize, Serialize};

/// The `artifacts` section of a buildspec.
///
/// Patterns are as written: variables in them are expanded, and globs looked up, where the build ran.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ArtifactsSpec {
    /// The name to publish under, as a shell would expand it; `None`: the project's.
    pub name: Option<String>,
    /// Which files, relative to the base directory; at least one pattern.
    pub files: Vec<String>,
    /// Which of them not.
    pub exclude_paths: Vec<String>,
    /// The directory (or a pattern naming several) whose content is published; `None`: the source
    /// directory.
    pub base_directory: Option<String>,
    /// Whether every file goes to the root under its own name. Of equal names the later wins.
    pub discard_paths: bool,
    /// Whether symbolic links in it stay what they are; without it, what they lead to is published in their
    /// place.
    #[serde(default)]
    pub enable_symlinks: bool,
}
