//! What a buildspec says, typed and checked.

use std::collections::BTreeMap;

use protocol::{artifact::ArtifactsSpec, build::Phase, cache_spec::CacheSpec, job::Shell};

use crate::diagnostic::Place;

/// A buildspec without mistakes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BuildSpec {
    /// The version of the language.
    pub version: Version,
    /// The shell that runs all commands.
    pub shell: Shell,
    /// `env.variables`. Values are literal: nothing in them is expanded.
    pub variables: BTreeMap<String, String>,
    /// The variables whose values the file does not have, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// The phases; `None` for a file that is there for its `batch` section.
    pub phases: Option<Phases>,
    /// What to publish; `None`: nothing.
    pub artifacts: Option<ArtifactsSpec>,
    /// What to keep for the next build; `None`: nothing.
    pub cache: Option<Cache>,
    /// The `batch` section; `None` if there is none.
    pub batch: Option<Batch>,
}

/// The version of the buildspec language.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// `0.1`: every command has a shell of its own.
    V0_1,
    /// `0.2`: variables and working directory carry over.
    V0_2,
}

/// A variable whose value is kept elsewhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Secret {
    /// Who keeps it.
    pub store: SecretStore,
    /// The name of the value there, as written.
    pub reference: String,
    /// Where the file names it.
    pub place: Place,
}

/// Who keeps a secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SecretStore {
    /// `env.parameter-store`.
    ParameterStore,
    /// `env.secrets-manager`.
    SecretsManager,
}

impl SecretStore {
    /// The key in `env`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::ParameterStore => "parameter-store",
            Self::SecretsManager => "secrets-manager",
        }
    }
}

/// The four phases that have commands. What the file leaves out has none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Phases {
    /// `install`.
    pub install: PhaseSpec,
    /// `pre_build`.
    pub pre_build: PhaseSpec,
    /// `build`.
    pub build: PhaseSpec,
    /// `post_build`.
    pub post_build: PhaseSpec,
}

impl Phases {
    /// The phases with their names, in the order in which they run.
    pub const fn in_order(&self) -> [(Phase, &PhaseSpec); 4] {
        [
            (Phase::Install, &self.install),
            (Phase::PreBuild, &self.pre_build),
            (Phase::Build, &self.build),
            (Phase::PostBuild, &self.post_build),
        ]
    }
}

/// One phase.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PhaseSpec {
    /// Run one after another, up to the first that fails.
    pub commands: Vec<String>,
    /// Run after them, also when one failed.
    pub finally: Vec<String>,
    /// What follows a failure.
    pub on_failure: OnFailure,
}

/// What follows when a phase fails.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnFailure {
    /// What CodeBuild's transition table says: only `build` and `post_build` are followed by the next.
    #[default]
    Transition,
    /// `ABORT`: nothing.
    Abort,
    /// `CONTINUE`: the next phase.
    Continue,
}

/// The `cache` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cache {
    /// What, and under which key; there is at least one path.
    pub spec: CacheSpec,
    /// Whether a build reads it, writes it, or both.
    pub action: CacheAction,
}

/// What a build does with its dependency cache.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CacheAction {
    /// Restores it before its first phase, and saves it after the last.
    #[default]
    Both,
    /// Only restores it.
    Restore,
    /// Only saves it.
    Save,
}

/// The `batch` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    /// Whether the first task that fails stops the others.
    pub fast_fail: bool,
    /// What to run.
    pub tasks: Tasks,
}

/// The four forms that a batch can have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tasks {
    /// `build-list`: tasks that need nothing of each other.
    List(Vec<BatchTask>),
    /// `build-graph`: tasks that may depend on each other.
    Graph(Vec<BatchTask>),
    /// `build-matrix`, with the place of the key. It is known and cannot be planned.
    Matrix(Place),
    /// `build-fanout`, with the place of the key. It is known and cannot be planned.
    Fanout(Place),
}

/// One task of a `build-list` or `build-graph`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BatchTask {
    /// What other tasks and people call it. May be another task's too: that is for the plan to refuse.
    pub identifier: String,
    /// Where the identifier is.
    pub place: Place,
    /// The tasks that have to end first, each with its place; of a `build-graph` only.
    pub depend_on: Vec<(String, Place)>,
    /// Whether the batch can succeed although this task did not.
    pub ignore_failure: bool,
    /// Variables that go over those of the file.
    pub variables: BTreeMap<String, String>,
    /// A buildspec of its own, with its place; `None`: this one.
    pub buildspec: Option<(String, Place)>,
}
