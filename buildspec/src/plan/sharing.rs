//! Which jobs do the same, so that one run of them would do for all.

use protocol::{
    build::Phase,
    graph::{JobGraph, JobNode},
};

/// By job, the first job that does the same from the same start: the job itself if there is none before
/// it. From the phase `build` on, units do what they are there for, so that those are never the same, even
/// if their commands are: what they find in their environment tells them apart.
pub fn same_work(graph: &JobGraph) -> Vec<u32> {
    let mut same: Vec<u32> = Vec::with_capacity(graph.jobs.len());
    // The jobs that can be shared and are the first of their kind.
    let mut firsts: Vec<(u32, &JobNode)> = Vec::new();
    for (index, job) in (0..).zip(&graph.jobs) {
        let start = |job: &JobNode| job.input.and_then(|input| same.get(input as usize));
        let does_the_same = |(_, first): &&(u32, &JobNode)| {
            first.phase == job.phase && start(first) == start(job) && first.task == job.task
        };
        let can_be_shared = matches!(
            job.phase,
            Phase::DownloadSource | Phase::Install | Phase::PreBuild
        );
        let first = firsts.iter().find(does_the_same).map(|&(first, _)| first);
        if first.is_none() && can_be_shared {
            firsts.push((index, job));
        }
        same.push(first.unwrap_or(index));
    }
    same
}
