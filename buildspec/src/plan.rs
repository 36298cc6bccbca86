//! From a buildspec to the graph of jobs that a build becomes.
//!
//! A unit is the whole build, or one task of a batch; each is a chain of six jobs, one per phase, empty
//! ones too: a build has the same phases whatever its file says. Which outcomes an edge accepts is what
//! CodeBuild's transition table and `on-failure` come to. A matrix or fan-out is planned as the tasks that
//! it stands for.

mod error;
mod order;
mod sharing;
mod size;
mod unit;

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    environment::BuildEnvironment,
    git::GitCredential,
    graph::{Edge, JobGraph, OutcomeSet, Shard, TASKS_MAX, UnitNode},
    project::{INLINE_BUILDSPEC, is_inline},
    secret::SECRETS_OF_UNIT_MAX,
};

pub(crate) use self::order::mistakes;
pub use self::{
    error::{PlanError, TaskMistake},
    sharing::same_work,
};
use self::{
    size::check_size,
    unit::{JOBS_PER_UNIT, Variables, add_unit, index},
};
use crate::diagnostic::Place;
use crate::spec::{Batch, BatchTask, BuildSpec, Phases, Secret, Tasks};

/// What is to be planned.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PlanRequest {
    /// Variables that go over those of the buildspec and of batch tasks.
    pub variables: BTreeMap<String, String>,
    /// Whether to run the `batch` section.
    pub batch: bool,
    /// The buildspecs that batch tasks have of their own, by path as the tasks name it. Others do not count.
    pub buildspecs: BTreeMap<String, BuildSpec>,
    /// Whether units restore and save no dependency caches.
    pub no_cache: bool,
    /// Where the buildspec is, relative to the source, for the log; empty: nobody knows.
    pub path: String,
    /// What git in the build may be let in with, where the buildspec says that it may.
    pub git_credentials: Vec<GitCredential>,
    /// What units ask of their machines that do not say it themselves.
    pub environment: BuildEnvironment,
}

/// What a unit runs.
#[derive(Clone, Copy, Debug)]
struct Running<'a> {
    spec: &'a BuildSpec,
    phases: &'a Phases,
    /// Whether it may use dependency caches.
    caches: bool,
    /// Where the buildspec is, for the log.
    path: &'a str,
    /// What its git may be let in with.
    git_credentials: &'a [GitCredential],
}

/// Plans a build of `spec`.
///
/// # Errors
///
/// If the buildspec cannot be run in this way; the error says all that is to change in the file or the
/// request.
pub fn plan(spec: &BuildSpec, request: &PlanRequest) -> Result<JobGraph, PlanError> {
    let mut errors = Vec::new();
    let graph = if request.batch {
        plan_batch(spec, request, &mut errors)
    } else {
        plan_build(spec, request, &mut errors)
    };
    match (graph, errors.len()) {
        (Some(graph), 0) => Ok(graph),
        (_, 1) => Err(errors.remove(0)),
        (_, _) => Err(PlanError::Several { errors }),
    }
}

/// Plans a build that is no batch; `None` only after an error.
fn plan_build(
    spec: &BuildSpec,
    request: &PlanRequest,
    errors: &mut Vec<PlanError>,
) -> Option<JobGraph> {
    errors.extend(cannot_run(spec, request));
    let Some(phases) = &spec.phases else {
        errors.push(PlanError::OnlyBatch);
        return None;
    };
    let running = Running {
        spec,
        phases,
        caches: !request.no_cache,
        path: &request.path,
        git_credentials: git_credentials(spec, request),
    };
    let task = BatchTask::default();
    errors.extend(check_size([(&task, running)].into_iter(), request).err());
    if !errors.is_empty() {
        return None;
    }
    let mut graph = JobGraph {
        units: vec![UnitNode {
            identifier: None,
            ignore_failure: false,
            shard: None,
            debug: false,
        }],
        ..JobGraph::default()
    };
    let mut variables = Variables::of(spec, &[&request.variables]);
    variables.environment = request.environment.asked();
    add_unit(&mut graph, (0, running), variables, Vec::new());
    Some(graph)
}

/// What git may be let in with by `spec`.
fn git_credentials<'a>(spec: &BuildSpec, request: &'a PlanRequest) -> &'a [GitCredential] {
    match spec.git_credential_helper {
        true => &request.git_credentials,
        false => &[],
    }
}

/// Why phases of `spec` cannot run on the farm.
fn cannot_run(spec: &BuildSpec, request: &PlanRequest) -> Vec<PlanError> {
    let mut errors = Vec::new();
    let given = |(name, _): &(&String, &Secret)| request.variables.contains_key(*name);
    let mut secrets = spec.secrets.iter().filter(|secret| !given(secret));
    if let Some((_, first_over)) = secrets.by_ref().nth(SECRETS_OF_UNIT_MAX) {
        errors.push(PlanError::TooManySecrets {
            place: first_over.place,
        });
    }
    errors.extend(spec.windows_shell.as_ref().map(|shell| PlanError::Windows {
        shell: shell.name.clone(),
        place: shell.place,
    }));
    errors
}

/// Plans a batch; `None` only after an error.
fn plan_batch(
    spec: &BuildSpec,
    request: &PlanRequest,
    errors: &mut Vec<PlanError>,
) -> Option<JobGraph> {
    let Some(batch) = &spec.batch else {
        errors.push(PlanError::NoBatch);
        return None;
    };
    let tasks = batch.tasks.count();
    if TASKS_MAX < tasks {
        let jobs = tasks.saturating_mul(JOBS_PER_UNIT);
        errors.push(PlanError::TooManyJobs { tasks, jobs });
        return None;
    }
    let tasks = batch.tasks.expanded();
    let order = order::order(&tasks);
    let running = running(spec, &tasks, request, errors);
    let order = match order {
        Ok(order) => order,
        Err(mistakes) => {
            errors.push(PlanError::Tasks { mistakes });
            return None;
        }
    };
    if !errors.is_empty() {
        return None;
    }
    let pairs = tasks.iter().zip(running.iter().copied());
    errors.extend(check_size(pairs, request).err());
    if !errors.is_empty() {
        return None;
    }
    let mut graph = JobGraph {
        units: units(batch, &tasks),
        jobs: Vec::with_capacity(tasks.len() * JOBS_PER_UNIT),
        fast_fail: batch.fast_fail,
    };
    // By unit, the index of its first job; what a task depends on comes before it in the order.
    let mut first_jobs = vec![0; tasks.len()];
    for place in order {
        let (task, running) = (&tasks[place.unit], running[place.unit]);
        first_jobs[place.unit] = graph.jobs.len();
        let mut needs: Vec<Edge> = place
            .depends_on
            .iter()
            .flat_map(|&unit| edges_to_all(first_jobs[unit], tasks[unit].ignore_failure))
            .collect();
        needs.sort_by_key(|edge| edge.job);
        let mut variables = Variables::of(running.spec, &[&task.variables, &request.variables]);
        variables.environment = task.environment.asked().over(&request.environment).asked();
        add_unit(&mut graph, (index(place.unit), running), variables, needs);
    }
    Some(graph)
}

/// The units of a batch, in the order of its tasks.
fn units(batch: &Batch, tasks: &[BatchTask]) -> Vec<UnitNode> {
    let count = index(tasks.len());
    let shard = |index| {
        let is_fanout = matches!(batch.tasks, Tasks::Fanout(_));
        is_fanout.then_some(Shard { index, count })
    };
    let units = (0..).zip(tasks).map(|(at, task)| UnitNode {
        identifier: Some(task.identifier.clone()),
        ignore_failure: task.ignore_failure,
        shard: shard(at),
        debug: task.debug_session,
    });
    units.collect()
}

/// What each task runs: the file that it is in, or one of its own. Fewer than tasks only after an error.
fn running<'a>(
    spec: &'a BuildSpec,
    tasks: &'a [BatchTask],
    request: &'a PlanRequest,
    errors: &mut Vec<PlanError>,
) -> Vec<Running<'a>> {
    let mut running = Vec::with_capacity(tasks.len());
    let mut missing = Vec::new();
    let mut checked = BTreeSet::new();
    for task in tasks {
        let own = match &task.buildspec {
            None => Some(spec),
            Some((path, _)) => request.buildspecs.get(path),
        };
        let path = task.buildspec.as_ref();
        let Some(of_task) = own else {
            missing.extend(path.map(|(path, at)| (task.identifier.clone(), path.clone(), *at)));
            continue;
        };
        let is_new = checked.insert(path.map(|(path, _)| path));
        if is_new {
            let mut found = cannot_run(of_task, request);
            if of_task.phases.is_none() {
                found.push(PlanError::NoPhases {
                    task: task.identifier.clone(),
                    place: match path {
                        None => task.place,
                        Some(_) => Place::START,
                    },
                });
            }
            errors.extend(found.into_iter().map(|error| match path {
                None => error,
                Some((path, place)) => PlanError::OfTask {
                    path: path.clone(),
                    place: *place,
                    error: Box::new(error),
                },
            }));
        }
        running.extend(of_task.phases.as_ref().map(|phases| Running {
            spec: of_task,
            phases,
            caches: !request.no_cache,
            path: match path {
                None => &request.path,
                Some((text, _)) if is_inline(text) => INLINE_BUILDSPEC,
                Some((path, _)) => path,
            },
            git_credentials: git_credentials(of_task, request),
        }));
    }
    if !missing.is_empty() {
        errors.push(PlanError::TaskBuildspecs { tasks: missing });
    }
    running
}

/// Edges to every job of the unit whose first job is `first`. All of them, because the unit has ended
/// only when each has; a failed one cannot hide behind a later one that succeeded.
fn edges_to_all(first: usize, ignore_failure: bool) -> impl Iterator<Item = Edge> {
    let accepts = if ignore_failure {
        OutcomeSet::ENDED
    } else {
        OutcomeSet::SUCCEEDED
    };
    (first..first + JOBS_PER_UNIT).map(move |job| Edge {
        job: index(job),
        accepts,
    })
}

#[cfg(test)]
mod tests;
