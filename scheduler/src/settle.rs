//! Settling: what follows for a build from what just happened to it.
//!
//! Everything here is derived from the ledger alone, so that a decision that a crash cut short is
//! completed by the next event.

use protocol::{
    build::{BuildId, Outcome, PhaseContext},
    job::JobId,
    name::WorkerName,
};

use crate::{
    decide::{Turn, stop},
    fact::{Fact, RestartCause, StopCause},
    fold::{first_job, last_job},
    outcome::build_outcome,
    presence::Presence,
    retry,
    state::{Build, JobState, Ledger, Placement, Unit},
};

/// Settles every build that something was decided about.
pub(crate) fn settle(turn: &mut Turn<'_>) {
    while let Some(build) = turn.state.presence.unsettled.pop_first() {
        let known = turn.state.ledger.builds.get(&build);
        if known.is_some_and(|known| known.ended.is_none()) {
            settle_build(turn, build);
        }
    }
}

fn settle_build(turn: &mut Turn<'_>, build: BuildId) {
    restart_left(turn, build);
    retry_again(turn, build);
    skip_doomed(turn, build);
    if is_failed_fast(&turn.state.ledger, build) {
        stop(turn, build, StopCause::FastFail);
    }
    give_up_stopped(turn, build);
    let known = &turn.state.ledger.builds[&build];
    if known.open == 0 {
        turn.record(Fact::BuildEnded {
            build,
            outcome: build_outcome(known),
            at: turn.now.wall,
        });
    }
}

/// Lets the units start again that are bound to a worker that does not come back.
pub(crate) fn abandon(turn: &mut Turn<'_>, worker: &WorkerName) {
    let bound = turn.state.ledger.index.bound.get(worker);
    let units: Vec<(BuildId, u32)> = bound.into_iter().flatten().copied().collect();
    for (id, unit) in units {
        let build = &turn.state.ledger.builds[&id];
        if !is_running(build, &build.units[unit as usize]) && build.stop.is_none() {
            restart(turn, (id, unit), RestartCause::WorkerLost);
        }
    }
}

/// Lets the units of a build start again whose worker has given them up, or came back as something else.
fn restart_left(turn: &mut Turn<'_>, id: BuildId) {
    let build = &turn.state.ledger.builds[&id];
    if build.stop.is_some() {
        return;
    }
    let presence = &turn.state.presence;
    let bound = &turn.state.ledger.index.bound_units;
    let bound = bound.range((id, 0)..=(id, u32::MAX)).map(|(_, unit)| *unit);
    let left: Vec<u32> = bound
        .filter(|index| {
            let unit = &build.units[*index as usize];
            let is_left = unit
                .placement
                .as_ref()
                .is_some_and(|at| is_left(presence, at));
            is_left && !unit.is_broken && !is_running(build, unit)
        })
        .collect();
    for unit in left {
        restart(turn, (id, unit), RestartCause::WorkerLeaves);
    }
}

fn is_left(presence: &Presence, at: &Placement) -> bool {
    let connected = presence.get(&at.worker);
    connected.is_some_and(|worker| worker.has_handed_over || worker.platform != at.platform)
}

fn is_running(build: &Build, unit: &Unit) -> bool {
    let mut jobs = unit.jobs.iter().map(|&job| &build.jobs[job as usize]);
    jobs.any(|job| job.lease().is_some())
}

/// Lets a unit start again from its first phase, or gives it up: if it was tried often enough, or if a
/// phase of it must not run again, because it failed or because it may have published something.
fn restart(turn: &mut Turn<'_>, (id, unit): (BuildId, u32), cause: RestartCause) {
    let build = &turn.state.ledger.builds[&id];
    let of = &build.units[unit as usize];
    let jobs = of
        .jobs
        .iter()
        .map(|&index| (index, &build.jobs[index as usize]));
    let is_good = |outcome| outcome == Outcome::Succeeded;
    let has_failed = jobs
        .clone()
        .any(|(_, job)| !job.outcome().is_none_or(is_good));
    let has_begun = jobs.clone().find(|(_, job)| job.has_begun);
    let has_begun = has_begun.map(|(index, _)| build.node(index).phase);
    let is_tried = cause == RestartCause::WorkerLeaves || retry::is_tried_again(of.restarts + 1);
    let Some(worker) = of.placement.as_ref().map(|at| at.worker.clone()) else {
        return;
    };
    let at = turn.now.wall;
    let (status_code, lost) = match cause {
        RestartCause::WorkerLost | RestartCause::WorkerLeaves => {
            let lost = format!("The unit's state was lost with worker {worker}");
            ("WORKER_LOST", lost)
        }
        RestartCause::StateLost => {
            let lost = "The cache has lost a part of the unit's state";
            ("STATE_LOST", lost.to_owned())
        }
    };
    if is_tried && !has_failed && has_begun.is_none() {
        turn.record(Fact::UnitRestarted {
            build: id,
            unit,
            worker,
            cause,
            at,
        });
        return;
    }
    let message = match has_begun {
        Some(phase) => format!("{lost}. {}", retry::not_again(phase)),
        None if has_failed => format!("{lost}, and a phase that failed does not run again."),
        None => format!("{lost}, and the unit was started often enough."),
    };
    let context = PhaseContext {
        status_code: status_code.to_owned(),
        message,
    };
    let waiting: Vec<u32> = jobs
        .filter(|(_, job)| job.state == JobState::Ready)
        .map(|(index, _)| index)
        .collect();
    for index in waiting {
        give_up(
            turn,
            JobId { build: id, index },
            Outcome::Fault,
            context.clone(),
        );
    }
}

/// Gives up the jobs of a build that faulted too often or must not run again, and lets units start again
/// whose state went with the fault.
fn retry_again(turn: &mut Turn<'_>, id: BuildId) {
    let all = first_job(id)..=last_job(id);
    let again = turn.state.ledger.index.again.range(all);
    let again: Vec<JobId> = again.copied().collect();
    for job in again {
        let build = &turn.state.ledger.builds[&id];
        let known = &build.jobs[job.index as usize];
        if build.stop.is_some() || known.state != JobState::Ready {
            continue;
        }
        if build.unit_of(job.index).is_broken {
            let unit = build.node(job.index).unit;
            let placement = build.unit_of(job.index).placement.as_ref();
            let is_bound = placement.is_some_and(Placement::is_bound);
            let cause = match known.returns {
                _ if !is_bound => RestartCause::StateLost,
                0 => RestartCause::WorkerLost,
                _ => RestartCause::WorkerLeaves,
            };
            restart(turn, (id, unit), cause);
            continue;
        }
        if known.has_begun {
            let last = known.context.clone().unwrap_or_default();
            let reason = retry::not_again(build.node(job.index).phase);
            let context = PhaseContext {
                message: format!("{} {reason}", last.message).trim_start().to_owned(),
                ..last
            };
            give_up(turn, job, Outcome::Fault, context);
            continue;
        }
        let faults = known.faults + build.unit_of(job.index).restarts;
        if !retry::is_tried_again(faults) {
            let last = known.context.clone().unwrap_or_default();
            let context = PhaseContext {
                message: format!("{} It was tried {faults} times.", last.message),
                ..last
            };
            give_up(turn, job, Outcome::Fault, context);
        }
    }
}

/// Skips the jobs that cannot run any more, and those that cannot because of them.
fn skip_doomed(turn: &mut Turn<'_>, id: BuildId) {
    let all = first_job(id)..=last_job(id);
    while let Some((&job, &needs)) = turn.state.ledger.index.doomed.range(all.clone()).next() {
        let at = turn.now.wall;
        turn.record(Fact::JobSkipped { job, needs, at });
    }
}

/// Whether a unit has failed in a build that is to end then.
fn is_failed_fast(ledger: &Ledger, build: BuildId) -> bool {
    let is_fallen = ledger.index.fallen.contains(&build);
    is_fallen && ledger.builds[&build].submission.graph.fast_fail
}

/// Gives up the jobs of a build that stops, but for those that run.
fn give_up_stopped(turn: &mut Turn<'_>, id: BuildId) {
    let build = &turn.state.ledger.builds[&id];
    let Some(cause) = build.stop else {
        return;
    };
    let (code, message) = cause.context();
    let jobs = (0..).zip(&build.jobs);
    let unstarted = jobs.filter(|(_, job)| job.is_unstarted());
    let unstarted: Vec<u32> = unstarted.map(|(index, _)| index).collect();
    for index in unstarted {
        let context = PhaseContext {
            status_code: code.to_owned(),
            message: message.to_owned(),
        };
        give_up(turn, JobId { build: id, index }, cause.outcome(), context);
    }
}

fn give_up(turn: &mut Turn<'_>, job: JobId, outcome: Outcome, context: PhaseContext) {
    let at = turn.now.wall;
    turn.record(Fact::JobGivenUp {
        job,
        outcome,
        context,
        at,
    });
}
