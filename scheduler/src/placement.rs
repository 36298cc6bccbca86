//! Placement: which free worker gets which job.

use std::time::Duration;

use protocol::{lease::LeaseId, name::WorkerName};

use crate::{
    decide::Turn,
    fact::Fact,
    queue::{Lines, Ticket},
    shares::Share,
    state::{Build, State},
    timer::Timer,
};

/// How long a phase waits for the worker that holds the layers of the one before it, if others are
/// free. To fetch them takes seconds; to wait longer than that would leave a free worker idle.
pub const PREFERENCE_WAIT: Duration = Duration::from_secs(2);

/// How many different selections of a team a worker is looked for: more than a batch over all supported
/// versions of a runtime has. Each takes a look at what the free workers offer. What comes later waits its turn.
const CHOICES_MAX: usize = 64;

/// Gives jobs to free workers until there is no pair left.
pub(crate) fn assign(turn: &mut Turn<'_>) {
    while let Some((ticket, worker)) = next(turn.state) {
        let ledger = &turn.state.ledger;
        let connected = turn.state.presence.get(&worker);
        let connected = connected.expect("free workers are connected");
        let (_, job) = ledger.job(ticket.job).expect("queued jobs are known");
        let tries = u32::try_from(job.tries.len()).unwrap_or(u32::MAX);
        turn.record(Fact::LeaseGranted {
            lease: LeaseId(ledger.next_lease),
            job: ticket.job,
            attempt: tries.saturating_add(1),
            worker,
            platform: connected.platform.clone(),
            incarnation: Some(connected.incarnation),
            binds: Some(connected.platform.is_bound()),
            at: turn.now.wall,
        });
    }
}

/// The job that is next, with its worker: what has begun is ended before something else begins, so that
/// little is half done.
fn next(state: &State) -> Option<(Ticket, WorkerName)> {
    begun(state).or_else(|| fresh(state))
}

/// The next job of a unit that has begun.
fn begun(state: &State) -> Option<(Ticket, WorkerName)> {
    let presence = &state.presence;
    let queue = &state.ledger.index.queue;
    let mut best: Best<'_> = None;
    for (platform, lines) in queue.travelling() {
        if let Some(least) = presence.least_loaded_on(platform) {
            look(state, lines, least, &mut best);
        }
    }
    let (awaited, keepers) = (queue.awaited(), presence.keepers());
    // Whichever are fewer.
    if awaited.len() <= keepers.len() {
        for worker in awaited.keys().filter(|worker| keepers.contains(*worker)) {
            look_bound(state, worker, &mut best);
        }
    } else {
        for worker in keepers {
            look_bound(state, worker, &mut best);
        }
    }
    best.map(|(_, ticket, worker)| (ticket, worker.clone()))
}

/// The best job found so far: its team's share, its place in the line, and the worker for it.
type Best<'a> = Option<(Share, Ticket, &'a WorkerName)>;

fn look_bound<'a>(state: &'a State, worker: &'a WorkerName, best: &mut Best<'a>) {
    let of = state.ledger.index.queue.awaited().get(worker);
    let connected = state.presence.get(worker);
    let lines = of.and_then(|of| of.get(&connected?.platform));
    for (team, line) in lines.into_iter().flatten() {
        let share = state.presence.shares.of(team);
        if let Some(ticket) = line.first()
            && is_before(share, *ticket, best)
        {
            *best = Some((share, *ticket, worker));
        }
    }
}

fn look<'a>(state: &'a State, lines: &Lines, least: &'a WorkerName, best: &mut Best<'a>) {
    for (team, line) in lines {
        let share = state.presence.shares.of(team);
        for ticket in line {
            if !is_before(share, *ticket, best) {
                break;
            }
            if let Some(worker) = choose(state, ticket, least) {
                *best = Some((share, *ticket, worker));
                break;
            }
        }
    }
}

fn is_before(share: Share, ticket: Ticket, best: &Best<'_>) -> bool {
    best.is_none_or(|(least, first, _)| (share, ticket) < (least, first))
}

/// The next unit that begins. Workers whose phases can travel come first, the least loaded of them, and of
/// those one that has run the project lately; those whose cannot serve their own team only, because what a unit
/// leaves there others can see.
fn fresh(state: &State) -> Option<(Ticket, WorkerName)> {
    let (presence, queue) = (&state.presence, &state.ledger.index.queue);
    if !queue.wanting().is_empty() {
        return fresh_where_offered(state);
    }
    let (team, worker) = match presence.least_loaded() {
        Some(worker) => (presence.shares.first()?, worker),
        None => {
            let hosts = presence.hosts();
            let wanted = hosts.filter(|(team, _)| queue.fresh(team).is_some());
            wanted.min_by_key(|(team, _)| (presence.shares.of(team), *team))?
        }
    };
    let ticket = queue.fresh(team)?.first()?;
    let project = &state
        .ledger
        .builds
        .get(&ticket.job.build)?
        .submission
        .project;
    let acquainted = presence.acquainted(team, project, worker);
    Some((*ticket, acquainted.unwrap_or(worker).clone()))
}

/// As [`fresh`], where units wait that select among workers: each goes to one that serves all of it, and lets
/// others pass while none of these is free.
fn fresh_where_offered(state: &State) -> Option<(Ticket, WorkerName)> {
    let (presence, queue) = (&state.presence, &state.ledger.index.queue);
    let mut best: Best<'_> = None;
    for team in queue.fresh_teams() {
        if presence.free_for(team).next().is_none() {
            continue;
        }
        let share = presence.shares.of(team);
        let plain = queue.fresh(team).and_then(|line| line.first());
        let wanting = queue.wanting().get(team).into_iter().flatten();
        let wanting = wanting.filter_map(|(wanted, line)| Some((line.first()?, Some(wanted))));
        let mut heads: Vec<_> = wanting.collect();
        heads.sort_unstable_by_key(|(ticket, _)| **ticket);
        heads.truncate(CHOICES_MAX);
        // However many want what nobody has that is free, what wants nothing is looked at.
        heads.extend(plain.map(|first| (first, None)));
        heads.sort_unstable_by_key(|(ticket, _)| **ticket);
        for (ticket, wanted) in heads {
            if !is_before(share, *ticket, &best) {
                break;
            }
            let fits = |name: &&WorkerName| {
                let offer = presence.get(name).map(|worker| &worker.offer);
                wanted.is_none_or(|wanted| {
                    offer.is_some_and(|offer| wanted.is_served(&offer.runtimes, &offer.labels))
                })
            };
            if let Some(worker) = presence.free_for(team).find(fits) {
                best = Some((share, *ticket, worker));
                break;
            }
        }
    }
    best.map(|(_, ticket, worker)| (ticket, worker.clone()))
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
        let is_benched = presence.is_benched(&at.worker);
        let is_draining = state.ledger.draining.contains_key(&at.worker);
        worker.platform == at.platform && !worker.is_leaving && !is_draining && !is_benched
    });
    is_only_busy && presence.timers.get(&timer).is_some()
}
