//! Assignments: what a worker is told of an attempt, and what it may do at the cache meanwhile.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    access::{Grant, SignedGrant},
    arn,
    blob::TreeRef,
    build::{Outcome, Phase, Rerun},
    graph::Shard,
    job::{JobId, Task},
    lease::LeaseId,
    message::{
        cache::keys::{self, CacheScope},
        work::{Assignment, JobInput},
    },
    secret::SecretRef,
    time::WallTime,
    variable::{SHARD_COUNT, SHARD_INDEX},
};

use crate::{
    event::Submission,
    fetched::is_fetching,
    state::{Build, Job, Lease, State},
};

/// How much longer than a build's limit the grants of its leases are good: time to store the log and
/// the snapshot of an attempt that ends with the limit, on clocks that differ by minutes.
pub const GRANT_MARGIN: Duration = Duration::from_secs(15 * 60);

/// An assignment that lacks its signature.
#[derive(Clone, Debug, PartialEq)]
pub struct AssignmentDraft {
    /// What is to be signed.
    pub grant: Grant,
    assignment: Assignment,
}

impl AssignmentDraft {
    /// The assignment, with the signature of [`grant`](Self::grant).
    pub fn signed(mut self, grant: SignedGrant) -> Assignment {
        self.assignment.grant = grant;
        self.assignment
    }
}

/// What the worker of `lease` is to be told; `None`: the lease is not out any more, and there is
/// nothing to tell.
///
/// The worker counts the lease from when it sent the last renewal (or its join) that was answered
/// before this came: the lease was granted later than that.
pub fn assignment(state: &State, lease: LeaseId, now: WallTime) -> Option<AssignmentDraft> {
    let known = state.ledger.leases.get(&lease)?;
    let build = state.ledger.builds.get(&known.job.build)?;
    let end = build.started.unwrap_or(now) + build.limits.run;
    let grant = grant(build, known, end + GRANT_MARGIN);
    let job = known.job;
    let node = build.node(job.index);
    let submission = &build.submission;
    let succeeding = is_succeeding(build, job);
    Some(AssignmentDraft {
        grant,
        assignment: Assignment {
            lease,
            job,
            attempt: known.attempt,
            phase: node.phase,
            unit: node.unit,
            team: submission.team.clone(),
            namespace: submission.namespace.clone(),
            project: submission.project.clone(),
            task: node.task.clone(),
            input: input(build, known),
            variables: variables(build, job, succeeding),
            succeeding,
            grant: SignedGrant {
                grant: Vec::new(),
                signature: Vec::new(),
            },
            asks_to_begin: asks_to_begin(build, job),
            time_left: unit_end(state, build, job)
                .map_or(end, |own| own.min(end))
                .since(now),
            secondary_sources: secondary_sources(submission),
            dependencies: scope(submission),
            has_secrets: secrets_of(build, job).is_some(),
            debug: is_debugged(build, node.unit),
        },
    })
}

/// When the unit of a batch is over its own limit, which is that of any build; `None`: it is no batch, or has not
/// started.
fn unit_end(state: &State, build: &Build, job: JobId) -> Option<WallTime> {
    let terms = &build.submission.terms;
    terms.batch.as_ref()?;
    let limit = state.config.limits.run;
    let limit = terms.run.map_or(limit, |own| own.min(limit));
    let jobs = build.unit_of(job.index).jobs.iter();
    let started = jobs.filter_map(|&job| first_start(&build.jobs[job as usize]));
    started.min().map(|started| started + limit)
}

/// When something of a job began first: neither the fetching of the sources for all units, nor a try that was given
/// back before it began, of which it is taken that they were the first ones.
fn first_start(job: &Job) -> Option<WallTime> {
    let own = job.tries.get(job.fetches as usize..)?;
    let last = own.len().checked_sub(1)?;
    let began = usize::try_from(job.not_begun).unwrap_or(last).min(last);
    own.get(began).map(|tried| tried.started)
}

/// What the attempt may do at the cache: read what belongs to its build, write what is its own. An
/// attempt that was lost and goes on all the same then changes nothing that another one wrote.
fn grant(build: &Build, lease: &Lease, end: WallTime) -> Grant {
    let submission = &build.submission;
    let (id, job, attempt) = (submission.build, lease.job, lease.attempt);
    let node = build.node(job.index);
    let dependencies = scope(submission).dependencies();
    let mut writes = vec![keys::snapshot(job, attempt)];
    writes.extend(dependencies.iter().cloned());
    if node.phase == Phase::UploadArtifacts {
        writes.push(keys::artifact(id, node.unit, attempt));
    }
    Grant {
        build: id,
        team: submission.team.clone(),
        namespace: submission.namespace.clone(),
        trust: submission.trust,
        writes,
        reads: [keys::source(id), keys::snapshots(id)]
            .into_iter()
            .chain(dependencies)
            .collect(),
        end,
    }
}

/// The secrets that the unit of a job names; `None`: it has none.
pub(crate) fn secrets_of(build: &Build, job: JobId) -> Option<&[SecretRef]> {
    let jobs = build.unit_of(job.index).jobs.iter();
    let mut tasks = jobs.map(|&job| &build.node(job).task);
    let named = tasks.find_map(|task| match task {
        Task::DownloadSource { secrets, .. } => Some(secrets.as_slice()),
        Task::FetchSources(wanted) => Some(wanted.credentials.as_slice()),
        Task::Commands(_) | Task::UploadArtifacts { .. } => None,
    });
    named.filter(|secrets| !secrets.is_empty())
}

/// Whether a unit pauses at breakpoints.
pub(crate) fn is_debugged(build: &Build, unit: u32) -> bool {
    build.submission.terms.debug || build.submission.graph.units[unit as usize].debug
}

/// Whether the job runs commands that must not run twice.
fn asks_to_begin(build: &Build, job: JobId) -> bool {
    let node = build.node(job.index);
    let runs = match &node.task {
        Task::Commands(phase) => !phase.commands.is_empty() || !phase.finally.is_empty(),
        Task::DownloadSource { .. } | Task::UploadArtifacts { .. } | Task::FetchSources(_) => false,
    };
    runs && build.submission.rerun(node.phase) == Rerun::Never
}

/// Whether no phase of the job's unit has failed.
fn is_succeeding(build: &Build, job: JobId) -> bool {
    let jobs = &build.unit_of(job.index).jobs;
    let mut outcomes = jobs
        .iter()
        .filter_map(|&job| build.jobs[job as usize].outcome());
    outcomes.all(|outcome| outcome == Outcome::Succeeded)
}

/// What the attempt starts from: the last snapshot of its unit. A failed phase may have left none; then
/// the one before it counts.
fn input(build: &Build, lease: &Lease) -> JobInput {
    let mut input = build.node(lease.job.index).input;
    let placement = build.unit_of(lease.job.index).placement.as_ref();
    if input.is_some() && placement.is_some_and(|at| at.is_bound()) {
        return JobInput::Local;
    }
    while let Some(index) = input {
        let result = build.jobs[index as usize].result.as_ref();
        if let Some(snapshot) = result.and_then(|result| result.snapshot.clone()) {
            return JobInput::Snapshot(snapshot);
        }
        input = build.node(index).input;
    }
    let source = build.submission.source.clone();
    source
        .filter(|_| !is_fetching(build, lease.job))
        .map_or(JobInput::Nothing, JobInput::Source)
}

fn variables(build: &Build, job: JobId, succeeding: bool) -> BTreeMap<String, String> {
    let submission = &build.submission;
    let project = &submission.project;
    let unit = build.node(job.index).unit as usize;
    let started = build.started.unwrap_or_default();
    let version = &submission.source_version;
    let origin = submission.terms.origin.as_ref();
    let wanted = origin.map_or(version, |origin| &origin.git.version);
    // Of what the farm fetches it is known once it is there.
    let resolved = origin.map_or(version, |origin| &origin.commit);
    let identifier = &submission.graph.units[unit].identifier;
    let log = match identifier {
        Some(identifier) => format!("{}/{identifier}", submission.build),
        None => submission.build.to_string(),
    };
    let set = [
        ("BATCH_BUILD_IDENTIFIER", identifier.clone()),
        ("BUILD_ARN", Some(arn::of_build(project, submission.build))),
        ("BUILD_ID", Some(submission.build.qualified(project))),
        ("BUILD_NUMBER", Some(build.number.to_string())),
        ("BUILD_SUCCEEDING", Some(u8::from(succeeding).to_string())),
        ("INITIATOR", Some(submission.initiator.clone())),
        ("LOG_PATH", Some(log)),
        ("PROJECT_ARN", Some(arn::of_project(project))),
        (
            "PROJECT_UUID",
            Some(arn::uuid_of_project(&submission.team, project)),
        ),
        ("RESOLVED_SOURCE_VERSION", resolved.clone()),
        (
            "SOURCE_REPO_URL",
            origin.map(|origin| origin.git.url.clone()),
        ),
        ("SOURCE_VERSION", wanted.clone()),
        ("START_TIME", Some(started.0.to_string())),
    ];
    let secondary = submission.terms.secondary.iter();
    let secondary = secondary.flat_map(|(identifier, origin)| {
        [
            ("RESOLVED_SOURCE_VERSION", origin.commit.clone()),
            ("SOURCE_REPO_URL", Some(origin.git.url.clone())),
            ("SOURCE_VERSION", origin.git.version.clone()),
        ]
        .map(|(name, value)| (format!("CODEBUILD_{name}_{identifier}"), value))
    });
    let set = set.map(|(name, value)| (format!("CODEBUILD_{name}"), value));
    let shard = submission.graph.units[unit].shard;
    let shard = shard
        .into_iter()
        .flat_map(|Shard { index, count }| [(SHARD_INDEX, index), (SHARD_COUNT, count)]);
    let shard = shard.map(|(name, number)| (name.to_owned(), Some(number.to_string())));
    set.into_iter()
        .chain(secondary)
        .chain(shard)
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// Whose dependency caches a build uses.
fn scope(submission: &Submission) -> CacheScope {
    CacheScope {
        project: submission.project.clone(),
        generation: submission.terms.cache_generation,
        shared: submission.terms.cache_shared.clone(),
    }
}

fn secondary_sources(submission: &Submission) -> BTreeMap<String, TreeRef> {
    let secondary = submission.terms.secondary.iter();
    let there = secondary.filter_map(|(name, origin)| Some((name.clone(), origin.tree.clone()?)));
    there.collect()
}
