//! Placement: which free worker gets which job.

use std::{cmp::Reverse, time::Duration};

use protocol::{lease::LeaseId, name::WorkerName};

use crate::{
    decide::Turn,
    fact::{Fact, Platform},
    queue::{Requirement, Ticket},
    state::{Build, State},
    timer::Timer,
};

/// How long a phase waits for the worker that holds the layers of the one before it, if others are
/// free. To fetch them takes seconds; to wait longer than that would leave a free worker idle.
pub const PREFERENCE_WAIT: Duration = Duration::from_secs(2);

/// Gives jobs to free workers until there is no pair left.
pub(crate) fn assign(turn: &mut Turn<'_>) {
    while let Some((ticket, worker, platform)) = next(turn.state) {
        let ledger = &turn.state.ledger;
        let (_, job) = ledger.job(ticket.job).expect("queued jobs are known");
        let tries = u32::try_from(job.tries.len()).unwrap_or(u32::MAX);
        turn.record(Fact::LeaseGranted {
            lease: LeaseId(ledger.next_lease),
            job: ticket.job,
            attempt: tries.saturating_add(1),
            worker,
            platform,
            at: turn.now.wall,
        });
    }
}

/// The first job in the queue for which a worker is free, with the worker.
fn next(state: &State) -> Option<(Ticket, WorkerName, Platform)> {
    let mut best: Option<(Ticket, &WorkerName)> = None;
    for (requirement, line) in state.ledger.index.queue.lines() {
        let Some(least) = least_loaded(state, requirement) else {
            continue;
        };
        let in_front = best.map(|(ticket, _)| ticket);
        let line = line
            .iter()
            .take_while(|ticket| in_front.is_none_or(|front| **ticket < front));
        for ticket in line {
            if let Some(worker) = choose(state, ticket, least) {
                best = Some((*ticket, worker));
                break;
            }
        }
    }
    let (ticket, worker) = best?;
    let platform = state.presence.get(worker)?.platform.clone();
    Some((ticket, worker.clone(), platform))
}

/// The least loaded free worker that can run jobs of this line.
fn least_loaded<'a>(state: &'a State, requirement: &'a Requirement) -> Option<&'a WorkerName> {
    let presence = &state.presence;
    match requirement {
        // Those whose phases can travel come first.
        Requirement::Any => presence
            .free()
            .min_by_key(|(platform, (load, name))| (Reverse(platform.isolation), *load, name))
            .map(|(_, (_, name))| name),
        Requirement::Platform(platform) => presence.free_on(platform),
        Requirement::Worker(worker, platform) => {
            let connected = presence.get(worker)?;
            (presence.is_free(worker) && connected.platform == *platform).then_some(worker)
        }
    }
}

/// The worker for a job: the one that holds its layers, if that is free; `None` if the job would rather
/// wait for it a little.
fn choose<'a>(state: &'a State, ticket: &Ticket, least: &'a WorkerName) -> Option<&'a WorkerName> {
    let (build, _) = state.ledger.job(ticket.job)?;
    let unit = build.node(ticket.job.index).unit;
    let Some(at) = &build.units[unit as usize].placement else {
        return Some(least);
    };
    let presence = &state.presence;
    let connected = presence.get(&at.worker);
    let fits = connected.is_some_and(|worker| worker.platform == at.platform);
    if fits && presence.is_free(&at.worker) {
        return Some(&at.worker);
    }
    if waits_for_preferred(state, build, unit) {
        return None;
    }
    Some(least)
}

/// Whether a unit waits for the worker that holds its layers, although others may be free.
pub(crate) fn waits_for_preferred(state: &State, build: &Build, unit: u32) -> bool {
    let Some(at) = &build.units[unit as usize].placement else {
        return false;
    };
    let timer = Timer::Preference(build.submission.build, unit);
    let presence = &state.presence;
    let connected = presence.get(&at.worker);
    let is_only_busy = connected.is_some_and(|worker| {
        let is_benched = presence
            .timers
            .get(&Timer::Bench(at.worker.clone()))
            .is_some();
        let is_draining = state.ledger.draining.contains_key(&at.worker);
        worker.platform == at.platform && !worker.is_leaving && !is_draining && !is_benched
    });
    is_only_busy && presence.timers.get(&timer).is_some()
}
