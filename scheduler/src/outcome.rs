//! What came of units and builds, from what came of their jobs.

use protocol::build::{Outcome, Status};

use crate::{
    fact::StopCause,
    state::{Build, JobState, Unit},
};

/// How a unit stands: the worst outcome of its jobs, once all have ended.
pub(crate) fn unit_status(build: &Build, unit: &Unit) -> Status {
    let outcomes = unit.jobs.iter().map(|&job| &build.jobs[job as usize]);
    if unit.open == 0 {
        let ended = outcomes.filter_map(|job| job.outcome());
        return Status::Ended(
            ended
                .max_by_key(|outcome| badness(*outcome))
                .unwrap_or(Outcome::Succeeded),
        );
    }
    let started = outcomes
        .into_iter()
        .any(|job| !job.tries.is_empty() && !matches!(job.state, JobState::Waiting));
    if started {
        Status::InProgress
    } else {
        Status::Queued
    }
}

/// What came of a build whose jobs have all ended.
///
/// It has succeeded if every unit has whose failure is not ignored. Otherwise the reason for which it
/// was stopped says what came of it, and without one the worst of its units: `STOPPED` over
/// `TIMED_OUT` over `FAULT` over `FAILED`. A unit that was only skipped counts as failed. What
/// `fast-fail` stopped does not count: the build failed.
pub(crate) fn build_outcome(build: &Build) -> Outcome {
    let nodes = &build.submission.graph.units;
    let counted = build
        .units
        .iter()
        .zip(nodes)
        .filter(|(_, node)| !node.ignore_failure);
    let outcomes: Vec<Outcome> = counted
        .filter_map(|(unit, _)| match unit_status(build, unit) {
            Status::Ended(outcome) => Some(outcome),
            Status::Queued | Status::InProgress => None,
        })
        .filter(|outcome| *outcome != Outcome::Succeeded)
        .collect();
    if outcomes.is_empty() {
        return Outcome::Succeeded;
    }
    match build.stop {
        Some(cause @ (StopCause::Stopped | StopCause::TimedOut)) => return cause.outcome(),
        Some(StopCause::FastFail) | None => {}
    }
    let is_counted = |outcome: &Outcome| build.stop.is_none() || *outcome != Outcome::Stopped;
    let worst = outcomes
        .into_iter()
        .filter(is_counted)
        .max_by_key(|outcome| badness(*outcome));
    match worst {
        Some(Outcome::Skipped) | None => Outcome::Failed,
        Some(outcome) => outcome,
    }
}

/// Orders outcomes from best to worst.
const fn badness(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Succeeded => 0,
        Outcome::Skipped => 1,
        Outcome::Failed => 2,
        Outcome::Fault => 3,
        Outcome::TimedOut => 4,
        Outcome::Stopped => 5,
    }
}
