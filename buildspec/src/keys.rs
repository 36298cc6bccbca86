//! The keys of the language: which there are on each level, and which of them the farm acts on.
//!
//! A new key takes a line here and its reading in `parse`. A key that CodeBuild knows and the farm does
//! not act on is here too, so that it is told apart from a mistake.

/// What becomes of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Support {
    /// The parser reads it, and the farm acts on it.
    Read,
    /// CodeBuild knows it; the build runs without it, and says so: with what it does instead.
    Ignored(&'static str),
    /// CodeBuild knows it and it changes nothing here; nothing is said.
    Pointless,
}

use Support::{Ignored, Pointless, Read};

/// The keys of one level.
#[derive(Debug)]
pub(crate) struct Level {
    /// Where the level is, after "unknown key … ": `in a phase`.
    pub name: &'static str,
    /// How to get there, for advice: `phases.build`.
    pub path: &'static str,
    /// The keys.
    pub keys: &'static [(&'static str, Support)],
}

impl Level {
    /// What becomes of `key`; `None` if it is unknown here.
    pub(crate) fn support(&self, key: &str) -> Option<Support> {
        let known = self.keys.iter().find(|(known, _)| *known == key);
        known.map(|&(_, support)| support)
    }

    /// The names of the keys.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|&(name, _)| name)
    }
}

/// The file itself.
pub(crate) const TOP: Level = Level {
    name: "at the top level",
    path: "",
    keys: &[
        ("version", Read),
        ("env", Read),
        ("phases", Read),
        ("artifacts", Read),
        ("cache", Read),
        ("batch", Read),
        ("reports", Read),
        ("run-as", Read),
        ("proxy", Ignored("the farm uses no proxy")),
    ],
};

/// The file itself in version 0.1.
pub(crate) const TOP_0_1: Level = Level {
    name: TOP.name,
    path: TOP.path,
    keys: &[
        ("version", Read),
        ("environment_variables", Read),
        ("env", Read),
        ("phases", Read),
        ("artifacts", Read),
        ("cache", Read),
        ("batch", Read),
        ("reports", Read),
        ("run-as", Read),
        ("proxy", Ignored("the farm uses no proxy")),
    ],
};

/// `env`.
pub(crate) const ENV: Level = Level {
    name: "in `env`",
    path: "env",
    keys: &[
        ("shell", Read),
        ("variables", Read),
        ("parameter-store", Read),
        ("secrets-manager", Read),
        ("exported-variables", Read),
        ("git-credential-helper", Read),
    ],
};

/// `environment_variables` of version 0.1.
pub(crate) const ENVIRONMENT_VARIABLES: Level = Level {
    name: "in `environment_variables`",
    path: "environment_variables",
    keys: &[
        ("plaintext", Read),
        ("variables", Read),
        ("parameter-store", Read),
    ],
};

/// `proxy`.
pub(crate) const PROXY: Level = Level {
    name: "in `proxy`",
    path: "proxy",
    keys: &[("upload-artifacts", Read), ("logs", Read)],
};

/// `phases`.
pub(crate) const PHASES: Level = Level {
    name: "in `phases`",
    path: "phases",
    keys: &[
        ("install", Read),
        ("pre_build", Read),
        ("build", Read),
        ("post_build", Read),
    ],
};

/// One phase.
pub(crate) const PHASE: Level = Level {
    name: "in a phase",
    path: "phases.build",
    keys: &[
        ("commands", Read),
        ("finally", Read),
        ("on-failure", Read),
        ("run-as", Read),
        ("runtime-versions", Read),
    ],
};

/// `artifacts`.
pub(crate) const ARTIFACTS: Level = Level {
    name: "in `artifacts`",
    path: "artifacts",
    keys: &[
        ("files", Read),
        ("name", Read),
        ("base-directory", Read),
        ("discard-paths", Read),
        ("exclude-paths", Read),
        ("secondary-artifacts", Read),
        ("enable-symlinks", Read),
        ("s3-prefix", Ignored("artifacts do not go to S3")),
        ("type", Pointless),
    ],
};

/// One of `secondary-artifacts`.
pub(crate) const SECONDARY_ARTIFACT: Level = Level {
    name: "in a secondary artifact",
    path: "artifacts.secondary-artifacts.<id>",
    keys: &[
        ("files", Read),
        ("name", Read),
        ("base-directory", Read),
        ("discard-paths", Read),
        ("exclude-paths", Read),
        ("enable-symlinks", Read),
        ("s3-prefix", Ignored("artifacts do not go to S3")),
        ("type", Pointless),
    ],
};

/// `cache`.
pub(crate) const CACHE: Level = Level {
    name: "in `cache`",
    path: "cache",
    keys: &[
        ("paths", Read),
        ("key", Read),
        ("action", Read),
        ("fallback-keys", Read),
    ],
};

/// `batch`.
pub(crate) const BATCH: Level = Level {
    name: "in `batch`",
    path: "batch",
    keys: &[
        ("fast-fail", Read),
        ("build-list", Read),
        ("build-graph", Read),
        ("build-matrix", Read),
        ("build-fanout", Read),
    ],
};

/// A task of `build-list`.
pub(crate) const LIST_TASK: Level = Level {
    name: "in a task of `build-list`",
    path: "batch.build-list",
    keys: &[
        ("identifier", Read),
        ("buildspec", Read),
        ("env", Read),
        ("ignore-failure", Read),
        ("debug-session", Read),
    ],
};

/// A task of `build-graph`.
pub(crate) const GRAPH_TASK: Level = Level {
    name: "in a task of `build-graph`",
    path: "batch.build-graph",
    keys: &[
        ("identifier", Read),
        ("buildspec", Read),
        ("env", Read),
        ("ignore-failure", Read),
        ("debug-session", Read),
        ("depend-on", Read),
    ],
};

/// The `env` of a batch task.
pub(crate) const TASK_ENV: Level = Level {
    name: "in the `env` of a batch task",
    path: "batch.build-list.env",
    keys: &[
        ("variables", Read),
        ("compute-type", Read),
        ("fleet", Read),
        ("image", Read),
        ("privileged-mode", Read),
        ("type", Read),
    ],
};

/// `build-matrix`.
pub(crate) const MATRIX: Level = Level {
    name: "in `build-matrix`",
    path: "batch.build-matrix",
    keys: &[("static", Read), ("dynamic", Read)],
};

/// What all builds of a matrix have.
pub(crate) const MATRIX_STATIC: Level = Level {
    name: "in `build-matrix.static`",
    path: "batch.build-matrix.static",
    keys: &[("ignore-failure", Read), ("env", Read)],
};

/// What tells the builds of a matrix apart.
pub(crate) const MATRIX_DYNAMIC: Level = Level {
    name: "in `build-matrix.dynamic`",
    path: "batch.build-matrix.dynamic",
    keys: &[("buildspec", Read), ("env", Read)],
};

/// The `env` of what tells the builds of a matrix apart.
pub(crate) const MATRIX_DYNAMIC_ENV: Level = Level {
    name: "in `build-matrix.dynamic.env`",
    path: "batch.build-matrix.dynamic.env",
    keys: &[("variables", Read), ("compute-type", Read), ("image", Read)],
};

/// `build-fanout`.
pub(crate) const FANOUT: Level = Level {
    name: "in `build-fanout`",
    path: "batch.build-fanout",
    keys: &[("parallelism", Read), ("ignore-failure", Read)],
};

/// A report group.
pub(crate) const REPORT: Level = Level {
    name: "in a report group",
    path: "reports.<group>",
    keys: &[
        ("files", Read),
        ("file-format", Read),
        ("base-directory", Read),
        ("discard-paths", Read),
    ],
};

/// The levels on which a key that is in the wrong place may belong, the likeliest first.
pub(crate) const LEVELS: &[&Level] = &[
    &TOP,
    &PHASES,
    &PHASE,
    &ENV,
    &ARTIFACTS,
    &CACHE,
    &BATCH,
    &GRAPH_TASK,
    &TASK_ENV,
    &REPORT,
    &FANOUT,
    &MATRIX,
];
