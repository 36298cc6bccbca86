//! From a buildspec to the graph of jobs that a build becomes.
//!
//! A unit is the whole build, or one task of a batch; each is a chain of six jobs, one per phase, empty
//! ones too: a build has the same phases whatever its file says. Which outcomes an edge accepts is what
//! CodeBuild's transition table and `on-failure` come to.

mod error;
mod order;

use std::collections::BTreeMap;

use protocol::{
    build::Phase,
    cache_spec::CacheSpec,
    graph::{Edge, JOBS_MAX, JobGraph, JobNode, OutcomeSet, UnitNode},
    job::{PhaseCommands, ShellState, Task},
};

pub use self::error::{PlanError, TaskMistake};
use self::order::Placed;
pub(crate) use self::order::mistakes;
use crate::{
    diagnostic::Place,
    spec::{BatchTask, BuildSpec, CacheAction, OnFailure, PhaseSpec, Phases, Tasks, Version},
};

/// How many jobs a unit has.
const JOBS_PER_UNIT: usize = 6;
/// How many bytes the texts of all jobs may take together. Each task of a batch carries the commands of
/// the whole file, so a small file could become a huge graph; real files stay a hundred times below.
const GRAPH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many bytes a text takes besides its own: in memory its length and place, in the journal quotes and a
/// comma, so that a quarter of a million empty commands are no small thing.
const TEXT_BYTES: usize = 64;
/// How many bytes an edge takes, in memory or in the journal, whichever is more.
const EDGE_BYTES: usize = 32;

/// What is to be planned.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PlanRequest {
    /// Variables that go over those of the buildspec and of batch tasks.
    pub variables: BTreeMap<String, String>,
    /// Whether to run the `batch` section.
    pub batch: bool,
}

/// Plans a build of `spec`.
///
/// # Errors
///
/// If the buildspec cannot be run in this way; the error says all that is to change in the file or the
/// request.
pub fn plan(spec: &BuildSpec, request: &PlanRequest) -> Result<JobGraph, PlanError> {
    let mut errors = Vec::new();
    let secrets = spec
        .secrets
        .iter()
        .filter(|(name, _)| !request.variables.contains_key(*name));
    let secrets: Vec<_> = secrets
        .map(|(name, of)| (name.clone(), of.clone()))
        .collect();
    if !secrets.is_empty() {
        errors.push(PlanError::Secrets { secrets });
    }
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
    let Some(phases) = &spec.phases else {
        errors.push(PlanError::OnlyBatch);
        return None;
    };
    errors.extend(check_size(spec, phases, None, request).err());
    if !errors.is_empty() {
        return None;
    }
    let mut graph = JobGraph {
        units: vec![UnitNode {
            identifier: None,
            ignore_failure: false,
        }],
        ..JobGraph::default()
    };
    let variables = merged([&spec.variables, &request.variables]);
    let planned = unit_tasks(spec, phases, variables);
    add_unit(&mut graph, 0, planned, Vec::new());
    Some(graph)
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
    let (order, tasks) = match ordered(&batch.tasks, errors) {
        Some((order, tasks)) => (order, tasks),
        None => (Vec::new(), &[][..]),
    };
    let Some(phases) = &spec.phases else {
        errors.push(PlanError::NoPhases);
        return None;
    };
    errors.extend(check_size(spec, phases, Some(tasks), request).err());
    if !errors.is_empty() {
        return None;
    }
    let units = tasks.iter().map(|task| UnitNode {
        identifier: Some(task.identifier.clone()),
        ignore_failure: task.ignore_failure,
    });
    let mut graph = JobGraph {
        units: units.collect(),
        jobs: Vec::with_capacity(tasks.len() * JOBS_PER_UNIT),
        fast_fail: batch.fast_fail,
    };
    // By unit, the index of its first job; what a task depends on comes before it in the order.
    let mut first_jobs = vec![0; tasks.len()];
    for place in order {
        let task = &tasks[place.unit];
        first_jobs[place.unit] = graph.jobs.len();
        let mut needs: Vec<Edge> = place
            .depends_on
            .iter()
            .flat_map(|&unit| edges_to_all(first_jobs[unit], tasks[unit].ignore_failure))
            .collect();
        needs.sort_by_key(|edge| edge.job);
        let variables = merged([&spec.variables, &task.variables, &request.variables]);
        let unit = index(place.unit);
        add_unit(&mut graph, unit, unit_tasks(spec, phases, variables), needs);
    }
    Some(graph)
}

/// The tasks of a batch and the order in which their jobs are numbered; `None` only after an error.
fn ordered<'a>(
    tasks: &'a Tasks,
    errors: &mut Vec<PlanError>,
) -> Option<(Vec<Placed>, &'a [BatchTask])> {
    let form = |key, place: Place| PlanError::Form { key, place };
    let tasks = match tasks {
        Tasks::List(tasks) | Tasks::Graph(tasks) => tasks,
        Tasks::Matrix(place) => {
            errors.push(form("build-matrix", *place));
            return None;
        }
        Tasks::Fanout(place) => {
            errors.push(form("build-fanout", *place));
            return None;
        }
    };
    let own: Vec<_> = tasks.iter().filter_map(own_buildspec).collect();
    if !own.is_empty() {
        errors.push(PlanError::TaskBuildspecs { tasks: own });
    }
    let jobs = tasks.len().saturating_mul(JOBS_PER_UNIT);
    if JOBS_MAX < jobs {
        let tasks = tasks.len();
        errors.push(PlanError::TooManyJobs { tasks, jobs });
        return None;
    }
    match order::order(tasks) {
        Ok(order) => Some((order, tasks)),
        Err(mistakes) => {
            errors.push(PlanError::Tasks { mistakes });
            None
        }
    }
}

fn own_buildspec(task: &BatchTask) -> Option<(String, String, Place)> {
    let (path, place) = task.buildspec.as_ref()?;
    Some((task.identifier.clone(), path.clone(), *place))
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

/// Refuses what would become too large a graph, before it is one. `tasks` are those of a batch.
fn check_size(
    spec: &BuildSpec,
    phases: &Phases,
    tasks: Option<&[BatchTask]>,
    request: &PlanRequest,
) -> Result<(), PlanError> {
    let commands: usize = phases
        .in_order()
        .iter()
        .flat_map(|(_, phase)| phase.commands.iter().chain(&phase.finally))
        .map(|text| text_bytes(text))
        .sum();
    let artifacts = spec
        .artifacts
        .iter()
        .flat_map(|spec| spec.files.iter().chain(&spec.exclude_paths));
    let artifacts: usize = artifacts.map(|text| text_bytes(text)).sum();
    let cache = spec.cache.iter().flat_map(|cache| &cache.spec.paths);
    // It is restored in one job and saved in another.
    let cache: usize = cache.map(|text| 2 * text_bytes(text)).sum();
    let variables = variable_bytes(&spec.variables) + variable_bytes(&request.variables);
    let shared = commands + artifacts + cache + variables;
    let own = tasks.unwrap_or_default().iter().map(|task| {
        let edges = JOBS_PER_UNIT * EDGE_BYTES * task.depend_on.len();
        variable_bytes(&task.variables) + edges
    });
    let count = tasks.map_or(1, <[_]>::len);
    let bytes = shared.saturating_mul(count).saturating_add(own.sum());
    if GRAPH_BYTES_MAX < bytes {
        return Err(PlanError::TooLarge {
            tasks: count,
            bytes,
            limit: GRAPH_BYTES_MAX,
        });
    }
    Ok(())
}

/// What a text takes, in bytes.
const fn text_bytes(text: &str) -> usize {
    text.len() + TEXT_BYTES
}

fn variable_bytes(variables: &BTreeMap<String, String>) -> usize {
    let variables = variables.iter();
    variables
        .map(|(name, value)| text_bytes(name) + text_bytes(value))
        .sum()
}

/// All variables; of those with one name, the one of the later map.
fn merged<const N: usize>(maps: [&BTreeMap<String, String>; N]) -> BTreeMap<String, String> {
    let all = maps.into_iter().flatten();
    all.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// A phase of a unit, its task, and in which outcomes the phase after it may follow.
struct PlannedPhase {
    phase: Phase,
    task: Task,
    leaves: OutcomeSet,
}

/// The six phases of a unit, in order.
fn unit_tasks(
    spec: &BuildSpec,
    phases: &Phases,
    variables: BTreeMap<String, String>,
) -> Vec<PlannedPhase> {
    let mut planned = Vec::with_capacity(JOBS_PER_UNIT);
    planned.push(PlannedPhase {
        phase: Phase::DownloadSource,
        task: Task::DownloadSource {
            variables,
            cache: cache_for(spec, CacheAction::Restore),
            shell: spec.shell,
        },
        leaves: OutcomeSet::SUCCEEDED,
    });
    for (phase, section) in phases.in_order() {
        let save_cache = (phase == Phase::PostBuild)
            .then(|| cache_for(spec, CacheAction::Save))
            .flatten();
        planned.push(PlannedPhase {
            phase,
            task: Task::Commands(PhaseCommands {
                commands: section.commands.clone(),
                finally: section.finally.clone(),
                shell: spec.shell,
                state: match spec.version {
                    Version::V0_1 => ShellState::Fresh,
                    Version::V0_2 => ShellState::Carried,
                },
                save_cache,
            }),
            leaves: leaves(phase, section),
        });
    }
    planned.push(PlannedPhase {
        phase: Phase::UploadArtifacts,
        task: Task::UploadArtifacts {
            artifacts: spec.artifacts.clone(),
            shell: spec.shell,
        },
        leaves: OutcomeSet::SUCCEEDED,
    });
    planned
}

/// The cache, if the file has one that is to be used for `action`.
fn cache_for(spec: &BuildSpec, action: CacheAction) -> Option<CacheSpec> {
    let cache = spec.cache.as_ref()?;
    let wanted = cache.action == CacheAction::Both || cache.action == action;
    wanted.then(|| cache.spec.clone())
}

/// In which outcomes of `phase` the next one may follow.
const fn leaves(phase: Phase, section: &PhaseSpec) -> OutcomeSet {
    match (section.on_failure, phase) {
        (OnFailure::Abort, _) => OutcomeSet::SUCCEEDED,
        (OnFailure::Continue, _) | (OnFailure::Transition, Phase::Build | Phase::PostBuild) => {
            OutcomeSet::RAN
        }
        (OnFailure::Transition, _) => OutcomeSet::SUCCEEDED,
    }
}

/// Appends the jobs of a unit; its first job needs `needs`.
fn add_unit(graph: &mut JobGraph, unit: u32, planned: Vec<PlannedPhase>, needs: Vec<Edge>) {
    let mut needs = needs;
    let mut input = None;
    for PlannedPhase {
        phase,
        task,
        leaves,
    } in planned
    {
        let job = index(graph.jobs.len());
        graph.jobs.push(JobNode {
            unit,
            phase,
            task,
            needs,
            input,
        });
        needs = vec![Edge {
            job,
            accepts: leaves,
        }];
        input = Some(job);
    }
}

/// An index into units or jobs.
fn index(at: usize) -> u32 {
    u32::try_from(at).expect("units and jobs are limited to JOBS_MAX")
}

#[cfg(test)]
mod tests;
