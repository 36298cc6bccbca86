//! Workers: how they come, drain and go.

use std::collections::BTreeSet;

use protocol::{lease::LeaseId, message::work::HeldLease, name::WorkerName, worker::Incarnation};

use crate::{
    decide::Turn,
    effect::{Effect, revoke_reason},
    event::{Ignored, SessionId},
    fact::{Fact, ReturnCause},
    lease::{self, LEASE_FENCE},
    presence::Connected,
    state::State,
    timer::Timer,
};

/// Takes up a worker; one of the same name that was there before is sent away.
pub(crate) fn join(
    turn: &mut Turn<'_>,
    connected: Connected,
    holds: &[HeldLease],
    ended: Option<Incarnation>,
) {
    let session = connected.session;
    if turn.state.presence.name_of(session).is_some() {
        turn.ignore(Ignored::Duplicate);
        return;
    }
    let name = connected.offer.name.clone();
    let later = turn.state.presence.get(&name).is_some_and(|known| {
        known.incarnation == connected.incarnation && connected.connection < known.connection
    });
    if later {
        turn.ignore(Ignored::OutOfOrder);
        turn.effect(Effect::Close { session });
        return;
    }
    let held = holds.iter().filter(|held| is_held(turn.state, &name, held));
    let held: BTreeSet<LeaseId> = held.map(|held| held.lease).collect();
    if held.len() < holds.len() {
        turn.ignore(Ignored::Late);
    }
    let now = turn.now;
    replaced(turn, &name, &connected);
    let is_leaving = connected.is_leaving || turn.state.ledger.draining.contains_key(&name);
    let before = turn.state.presence.join(connected, now);
    if is_leaving {
        turn.state.presence.departing.insert(name.clone());
    }
    let is_renewable = |lease: &LeaseId| turn.state.presence.is_renewable(*lease, now);
    let kept: Vec<LeaseId> = held.iter().copied().filter(is_renewable).collect();
    for lease in &kept {
        turn.state.presence.renew(*lease, now);
    }
    if let Some(before) = before {
        turn.effect(Effect::Close { session: before });
    }
    turn.effect(Effect::Joined {
        session,
        leases: kept.clone(),
    });
    take_back(turn, &name, &held);
    lose_ended(turn, &name, ended);
    turn.state.presence.relist(&turn.state.ledger, &name);
    unsettle_bound(turn, &name);
    for lease in kept {
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

/// Takes back what this process of the worker was given and does not name: its assignment never came to
/// it. What another process of that name was given may still run somewhere, and waits for its fence; what
/// was given over a later connection came after this was said.
fn take_back(turn: &mut Turn<'_>, worker: &WorkerName, held: &BTreeSet<LeaseId>) {
    let state = &turn.state;
    let Some(connected) = state.presence.get(worker) else {
        return;
    };
    let out = state.ledger.index.leases.get(worker);
    let unknown = out.into_iter().flatten().filter(|lease| {
        let known = state.ledger.leases.get(lease);
        let is_of_it = known.is_some_and(|known| known.incarnation == Some(connected.incarnation));
        let was_before = state
            .presence
            .is_given_before(**lease, connected.connection);
        is_of_it && was_before && !held.contains(lease)
    });
    let unknown: Vec<LeaseId> = unknown.copied().collect();
    for lease in unknown {
        lease::give_back(turn, lease, ReturnCause::NotBegun);
    }
}

/// Loses at once what the process before was given, of which nothing runs any more: it need not wait for
/// its fence. What came before that process waits.
fn lose_ended(turn: &mut Turn<'_>, worker: &WorkerName, ended: Option<Incarnation>) {
    let state = &turn.state;
    let connected = state.presence.get(worker);
    let own = connected.map(|connected| connected.incarnation);
    // Of itself a process says what runs by name.
    let Some(ended) = ended.filter(|ended| Some(*ended) != own) else {
        return;
    };
    let out = state.ledger.index.leases.get(worker).into_iter().flatten();
    let of_it = out.filter(|lease| {
        let known = state.ledger.leases.get(lease);
        known.is_some_and(|known| known.incarnation == Some(ended))
    });
    for lease in of_it.copied().collect::<Vec<_>>() {
        lease::lose(turn, lease);
    }
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
    let Some(name) = turn.state.presence.leave(session, turn.now) else {
        return;
    };
    if turn.state.ledger.index.bound.contains_key(&name) {
        let end = turn.now.time + LEASE_FENCE;
        turn.state
            .presence
            .timers
            .set(Timer::Gone(name.clone()), end);
    }
}

/// A worker leaves by its own wish.
pub(crate) fn leaving(turn: &mut Turn<'_>, session: SessionId) {
    let Some(name) = turn.sender(session) else {
        return;
    };
    turn.state.presence.leaving(&name);
    turn.state.presence.relist(&turn.state.ledger, &name);
}

/// Takes back what a worker has killed; if it leaves, also the units whose state it has.
pub(crate) fn hand_over(turn: &mut Turn<'_>, session: SessionId, leases: Vec<LeaseId>) {
    let Some(name) = turn.sender(session) else {
        return;
    };
    let is_leaving = turn.state.presence.get(&name);
    let is_leaving = is_leaving.is_some_and(|connected| connected.is_leaving);
    for lease in leases {
        match lease::check(turn.state, &name, lease) {
            Ok(_) if is_leaving => lease::give_back(turn, lease, ReturnCause::HandedOver),
            Ok(_) => lease::lose(turn, lease),
            Err(ignored) => {
                turn.ignore(ignored);
                if !turn.state.ledger.leases.contains_key(&lease) {
                    turn.effect(Effect::Acknowledge { session, lease });
                }
            }
        }
    }
    if is_leaving {
        turn.state.presence.handed_over(&name);
        turn.state.presence.relist(&turn.state.ledger, &name);
        unsettle_bound(turn, &name);
    }
}

/// A worker is to leave.
pub(crate) fn drain(turn: &mut Turn<'_>, worker: WorkerName) {
    let is_draining = turn.state.ledger.draining.contains_key(&worker);
    if is_draining || !crate::query::knows_worker(turn.state, &worker) {
        return;
    }
    let incarnation = process_of(turn.state, &worker);
    turn.state.presence.await_return(&worker, turn.now);
    turn.record(Fact::WorkerDraining {
        worker,
        incarnation,
        at: turn.now.wall,
    });
}

/// Tells workers that leave that they may, once nothing of theirs is left to do.
pub(crate) fn dismiss(turn: &mut Turn<'_>) {
    let index = &turn.state.ledger.index;
    let departing = turn.state.presence.departing.iter();
    let is_done = |worker: &&WorkerName| {
        !index.leases.contains_key(*worker) && !index.bound.contains_key(*worker)
    };
    let done: Vec<WorkerName> = departing.filter(is_done).cloned().collect();
    for worker in done {
        turn.state.presence.departing.remove(&worker);
        if let Some(session) = turn.state.presence.session_of(&worker) {
            turn.effect(Effect::Dismiss { session });
        }
    }
}

/// The process of a worker that is there, or was; of one that is not known since a start, the one that has
/// a lease.
fn process_of(state: &State, worker: &WorkerName) -> Option<Incarnation> {
    let leases = state.ledger.index.leases.get(worker).into_iter().flatten();
    let mut processes = leases.filter_map(|lease| state.ledger.leases.get(lease)?.incarnation);
    let presence = &state.presence;
    presence.process_of(worker).or_else(|| processes.next())
}

/// Forgets that a worker drains if another process has come in its place: that one was started anew, and is
/// to work. Whether the one that was told to leave has heard of it nobody knows before.
fn replaced(turn: &mut Turn<'_>, worker: &WorkerName, comes: &Connected) {
    let ledger = &turn.state.ledger;
    let is_another = match ledger.draining_processes.get(worker) {
        Some(drains) => *drains != comes.incarnation,
        // Which one was to leave is not known, but it had been here.
        None => comes.connection <= 1,
    };
    if is_another && ledger.draining.contains_key(worker) {
        drained(turn, worker);
    }
}

/// A worker was away for so long that it does not come back: if it was to leave, it has.
pub(crate) fn stays_away(turn: &mut Turn<'_>, worker: &WorkerName) {
    turn.state.presence.forget(worker);
    if turn.state.ledger.draining.contains_key(worker) {
        drained(turn, worker);
    }
}

fn drained(turn: &mut Turn<'_>, worker: &WorkerName) {
    turn.record(Fact::WorkerDrained {
        worker: worker.clone(),
        at: turn.now.wall,
    });
}

/// Has the builds looked at that have units bound to `worker`.
fn unsettle_bound(turn: &mut Turn<'_>, worker: &WorkerName) {
    let bound = turn.state.ledger.index.bound.get(worker);
    let builds = bound.into_iter().flatten().map(|(build, _)| *build);
    turn.state.presence.unsettled.extend(builds);
}
