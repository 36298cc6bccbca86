//! Leases: how they are renewed, how they end, and what a result under one is worth.

use std::time::Duration;

use protocol::{
    build::{Outcome, PhaseContext},
    job::{AttemptResult, JobId},
    lease::{LEASE_MARGIN, LEASE_TTL, LeaseId},
};

use crate::{
    decide::{Turn, stop},
    effect::Effect,
    event::SessionId,
    fact::{Fact, StopCause},
    settle,
    state::{Build, State},
    timer::Timer,
    worker,
};

/// How long the coordinator waits from when it granted a lease, or last received a renewal of it,
/// before the job may go elsewhere. The worker has killed the attempt a margin earlier.
pub const LEASE_FENCE: Duration = Duration::from_secs(LEASE_TTL.as_secs() + LEASE_MARGIN.as_secs());

/// How long leases of a build that stops are still renewed: time to end processes that ignore the first
/// signal and to store their log. A worker that takes longer loses the lease.
pub const REVOKE_GRACE: Duration = Duration::from_secs(60);

/// Ends what is over by now: leases, limits of builds, patience.
pub(crate) fn expire(turn: &mut Turn<'_>) {
    while let Some(timer) = turn.state.presence.timers.pop_due(turn.now.time) {
        match timer {
            Timer::Lease(lease) => lose(turn, lease),
            Timer::Gone(name) => {
                settle::abandon(turn, &name);
                worker::drained(turn, &name);
            }
            Timer::Bench(name) => {
                turn.state.presence.bench_over(&name);
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

fn lose(turn: &mut Turn<'_>, lease: LeaseId) {
    let Some(known) = turn.state.ledger.leases.get(&lease) else {
        return;
    };
    let (job, name) = (known.job, known.worker.clone());
    turn.record(Fact::LeaseLost {
        lease,
        job,
        worker: name.clone(),
        at: turn.now.wall,
    });
    worker::drained(turn, &name);
}

/// Puts off the end of those of `leases` that are live and of this worker.
pub(crate) fn renew(
    turn: &mut Turn<'_>,
    session: SessionId,
    sequence: u64,
    mut leases: Vec<LeaseId>,
) {
    let Some(name) = turn.state.presence.name_of(session).cloned() else {
        return;
    };
    leases.retain(|lease| is_live(turn.state, &name, *lease));
    leases.retain(|lease| turn.state.presence.is_renewable(*lease, turn.now));
    for lease in &leases {
        turn.state.presence.renew(&name, *lease, turn.now);
    }
    turn.state.presence.relist(&turn.state.ledger, &name);
    turn.effect(Effect::Renewed {
        session,
        sequence,
        leases,
    });
}

/// Whether a lease is out and `worker`'s.
fn is_live(state: &State, worker: &protocol::name::WorkerName, lease: LeaseId) -> bool {
    let known = state.ledger.leases.get(&lease);
    known.is_some_and(|known| known.worker == *worker)
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
    let Some(name) = turn.state.presence.name_of(session).cloned() else {
        return;
    };
    let Some(known) = turn.state.ledger.leases.get(&lease) else {
        turn.effect(Effect::Acknowledge { session, lease });
        return;
    };
    if known.worker != name {
        return;
    }
    let job = known.job;
    let build = turn.state.ledger.builds.get(&job.build);
    let build = build.expect("builds of live leases are known");
    let at = turn.now.wall;
    let fact = match verdict(build, job, &result) {
        Verdict::Ended(outcome) => Fact::JobEnded {
            lease,
            job,
            worker: name.clone(),
            outcome,
            result,
            at,
        },
        Verdict::Fault(context) => Fact::AttemptFaulted {
            lease,
            job,
            worker: name.clone(),
            context,
            at,
        },
    };
    turn.record(fact);
    worker::drained(turn, &name);
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
    let travels = placement.is_some_and(|at| !at.platform.is_bound());
    let mut jobs = build.submission.graph.jobs.iter();
    travels && result.snapshot.is_none() && jobs.any(|later| later.input == Some(job.index))
}
