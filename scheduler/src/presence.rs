//! Presence: who is there now, and what runs out when. Not journalled: after a start it is made anew.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    build::{BuildId, Outcome},
    lease::LeaseId,
    name::WorkerName,
    time::Time,
    worker::WorkerOffer,
};

use crate::{
    event::{Now, SessionId},
    fact::{Fact, Platform},
    lease::{LEASE_FENCE, REVOKE_GRACE},
    placement::PREFERENCE_WAIT,
    retry,
    state::Ledger,
    timer::{Timer, Timers},
};

/// Who is there, and what runs out when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence {
    sessions: BTreeMap<SessionId, WorkerName>,
    workers: BTreeMap<WorkerName, Connected>,
    /// Workers that can take a job, least loaded first, by platform.
    free: BTreeMap<Platform, BTreeSet<(u32, WorkerName)>>,
    /// How many faults in a row each worker had that had any.
    faults: BTreeMap<WorkerName, u32>,
    /// Until when leases of builds that stop are renewed.
    grace: BTreeMap<LeaseId, Time>,
    pub(crate) timers: Timers,
    /// Builds that something was decided about since they were settled last.
    pub(crate) unsettled: BTreeSet<BuildId>,
}

/// A worker that is there.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub(crate) session: SessionId,
    pub(crate) offer: Box<WorkerOffer>,
    pub(crate) platform: Platform,
    /// The leases that it works on, as far as is known.
    pub(crate) leases: BTreeSet<LeaseId>,
    /// Whether it said that it leaves.
    pub(crate) is_leaving: bool,
    /// The load under which it stands among the free ones; `None`: it does not.
    listed: Option<u32>,
}

impl Presence {
    /// Nobody is there, and every live lease gets a full time to live.
    pub(crate) fn recovered(ledger: &Ledger, now: Now) -> Self {
        let mut presence = Self::default();
        let fence = now.time + LEASE_FENCE;
        for lease in ledger.leases.keys() {
            presence.timers.set(Timer::Lease(*lease), fence);
        }
        for worker in ledger.index.bound.keys().chain(ledger.draining.keys()) {
            presence.timers.set(Timer::Gone(worker.clone()), fence);
        }
        for (id, build) in &ledger.builds {
            if build.ended.is_none() {
                presence.unsettled.insert(*id);
            }
            if build.stop.is_some() {
                presence.limit_renewals(build.running(), now);
            }
        }
        presence
    }

    /// Takes up a worker that has joined; `leases` are those that it may go on with. Gives the session
    /// whose place it takes, if there is one.
    pub(crate) fn join(
        &mut self,
        session: SessionId,
        offer: Box<WorkerOffer>,
        leases: BTreeSet<LeaseId>,
    ) -> Option<SessionId> {
        let name = offer.name.clone();
        let before = self.session_of(&name);
        if let Some(before) = before {
            self.leave(before);
        }
        self.timers.clear(&Timer::Gone(name.clone()));
        self.sessions.insert(session, name.clone());
        let connected = Connected {
            session,
            platform: Platform::of(&offer),
            offer,
            leases,
            is_leaving: false,
            listed: None,
        };
        self.workers.insert(name, connected);
        before
    }

    /// Forgets a session; gives the worker that is gone with it.
    pub(crate) fn leave(&mut self, session: SessionId) -> Option<WorkerName> {
        let name = self.sessions.remove(&session)?;
        self.unlist(&name);
        self.workers.remove(&name);
        Some(name)
    }

    /// Takes up that a worker leaves.
    pub(crate) fn leaving(&mut self, worker: &WorkerName) {
        if let Some(connected) = self.workers.get_mut(worker) {
            connected.is_leaving = true;
        }
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

    /// The platforms on which a worker is free, each with its least loaded worker.
    pub(crate) fn free(&self) -> impl Iterator<Item = (&Platform, &(u32, WorkerName))> {
        let lines = self.free.iter();
        lines.filter_map(|(platform, line)| Some((platform, line.first()?)))
    }

    /// The least loaded free worker of a platform.
    pub(crate) fn free_on(&self, platform: &Platform) -> Option<&WorkerName> {
        let (_, name) = self.free.get(platform)?.first()?;
        Some(name)
    }

    /// Whether a worker is free.
    pub(crate) fn is_free(&self, worker: &WorkerName) -> bool {
        self.get(worker)
            .is_some_and(|connected| connected.listed.is_some())
    }

    /// Puts off the end of a lease that `worker` still works on.
    pub(crate) fn renew(&mut self, worker: &WorkerName, lease: LeaseId, now: Now) {
        self.timers.set(Timer::Lease(lease), now.time + LEASE_FENCE);
        if let Some(connected) = self.workers.get_mut(worker) {
            connected.leases.insert(lease);
        }
    }

    /// Whether a lease may be renewed at `now`.
    pub(crate) fn is_renewable(&self, lease: LeaseId, now: Now) -> bool {
        self.grace.get(&lease).is_none_or(|until| now.time < *until)
    }

    /// Takes up what was decided and is folded into `ledger` already.
    pub(crate) fn follow(&mut self, ledger: &Ledger, fact: &Fact, now: Now) {
        self.unsettled.extend(settles(fact));
        match fact {
            Fact::LeaseGranted {
                lease, job, worker, ..
            } => {
                self.renew(worker, *lease, now);
                if let Some((build, _)) = ledger.job(*job) {
                    let unit = build.node(job.index).unit;
                    self.timers.clear(&Timer::Preference(job.build, unit));
                }
                self.relist(ledger, worker);
            }
            Fact::LeaseLost { lease, worker, .. } | Fact::AttemptFaulted { lease, worker, .. } => {
                self.release(worker, *lease);
                self.bench(worker, now);
                self.relist(ledger, worker);
            }
            Fact::JobEnded {
                lease,
                job,
                worker,
                outcome,
                ..
            } => {
                self.release(worker, *lease);
                if matches!(outcome, Outcome::Succeeded | Outcome::Failed) {
                    self.unbench(worker);
                }
                self.relist(ledger, worker);
                if let Some((build, _)) = ledger.job(*job) {
                    let unit = build.node(job.index).unit;
                    self.prefer(worker, (job.build, unit), now);
                }
            }
            Fact::StopRequested { build, .. } => {
                if let Some(build) = ledger.builds.get(build) {
                    self.limit_renewals(build.running(), now);
                }
            }
            Fact::WorkerDraining { worker, .. } | Fact::WorkerDrained { worker, .. } => {
                self.relist(ledger, worker);
            }
            _ => {}
        }
    }

    /// Brings a worker's place among the free ones up to date.
    pub(crate) fn relist(&mut self, ledger: &Ledger, worker: &WorkerName) {
        self.unlist(worker);
        let is_benched = self.timers.get(&Timer::Bench(worker.clone())).is_some();
        let Some(connected) = self.workers.get_mut(worker) else {
            return;
        };
        let running = u32::try_from(connected.leases.len()).unwrap_or(u32::MAX);
        let capacity = connected.offer.capacity;
        let takes_jobs = !connected.is_leaving && !ledger.draining.contains_key(worker);
        if is_benched || !takes_jobs || capacity <= running {
            return;
        }
        // In thousandths, so that big workers and small ones compare.
        let load = u64::from(running) * 1000 / u64::from(capacity);
        let load = u32::try_from(load).unwrap_or(u32::MAX);
        connected.listed = Some(load);
        let line = self.free.entry(connected.platform.clone()).or_default();
        line.insert((load, worker.clone()));
    }

    fn unlist(&mut self, worker: &WorkerName) {
        let Some(connected) = self.workers.get_mut(worker) else {
            return;
        };
        let Some(load) = connected.listed.take() else {
            return;
        };
        if let Some(line) = self.free.get_mut(&connected.platform) {
            line.remove(&(load, worker.clone()));
            if line.is_empty() {
                self.free.remove(&connected.platform);
            }
        }
    }

    fn release(&mut self, worker: &WorkerName, lease: LeaseId) {
        self.timers.clear(&Timer::Lease(lease));
        self.grace.remove(&lease);
        if let Some(connected) = self.workers.get_mut(worker) {
            connected.leases.remove(&lease);
        }
    }

    fn bench(&mut self, worker: &WorkerName, now: Now) {
        let faults = self.faults.entry(worker.clone()).or_default();
        *faults = faults.saturating_add(1);
        let until = now.time + retry::bench_time(*faults);
        self.timers.set(Timer::Bench(worker.clone()), until);
    }

    fn unbench(&mut self, worker: &WorkerName) {
        self.faults.remove(worker);
        self.timers.clear(&Timer::Bench(worker.clone()));
    }

    /// Forgets the faults of a worker that is not there, when its time aside is over: names that come
    /// once must not add up.
    pub(crate) fn bench_over(&mut self, worker: &WorkerName) {
        if !self.workers.contains_key(worker) {
            self.faults.remove(worker);
        }
    }

    /// Lets a unit wait for the worker that holds its layers.
    fn prefer(&mut self, worker: &WorkerName, (build, unit): (BuildId, u32), now: Now) {
        let travels = |connected: &Connected| !connected.platform.is_bound();
        if self.workers.get(worker).is_some_and(travels) {
            let timer = Timer::Preference(build, unit);
            self.timers.set(timer, now.time + PREFERENCE_WAIT);
        }
    }

    fn limit_renewals(&mut self, leases: impl Iterator<Item = LeaseId>, now: Now) {
        let until = now.time + REVOKE_GRACE;
        self.grace.extend(leases.map(|lease| (lease, until)));
    }
}

/// The build that has to be looked at after `fact`.
fn settles(fact: &Fact) -> Option<BuildId> {
    match fact {
        Fact::BuildSubmitted { submission, .. } => Some(submission.build),
        Fact::LeaseLost { job, .. }
        | Fact::AttemptFaulted { job, .. }
        | Fact::JobEnded { job, .. }
        | Fact::JobSkipped { job, .. }
        | Fact::JobGivenUp { job, .. } => Some(job.build),
        Fact::UnitRestarted { build, .. } | Fact::StopRequested { build, .. } => Some(*build),
        Fact::LeaseGranted { .. }
        | Fact::BuildEnded { .. }
        | Fact::BuildDeleted { .. }
        | Fact::WorkerDraining { .. }
        | Fact::WorkerDrained { .. } => None,
    }
}
