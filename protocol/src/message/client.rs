//! What people and programs say to the coordinator: submit, follow, stop, look.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    access::{Identity, Role},
    blob::TreeRef,
    build::{BuildId, Phase, PhaseContext, Rerun, Status},
    job::{Artifact, CacheUse, JobId},
    message::work::RestoreProgress,
    name::{Namespace, ProjectName, Team, WorkerName},
    project::{BatchConfig, Project},
    report_group::ReportRef,
    secret::{SecretId, SecretSummary, SecretValue},
    time::WallTime,
    worker::WorkerOffer,
};

/// The largest buildspec, in bytes.
pub const BUILDSPEC_BYTES_MAX: usize = 1024 * 1024;
/// How many variables a submission may set.
pub const SUBMITTED_VARIABLES_MAX: usize = 1_000;
/// How many builds one listing gives.
pub const BUILDS_LISTED_MAX: u32 = 1_000;

/// The least urgent priority of a build.
pub const PRIORITY_MIN: i8 = -10;
/// The most urgent priority of a build: steps enough to tell kinds of builds apart, few enough that one
/// waits for hours and not for ever.
pub const PRIORITY_MAX: i8 = 10;

/// A request to the coordinator.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum ClientRequest {
    /// What farm is this, and where is its cache? Answer: [`ClientReply::Farm`].
    Farm,
    /// Take a build. The source's chunks are at the cache already. Answer: [`ClientReply::Submitted`].
    Submit(Box<SubmitBuild>),
    /// The builds of this team, newest first. Answer: [`ClientReply::Builds`].
    Builds {
        /// Only of this project.
        project: Option<ProjectName>,
        /// At most so many; the server has a limit of its own.
        limit: u32,
    },
    /// How a build stands. Answer: [`ClientReply::Build`].
    Build(BuildRef),
    /// Follow a build. Answer: [`ClientReply::Watching`], then [`WatchEvent`] frames (each
    /// [`WatchEvent::Log`] followed by its bytes) until the build has ended or, without `follow`, until
    /// all that there is has been sent.
    Watch {
        /// The build.
        build: BuildRef,
        /// What the client has of each log already; absent: nothing.
        from: Vec<LogPosition>,
        /// Whether to wait for more.
        follow: bool,
    },
    /// Open a shell in a build that pauses at a breakpoint. Answer: [`ClientReply::Attached`], then
    /// [`TerminalOutput`](super::terminal::TerminalOutput) frames up to the last of them, and
    /// [`TerminalInput`](super::terminal::TerminalInput) frames from the client, which leaves by finishing.
    Attach {
        /// The build.
        build: BuildRef,
        /// Which unit, by its identifier; `None`: the only one that runs.
        unit: Option<String>,
    },
    /// Stop a build. Answer: [`ClientReply::Done`], also if it has ended already.
    Stop(BuildRef),
    /// Submit a build again, from the same source. Answer: [`ClientReply::Submitted`].
    Retry {
        /// The build.
        build: BuildRef,
        /// The id of the new one, as in [`SubmitBuild::id`].
        id: BuildId,
    },
    /// Delete builds that have ended, with their logs and artifacts. Answer: [`ClientReply::Done`].
    Delete(BuildRef),
    /// The workers. Answer: [`ClientReply::Workers`].
    Workers,
    /// Let a worker's phases end and give it no more. Answer: [`ClientReply::Done`].
    Drain(WorkerName),
    /// Make a join token. Answer: [`ClientReply::Token`].
    CreateToken {
        /// For members of this team.
        team: Team,
        /// In this role.
        role: Role,
        /// How long it can be used.
        lifetime: Duration,
    },
    /// From the cache service: it can be reached here. Answer: [`ClientReply::Done`].
    AnnounceCache(SocketAddr),
    /// Who has joined. Answer: [`ClientReply::Members`].
    Members,
    /// Let a member's certificates count no more: its name, or `<team>/<role>/<name>`. Answer:
    /// [`ClientReply::Done`].
    RevokeMember(String),
    /// The join tokens that can be used. Answer: [`ClientReply::Tokens`].
    Tokens,
    /// Let a join token be used no more: its id, or the token. Answer: [`ClientReply::Done`].
    RevokeToken(String),
    /// Make a project, or make it anew. Answer: [`ClientReply::Done`].
    SaveProject {
        /// All of it.
        project: Box<Project>,
        /// Whether it has to be there already; else it must not be.
        is_there: bool,
    },
    /// The projects of this team. Answer: [`ClientReply::Projects`].
    Projects,
    /// What is known of a project of this team. Answer: [`ClientReply::Project`].
    Project(ProjectName),
    /// Forget a project; its builds and its numbers stay. Answer: [`ClientReply::Done`].
    DeleteProject(ProjectName),
    /// Let the builds of a project of this team find none of the dependency caches that there are. Answer:
    /// [`ClientReply::Done`].
    InvalidateCaches(ProjectName),
    /// Add a version to a secret of this team, which may be its first. Answer: [`ClientReply::SecretSet`].
    SetSecret {
        /// The project that it is for; `None`: all of the team's.
        project: Option<ProjectName>,
        /// Its name.
        id: SecretId,
        /// The value.
        value: SecretValue,
    },
    /// The secrets of this team, without their values. Answer: [`ClientReply::Secrets`].
    Secrets {
        /// Only those for this project; `None`: all.
        project: Option<ProjectName>,
    },
    /// Delete a secret of this team, all its versions. Answer: [`ClientReply::Done`].
    DeleteSecret {
        /// The project that it is for; `None`: all of the team's.
        project: Option<ProjectName>,
        /// Its name.
        id: SecretId,
    },
}

/// The answer to a [`ClientRequest`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum ClientReply {
    /// It is done.
    Done,
    /// The farm.
    Farm(FarmInfo),
    /// A build was taken.
    Submitted(Submitted),
    /// Builds, newest first.
    Builds(Vec<BuildSummary>),
    /// A build.
    Build(Box<BuildDetail>),
    /// Events follow.
    Watching(BuildId),
    /// Frames of a terminal follow.
    Attached,
    /// Workers, by name.
    Workers(Vec<WorkerSummary>),
    /// A token, in the form that `--token` takes. It is not kept, only its hash.
    Token(String),
    /// Members, by team, role and name.
    Members(Vec<MemberSummary>),
    /// Join tokens, the one that ends first before the others.
    Tokens(Vec<TokenSummary>),
    /// A version of a secret was added; its id.
    SecretSet(String),
    /// Secrets, by project and name, those of the team itself first.
    Secrets(Vec<SecretSummary>),
    /// Projects, by name.
    Projects(Vec<ProjectSummary>),
    /// A project; `None`: nobody has made it. Builds may be of it all the same.
    Project(Option<Box<ProjectDetail>>),
}

/// A project, in a line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProjectSummary {
    /// Its name.
    pub name: ProjectName,
    /// What it is for.
    pub description: String,
    /// The address of its repository; `None`: its source is uploaded.
    pub repository: Option<String>,
    /// When it was made or changed last.
    pub saved: WallTime,
    /// The number of its last build; 0: it has none.
    pub builds: u64,
}

/// A project, in full.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProjectDetail {
    /// All that was said of it.
    pub project: Project,
    /// When it was made.
    pub created: WallTime,
    /// When it was made or changed last.
    pub saved: WallTime,
    /// The number of its last build; 0: it has none.
    pub builds: u64,
    /// How often its dependency caches were made invalid.
    pub cache_generation: u64,
}

/// Who has joined a farm.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MemberSummary {
    /// Who it is.
    pub identity: Identity,
    /// When it got its first certificate.
    pub joined: WallTime,
    /// When its last certificate ends, if it is not renewed.
    pub valid_until: WallTime,
}

/// A join token that can be used.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TokenSummary {
    /// Names it among the tokens of its farm; tells nothing of its secret.
    pub id: String,
    /// For members of this team.
    pub team: Team,
    /// In this role.
    pub role: Role,
    /// When it can be used last.
    pub end: WallTime,
}

/// What a client has to know of a farm.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FarmInfo {
    /// Where the cache is; `None`: none has joined.
    pub cache: Option<SocketAddr>,
    /// The client's own namespace.
    pub namespace: Namespace,
    /// The client's own team.
    pub team: Team,
}

/// Which build is meant: its id, a beginning of its id that is no other's, or `<project>#<number>`.
pub type BuildRef = String;

/// A build to be run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SubmitBuild {
    /// Of which project.
    pub project: ProjectName,
    /// Where the buildspec is in the source; empty: where the project says, or in `buildspec.yml`.
    pub buildspec_path: String,
    /// The buildspec; at most [`BUILDSPEC_BYTES_MAX`]. Empty: the project has it, or the source.
    pub buildspec: String,
    /// The source; `None`: the farm fetches what the project says.
    pub source: Option<TreeRef>,
    /// The commit that the source is of; without a source, the version of it that is wanted, over the
    /// project's.
    pub source_version: Option<String>,
    /// Variables that go over those of the project and of the buildspec.
    pub variables: BTreeMap<String, String>,
    /// Whether to run the `batch` section.
    pub batch: bool,
    /// Which phases may run again after their first command has started, where that is not
    /// [what holds anyway](Rerun::of).
    pub reruns: BTreeMap<Phase, Rerun>,
    /// Whether to restore and save no dependency caches.
    pub no_cache: bool,
    /// How urgent the build is among those of its team, from [`PRIORITY_MIN`] to [`PRIORITY_MAX`];
    /// greater is more urgent, and 0 is ordinary.
    pub priority: i8,
    /// Whether it pauses at breakpoints.
    pub debug: bool,
    /// The id that the build gets, drawn at random by who submits it. What is submitted again under the same
    /// id is the same build, so that who does not know whether it was taken can say it again.
    pub id: BuildId,
}

/// A build that was taken.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Submitted {
    /// Its id.
    pub build: BuildId,
    /// Its number in its project, from 1.
    pub number: u64,
}

/// A build, in a line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BuildSummary {
    /// Its id.
    pub build: BuildId,
    /// Of which project.
    pub project: ProjectName,
    /// Its number in its project.
    pub number: u64,
    /// Whose it is.
    pub team: Team,
    /// Who submitted it.
    pub initiator: String,
    /// How it stands.
    pub status: Status,
    /// When it was taken.
    pub submitted: WallTime,
    /// When its first phase started.
    pub started: Option<WallTime>,
    /// When it ended.
    pub ended: Option<WallTime>,
}

/// A build, in full.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BuildDetail {
    /// The line.
    pub summary: BuildSummary,
    /// The commit that its source is of.
    pub source_version: Option<String>,
    /// What holds for it as a batch; `None`: it is none.
    pub batch: Option<BatchConfig>,
    /// Its units, in the order of the buildspec.
    pub units: Vec<UnitDetail>,
}

/// A unit of a build.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UnitDetail {
    /// The batch task's identifier.
    pub identifier: Option<String>,
    /// How it stands.
    pub status: Status,
    /// Whether the build goes on, and may succeed, though this one fails.
    pub ignore_failure: bool,
    /// Its phases, in order.
    pub phases: Vec<PhaseDetail>,
    /// What it published.
    pub artifact: Option<Artifact>,
    /// What else it published, by identifier.
    pub secondary_artifacts: BTreeMap<String, Artifact>,
    /// The variables that it exports: the values that they had when the last phase ended that ran commands.
    pub exported_variables: BTreeMap<String, String>,
    /// What its tests and their coverage say.
    pub reports: Vec<ReportRef>,
}

/// A phase of a unit.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PhaseDetail {
    /// The job's index in the build.
    pub job: u32,
    /// Which phase.
    pub phase: Phase,
    /// How it stands.
    pub status: Status,
    /// Why it waits, if it does, in words.
    pub waits: Option<String>,
    /// How often it was started.
    pub attempts: u32,
    /// Who runs it, or ran it last.
    pub worker: Option<WorkerName>,
    /// When its last attempt started.
    pub started: Option<WallTime>,
    /// When it ended.
    pub ended: Option<WallTime>,
    /// Why it ended as it did.
    pub context: Option<PhaseContext>,
    /// What dependency caches did.
    pub cache_uses: Vec<CacheUse>,
    /// How many of the first attempts fetched the sources, and were no tries at what came after.
    pub fetches: u32,
}

/// How much of an attempt's log a client has.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogPosition {
    /// The job.
    pub job: u32,
    /// Which try.
    pub attempt: u32,
    /// Bytes from the start.
    pub offset: u64,
}

/// What happens to a build that is followed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum WatchEvent {
    /// A phase changed how it stands.
    Phase {
        /// The unit's identifier in a batch.
        unit: Option<String>,
        /// The phase, as it stands now.
        detail: Box<PhaseDetail>,
    },
    /// A piece of log; its bytes follow the frame.
    Log {
        /// The job, whose unit and phase the client knows from [`WatchEvent::Phase`].
        job: JobId,
        /// Which try.
        attempt: u32,
        /// Where the piece starts in the attempt's log.
        offset: u64,
        /// How many bytes follow.
        bytes: u32,
    },
    /// A job's worker brings here what the job starts from. Only those who listen at the moment hear it;
    /// nothing of it is kept.
    Restoring {
        /// The job.
        job: JobId,
        /// How far it is.
        progress: RestoreProgress,
    },
    /// The build has ended; this is the last event.
    Ended(Box<BuildSummary>),
}

/// A worker, in a line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WorkerSummary {
    /// What it offers.
    pub offer: WorkerOffer,
    /// Whether it takes no more work.
    pub draining: bool,
    /// What it runs.
    pub runs: Vec<JobId>,
}
