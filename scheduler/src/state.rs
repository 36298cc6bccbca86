//! The state: what facts say ([`Ledger`]), and who is there now (`Presence`).

use std::{collections::BTreeMap, ops::Deref, sync::Arc, time::Duration};

use protocol::{
    build::{BuildId, Outcome, PhaseContext},
    graph::{JobGraph, JobNode},
    job::{AttemptResult, JobId},
    lease::LeaseId,
    name::{ProjectName, Team, WorkerName},
    time::WallTime,
    worker::Incarnation,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    event::Submission,
    fact::{Limits, Platform, StopCause},
    index::Index,
    presence::Presence,
    project::{self, Projects},
};

/// Settings of the scheduler.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// How long builds that are submitted from now on may take.
    pub limits: Limits,
    /// How long batches may take with all of their builds, each of which has the limits of any build.
    pub batch_limit: Duration,
    /// How many builds may be there that have not ended; more are not taken.
    pub active_builds_max: usize,
    /// How much the graphs of those may weigh together, in bytes.
    pub active_weight_max: u64,
    /// How much those of one team may weigh.
    pub team_weight_max: u64,
    /// How many times as large the share of each of these teams is as that of a team that is not here. Only
    /// what is there now is shared by it: it may change from start to start.
    pub shares: Arc<BTreeMap<Team, u32>>,
}

impl Default for Config {
    /// CodeBuild's limits: 60 minutes for a build, 480 in the queue and for a batch. A hundred thousand builds of an
    /// ordinary size take some hundred megabytes.
    fn default() -> Self {
        Self {
            limits: Limits {
                queue: Duration::from_secs(480 * 60),
                run: Duration::from_secs(60 * 60),
            },
            batch_limit: Duration::from_secs(480 * 60),
            active_builds_max: 100_000,
            active_weight_max: 1 << 30,
            // A team alone fills half of it, and leaves room for the others.
            team_weight_max: 1 << 29,
            shares: Arc::default(),
        }
    }
}

/// All that the scheduler knows.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) config: Config,
    pub(crate) ledger: Ledger,
    pub(crate) presence: Presence,
}

impl State {
    /// A state in which `ledger` is what was decided, and nobody is there.
    pub(crate) fn new(config: Config, ledger: Ledger) -> Self {
        Self {
            presence: Presence::new(Arc::clone(&config.shares)),
            config,
            ledger,
        }
    }
}

/// What was decided so far: the sum of all facts. Its serialised form is the journal's state snapshot.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "Kept")]
pub struct Ledger {
    pub(crate) builds: BTreeMap<BuildId, Shared>,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    /// The last number given in each project.
    pub(crate) numbers: BTreeMap<Team, BTreeMap<ProjectName, u64>>,
    /// Workers that get no more jobs.
    pub(crate) draining: BTreeMap<WorkerName, WallTime>,
    /// Which processes of them, as far as it is known.
    pub(crate) draining_processes: BTreeMap<WorkerName, Incarnation>,
    /// What is known of projects; images of the ledger may share it.
    #[serde(serialize_with = "project::plain")]
    pub(crate) projects: Arc<Projects>,
    /// What the next build's place in the order is.
    pub(crate) next_order: u64,
    /// What the next lease's number is.
    pub(crate) next_lease: u64,
    /// What can be made of the rest, kept for speed.
    #[serde(skip)]
    pub(crate) index: Index,
}

/// A build that images of the ledger may share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Shared(Arc<Build>);

impl Shared {
    /// A build that nobody shares.
    pub(crate) fn new(build: Build) -> Self {
        Self(Arc::new(build))
    }

    /// The build to change it: a copy, as long as an image shares it.
    pub(crate) fn make_mut(&mut self) -> &mut Build {
        Arc::make_mut(&mut self.0)
    }
}

impl Deref for Shared {
    type Target = Build;

    fn deref(&self) -> &Build {
        &self.0
    }
}

impl Serialize for Shared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Build::deserialize(deserializer).map(Self::new)
    }
}

/// What a ledger says at one moment, to be written down while the ledger changes. Its serialised form is
/// that of the [`Ledger`].
#[derive(Clone, Debug, Serialize)]
pub struct Image {
    builds: BTreeMap<BuildId, Shared>,
    leases: BTreeMap<LeaseId, Lease>,
    numbers: BTreeMap<Team, BTreeMap<ProjectName, u64>>,
    draining: BTreeMap<WorkerName, WallTime>,
    draining_processes: BTreeMap<WorkerName, Incarnation>,
    #[serde(serialize_with = "project::plain")]
    projects: Arc<Projects>,
    next_order: u64,
    next_lease: u64,
}

/// What is kept of a ledger.
#[derive(Deserialize)]
struct Kept {
    builds: BTreeMap<BuildId, Shared>,
    leases: BTreeMap<LeaseId, Lease>,
    numbers: BTreeMap<Team, BTreeMap<ProjectName, u64>>,
    draining: BTreeMap<WorkerName, WallTime>,
    #[serde(default)]
    draining_processes: BTreeMap<WorkerName, Incarnation>,
    #[serde(default)]
    projects: Projects,
    next_order: u64,
    next_lease: u64,
}

impl From<Kept> for Ledger {
    fn from(kept: Kept) -> Self {
        let index = Index::of(&kept.builds, &kept.leases);
        Self {
            builds: kept.builds,
            leases: kept.leases,
            numbers: kept.numbers,
            draining: kept.draining,
            draining_processes: kept.draining_processes,
            projects: Arc::new(kept.projects),
            next_order: kept.next_order,
            next_lease: kept.next_lease,
            index,
        }
    }
}

impl Ledger {
    /// What it says now. Builds are shared, not copied, so that even of a hundred thousand jobs it is made
    /// in milliseconds.
    pub fn image(&self) -> Image {
        Image {
            builds: self.builds.clone(),
            leases: self.leases.clone(),
            numbers: self.numbers.clone(),
            draining: self.draining.clone(),
            draining_processes: self.draining_processes.clone(),
            projects: Arc::clone(&self.projects),
            next_order: self.next_order,
            next_lease: self.next_lease,
        }
    }

    /// The job with its build, if both are known.
    pub(crate) fn job(&self, id: JobId) -> Option<(&Build, &Job)> {
        let build = self.builds.get(&id.build)?;
        Some((build, build.jobs.get(id.index as usize)?))
    }
}

/// A build.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Build {
    pub(crate) submission: Box<Submission>,
    pub(crate) number: u64,
    pub(crate) order: u64,
    pub(crate) limits: Limits,
    pub(crate) submitted: WallTime,
    /// When its first phase started.
    pub(crate) started: Option<WallTime>,
    /// Why it is to end early.
    pub(crate) stop: Option<StopCause>,
    pub(crate) ended: Option<Ending>,
    /// As in the graph.
    pub(crate) units: Vec<Unit>,
    /// As in the graph.
    pub(crate) jobs: Vec<Job>,
    /// How many jobs have not ended.
    pub(crate) open: u32,
}

/// How and when a build ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    pub(crate) at: WallTime,
}

impl Build {
    /// A build of which nothing has run.
    pub(crate) fn new(
        submission: Box<Submission>,
        number: u64,
        order: u64,
        limits: Limits,
        submitted: WallTime,
    ) -> Self {
        let graph = &submission.graph;
        let mut units = vec![Unit::default(); graph.units.len()];
        for (index, node) in (0..).zip(&graph.jobs) {
            // A graph that is not sound is refused before anything comes of this.
            if let Some(unit) = units.get_mut(node.unit as usize) {
                unit.jobs.push(index);
                unit.open += 1;
            }
        }
        let jobs = vec![Job::default(); graph.jobs.len()];
        Self {
            open: units.iter().map(|unit| unit.open).sum(),
            submission,
            number,
            order,
            limits,
            submitted,
            started: None,
            stop: None,
            ended: None,
            units,
            jobs,
        }
    }

    /// What the graph says of a job.
    pub(crate) fn node(&self, job: u32) -> &JobNode {
        &self.submission.graph.jobs[job as usize]
    }

    /// The unit of a job.
    pub(crate) fn unit_of(&self, job: u32) -> &Unit {
        &self.units[self.node(job).unit as usize]
    }

    /// The leases of the jobs that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = LeaseId> {
        self.jobs.iter().filter_map(Job::lease)
    }

    /// When the build is over its limit, as it stands now; `None`: not any more.
    pub(crate) fn limit(&self) -> Option<WallTime> {
        if self.ended.is_some() || self.stop.is_some() {
            return None;
        }
        Some(match self.started {
            None => self.submitted + self.limits.queue,
            Some(started) => started + self.limits.run,
        })
    }

    /// The bytes of logs, artifacts and reports that it keeps, as its workers have it. Sums of numbers that
    /// anybody may have said: they have room for all of them.
    pub(crate) fn bytes(&self) -> u128 {
        let results = self.jobs.iter().filter_map(|job| job.result.as_ref());
        results.map(|result| bytes_of(result)).sum()
    }
}

/// The bytes of logs, artifacts and reports that a result stands for.
fn bytes_of(result: &AttemptResult) -> u128 {
    let artifacts = result.artifact.iter();
    let artifacts = artifacts.chain(result.secondary_artifacts.values());
    let artifacts = artifacts.map(|artifact| artifact.bytes);
    let reports = result.reports.iter();
    let reports = reports.map(|report| report.content.digest.size());
    let kept = reports.chain(artifacts).chain([result.log_bytes]);
    kept.map(u128::from).sum()
}

/// Whether every index of a graph leads where the documents say.
pub(crate) fn is_sound(graph: &JobGraph) -> bool {
    (0..).zip(&graph.jobs).all(|(index, node)| {
        (node.unit as usize) < graph.units.len()
            && node.needs.iter().all(|edge| edge.job < index)
            && node
                .input
                .is_none_or(|input| input < index && graph.jobs[input as usize].unit == node.unit)
    })
}

/// A unit of a build.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Unit {
    /// Where it ran last, and on what it has to stay; `None`: it has not started.
    pub(crate) placement: Option<Placement>,
    /// Whether its state was lost with an attempt, so that it cannot go on but from its first phase.
    pub(crate) is_broken: bool,
    /// How often it started again because something went wrong.
    pub(crate) restarts: u32,
    /// How many of its jobs have not ended.
    pub(crate) open: u32,
    /// Its jobs, in the order of their phases.
    pub(crate) jobs: Vec<u32>,
}

/// Where a unit runs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Placement {
    /// Who ran its last phase, or runs it.
    pub(crate) worker: WorkerName,
    /// What all its phases run on.
    pub(crate) platform: Platform,
    /// Whether it stays on that worker; `None`: as the platform has it.
    #[serde(default)]
    pub(crate) binds: Option<bool>,
}

impl Placement {
    /// Whether the unit's state is on its worker, and nowhere else.
    pub(crate) fn is_bound(&self) -> bool {
        self.binds.unwrap_or_else(|| self.platform.is_bound())
    }
}

/// A job of a build.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Job {
    pub(crate) state: JobState,
    /// All tries so far, in order; the first is attempt 1.
    pub(crate) tries: Vec<Try>,
    /// How many of them were faults since its unit started again, or started.
    pub(crate) faults: u32,
    /// How many of them were given back since the last fault: no tries, really.
    #[serde(default)]
    pub(crate) returns: u32,
    /// How many of them were given back before anything of them began, ever.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) not_begun: u32,
    /// How many of the first of them fetched the sources, and were no tries at what is to be done now.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) fetches: u32,
    /// Whether the first command of one of them has started, if the phase must not run again then.
    #[serde(default)]
    pub(crate) has_begun: bool,
    /// When it ended.
    pub(crate) ended: Option<WallTime>,
    /// Why it ended as it did, or what its last fault was.
    pub(crate) context: Option<PhaseContext>,
    /// What its last try gave, if that decided it.
    pub(crate) result: Option<Box<AttemptResult>>,
}

impl Job {
    /// What came of it; `None`: it has not ended.
    pub(crate) const fn outcome(&self) -> Option<Outcome> {
        match self.state {
            JobState::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The lease under which it runs; `None`: it does not run.
    pub(crate) const fn lease(&self) -> Option<LeaseId> {
        match self.state {
            JobState::Running(lease) => Some(lease),
            _ => None,
        }
    }

    /// Whether it was tried before, so that somebody has to look whether it may be tried again.
    pub(crate) const fn is_again(&self) -> bool {
        0 < self.faults || 0 < self.returns || self.has_begun
    }

    /// Whether it has not started, or waits to be tried again.
    pub(crate) const fn is_unstarted(&self) -> bool {
        matches!(self.state, JobState::Waiting | JobState::Ready)
    }
}

/// Whether there is nothing to be written down.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// How a job stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum JobState {
    /// Not all that it needs has ended as accepted.
    #[default]
    Waiting,
    /// It waits for a worker.
    Ready,
    /// A worker has a lease of it.
    Running(LeaseId),
    /// It has ended.
    Ended(Outcome),
}

/// One try at a job.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Try {
    pub(crate) lease: LeaseId,
    pub(crate) worker: WorkerName,
    pub(crate) started: WallTime,
}

/// A lease that is out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Lease {
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    pub(crate) worker: WorkerName,
    /// Which process of the worker has it; `None`: it is not known.
    #[serde(default)]
    pub(crate) incarnation: Option<Incarnation>,
}
