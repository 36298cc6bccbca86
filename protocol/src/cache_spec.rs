//! What a build keeps for the next one: the `cache` section of a buildspec.

use serde::{Deserialize, Serialize};

use crate::{canonical::Writer, digest::Digest};

/// The `cache` section of a buildspec.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CacheSpec {
    /// The key, as a shell expands it at build time. `None`: the project has one entry for these paths,
    /// which each build replaces; an entry under a key is never replaced.
    pub key: Option<String>,
    /// Which files: globs relative to the source directory, or absolute.
    pub paths: Vec<String>,
}

impl CacheSpec {
    /// The version of the cache: what tells entries of different path lists apart under one key.
    pub fn version(&self) -> Digest {
        let mut writer = Writer::new(*b"gcvs", 1);
        writer.number(self.paths.len() as u64);
        for path in &self.paths {
            writer.bytes(path.as_bytes());
        }
        Digest::of(&writer.finish())
    }
}
