//! Presence: who is there now, and what runs out when. Not journalled: after a start it is made anew.

mod acquainted;
mod connected;
mod follow;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    build::BuildId,
    environment::Labels,
    lease::{LEASE_TTL, LeaseId},
    name::{ProjectName, Team, WorkerName},
    runtime::Offered,
    time::Time,
    worker::Incarnation,
};

pub(crate) use self::connected::Connected;
use self::{acquainted::Acquainted, connected::Away};
use crate::{
    conduct::Conduct,
    event::{Ignored, Now, SessionId},
    fact::Platform,
    lease::{BEGIN_LIMIT, LEASE_FENCE},
    retry::{BENCH_FIRST, BENCH_MAX},
    shares::{Shares, TeamWeights},
    state::Ledger,
    timer::{Timer, Timers},
};

/// How many results are remembered for each worker, to tell one that comes twice from one that comes too
/// late: more than a worker has on its way.
const TAKEN_MAX: usize = 64;

/// How long a worker that is away is known, and that it drains: longer than a network or a machine is away
/// by accident.
const AWAY_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How many workers that are away are known: more than a farm loses in a day.
const AWAY_WORKERS_MAX: usize = 10_000;

/// Free workers, least loaded first.
type Free = BTreeSet<(u32, WorkerName)>;

/// Who is there, and what runs out when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence {
    sessions: BTreeMap<SessionId, WorkerName>,
    workers: BTreeMap<WorkerName, Connected>,
    /// Workers that can take a unit of any team.
    open: Free,
    /// The same, by platform.
    open_on: BTreeMap<Platform, Free>,
    /// Workers that can take a unit of their own team only: what units leave there others can see.
    hosts: BTreeMap<Team, Free>,
    /// Workers that keep units and can go on with one, whether or not they leave.
    keepers: BTreeSet<WorkerName>,
    /// Workers that leave and were not told yet that they may.
    pub(crate) departing: BTreeSet<WorkerName>,
    /// Which processes of workers were here and are away: those whose [`Timer::Away`] is set, as far as they
    /// came since the start.
    away: BTreeMap<WorkerName, Away>,
    conduct: Conduct,
    acquainted: Acquainted,
    /// Workers that are put aside: those whose [`Timer::Bench`] is set.
    aside: BTreeSet<WorkerName>,
    /// Over which connection of its worker's process each lease was given, as far as it is known.
    given_over: BTreeMap<LeaseId, u64>,
    /// Until when leases are renewed of builds that stop.
    grace: BTreeMap<LeaseId, Time>,
    /// Leases of attempts of which nothing was heard in time.
    unheard: BTreeSet<LeaseId>,
    pub(crate) shares: Shares,
    pub(crate) timers: Timers,
    /// Builds that something was decided about since they were settled last.
    pub(crate) unsettled: BTreeSet<BuildId>,
}

impl Presence {
    /// Nobody is there.
    pub(crate) fn new(weights: TeamWeights) -> Self {
        Self {
            shares: Shares::new(weights),
            ..Self::default()
        }
    }

    /// Nobody is there, and every live lease gets a full time to live.
    pub(crate) fn recovered(ledger: &Ledger, weights: TeamWeights, now: Now) -> Self {
        let mut presence = Self::new(weights);
        let fence = now.time + LEASE_FENCE;
        for (lease, known) in &ledger.leases {
            presence.timers.set(Timer::Lease(*lease), fence);
            let begin = now.time + BEGIN_LIMIT;
            presence.timers.set(Timer::Begin(*lease), begin);
            if let Some(build) = ledger.builds.get(&known.job.build) {
                let team = &build.submission.team;
                presence.shares.granted(*lease, team, now.time);
            }
        }
        for worker in ledger.index.bound.keys() {
            presence.timers.set(Timer::Gone(worker.clone()), fence);
        }
        for worker in ledger.draining.keys() {
            presence.await_return(worker, now);
        }
        for (id, build) in &ledger.builds {
            if build.ended.is_none() {
                presence.unsettled.insert(*id);
            }
            if build.stop.is_some() {
                presence.limit_renewals(build.running(), now);
            }
        }
        for team in ledger.index.queue.fresh_teams() {
            presence.shares.wait(team, true);
        }
        presence
    }

    /// Takes up a worker that has joined. Gives the session whose place it takes, if there is one.
    pub(crate) fn join(&mut self, connected: Connected, now: Now) -> Option<SessionId> {
        let name = connected.offer.name.clone();
        let before = self.session_of(&name);
        if let Some(before) = before {
            self.leave(before, now);
        }
        self.timers.clear(&Timer::Gone(name.clone()));
        self.timers.clear(&Timer::Pardon(name.clone()));
        self.timers.clear(&Timer::Away(name.clone()));
        self.away.remove(&name);
        self.sessions.insert(connected.session, name.clone());
        self.workers.insert(name, connected);
        before
    }

    /// Forgets a session; gives the worker that is gone with it.
    pub(crate) fn leave(&mut self, session: SessionId, now: Now) -> Option<WorkerName> {
        let name = self.sessions.remove(&session)?;
        self.unlist(&name);
        self.departing.remove(&name);
        let connected = self.workers.remove(&name)?;
        if self.away.len() < AWAY_WORKERS_MAX {
            let away = Away {
                incarnation: connected.incarnation,
                runtimes: connected.offer.runtimes.clone(),
                labels: connected.offer.labels.clone(),
            };
            self.away.insert(name.clone(), away);
        }
        self.await_return(&name, now);
        let has_stayed = LEASE_TTL <= now.time.since(connected.since);
        if has_stayed || !connected.taken.is_empty() || connected.is_leaving {
            self.conduct.stayed(&name);
        } else if let Some(until) = self.conduct.vanished(&name, now.time) {
            self.bench(&name, until);
        }
        if !self.is_benched(&name) {
            self.remember(&name, now);
        }
        Some(name)
    }

    /// Takes up that a worker leaves.
    pub(crate) fn leaving(&mut self, worker: &WorkerName) {
        if let Some(connected) = self.workers.get_mut(worker) {
            connected.is_leaving = true;
            self.departing.insert(worker.clone());
        }
    }

    /// Takes up that a worker that leaves has given up what it keeps of units.
    pub(crate) fn handed_over(&mut self, worker: &WorkerName) {
        if let Some(connected) = self.workers.get_mut(worker) {
            connected.has_handed_over = true;
        }
    }

    /// Counts a renewal; why it is not to be looked at, if so.
    pub(crate) fn count(&mut self, worker: &WorkerName, sequence: u64) -> Result<(), Ignored> {
        let Some(connected) = self.workers.get_mut(worker) else {
            return Err(Ignored::Late);
        };
        match connected.sequence {
            Some(last) if sequence == last => Err(Ignored::Duplicate),
            Some(last) if sequence < last => Err(Ignored::OutOfOrder),
            _ => {
                connected.sequence = Some(sequence);
                Ok(())
            }
        }
    }

    /// Whether a result of a worker was taken before.
    pub(crate) fn has_taken(&self, worker: &WorkerName, lease: LeaseId) -> bool {
        let connected = self.workers.get(worker);
        connected.is_some_and(|connected| connected.taken.contains(&lease))
    }

    /// The worker behind a session.
    pub(crate) fn name_of(&self, session: SessionId) -> Option<&WorkerName> {
        self.sessions.get(&session)
    }

    /// The session of a worker, if it is connected.
    pub(crate) fn session_of(&self, worker: &WorkerName) -> Option<SessionId> {
        self.workers.get(worker).map(|connected| connected.session)
    }

    /// A worker that is connected.
    pub(crate) fn get(&self, worker: &WorkerName) -> Option<&Connected> {
        self.workers.get(worker)
    }

    /// The workers that are connected, by name.
    pub(crate) fn workers(&self) -> impl Iterator<Item = (&WorkerName, &Connected)> {
        self.workers.iter()
    }

    /// The least loaded worker that can take a unit of any team.
    pub(crate) fn least_loaded(&self) -> Option<&WorkerName> {
        self.open.first().map(|(_, name)| name)
    }

    /// A worker that can take a unit of any team, has run phases of this project lately, and has no more load
    /// than `least`: it has less to fetch, and nobody waits for that.
    pub(crate) fn acquainted(
        &self,
        team: &Team,
        project: &ProjectName,
        least: &WorkerName,
    ) -> Option<&WorkerName> {
        let load = self.get(least)?.listed?;
        let mut known = self.acquainted.workers(team, project);
        known.find(|name| self.open.contains(&(load, (*name).clone())))
    }

    /// The least loaded of those that have this platform.
    pub(crate) fn least_loaded_on(&self, platform: &Platform) -> Option<&WorkerName> {
        let (_, name) = self.open_on.get(platform)?.first()?;
        Some(name)
    }

    /// The teams that have workers of their own that can take a unit, with the least loaded of each.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (&Team, &WorkerName)> {
        let hosts = self.hosts.iter();
        hosts.filter_map(|(team, free)| Some((team, &free.first()?.1)))
    }

    /// The workers that can take a unit of `team`, those that serve all teams first, and of these the least
    /// loaded.
    pub(crate) fn free_for(&self, team: &Team) -> impl Iterator<Item = &WorkerName> {
        let own = self.hosts.get(team).into_iter().flatten();
        self.open.iter().chain(own).map(|(_, name)| name)
    }

    /// The runtimes that workers offer, those included that are away and may come back.
    pub(crate) fn offered(&self) -> impl Iterator<Item = &Offered> + Clone {
        let here = self.workers.values().map(|worker| &worker.offer.runtimes);
        here.chain(self.away.values().map(|away| &away.runtimes))
    }

    /// What is said of workers, those included that are away and may come back.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &Labels> + Clone {
        let here = self.workers.values().map(|worker| &worker.offer.labels);
        here.chain(self.away.values().map(|away| &away.labels))
    }

    /// The workers that keep units and can go on with one.
    pub(crate) fn keepers(&self) -> &BTreeSet<WorkerName> {
        &self.keepers
    }

    /// Whether a worker can take a unit that another has begun, or that nobody has.
    pub(crate) fn is_free(&self, worker: &WorkerName) -> bool {
        self.get(worker)
            .is_some_and(|connected| connected.listed.is_some())
    }

    /// Whether a worker is put aside.
    pub(crate) fn is_benched(&self, worker: &WorkerName) -> bool {
        self.aside.contains(worker)
    }

    /// Whether a lease was given before a worker's connection `connection` was made: one that was given
    /// before the coordinator started was.
    pub(crate) fn is_given_before(&self, lease: LeaseId, connection: u64) -> bool {
        let over = self.given_over.get(&lease);
        over.is_none_or(|over| *over < connection)
    }

    /// Puts off the end of a lease.
    pub(crate) fn renew(&mut self, lease: LeaseId, now: Now) {
        self.timers.set(Timer::Lease(lease), now.time + LEASE_FENCE);
    }

    /// Of an attempt nothing was heard in time: its lease is not renewed, unless something is heard yet.
    pub(crate) fn unheard(&mut self, lease: LeaseId) {
        self.unheard.insert(lease);
    }

    /// Something was heard of an attempt.
    pub(crate) fn heard(&mut self, lease: LeaseId) {
        self.timers.clear(&Timer::Begin(lease));
        self.unheard.remove(&lease);
    }

    /// Whether a lease may be renewed at `now`.
    pub(crate) fn is_renewable(&self, lease: LeaseId, now: Now) -> bool {
        let is_graced = self.grace.get(&lease).is_none_or(|until| now.time < *until);
        is_graced && !self.unheard.contains(&lease)
    }

    /// The process of a worker that is there, or that went lately.
    pub(crate) fn process_of(&self, worker: &WorkerName) -> Option<Incarnation> {
        let connected = self.get(worker).map(|connected| connected.incarnation);
        connected.or_else(|| Some(self.away.get(worker)?.incarnation))
    }

    /// From `now` on, if it is not there, a worker is waited for.
    pub(crate) fn await_return(&mut self, worker: &WorkerName, now: Now) {
        let away = Timer::Away(worker.clone());
        if !self.workers.contains_key(worker) && self.timers.get(&away).is_none() {
            self.timers.set(away, now.time + AWAY_MAX);
        }
    }

    /// Forgets a worker that was away for [`AWAY_MAX`].
    pub(crate) fn forget(&mut self, worker: &WorkerName) {
        self.away.remove(worker);
    }

    /// Brings a worker's place among the free ones up to date. It has as many jobs as leases are out to
    /// its name, whatever it says.
    pub(crate) fn relist(&mut self, ledger: &Ledger, worker: &WorkerName) {
        self.unlist(worker);
        let is_benched = self.is_benched(worker);
        let Some(connected) = self.workers.get_mut(worker) else {
            return;
        };
        let leases = ledger.index.leases.get(worker).map_or(0, BTreeSet::len);
        let running = u32::try_from(leases).unwrap_or(u32::MAX);
        let capacity = connected.offer.capacity;
        if is_benched || capacity <= running || connected.has_handed_over {
            return;
        }
        let is_host = connected.platform.is_bound();
        if is_host {
            self.keepers.insert(worker.clone());
        }
        if connected.is_leaving || ledger.draining.contains_key(worker) {
            return;
        }
        // In thousandths, so that big workers and small ones compare.
        let load = u64::from(running) * 1000 / u64::from(capacity);
        let load = u32::try_from(load).unwrap_or(u32::MAX);
        connected.listed = Some(load);
        let place = (load, worker.clone());
        if is_host {
            let of = self.hosts.entry(connected.team.clone()).or_default();
            of.insert(place);
        } else {
            if let Some(on) = self.open_on.get_mut(&connected.platform) {
                on.insert(place.clone());
            } else {
                let on = Free::from([place.clone()]);
                self.open_on.insert(connected.platform.clone(), on);
            }
            self.open.insert(place);
        }
    }

    fn unlist(&mut self, worker: &WorkerName) {
        self.keepers.remove(worker);
        let Some(connected) = self.workers.get_mut(worker) else {
            return;
        };
        let Some(load) = connected.listed.take() else {
            return;
        };
        let place = (load, worker.clone());
        if connected.platform.is_bound() {
            remove(&mut self.hosts, &connected.team, &place);
        } else {
            remove(&mut self.open_on, &connected.platform, &place);
            self.open.remove(&place);
        }
    }

    fn release(&mut self, worker: &WorkerName, lease: LeaseId, now: Now) {
        self.timers.clear(&Timer::Lease(lease));
        self.timers.clear(&Timer::Begin(lease));
        self.grace.remove(&lease);
        self.unheard.remove(&lease);
        self.given_over.remove(&lease);
        self.shares.released(lease, now.time);
        if !self.workers.contains_key(worker) && !self.is_benched(worker) {
            self.remember(worker, now);
        }
    }

    /// Puts a worker aside that has faulted. Of one that is aside it is known already, since a worker of many
    /// slots that dies has not faulted once for each; but whoever faults gets nothing for [`BENCH_FIRST`], so
    /// that another one can take the job.
    fn bench_for_fault(&mut self, worker: &WorkerName, now: Now) {
        let least = now.time + BENCH_FIRST;
        let until = match self.timers.get(&Timer::Bench(worker.clone())) {
            Some(until) => until.max(least),
            None => self.conduct.faulted(worker, now.time),
        };
        self.bench(worker, until);
    }

    /// Puts a worker aside.
    fn bench(&mut self, worker: &WorkerName, until: Time) {
        self.timers.clear(&Timer::Pardon(worker.clone()));
        self.timers.set(Timer::Bench(worker.clone()), until);
        self.aside.insert(worker.clone());
    }

    /// Wipes out what is held against a worker.
    fn unbench(&mut self, worker: &WorkerName) {
        self.conduct.forget(worker);
        if self.aside.remove(worker) {
            self.timers.clear(&Timer::Bench(worker.clone()));
        }
    }

    /// A worker's time aside is over.
    pub(crate) fn bench_over(&mut self, worker: &WorkerName, now: Now) {
        self.aside.remove(worker);
        if !self.workers.contains_key(worker) {
            self.remember(worker, now);
        }
    }

    /// Keeps for a while what is held against a worker that is not there: names that come once must not
    /// add up.
    fn remember(&mut self, worker: &WorkerName, now: Now) {
        if self.conduct.knows(worker) {
            let pardon = Timer::Pardon(worker.clone());
            self.timers.set(pardon, now.time + BENCH_MAX);
        }
    }

    /// Forgets what is held against a worker that has not come back.
    pub(crate) fn pardon(&mut self, worker: &WorkerName) {
        if !self.workers.contains_key(worker) {
            self.conduct.forget(worker);
        }
    }
}

fn remove<K: Ord>(lines: &mut BTreeMap<K, Free>, key: &K, place: &(u32, WorkerName)) {
    if let Some(line) = lines.get_mut(key) {
        line.remove(place);
        if line.is_empty() {
            lines.remove(key);
        }
    }
}
