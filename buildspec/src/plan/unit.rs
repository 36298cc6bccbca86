//! A unit: the chain of its six phases.

use std::collections::BTreeMap;

use protocol::{
    build::Phase,
    cache_spec::CacheSpec,
    graph::{Edge, JobGraph, JobNode, OutcomeSet},
    job::{PhaseCommands, ShellState, Task},
};

use super::Running;
use crate::spec::{BuildSpec, CacheAction, OnFailure, PhaseSpec, Version};

/// How many jobs a unit has.
pub(super) const JOBS_PER_UNIT: usize = 6;

/// A phase of a unit, its task, and in which outcomes the phase after it may follow.
struct PlannedPhase {
    phase: Phase,
    task: Task,
    leaves: OutcomeSet,
}

/// The six phases of a unit, in order.
fn unit_tasks(
    Running { spec, phases }: Running<'_>,
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
                run_as: section.run_as.as_ref().or(spec.run_as.as_ref()).cloned(),
                retry: match &section.on_failure {
                    OnFailure::Retry(retry) => Some(retry.clone()),
                    _ => None,
                },
            }),
            leaves: leaves(phase, section),
        });
    }
    planned.push(PlannedPhase {
        phase: Phase::UploadArtifacts,
        task: Task::UploadArtifacts {
            artifacts: spec.artifacts.as_ref().map(|of| of.primary.spec.clone()),
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
    match (&section.on_failure, phase) {
        (OnFailure::Abort, _) => OutcomeSet::SUCCEEDED,
        (OnFailure::Continue, _)
        | (OnFailure::Transition | OnFailure::Retry(_), Phase::Build | Phase::PostBuild) => {
            OutcomeSet::RAN
        }
        (OnFailure::Transition | OnFailure::Retry(_), _) => OutcomeSet::SUCCEEDED,
    }
}

/// Appends the jobs of a unit, which is the index of one and what it runs; its first job needs `needs`.
pub(super) fn add_unit(
    graph: &mut JobGraph,
    (unit, running): (u32, Running<'_>),
    variables: BTreeMap<String, String>,
    needs: Vec<Edge>,
) {
    let mut needs = needs;
    let mut input = None;
    for PlannedPhase {
        phase,
        task,
        leaves,
    } in unit_tasks(running, variables)
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
pub(super) fn index(at: usize) -> u32 {
    u32::try_from(at).expect("units and jobs are limited to JOBS_MAX")
}
