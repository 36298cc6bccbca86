//! The keys of everything that the farm keeps, in one place.

use serde::{Deserialize, Serialize};

use super::KEY_BYTES_MAX;
use crate::{build::BuildId, cache_spec::CacheSpec, digest::hex, job::JobId, name::ProjectName};

/// Why nothing can stand under a text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// It is empty, or a word of it means another place in paths.
    #[error("`{key}` is no key: words with `/` between them, none of which is `.` or `..`")]
    Words {
        /// The text.
        key: String,
    },
    /// It is too long.
    #[error("the key has {bytes} bytes, at most {KEY_BYTES_MAX} are allowed")]
    Length {
        /// How many it has.
        bytes: usize,
    },
}

/// Checks that an entry can stand under `key`.
///
/// # Errors
///
/// If it is empty or too long, or has a word `.` or `..`.
pub fn check(key: &str) -> Result<(), KeyError> {
    if key.is_empty() || key.split('/').any(|word| word == "." || word == "..") {
        let key = key.to_owned();
        return Err(KeyError::Words { key });
    }
    check_length(key)
}

/// Checks that a key, or what keys start with, is not too long.
///
/// # Errors
///
/// If it is.
pub fn check_length(key: &str) -> Result<(), KeyError> {
    let bytes = key.len();
    if KEY_BYTES_MAX < bytes {
        return Err(KeyError::Length { bytes });
    }
    Ok(())
}

/// The source tree of a build.
pub fn source(build: BuildId) -> String {
    format!("source/{build}")
}

/// The snapshot that an attempt at a job gave. What a lost attempt still writes stands elsewhere.
pub fn snapshot(job: JobId, attempt: u32) -> String {
    format!("{}{}/{attempt}", snapshots(job.build), job.index)
}

/// How the keys of all snapshots of a build start.
pub fn snapshots(build: BuildId) -> String {
    format!("snapshot/{build}/")
}

/// The artifact of one unit of a build, as an attempt at uploading it gave it.
pub fn artifact(build: BuildId, unit: u32, attempt: u32) -> String {
    format!("{}{unit}/{attempt}", artifacts(build))
}

/// A secondary artifact of one unit of a build: below its artifact.
pub fn secondary_artifact((build, unit, attempt): (BuildId, u32, u32), identifier: &str) -> String {
    format!("{}/artifact/{identifier}", artifact(build, unit, attempt))
}

/// The reports of one unit of a build: below its artifact, so that they live as long as that.
pub fn reports(build: BuildId, unit: u32, attempt: u32) -> String {
    format!("{}/reports", artifact(build, unit, attempt))
}

/// How the keys of all artifacts of a build start.
pub fn artifacts(build: BuildId) -> String {
    format!("artifact/{build}/")
}

/// Whose dependency caches are meant. What was saved in an earlier generation is not found any more.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CacheScope {
    /// The project.
    pub project: ProjectName,
    /// How often its caches were made invalid.
    pub generation: u64,
    /// Under which name projects share caches that have a key, and how often those were made invalid;
    /// `None`: the project shares none.
    pub shared: Option<(ProjectName, u64)>,
}

impl CacheScope {
    /// The caches of a project that shares none, none of which was ever made invalid.
    pub const fn of(project: ProjectName) -> Self {
        Self {
            project,
            generation: 0,
            shared: None,
        }
    }

    /// How the keys of all of them start, the project's own first.
    pub fn dependencies(&self) -> Vec<String> {
        let own = self.own();
        std::iter::once(own).chain(self.of_all()).collect()
    }

    /// A dependency cache under its expanded key (empty for a project's only entry).
    pub fn dependency(&self, spec: &CacheSpec, key: &str) -> String {
        let version = hex(&spec.version().hash()[..8]);
        let keyed = || self.of_all().filter(|_| spec.key.is_some());
        let start = keyed().unwrap_or_else(|| self.own());
        format!("{start}{version}/{key}")
    }

    fn own(&self) -> String {
        of_generation(self.project.as_str(), self.generation)
    }

    fn of_all(&self) -> Option<String> {
        let (name, generation) = self.shared.as_ref()?;
        Some(of_generation(&format!("@{name}"), *generation))
    }
}

/// The first is named as before there were several. No name holds `@`.
fn of_generation(name: &str, generation: u64) -> String {
    match generation {
        0 => format!("dependency/{name}/"),
        _ => format!("dependency/{name}@{generation}/"),
    }
}

/// How the keys start of what outlives the work on a build: what a cold tier keeps.
pub const LASTING: [&str; 3] = ["artifact/", "dependency/", SAVED];

/// Whether what stands under the key outlives the work on a build.
pub fn is_lasting(key: &str) -> bool {
    LASTING.iter().any(|start| key.starts_with(start))
}

/// Whether that may be so of a key that starts with `prefix`.
pub fn may_last(prefix: &str) -> bool {
    is_lasting(prefix) || LASTING.iter().any(|start| start.starts_with(prefix))
}

/// Whether a key that starts with `prefix` may be one that several caches have in common: what belongs to no
/// build.
pub fn may_be_shared(prefix: &str) -> bool {
    const SHARED: [&str; 2] = ["dependency/", SAVED];
    let mut shared = SHARED.iter();
    shared.any(|start| prefix.starts_with(start) || start.starts_with(prefix))
}

/// A directory that somebody put into the cache by hand, under the name that it was given, or under
/// the hash of its tree. The key begins none of another name that has no word `=`.
pub fn saved(name: &str) -> String {
    format!("{SAVED}{name}/=")
}

/// The name of such a directory.
pub fn saved_name(key: &str) -> Option<&str> {
    key.strip_prefix(SAVED)?.strip_suffix("/=")
}

/// How the keys of all of these start.
pub const SAVED: &str = "saved/";

/// How the keys of all dependency caches of a project start that were never made invalid.
pub fn dependencies(project: &ProjectName) -> String {
    of_generation(project.as_str(), 0)
}
