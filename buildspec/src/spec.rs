//! What a buildspec says, typed and checked.

mod batch;
mod report;
mod secret;

use std::collections::BTreeMap;

use protocol::{
    artifact::ArtifactsSpec,
    build::Phase,
    cache_spec::CacheSpec,
    job::{Retry, Shell},
};

pub use self::{
    batch::{Batch, BatchTask, Fanout, Matrix, TaskEnvironment, Tasks},
    report::{ReportFormat, ReportGroup},
    secret::{Secret, SecretName, SecretNameError, SecretStore},
};
use crate::diagnostic::Place;

/// A buildspec without mistakes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BuildSpec {
    /// The version of the language.
    pub version: Version,
    /// The user that runs all commands of which their phase does not say another; `None`: who runs the
    /// build.
    pub run_as: Option<String>,
    /// The shell that runs all commands.
    pub shell: Shell,
    /// A shell of Windows that runs all commands in place of `shell`; `None`: it is none of Windows.
    pub windows_shell: Option<WindowsShell>,
    /// `env.variables`. Values are literal: nothing in them is expanded.
    pub variables: BTreeMap<String, String>,
    /// The variables whose values the file does not have, by name; these go over `variables`.
    pub secrets: BTreeMap<String, Secret>,
    /// `env.exported-variables`: the names of variables that are told to whoever started the build.
    pub exported_variables: Vec<String>,
    /// Whether git may use the credentials that the source was fetched with.
    pub git_credential_helper: bool,
    /// What goes through a proxy.
    pub proxy: Proxy,
    /// The phases; `None` for a file that is there for its `batch` section.
    pub phases: Option<Phases>,
    /// The groups of test reports, by name or ARN, which may hold variables.
    pub reports: BTreeMap<String, ReportGroup>,
    /// What to publish; `None`: nothing.
    pub artifacts: Option<Artifacts>,
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

/// A shell that no worker has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WindowsShell {
    /// Its name, as written.
    pub name: String,
    /// Where it is named.
    pub place: Place,
}

/// The `proxy` section.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Proxy {
    /// Whether artifacts are uploaded through the proxy.
    pub upload_artifacts: bool,
    /// Whether logs are sent through the proxy.
    pub logs: bool,
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
    /// Whether the file has the phase, be it empty.
    pub is_named: bool,
    /// Run one after another, up to the first that fails.
    pub commands: Vec<String>,
    /// Run after them, also when one failed.
    pub finally: Vec<String>,
    /// What follows a failure.
    pub on_failure: OnFailure,
    /// The user that runs the commands; `None`: the one of the file.
    pub run_as: Option<String>,
    /// The versions of runtimes to install, by runtime; of `install` only.
    pub runtime_versions: BTreeMap<String, String>,
}

/// What follows when a phase fails.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum OnFailure {
    /// What CodeBuild's transition table says: only `build` and `post_build` are followed by the next.
    #[default]
    Transition,
    /// `ABORT`: nothing.
    Abort,
    /// `CONTINUE`: the next phase.
    Continue,
    /// `RETRY…`: the phase again.
    Retry(Retry),
}

/// The `artifacts` section.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Artifacts {
    /// What the build itself publishes.
    pub primary: Published,
    /// What else it publishes, by identifier.
    pub secondary: BTreeMap<String, Published>,
}

/// One artifact.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Published {
    /// Which files, under which name.
    pub spec: ArtifactsSpec,
    /// Whether symbolic links in it stay what they are.
    pub enable_symlinks: bool,
    /// What goes before its key in S3; `None`: nothing.
    pub s3_prefix: Option<String>,
}

/// The `cache` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cache {
    /// What, and under which key.
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
