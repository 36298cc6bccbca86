//! Facts: what was decided. They are journalled, and the whole lasting state is folded from them.
//!
//! A fact says its consequence, never the rule behind it, so that a changed rule does not replay into
//! another past. The JSON of each is guarded by a golden test.

use std::time::Duration;

use protocol::{
    build::{BuildId, Outcome, PhaseContext},
    digest::Digest,
    job::{AttemptResult, JobId},
    lease::LeaseId,
    name::{ProjectName, Team, WorkerName},
    project::Project,
    time::WallTime,
    worker::{Incarnation, Isolation, WorkerOffer},
};
use serde::{Deserialize, Serialize};

use crate::event::Submission;

/// Something that was decided.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Fact {
    /// A build was taken.
    BuildSubmitted {
        /// The build.
        submission: Box<Submission>,
        /// Its number in its project, from 1.
        number: u64,
        /// Its place in the order of all submissions, from 0, never given twice.
        order: u64,
        /// How long it may take.
        limits: Limits,
        /// When.
        at: WallTime,
    },
    /// A worker may run an attempt at a job.
    LeaseGranted {
        /// The right.
        lease: LeaseId,
        /// The job.
        job: JobId,
        /// Which try, from 1.
        attempt: u32,
        /// Who.
        worker: WorkerName,
        /// What the worker runs it on; the unit keeps to it.
        platform: Platform,
        /// Which process of the worker; `None`: it is not known, as in journals of older programs.
        #[serde(default)]
        incarnation: Option<Incarnation>,
        /// Whether the unit stays on this worker from here on; `None`: as [`Platform::is_bound`] has it,
        /// in journals of older programs.
        #[serde(default)]
        binds: Option<bool>,
        /// When.
        at: WallTime,
    },
    /// The first command of an attempt at a phase that must not run twice is about to start.
    AttemptBegan {
        /// The attempt's lease.
        lease: LeaseId,
        /// The job.
        job: JobId,
        /// Who.
        worker: WorkerName,
        /// When.
        at: WallTime,
    },
    /// A worker was silent until its lease had ended, or lost the attempt itself; the job waits again.
    LeaseLost {
        /// The right.
        lease: LeaseId,
        /// The job.
        job: JobId,
        /// Who.
        worker: WorkerName,
        /// What is to be said of it.
        #[serde(default = "lost_context")]
        context: PhaseContext,
        /// Whether the state of the unit is lost with it; `None`: if the unit is bound to its worker, in
        /// journals of older programs.
        #[serde(default)]
        breaks: Option<bool>,
        /// When.
        at: WallTime,
    },
    /// A worker gave a lease back; the job waits again, and this was no try.
    LeaseReturned {
        /// The right.
        lease: LeaseId,
        /// The job.
        job: JobId,
        /// Who.
        worker: WorkerName,
        /// Why.
        cause: ReturnCause,
        /// Whether the state of the unit is lost with it.
        breaks: bool,
        /// Whether the build has not started, after all; not in journals of older programs.
        #[serde(default)]
        unstarts: bool,
        /// When.
        at: WallTime,
    },
    /// An attempt reported that the farm failed; the job waits again.
    AttemptFaulted {
        /// The attempt's lease.
        lease: LeaseId,
        /// The job.
        job: JobId,
        /// Who.
        worker: WorkerName,
        /// What went wrong.
        context: PhaseContext,
        /// Whether the state of the unit is lost with it; `None`: if the unit is bound to its worker, in
        /// journals of older programs.
        #[serde(default)]
        breaks: Option<bool>,
        /// When.
        at: WallTime,
    },
    /// An attempt has ended, is stored, and decides its job.
    JobEnded {
        /// The attempt's lease.
        lease: LeaseId,
        /// The job.
        job: JobId,
        /// Who.
        worker: WorkerName,
        /// The outcome of the job; the attempt of a build that timed out may have reported `STOPPED`.
        outcome: Outcome,
        /// What the attempt gave.
        result: Box<AttemptResult>,
        /// When.
        at: WallTime,
    },
    /// A job will not run, because one that it needs ended otherwise than accepted.
    JobSkipped {
        /// The job.
        job: JobId,
        /// Index of the one that it needs.
        needs: u32,
        /// When.
        at: WallTime,
    },
    /// A job will not run, or not again: its build stops, or it was tried too often.
    JobGivenUp {
        /// The job.
        job: JobId,
        /// What counts as its outcome.
        outcome: Outcome,
        /// Why.
        context: PhaseContext,
        /// When.
        at: WallTime,
    },
    /// A unit whose state is lost starts again from its first phase.
    UnitRestarted {
        /// The build.
        build: BuildId,
        /// Index of the unit.
        unit: u32,
        /// Who had its state, or ran its last phase.
        worker: WorkerName,
        /// Why.
        cause: RestartCause,
        /// When.
        at: WallTime,
    },
    /// A build is to end before all of it has run.
    StopRequested {
        /// The build.
        build: BuildId,
        /// Why.
        cause: StopCause,
        /// When.
        at: WallTime,
    },
    /// All jobs of a build have ended.
    BuildEnded {
        /// The build.
        build: BuildId,
        /// What came of it.
        outcome: Outcome,
        /// When.
        at: WallTime,
    },
    /// A build that had ended is forgotten.
    BuildDeleted {
        /// The build.
        build: BuildId,
        /// When.
        at: WallTime,
    },
    /// A worker gets no more jobs.
    WorkerDraining {
        /// The worker.
        worker: WorkerName,
        /// Which process of it; `None`: it is not known, as in journals of older programs.
        #[serde(default)]
        incarnation: Option<Incarnation>,
        /// When.
        at: WallTime,
    },
    /// A draining worker has left with nothing on its hands, or another process has come in its place; one
    /// of its name that joins later gets jobs again.
    WorkerDrained {
        /// The worker.
        worker: WorkerName,
        /// When.
        at: WallTime,
    },
    /// An attempt has fetched the sources of a build, which is planned now.
    SourcesFetched {
        /// The attempt's lease.
        lease: LeaseId,
        /// The job.
        job: JobId,
        /// Who.
        worker: WorkerName,
        /// The build, with its sources and its jobs.
        submission: Box<Submission>,
        /// How long the attempt's log is.
        log_bytes: u64,
        /// When.
        at: WallTime,
    },
    /// A project was made, or made anew.
    ProjectSaved {
        /// Whose it is.
        team: Team,
        /// All of it.
        project: Box<Project>,
        /// When.
        at: WallTime,
    },
    /// A project is forgotten.
    ProjectDeleted {
        /// Whose it was.
        team: Team,
        /// Which.
        project: ProjectName,
        /// When.
        at: WallTime,
    },
    /// Builds that are taken from now on find none of the dependency caches that a project had.
    CachesInvalidated {
        /// Whose it is.
        team: Team,
        /// Which project.
        project: ProjectName,
        /// How often this has happened to it.
        generation: u64,
        /// The name under which it shares caches, and how often this has happened to those.
        shared: Option<(ProjectName, u64)>,
        /// When.
        at: WallTime,
    },
}

/// What is said of a lost attempt whose fact says nothing.
fn lost_context() -> PhaseContext {
    PhaseContext {
        status_code: "WORKER_LOST".to_owned(),
        message: "The worker was lost.".to_owned(),
    }
}

/// How long a build may take.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// From when it was taken until its first phase starts.
    pub queue: Duration,
    /// From when its first phase starts until it has ended.
    pub run: Duration,
}

/// What a worker runs phases on. The phases of a unit travel only between equal ones.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Platform {
    /// The machine's architecture, like `x86_64`.
    pub architecture: String,
    /// How phases are kept apart.
    pub isolation: Isolation,
    /// The file system underneath.
    pub base: Digest,
}

impl Platform {
    /// The platform that a worker offers.
    pub fn of(offer: &WorkerOffer) -> Self {
        Self {
            architecture: offer.architecture.clone(),
            isolation: offer.isolation,
            base: offer.base,
        }
    }

    /// Whether a unit that has begun on it stays on its worker.
    pub fn is_bound(&self) -> bool {
        self.isolation == Isolation::Host
    }
}

/// Why a worker gave a lease back.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ReturnCause {
    /// It never began the attempt.
    NotBegun,
    /// It leaves, and has killed the attempt.
    HandedOver,
}

/// Why a unit starts again from its first phase.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum RestartCause {
    /// Its worker failed or was lost, and its state with it. Counts as a try.
    WorkerLost,
    /// Its worker has left, as it was told to. Does not count: nothing went wrong.
    WorkerLeaves,
    /// The cache has lost a part of its state. Counts as a try.
    StateLost,
}

/// Why a build is to end before all of it has run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum StopCause {
    /// Somebody wanted it.
    Stopped,
    /// It is over one of its [`Limits`].
    TimedOut,
    /// A unit failed, and the build is `fast-fail`.
    FastFail,
}

impl StopCause {
    /// The outcome of the jobs that do not get to run.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Stopped | Self::FastFail => Outcome::Stopped,
            Self::TimedOut => Outcome::TimedOut,
        }
    }

    /// Why, for people.
    pub const fn context(self) -> (&'static str, &'static str) {
        match self {
            Self::Stopped => ("BUILD_STOPPED", "Build was stopped."),
            Self::TimedOut => ("BUILD_TIMED_OUT", "Build has timed out."),
            Self::FastFail => ("BUILD_STOPPED", "Another task of the batch failed."),
        }
    }
}
