//! Leases: how they are renewed, how they end, and what a result under one is worth.

use std::time::Duration;

use protocol::{
    build::{Outcome, PhaseContext, Rerun},
    job::{AttemptResult, JobId},
    lease::{LEASE_MARGIN, LEASE_TTL, LeaseId},
    name::WorkerName,
};

use crate::{
    decide::{Turn, stop},
    effect::Effect,
    event::{Ignored, SessionId},
    fact::{Fact, ReturnCause, StopCause},
    fetched::is_fetching,
    settle,
    state::{Build, Lease, Placement, State},
    timer::Timer,
    worker,
};

/// How long the coordinator waits from when it granted a lease, or last received a renewal of it,
/// before the job may go elsewhere. The worker has killed the attempt a margin earlier.
pub const LEASE_FENCE: Duration = Duration::from_secs(LEASE_TTL.as_secs() + LEASE_MARGIN.as_secs());

/// How long leases of a build that stops are still renewed: time to end processes that ignore the first
/// signal and to store their log. A worker that takes longer loses the lease.
pub const REVOKE_GRACE: Duration = Duration::from_secs(60);

/// How long an attempt may take from when it was given until something of its log has come: the way of its
/// assignment, a directory and a line, four times what a lease lasts. Who takes longer took what it does not
/// begin, and its lease is not renewed any more.
pub const BEGIN_LIMIT: Duration = Duration::from_secs(60);

/// Ends what is over by now: leases, limits of builds, patience.
pub(crate) fn expire(turn: &mut Turn<'_>) {
    while let Some(timer) = turn.state.presence.timers.pop_due(turn.now.time) {
        match timer {
            Timer::Lease(lease) => lose(turn, lease),
            // Its worker may be about to begin just now, so that nothing but the fence can end it.
            Timer::Begin(lease) => turn.state.presence.unheard(lease),
            Timer::Away(name) => worker::stays_away(turn, &name),
            Timer::Gone(name) => settle::abandon(turn, &name),
            Timer::Pardon(name) => turn.state.presence.pardon(&name),
            Timer::Bench(name) => {
                turn.state.presence.bench_over(&name, turn.now);
                turn.state.presence.relist(&turn.state.ledger, &name);
            }
            // That it is gone is all there is to it.
            Timer::Preference(..) => {}
        }
    }
    let is_over = |limit| limit <= turn.now.wall;
    let limits = turn.state.ledger.index.limits.iter();
    let over: Vec<_> = limits
        .take_while(|(limit, _)| is_over(*limit))
        .copied()
        .collect();
    for (_, build) in over {
        stop(turn, build, StopCause::TimedOut);
    }
}

/// An attempt is lost with its worker; if the lease is not out any more, nothing happens.
pub(crate) fn lose(turn: &mut Turn<'_>, lease: LeaseId) {
    let Some(known) = turn.state.ledger.leases.get(&lease) else {
        return;
    };
    let (job, name) = (known.job, known.worker.clone());
    turn.record(Fact::LeaseLost {
        lease,
        job,
        context: PhaseContext {
            status_code: "WORKER_LOST".to_owned(),
            message: format!("Worker {name} was lost."),
        },
        worker: name,
        breaks: Some(is_bound(turn.state, job)),
        at: turn.now.wall,
    });
}

/// A worker gives a live lease back.
pub(crate) fn give_back(turn: &mut Turn<'_>, lease: LeaseId, cause: ReturnCause) {
    let Some(known) = turn.state.ledger.leases.get(&lease) else {
        return;
    };
    let (job, name) = (known.job, known.worker.clone());
    // A unit of which nothing has run yet can begin anywhere.
    let is_lost = cause == ReturnCause::HandedOver || !has_run(turn.state, job);
    let unstarts = cause == ReturnCause::NotBegun && is_all_that_was_tried(turn.state, job);
    turn.record(Fact::LeaseReturned {
        lease,
        job,
        worker: name,
        cause,
        breaks: is_bound(turn.state, job) && is_lost,
        unstarts,
        at: turn.now.wall,
    });
}

/// Whether the state of the job's unit is on its worker only.
fn is_bound(state: &State, job: JobId) -> bool {
    let build = state.ledger.builds.get(&job.build);
    let placement = build.and_then(|build| build.unit_of(job.index).placement.as_ref());
    placement.is_some_and(Placement::is_bound)
}

/// Whether a phase of the job's unit has ended.
fn has_run(state: &State, job: JobId) -> bool {
    let Some(build) = state.ledger.builds.get(&job.build) else {
        return false;
    };
    let mut jobs = build.unit_of(job.index).jobs.iter();
    jobs.any(|&index| build.jobs[index as usize].outcome().is_some())
}

/// Whether nothing of the build has run, and nothing of it runs, but perhaps `job`: what is given back
/// without having begun is all that was ever tried.
fn is_all_that_was_tried(state: &State, job: JobId) -> bool {
    let Some(build) = state.ledger.builds.get(&job.build) else {
        return false;
    };
    (0..).zip(&build.jobs).all(|(index, of)| {
        let own = usize::from(index == job.index);
        of.tries.len() <= of.not_begun as usize + own
    })
}

/// The lease that `worker` speaks of, if it is out and its own.
pub(crate) fn check<'a>(
    state: &'a State,
    worker: &WorkerName,
    lease: LeaseId,
) -> Result<&'a Lease, Ignored> {
    match state.ledger.leases.get(&lease) {
        Some(known) if known.worker == *worker => Ok(known),
        Some(_) => Err(Ignored::Forged),
        None if state.ledger.next_lease <= lease.0 => Err(Ignored::Forged),
        None => Err(Ignored::Late),
    }
}

/// Puts off the end of those of `leases` that are live and of this worker.
pub(crate) fn renew(
    turn: &mut Turn<'_>,
    session: SessionId,
    sequence: u64,
    mut leases: Vec<LeaseId>,
) {
    let Some(name) = turn.sender(session) else {
        return;
    };
    if let Err(ignored) = turn.state.presence.count(&name, sequence) {
        turn.ignore(ignored);
        return;
    }
    leases.retain(|lease| {
        let checked = check(turn.state, &name, *lease).map(|_| ());
        let is_renewable = turn.state.presence.is_renewable(*lease, turn.now);
        match checked {
            Ok(()) if is_renewable => true,
            Ok(()) => {
                turn.ignore(Ignored::Late);
                false
            }
            Err(ignored) => {
                turn.ignore(ignored);
                false
            }
        }
    });
    for lease in &leases {
        turn.state.presence.renew(*lease, turn.now);
    }
    turn.effect(Effect::Renewed {
        session,
        sequence,
        leases,
    });
}

/// Notes that the first command of an attempt is about to start, and lets it.
pub(crate) fn begin(turn: &mut Turn<'_>, session: SessionId, lease: LeaseId) {
    let Some(name) = turn.sender(session) else {
        return;
    };
    let job = match check(turn.state, &name, lease) {
        Ok(known) => known.job,
        Err(ignored) => return turn.ignore(ignored),
    };
    let may_run_again = turn.state.ledger.job(job).is_some_and(|(build, _)| {
        build.submission.rerun(build.node(job.index).phase) == Rerun::Always
    });
    let known = turn.state.ledger.job(job);
    if may_run_again || known.is_some_and(|(_, job)| job.has_begun) {
        // The answer may have been lost with its connection.
        turn.ignore(Ignored::Duplicate);
        turn.effect(Effect::GoAhead { session, lease });
        return;
    }
    turn.record(Fact::AttemptBegan {
        lease,
        job,
        worker: name,
        at: turn.now.wall,
    });
}

/// Something of the log of an attempt has come: it has begun. It may have come late, and is not given up for
/// that if its lease is still out.
pub(crate) fn heard(turn: &mut Turn<'_>, lease: LeaseId) {
    turn.state.presence.heard(lease);
}

/// A worker does not begin what it was given.
pub(crate) fn decline(turn: &mut Turn<'_>, session: SessionId, lease: LeaseId) {
    let Some(name) = turn.sender(session) else {
        return;
    };
    match check(turn.state, &name, lease) {
        Ok(_) => give_back(turn, lease, ReturnCause::NotBegun),
        Err(ignored) => turn.ignore(ignored),
    }
}

/// Takes the result of an attempt.
///
/// One under a lease that is not out any more changes nothing, but is acknowledged, so that the worker
/// forgets it. One under somebody else's lease is ignored.
pub(crate) fn finish(
    turn: &mut Turn<'_>,
    session: SessionId,
    lease: LeaseId,
    result: Box<AttemptResult>,
) {
    let Some(name) = turn.sender(session) else {
        return;
    };
    let job = match check(turn.state, &name, lease) {
        Ok(known) => known.job,
        Err(ignored) => {
            let is_repeated = turn.state.presence.has_taken(&name, lease);
            turn.ignore(if is_repeated {
                Ignored::Duplicate
            } else {
                ignored
            });
            if !turn.state.ledger.leases.contains_key(&lease) {
                turn.effect(Effect::Acknowledge { session, lease });
            }
            return;
        }
    };
    let build = turn.state.ledger.builds.get(&job.build);
    let build = build.expect("builds of live leases are known");
    let at = turn.now.wall;
    // Of a unit of which nothing has run, the cache can have lost the source only, which nobody makes again.
    let is_broken = is_bound(turn.state, job) || result.state_lost && has_run(turn.state, job);
    let fact = match verdict(build, job, &result) {
        Verdict::Ended(outcome) => Fact::JobEnded {
            lease,
            job,
            worker: name,
            outcome,
            result,
            at,
        },
        Verdict::Fault(context) => Fact::AttemptFaulted {
            lease,
            job,
            worker: name,
            context,
            breaks: Some(is_broken),
            at,
        },
    };
    turn.record(fact);
}

/// What a result is worth.
enum Verdict {
    /// It decides the job.
    Ended(Outcome),
    /// It was the farm's doing.
    Fault(PhaseContext),
}

fn verdict(build: &Build, job: JobId, result: &AttemptResult) -> Verdict {
    match (result.outcome, build.stop) {
        (Outcome::Succeeded, None) if is_fetching(build, job) => {
            fault("The worker was to fetch the source, and has fetched nothing.")
        }
        (Outcome::Succeeded, _) if lacks_snapshot(build, job, result) => {
            fault("The phase succeeded, but left no snapshot for the next one.")
        }
        (outcome @ (Outcome::Succeeded | Outcome::Failed), _) => Verdict::Ended(outcome),
        (Outcome::Stopped | Outcome::TimedOut, Some(cause)) => Verdict::Ended(cause.outcome()),
        // The worker knows the limit too, and may see it pass first.
        (Outcome::TimedOut, None) => Verdict::Ended(Outcome::TimedOut),
        (Outcome::Stopped, None) => fault("The worker stopped the phase, and nobody wanted it."),
        (Outcome::Skipped, _) => fault("The worker skipped a phase that it was given."),
        (Outcome::Fault, _) => Verdict::Fault(result.context.clone()),
    }
}

fn fault(message: &str) -> Verdict {
    Verdict::Fault(PhaseContext {
        status_code: "WORKER_FAULT".to_owned(),
        message: message.to_owned(),
    })
}

/// Whether a later phase starts from what this one did not leave.
fn lacks_snapshot(build: &Build, job: JobId, result: &AttemptResult) -> bool {
    let placement = build.unit_of(job.index).placement.as_ref();
    let travels = placement.is_some_and(|at| !at.is_bound());
    let mut jobs = build.submission.graph.jobs.iter();
    travels && result.snapshot.is_none() && jobs.any(|later| later.input == Some(job.index))
}
