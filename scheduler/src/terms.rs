//! Terms: what holds for a build besides its jobs, from its project.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    blob::TreeRef,
    git::GitSource,
    name::ProjectName,
    project::{BatchConfig, Recipe},
};
use serde::{Deserialize, Serialize};

/// What holds for a build besides its jobs. All of it has a default: builds of no project have none.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Terms {
    /// How long it may wait, if that is less than the farm lets any.
    #[serde(default)]
    pub queue: Option<Duration>,
    /// How long it may take, if that is less than the farm lets any.
    #[serde(default)]
    pub run: Option<Duration>,
    /// How many builds of its project may be there that have not ended, itself counted.
    #[serde(default)]
    pub concurrent_max: Option<u32>,
    /// How often its project's dependency caches were made invalid before it.
    #[serde(default)]
    pub cache_generation: u64,
    /// Under which name it shares dependency caches, and how often those were made invalid before it.
    #[serde(default)]
    pub cache_shared: Option<(ProjectName, u64)>,
    /// Where its source comes from; `None`: it was uploaded.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// Its secondary sources, by identifier.
    #[serde(default)]
    pub secondary: BTreeMap<String, Origin>,
    /// What it is planned by when its sources are there; `None`: it is planned.
    #[serde(default)]
    pub recipe: Option<Box<Recipe>>,
    /// What holds for it as a batch; `None`: it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchConfig>,
    /// Whether it pauses at breakpoints.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub debug: bool,
}

/// Where a source comes from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Origin {
    /// The repository, and the version that was wanted; of an archive its address and digest.
    pub git: GitSource,
    /// The commit that this was found to be; `None`: it is not fetched.
    #[serde(default)]
    pub commit: Option<String>,
    /// What was fetched, if it is a secondary source; the primary one's is the build's.
    #[serde(default)]
    pub tree: Option<TreeRef>,
}

impl Origin {
    /// A source that is not fetched.
    pub const fn of(git: GitSource) -> Self {
        Self {
            git,
            commit: None,
            tree: None,
        }
    }
}

/// Whether there is nothing to be written down.
pub(crate) fn is_default(terms: &Terms) -> bool {
    *terms == Terms::default()
}
