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
use crate::spec::{
    BatchTask, BuildSpec, CacheAction, OnFailure, PhaseSpec, Phases, Tasks, Version,
};

/// How many jobs a unit has.
const JOBS_PER_UNIT: usize = 6;
/// How many bytes the texts of all jobs may have together. Each task of a batch carries the commands of
/// the whole file, so a small file could become a huge graph; real files stay a thousand times below.
const GRAPH_BYTES_MAX: usize = 8 * 1024 * 1024;

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
/// If the buildspec cannot be run in this way; the error says what to change in the file or the request.
pub fn plan(spec: &BuildSpec, request: &PlanRequest) -> Result<JobGraph, PlanError> {
    let secrets = spec
        .secrets
        .iter()
        .filter(|(name, _)| !request.variables.contains_key(*name));
    let secrets: Vec<_> = secrets
        .map(|(name, of)| (name.clone(), of.clone()))
        .collect();
    if !secrets.is_empty() {
        return Err(PlanError::Secrets { secrets });
    }
    if request.batch {
        return plan_batch(spec, request);
    }
    let phases = spec.phases.as_ref().ok_or(PlanError::OnlyBatch)?;
    let mut graph = JobGraph {
        units: vec![UnitNode {
            identifier: None,
            ignore_failure: false,
        }],
        ..JobGraph::default()
    };
    let variables = merged([&spec.variables, &request.variables]);
    add_unit(
        &mut graph,
        0,
        unit_tasks(spec, phases, variables),
        Vec::new(),
    );
    Ok(graph)
}

fn plan_batch(spec: &BuildSpec, request: &PlanRequest) -> Result<JobGraph, PlanError> {
    let batch = spec.batch.as_ref().ok_or(PlanError::NoBatch)?;
    let tasks = match &batch.tasks {
        Tasks::List(tasks) | Tasks::Graph(tasks) => tasks,
        Tasks::Matrix(place) => {
            return Err(PlanError::Form {
                key: "build-matrix",
                place: *place,
            });
        }
        Tasks::Fanout(place) => {
            return Err(PlanError::Form {
                key: "build-fanout",
                place: *place,
            });
        }
    };
    let jobs = tasks.len().saturating_mul(JOBS_PER_UNIT);
    if jobs > JOBS_MAX {
        return Err(PlanError::TooManyJobs {
            tasks: tasks.len(),
            jobs,
        });
    }
    let order = order::order(tasks).map_err(|mistakes| PlanError::Tasks { mistakes })?;
    let own: Vec<_> = tasks.iter().filter_map(own_buildspec).collect();
    if !own.is_empty() {
        return Err(PlanError::TaskBuildspecs { tasks: own });
    }
    let phases = spec.phases.as_ref().ok_or(PlanError::NoPhases)?;
    check_size(spec, phases, tasks, request)?;

    let units = tasks.iter().map(|task| UnitNode {
        identifier: Some(task.identifier.clone()),
        ignore_failure: task.ignore_failure,
    });
    let mut graph = JobGraph {
        units: units.collect(),
        jobs: Vec::with_capacity(jobs),
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
    Ok(graph)
}

fn own_buildspec(task: &BatchTask) -> Option<(String, String, crate::Place)> {
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

/// Refuses what would become too large a graph, before it is one.
fn check_size(
    spec: &BuildSpec,
    phases: &Phases,
    tasks: &[BatchTask],
    request: &PlanRequest,
) -> Result<(), PlanError> {
    let bytes_of = |variables: &BTreeMap<String, String>| -> usize {
        variables
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    };
    let commands: usize = phases
        .in_order()
        .iter()
        .flat_map(|(_, phase)| phase.commands.iter().chain(&phase.finally))
        .map(String::len)
        .sum();
    let artifacts = spec
        .artifacts
        .iter()
        .flat_map(|spec| spec.files.iter().chain(&spec.exclude_paths));
    let cache = spec.cache.iter().flat_map(|cache| &cache.spec.paths);
    let patterns: usize = artifacts.chain(cache).map(String::len).sum();
    let shared = commands + 2 * patterns + bytes_of(&spec.variables) + bytes_of(&request.variables);
    let own: usize = tasks.iter().map(|task| bytes_of(&task.variables)).sum();
    let bytes = shared.saturating_mul(tasks.len()).saturating_add(own);
    if bytes > GRAPH_BYTES_MAX {
        return Err(PlanError::TooLarge {
            tasks: tasks.len(),
            bytes,
            limit: GRAPH_BYTES_MAX,
        });
    }
    Ok(())
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
