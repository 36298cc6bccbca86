//! What a build keeps for the next one: the `cache` section of a buildspec.

use serde::{Deserialize, Serialize};

use crate::{canonical::Writer, digest::Digest};

/// How many fallback keys a cache may have: what CodeBuild takes.
pub const FALLBACK_KEYS_MAX: usize = 5;

/// That a buildspec asks for no dependency cache, and may have one all the same: the lock files of the
/// source say which.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct UnaskedCache {
    /// Whether a command runs `npm ci`, which removes `node_modules` before it installs.
    pub npm_ci: bool,
}

/// The `cache` section of a buildspec.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CacheSpec {
    /// The key, as a shell expands it at build time. `None`: the project has one entry for these paths,
    /// which each build replaces; an entry under a key is never replaced.
    pub key: Option<String>,
    /// How keys of other entries begin that do as well if there is none under [`key`](Self::key), as a
    /// shell expands them; the first that begins a key counts, and of several entries the newest. At most
    /// [`FALLBACK_KEYS_MAX`].
    #[serde(default)]
    pub fallback_keys: Vec<String>,
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
