//! Workers: how they come, drain and go.

use std::collections::BTreeSet;

use protocol::{lease::LeaseId, message::work::HeldLease, name::WorkerName, worker::WorkerOffer};

use crate::{
    decide::Turn,
    effect::{Effect, revoke_reason},
    event::SessionId,
    fact::Fact,
    lease::LEASE_FENCE,
    state::State,
    timer::Timer,
};

/// Takes up a worker; one of the same name that was there before is sent away.
pub(crate) fn join(
    turn: &mut Turn<'_>,
    session: SessionId,
    offer: Box<WorkerOffer>,
    holds: &[HeldLease],
) {
    if turn.state.presence.name_of(session).is_some() {
        return;
    }
    let name = offer.name.clone();
    let held = holds.iter().filter(|held| is_held(turn.state, &name, held));
    let leases: BTreeSet<LeaseId> = held.map(|held| held.lease).collect();
    let presence = &mut turn.state.presence;
    let before = presence.join(session, offer, leases.clone());
    for lease in &leases {
        if presence.is_renewable(*lease, turn.now) {
            presence.renew(&name, *lease, turn.now);
        }
    }
    presence.relist(&turn.state.ledger, &name);
    unsettle_bound(turn, &name);
    if let Some(before) = before {
        turn.effect(Effect::Close { session: before });
    }
    turn.effect(Effect::Joined {
        session,
        leases: leases.iter().copied().collect(),
    });
    for lease in leases {
        revoke_again(turn, session, lease);
    }
    if turn.state.ledger.draining.contains_key(&name) {
        turn.effect(Effect::Drain { session });
    }
}

/// Whether a lease that a worker says it holds is its own, and still out.
fn is_held(state: &State, worker: &WorkerName, held: &HeldLease) -> bool {
    let known = state.ledger.leases.get(&held.lease);
    known.is_some_and(|known| {
        known.worker == *worker && known.job == held.job && known.attempt == held.attempt
    })
}

/// Says again that a build stops: the worker may have been away when it was said first.
fn revoke_again(turn: &mut Turn<'_>, session: SessionId, lease: LeaseId) {
    let ledger = &turn.state.ledger;
    let build = ledger.leases.get(&lease).map(|known| known.job.build);
    let stop = build.and_then(|build| ledger.builds.get(&build)?.stop);
    if let Some(cause) = stop {
        turn.effect(Effect::Revoke {
            session,
            lease,
            reason: revoke_reason(cause),
        });
    }
}

/// A connection is gone: its worker has until its leases end to come back.
pub(crate) fn leave(turn: &mut Turn<'_>, session: SessionId) {
    let Some(name) = turn.state.presence.leave(session) else {
        return;
    };
    if turn.state.ledger.index.bound.contains_key(&name) {
        let end = turn.now.time + LEASE_FENCE;
        turn.state
            .presence
            .timers
            .set(Timer::Gone(name.clone()), end);
    }
    drained(turn, &name);
}

/// A worker leaves by its own wish.
pub(crate) fn leaving(turn: &mut Turn<'_>, session: SessionId) {
    let Some(name) = turn.state.presence.name_of(session).cloned() else {
        return;
    };
    turn.state.presence.leaving(&name);
    turn.state.presence.relist(&turn.state.ledger, &name);
    unsettle_bound(turn, &name);
}

/// A worker is to leave.
pub(crate) fn drain(turn: &mut Turn<'_>, worker: WorkerName) {
    let is_draining = turn.state.ledger.draining.contains_key(&worker);
    if is_draining || !crate::query::knows_worker(turn.state, &worker) {
        return;
    }
    turn.record(Fact::WorkerDraining {
        worker: worker.clone(),
        at: turn.now.wall,
    });
    unsettle_bound(turn, &worker);
    drained(turn, &worker);
}

/// Forgets that a worker drains once it has left with nothing on its hands: one of its name that comes
/// later was started anew, and is to work.
pub(crate) fn drained(turn: &mut Turn<'_>, worker: &WorkerName) {
    let ledger = &turn.state.ledger;
    let is_gone = turn.state.presence.get(worker).is_none();
    let has_leases = ledger.index.leases.contains_key(worker);
    if ledger.draining.contains_key(worker) && is_gone && !has_leases {
        turn.record(Fact::WorkerDrained {
            worker: worker.clone(),
            at: turn.now.wall,
        });
    }
}

/// Has the builds looked at that have units bound to `worker`.
fn unsettle_bound(turn: &mut Turn<'_>, worker: &WorkerName) {
    let bound = turn.state.ledger.index.bound.get(worker);
    let builds = bound.into_iter().flatten().map(|(build, _)| *build);
    turn.state.presence.unsettled.extend(builds);
}
