//! Workers: who runs attempts, and what they offer.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, name::WorkerName, runtime::Offered};

/// How phases are kept apart from the worker and from each other.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// A directory and a private HOME; a unit stays on its worker.
    Host,
    /// An overlay over the worker's own root in namespaces; phases travel.
    Namespace,
}

impl Isolation {
    /// The level's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Namespace => "namespace",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Isolation {
    type Err = ParseIsolationError;

    fn from_str(text: &str) -> Result<Self, ParseIsolationError> {
        match text {
            "host" => Ok(Self::Host),
            "namespace" => Ok(Self::Namespace),
            _ => Err(ParseIsolationError {
                text: text.to_owned(),
            }),
        }
    }
}

/// Why a text names no isolation level.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is no isolation level; there are `host` and `namespace`")]
pub struct ParseIsolationError {
    /// The text.
    pub text: String,
}

/// Names one process of a worker: drawn at random when it starts. What it does not say it holds, it
/// does not run; of another process of the same name nobody knows.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

/// What a worker offers, said when it joins.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WorkerOffer {
    /// Its name, unique in the farm: a second worker of the same name takes the place of the first.
    pub name: WorkerName,
    /// How many attempts it runs at once.
    pub capacity: u32,
    /// What its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// The machine's architecture, like `x86_64`.
    pub architecture: String,
    /// The level at which it runs phases.
    pub isolation: Isolation,
    /// The file system underneath: release, package database, owner's salt. Phases travel only between
    /// workers of equal bases.
    pub base: Digest,
    /// The versions of runtimes that builds can select, by runtime; empty: none can be selected.
    pub runtimes: Offered,
}
