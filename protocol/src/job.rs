//! Jobs: one phase of one unit, what it does and what came of it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    archive::ArchiveSource,
    artifact::ArtifactsSpec,
    blob::{Blob, TreeRef},
    build::{BuildId, Outcome, Phase, PhaseContext},
    cache_spec::{CacheSpec, UnaskedCache},
    environment::Asked,
    git::GitSource,
    report_group::{ReportRef, ReportSpec},
    secret::SecretRef,
    time::WallTime,
};

/// Names a job: a build, and the index of the job in its graph.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct JobId {
    /// The build.
    pub build: BuildId,
    /// Index into [`JobGraph::jobs`](crate::graph::JobGraph::jobs).
    pub index: u32,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.build, self.index)
    }
}

/// The shell that runs commands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Shell {
    /// `/bin/sh`, the default.
    #[default]
    Sh,
    /// `bash`.
    Bash,
}

/// What the commands of a phase find and leave behind.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum ShellState {
    /// Variables and working directory carry over from command to command and phase to phase: buildspec
    /// version 0.2.
    #[default]
    Carried,
    /// Every command starts in the source directory with the variables of the start: version 0.1.
    Fresh,
}

/// What a job does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Task {
    /// Puts the source in place, restores the dependency cache, and sets the first variables.
    DownloadSource {
        /// Variables of the buildspec, the batch task and the submission, by precedence already merged.
        variables: BTreeMap<String, String>,
        /// What to restore; `None`: nothing.
        cache: Option<CacheSpec>,
        /// Whether to restore what the lock files of the source select; `None`: no.
        #[serde(default)]
        unasked: Option<UnaskedCache>,
        /// The shell that expands the cache key.
        shell: Shell,
        /// What the log says of the buildspec, and what is selected before the first phase.
        #[serde(default)]
        preface: Preface,
        /// Variables whose values are secrets: their names only, by variable. They go over `variables`.
        #[serde(default)]
        secrets: Vec<SecretRef>,
    },
    /// Runs the commands of a phase.
    Commands(PhaseCommands),
    /// Uploads artifacts.
    UploadArtifacts {
        /// What to upload; `None`: nothing.
        artifacts: Option<ArtifactsSpec>,
        /// The shell that expands the artifact's name.
        shell: Shell,
        /// The reports to collect, besides those that are discovered.
        #[serde(default)]
        reports: Vec<ReportSpec>,
        /// What else to upload, by identifier.
        #[serde(default)]
        secondary: BTreeMap<String, ArtifactsSpec>,
    },
    /// Fetches the sources that nobody uploads; what else there is to do is planned when they are there.
    FetchSources(Box<FetchSources>),
}

/// What to fetch before a build can be planned.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct FetchSources {
    /// The repository of the source; `None`: it was uploaded, or is an archive.
    pub primary: Option<GitSource>,
    /// The archive that is the source; `None`: it is none.
    #[serde(default)]
    pub archive: Option<ArchiveSource>,
    /// The secondary sources, by identifier.
    pub secondary: BTreeMap<String, GitSource>,
    /// The secrets that git is let in with: of the sources that have one, by
    /// [name](crate::git::credential_variable).
    #[serde(default)]
    pub credentials: Vec<SecretRef>,
}

/// What was fetched.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct FetchedSources {
    /// The source; `None`: it was uploaded.
    pub primary: Option<FetchedSource>,
    /// The secondary sources, by identifier.
    pub secondary: BTreeMap<String, FetchedSource>,
}

/// A source that was fetched.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FetchedSource {
    /// What it is; it is at the cache.
    pub tree: TreeRef,
    /// The commit; empty: it is an archive, which has none.
    pub commit: String,
}

/// What comes before the first phase of a buildspec.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Preface {
    /// Where the buildspec is, relative to the source if it is no absolute path; empty: nobody knows.
    pub buildspec: String,
    /// The phases that it has, in order, with the number of their commands.
    pub phases: Vec<(Phase, u32)>,
    /// The versions of runtimes that it asks for, by runtime; variables in them are expanded.
    pub runtimes: BTreeMap<String, String>,
    /// Whether the job has fetched the source before, and its log has begun with that.
    #[serde(default)]
    pub follows_fetch: bool,
    /// Whether only workers are to run it that offer these, because there are some.
    #[serde(default)]
    pub selects_runtimes: bool,
    /// What the build's own git may be let in with: addresses of repositories, by what their credentials are
    /// delivered as.
    #[serde(default)]
    pub git_credentials: BTreeMap<String, String>,
    /// What is asked of the machine; once the build is planned, what only workers are to run it that serve it.
    #[serde(default)]
    pub environment: Asked,
    /// What is asked of it besides, which no worker says that it serves.
    #[serde(default)]
    pub not_served: Asked,
}

/// The commands of a phase.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PhaseCommands {
    /// Run one after another, up to the first that fails.
    pub commands: Vec<String>,
    /// Run after them, also when one failed.
    pub finally: Vec<String>,
    /// Who runs them.
    pub shell: Shell,
    /// What carries over between them.
    pub state: ShellState,
    /// What to save when the phase is over and no phase has failed; `None`: nothing.
    pub save_cache: Option<CacheSpec>,
    /// Whether to save, under the same conditions, what the lock files of the source select; `None`: no.
    #[serde(default)]
    pub save_unasked: Option<UnaskedCache>,
    /// The user that runs them; `None`: who runs the build.
    #[serde(default)]
    pub run_as: Option<String>,
    /// When to run the phase again after it failed; `None`: never.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// The variables whose values are told to whoever started the build.
    #[serde(default)]
    pub exported: Vec<String>,
    /// Whether the buildspec has the phase, be it without commands.
    #[serde(default)]
    pub is_named: bool,
}

/// That a phase which failed runs again: `on-failure: RETRY…`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Retry {
    /// How often, at most [`RETRIES_MAX`].
    pub count: u32,
    /// The regular expression that the message of the failure has to match.
    pub pattern: String,
}

/// How often a phase can be run again: CodeBuild's limit.
pub const RETRIES_MAX: u32 = 100;

impl Default for Retry {
    /// Up to three times, whatever the message: what `RETRY` means alone.
    fn default() -> Self {
        Self {
            count: 3,
            pattern: ".*".to_owned(),
        }
    }
}

impl PhaseCommands {
    /// Whether there is nothing to do, so that no isolation has to be set up.
    pub const fn is_empty(&self) -> bool {
        self.commands.is_empty()
            && self.finally.is_empty()
            && self.save_cache.is_none()
            && self.save_unasked.is_none()
    }
}

/// What a dependency cache did for a build; recorded per team, project and key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CacheUse {
    /// The key after expansion; empty for a project's only entry.
    pub key: String,
    /// The fallback keys after expansion, in the order in which they were to be tried; none where an entry was
    /// saved. At most [`FALLBACK_KEYS_MAX`](crate::cache_spec::FALLBACK_KEYS_MAX).
    #[serde(default)]
    pub fallbacks: Vec<String>,
    /// What was done.
    pub what: CacheUseKind,
    /// The bytes of all files that were restored or saved.
    pub bytes: u64,
    /// Of these, how many moved between the worker and the cache.
    pub bytes_moved: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// What a dependency cache did.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CacheUseKind {
    /// An entry was there and was restored.
    Restored,
    /// None was there under the key; one was restored whose key a fallback key begins.
    RestoredByFallback,
    /// No entry was there, or it could not be restored.
    Missed,
    /// An entry was saved.
    Saved,
    /// The entry that is there already is equal, or may not be replaced.
    Kept,
}

/// What an attempt gives when it has ended and everything of it is stored.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AttemptResult {
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    pub context: PhaseContext,
    /// The snapshot that the next phase starts from, after a failed phase too; `None` if the farm could
    /// not make one, or if the state stays on the worker (isolation level `host`).
    pub snapshot: Option<Blob>,
    /// The artifact that was uploaded.
    pub artifact: Option<Artifact>,
    /// What else was uploaded, by identifier.
    #[serde(default)]
    pub secondary_artifacts: BTreeMap<String, Artifact>,
    /// The values that exported variables had when the phase ended; those that were not set are not there.
    /// `None`: the phase had no part in it.
    #[serde(default)]
    pub exported: Option<BTreeMap<String, String>>,
    /// The reports that were collected.
    #[serde(default)]
    pub reports: Vec<ReportRef>,
    /// What dependency caches did.
    pub cache_uses: Vec<CacheUse>,
    /// How many bytes of log the attempt wrote; all of them are stored.
    pub log_bytes: u64,
    /// When the attempt started to work, by the worker's clock.
    pub started: WallTime,
    /// When its commands had ended.
    pub ended: WallTime,
    /// Whether the cache has lost a part of the state that the unit had left there: no attempt anywhere
    /// can start from it. Only with [`Outcome::Fault`].
    #[serde(default)]
    pub state_lost: bool,
    /// What [`Task::FetchSources`] has fetched; `None`: it was another task, or it failed.
    #[serde(default)]
    pub fetched: Option<Box<FetchedSources>>,
}

/// How many secondary artifacts a unit may have: `CodeBuild`'s limit.
pub const SECONDARY_ARTIFACTS_MAX: usize = 12;

/// How many bytes the exported variables of a unit may have together, names included: they are journalled,
/// and shown with the build. Versions, names and addresses have some hundreds.
pub const EXPORTED_BYTES_MAX: usize = 32 * 1024;

/// A named output that a build publishes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Artifact {
    /// The name, after expansion.
    pub name: String,
    /// The files.
    pub tree: TreeRef,
    /// How many files there are.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
}
