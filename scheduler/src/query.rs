//! Queries: how builds and workers stand, for people and for the shell.

mod resolve;
mod running;
mod waits;

use std::collections::BTreeSet;

use protocol::{
    access::Trust,
    build::{BuildId, Status},
    environment::{Asked, Selected, select},
    job::JobId,
    lease::LeaseId,
    message::client::{
        BUILDS_LISTED_MAX, BuildDetail, BuildSummary, PhaseDetail, UnitDetail, WorkerSummary,
    },
    name::{Namespace, ProjectName, Team, WorkerName},
    runtime::{self, Offered, Wanted},
    secret::SecretRef,
    time::WallTime,
};

pub use crate::query::{
    resolve::{ResolveError, resolve},
    running::{RunningError, running_attempt},
};
use crate::{
    assignment::secrets_of,
    event::{Now, Submission},
    outcome::unit_status,
    presence::Connected,
    query::waits::Waits,
    state::{Build, JobState, State},
};

/// Whose builds somebody may see.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Those of one team.
    Team(Team),
    /// Those of all teams: the farm's admins.
    All,
}

impl Scope {
    fn contains(&self, build: &Build) -> bool {
        match self {
            Self::Team(team) => build.submission.team == *team,
            Self::All => true,
        }
    }
}

/// An attempt, as far as its log is concerned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AttemptRecord {
    /// The right under which it ran.
    pub lease: LeaseId,
    /// Who ran it.
    pub worker: WorkerName,
    /// When it was granted.
    pub started: WallTime,
    /// Whether its lease is still out.
    pub is_live: bool,
    /// Whether it decided its job: all that it wrote was here then.
    pub is_stored: bool,
}

/// How much there is, for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Builds that have not ended.
    pub builds_active: usize,
    /// Builds that have ended and are kept.
    pub builds_ended: usize,
    /// Jobs that wait for a worker.
    pub jobs_queued: usize,
    /// Attempts that run.
    pub leases: usize,
    /// Workers that are connected.
    pub workers: usize,
}

/// How much there is.
pub fn counts(state: &State) -> Counts {
    let builds_ended = state.ledger.index.ended.len();
    Counts {
        builds_active: state.ledger.builds.len() - builds_ended,
        builds_ended,
        jobs_queued: state.ledger.index.queue.len(),
        leases: state.ledger.leases.len(),
        workers: state.presence.workers().count(),
    }
}

/// The builds that have not ended, by id.
pub fn active_builds(state: &State) -> impl Iterator<Item = BuildId> {
    state.ledger.index.dependents.keys().copied()
}

/// Whether a build has ended; `None`: it is not known.
pub fn is_ended(state: &State, build: BuildId) -> Option<bool> {
    let build = state.ledger.builds.get(&build)?;
    Some(build.ended.is_some())
}

/// What was submitted as a build; `None`: it is not known.
pub fn submission(state: &State, build: BuildId) -> Option<&Submission> {
    let known = state.ledger.builds.get(&build)?;
    Some(&known.submission)
}

/// The namespaces of all builds that are known.
pub fn namespaces(state: &State) -> BTreeSet<Namespace> {
    let builds = state.ledger.builds.values();
    let namespaces = builds.map(|build| &build.submission.namespace);
    // Few of many, so compared before they are copied.
    let distinct: BTreeSet<&Namespace> = namespaces.collect();
    distinct.into_iter().cloned().collect()
}

/// An attempt at a job, from 1; `None`: there was none of that number.
pub fn attempt(state: &State, job: JobId, attempt: u32) -> Option<AttemptRecord> {
    let (_, known) = state.ledger.job(job)?;
    let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
    let tried = known.tries.get(index)?;
    Some(AttemptRecord {
        lease: tried.lease,
        worker: tried.worker.clone(),
        started: tried.started,
        is_live: known.state == JobState::Running(tried.lease),
        is_stored: known.result.is_some() && index + 1 == known.tries.len(),
    })
}

/// The job and the attempt that a live lease is for; `None`: it is not out.
pub fn live_attempt(state: &State, lease: LeaseId) -> Option<(JobId, u32)> {
    let lease = state.ledger.leases.get(&lease)?;
    Some((lease.job, lease.attempt))
}

/// What somebody has to know who is asked for the secrets of a unit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SecretsAsked {
    /// The job that runs.
    pub job: JobId,
    /// Index of its unit.
    pub unit: u32,
    /// Who runs it.
    pub worker: WorkerName,
    /// Whose build it is.
    pub team: Team,
    /// Its project.
    pub project: ProjectName,
    /// How far it is trusted.
    pub trust: Trust,
    /// The secrets that its unit names.
    pub secrets: Vec<SecretRef>,
}

/// What the holder of a lease may have; `None`: the lease is not out, and its holder may have nothing.
pub fn secrets_asked(state: &State, lease: LeaseId) -> Option<SecretsAsked> {
    let known = state.ledger.leases.get(&lease)?;
    let build = state.ledger.builds.get(&known.job.build)?;
    let record = attempt(state, known.job, known.attempt)?;
    let submission = &build.submission;
    let secrets = secrets_of(build, known.job).unwrap_or_default();
    record.is_live.then(|| SecretsAsked {
        job: known.job,
        unit: build.node(known.job.index).unit,
        worker: record.worker,
        team: submission.team.clone(),
        project: submission.project.clone(),
        trust: submission.trust,
        secrets: secrets.to_vec(),
    })
}

/// The builds in `scope`, newest first, at most `limit` and [`BUILDS_LISTED_MAX`].
pub fn builds(
    state: &State,
    scope: &Scope,
    project: Option<&ProjectName>,
    limit: u32,
) -> Vec<BuildSummary> {
    let newest = state.ledger.index.orders.values().rev();
    let limit = usize::try_from(limit.min(BUILDS_LISTED_MAX)).unwrap_or(usize::MAX);
    newest
        .filter_map(|build| state.ledger.builds.get(build))
        .filter(|build| scope.contains(build))
        .filter(|build| project.is_none_or(|project| build.submission.project == *project))
        .take(limit)
        .map(|build| summary(build))
        .collect()
}

/// A build in a line; `None`: it is not known.
pub fn build_summary(state: &State, build: BuildId) -> Option<BuildSummary> {
    let build = state.ledger.builds.get(&build);
    build.map(|build| summary(build))
}

/// A build in full; `None`: it is not known.
pub fn build_detail(state: &State, build: BuildId, now: Now) -> Option<BuildDetail> {
    let build = state.ledger.builds.get(&build)?;
    let nodes = &build.submission.graph.units;
    let mut waits = Waits::new(state, build, now);
    let units = build.units.iter().zip(nodes).map(|(unit, node)| {
        let results = || {
            let jobs = unit.jobs.iter();
            jobs.filter_map(|&job| build.jobs[job as usize].result.as_ref())
        };
        UnitDetail {
            identifier: node.identifier.clone(),
            status: unit_status(build, unit),
            ignore_failure: node.ignore_failure,
            phases: unit
                .jobs
                .iter()
                .map(|&job| phase(build, job, &mut waits))
                .collect(),
            artifact: results().find_map(|result| result.artifact.clone()),
            secondary_artifacts: results()
                .flat_map(|result| result.secondary_artifacts.clone())
                .collect(),
            exported_variables: results()
                .filter_map(|result| result.exported.clone())
                .next_back()
                .unwrap_or_default(),
            reports: results()
                .flat_map(|result| result.reports.clone())
                .collect(),
        }
    });
    Some(BuildDetail {
        summary: summary(build),
        source_version: build.submission.source_version.clone(),
        batch: build.submission.terms.batch.clone(),
        units: units.collect(),
    })
}

/// A phase of a build, with its unit's identifier; `None`: it is not known.
pub fn build_phase(state: &State, job: JobId, now: Now) -> Option<(Option<String>, PhaseDetail)> {
    let (build, _) = state.ledger.job(job)?;
    let unit = build.node(job.index).unit as usize;
    let identifier = build.submission.graph.units[unit].identifier.clone();
    let mut waits = Waits::new(state, build, now);
    Some((identifier, phase(build, job.index, &mut waits)))
}

/// The workers that are connected and can serve `scope`, by name. Of what they run, only builds in
/// `scope` are told.
pub fn workers(state: &State, scope: &Scope) -> Vec<WorkerSummary> {
    let connected = state.presence.workers();
    let serves = |worker: &Connected| match scope {
        Scope::Team(team) => !worker.platform.is_bound() || worker.team == *team,
        Scope::All => true,
    };
    connected
        .filter(|(_, worker)| serves(worker))
        .map(|(name, worker)| {
            let leases = state.ledger.index.leases.get(name);
            let leases = leases.into_iter().flatten();
            WorkerSummary {
                offer: (*worker.offer).clone(),
                draining: worker.is_leaving || state.ledger.draining.contains_key(name),
                runs: leases
                    .filter_map(|lease| Some(state.ledger.leases.get(lease)?.job))
                    .filter(|job| {
                        let build = state.ledger.builds.get(&job.build);
                        build.is_some_and(|build| scope.contains(build))
                    })
                    .collect(),
            }
        })
        .collect()
}

/// What comes of runtimes that a build wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RuntimesFound {
    /// Nobody offers any, so that nothing can be selected: builds run with what there is.
    NobodyOffersAny,
    /// A worker offers them, be it away for a moment.
    Offered,
    /// No worker offers them, in `CodeBuild`'s words.
    Mistake(String),
}

/// What comes of the runtimes that a build wants, by the workers that are there and those that were lately.
pub fn runtimes(state: &State, wanted: &Wanted) -> RuntimesFound {
    let offers = state.presence.offered();
    if offers.clone().all(Offered::is_empty) {
        return RuntimesFound::NobodyOffersAny;
    }
    match runtime::mistake(offers, wanted) {
        Some(mistake) => RuntimesFound::Mistake(mistake),
        None => RuntimesFound::Offered,
    }
}

/// What of all that a build asks of its machines selects among workers, those that are there and those that were
/// lately.
///
/// # Errors
///
/// If none of them serves it: what there is.
pub fn environment(state: &State, asked: &Asked) -> Result<Selected, String> {
    select(state.presence.labels(), asked)
}

/// Whether a worker is connected, was since the start and in the last day, or still has something on its
/// hands.
pub fn knows_worker(state: &State, worker: &WorkerName) -> bool {
    state.presence.process_of(worker).is_some()
        || state.ledger.index.leases.contains_key(worker)
        || state.ledger.index.bound.contains_key(worker)
}

fn summary(build: &Build) -> BuildSummary {
    let status = match (build.ended, build.started) {
        (Some(ending), _) => Status::Ended(ending.outcome),
        (None, Some(_)) => Status::InProgress,
        (None, None) => Status::Queued,
    };
    BuildSummary {
        build: build.submission.build,
        project: build.submission.project.clone(),
        number: build.number,
        team: build.submission.team.clone(),
        initiator: build.submission.initiator.clone(),
        status,
        submitted: build.submitted,
        started: build.started,
        ended: build.ended.map(|ending| ending.at),
    }
}

fn phase(build: &Build, index: u32, waits: &mut Waits<'_>) -> PhaseDetail {
    let job = &build.jobs[index as usize];
    let last = job.tries.last();
    // What was fetched belongs to the phase.
    let first = match job.fetches {
        0 => last,
        _ => job.tries.first(),
    };
    PhaseDetail {
        job: index,
        phase: build.node(index).phase,
        status: match job.state {
            JobState::Waiting | JobState::Ready => Status::Queued,
            JobState::Running(_) => Status::InProgress,
            JobState::Ended(outcome) => Status::Ended(outcome),
        },
        waits: waits.reason(index),
        attempts: u32::try_from(job.tries.len()).unwrap_or(u32::MAX),
        worker: last.map(|tried| tried.worker.clone()),
        started: first.map(|tried| tried.started),
        ended: job.ended,
        context: job.context.clone(),
        cache_uses: job
            .result
            .as_ref()
            .map_or_else(Vec::new, |result| result.cache_uses.clone()),
        fetches: job.fetches,
    }
}
