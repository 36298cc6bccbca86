//! Events: what comes in, from people, workers and the clock.

use std::{collections::BTreeMap, fmt};

use protocol::{
    access::Trust,
    blob::TreeRef,
    build::{BuildId, Phase, Rerun},
    graph::JobGraph,
    job::AttemptResult,
    lease::LeaseId,
    message::work::HeldLease,
    name::{Namespace, ProjectName, Team, WorkerName},
    project::Project,
    time::{Time, WallTime},
    worker::{Incarnation, WorkerOffer},
};
use serde::{Deserialize, Serialize};

use crate::terms::{self, Terms};

/// What time it is, on both clocks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// On the coordinator's monotonic clock; leases run on it. Never less than at the event before.
    pub time: Time,
    /// On the wall clock; limits of builds run on it, and people read it.
    pub wall: WallTime,
}

/// Names one connection of a worker, for as long as the coordinator lives. The shell counts them.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session-{}", self.0)
    }
}

/// A build to be run, planned already.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Submission {
    /// Its id, which who submitted it drew at random.
    pub build: BuildId,
    /// Whose it is.
    pub team: Team,
    /// Where its results go.
    pub namespace: Namespace,
    /// Of which project.
    pub project: ProjectName,
    /// How far its results may be trusted.
    pub trust: Trust,
    /// Who submitted it.
    pub initiator: String,
    /// The source, at the cache already; `None`: it is to be fetched.
    pub source: Option<TreeRef>,
    /// The commit that the source is of.
    pub source_version: Option<String>,
    /// Its jobs.
    pub graph: JobGraph,
    /// Which phases may run again after their first command has started, where that is not
    /// [what holds anyway](Rerun::of).
    #[serde(default)]
    pub reruns: BTreeMap<Phase, Rerun>,
    /// How urgent it is among the builds of its team; greater is more urgent, and 0 is ordinary.
    #[serde(default)]
    pub priority: i8,
    /// What else holds for it.
    #[serde(default, skip_serializing_if = "terms::is_default")]
    pub terms: Terms,
}

impl Submission {
    /// Whether a phase may run again after its first command has started.
    pub fn rerun(&self, phase: Phase) -> Rerun {
        let said = self.reruns.get(&phase);
        said.copied().unwrap_or_else(|| Rerun::of(phase))
    }
}

/// Something that happened. What makes no sense in the present state changes nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Take a build. Ignored if its id is known, its graph is not sound, there is [no room](crate::room), or
    /// as many builds of its project are there as may be.
    Submit(Box<Submission>),
    /// Take the build `build` again, from the same source, under the id `retry`.
    Retry {
        /// The build to be run again, however it stands.
        build: BuildId,
        /// The id of the new one.
        retry: BuildId,
        /// Who wants it.
        initiator: String,
    },
    /// Stop a build. Ignored if it has ended.
    Stop {
        /// The build.
        build: BuildId,
    },
    /// Forget a build. Ignored unless it has ended.
    Delete {
        /// The build.
        build: BuildId,
    },
    /// A worker is there. Its name and team are what its certificate says, not what it says itself.
    WorkerJoined {
        /// Over which connection.
        session: SessionId,
        /// Whose it is.
        team: Team,
        /// Which process it is.
        incarnation: Incarnation,
        /// Which connection of that process it is; counts up.
        connection: u64,
        /// The process before it, if nothing that that one started runs any more.
        ended: Option<Incarnation>,
        /// What it offers.
        offer: Box<WorkerOffer>,
        /// Whether it leaves.
        leaving: bool,
        /// The attempts that it says it runs, and the results that it says it keeps.
        holds: Vec<HeldLease>,
    },
    /// A connection is gone. The leases of its worker live on until they end.
    WorkerLeft {
        /// The connection.
        session: SessionId,
    },
    /// A worker wants to go on with its leases.
    Renew {
        /// Over which connection.
        session: SessionId,
        /// The worker's count.
        sequence: u64,
        /// Which leases.
        leases: Vec<LeaseId>,
    },
    /// An attempt has ended, and all of it is stored.
    Finished {
        /// Over which connection.
        session: SessionId,
        /// The attempt's lease.
        lease: LeaseId,
        /// What came of it.
        result: Box<AttemptResult>,
    },
    /// The first command of an attempt is about to start.
    Began {
        /// Over which connection.
        session: SessionId,
        /// The attempt's lease.
        lease: LeaseId,
    },
    /// Something of an attempt's log has come from the worker that it was given to.
    Heard {
        /// The attempt's lease. Logs come late, too: one that is not out any more changes nothing.
        lease: LeaseId,
    },
    /// A worker does not begin an attempt.
    Declined {
        /// Over which connection.
        session: SessionId,
        /// The lease.
        lease: LeaseId,
    },
    /// Nothing of these attempts runs any more. From a worker that leaves also: what it keeps of units is
    /// gone.
    HandOver {
        /// Over which connection.
        session: SessionId,
        /// The attempts' leases.
        leases: Vec<LeaseId>,
    },
    /// A worker takes no more units and will leave.
    Leaving {
        /// Over which connection.
        session: SessionId,
    },
    /// Let a worker's phases end and give it no more. Ignored if no such worker is
    /// [known](crate::knows_worker).
    Drain {
        /// The worker.
        worker: WorkerName,
    },
    /// An attempt has fetched the sources of a build, and this follows from what they say.
    Fetched {
        /// Over which connection.
        session: SessionId,
        /// The attempt's lease.
        lease: LeaseId,
        /// What came of it.
        result: Box<AttemptResult>,
        /// The jobs of the build.
        graph: Box<JobGraph>,
    },
    /// Make a project, or make it anew. Ignored unless it is there already or is not, as it is said here, and
    /// if something is wrong with it or there are too many.
    SaveProject {
        /// Whose it is.
        team: Team,
        /// All of it.
        project: Box<Project>,
        /// Whether it is there already.
        is_there: bool,
    },
    /// Forget a project. Ignored if it is not known.
    DeleteProject {
        /// Whose it is.
        team: Team,
        /// Which.
        project: ProjectName,
    },
    /// Let builds of a project find none of the dependency caches that there are.
    InvalidateCaches {
        /// Whose it is.
        team: Team,
        /// Which; nobody has to have made it.
        project: ProjectName,
    },
    /// Nothing but time has passed; due at [`Scheduler::next_deadline`](crate::Scheduler::next_deadline).
    Tick,
}

/// Why a message of a worker, or a part of one, changed nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Ignored {
    /// It was said before.
    Duplicate,
    /// What it is about is over: a lease that has ended, a session whose place another has taken.
    Late,
    /// It is about what is another's, or never was.
    Forged,
    /// What was said after it has come before it.
    OutOfOrder,
}

impl Ignored {
    /// The name, as metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Forged => "forged",
            Self::OutOfOrder => "out_of_order",
        }
    }
}
