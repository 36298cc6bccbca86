//! How presence follows what was decided.

use protocol::{
    build::{BuildId, Outcome},
    lease::LeaseId,
    name::WorkerName,
};

use super::{Connected, Presence, TAKEN_MAX};
use crate::{
    event::{Now, Submission},
    fact::{Fact, ReturnCause},
    lease::{BEGIN_LIMIT, REVOKE_GRACE},
    placement::PREFERENCE_WAIT,
    state::Ledger,
    timer::Timer,
};

impl Presence {
    /// Takes up what was decided and is folded into `ledger` already.
    pub(crate) fn follow(&mut self, ledger: &Ledger, fact: &Fact, now: Now) {
        self.unsettled.extend(settles(fact));
        match fact {
            Fact::LeaseGranted { .. }
            | Fact::LeaseLost { .. }
            | Fact::LeaseReturned { .. }
            | Fact::AttemptFaulted { .. }
            | Fact::JobEnded { .. }
            | Fact::SourcesFetched { .. } => self.follow_lease(ledger, fact, now),
            Fact::StopRequested { build, .. } => {
                if let Some(build) = ledger.builds.get(build) {
                    self.limit_renewals(build.running(), now);
                }
            }
            Fact::WorkerDraining { worker, .. } => {
                if self.workers.contains_key(worker) {
                    self.departing.insert(worker.clone());
                }
                self.relist(ledger, worker);
            }
            Fact::WorkerDrained { worker, .. } => self.relist(ledger, worker),
            _ => {}
        }
        let build = build_of(fact).and_then(|build| ledger.builds.get(&build));
        if let Some(build) = build {
            let team = &build.submission.team;
            let waits = ledger.index.queue.has_fresh(team);
            self.shares.wait(team, waits);
        }
    }

    fn follow_lease(&mut self, ledger: &Ledger, fact: &Fact, now: Now) {
        match fact {
            Fact::LeaseGranted {
                lease, job, worker, ..
            } => {
                self.renew(*lease, now);
                let begin = now.time + BEGIN_LIMIT;
                self.timers.set(Timer::Begin(*lease), begin);
                let over = self.get(worker).map(|connected| connected.connection);
                self.given_over.extend(over.map(|over| (*lease, over)));
                if let Some((build, _)) = ledger.job(*job) {
                    let team = &build.submission.team;
                    self.shares.granted(*lease, team, now.time);
                    let unit = build.node(job.index).unit;
                    self.timers.clear(&Timer::Preference(job.build, unit));
                }
                self.relist(ledger, worker);
            }
            Fact::LeaseLost { lease, worker, .. } | Fact::AttemptFaulted { lease, worker, .. } => {
                self.release(worker, *lease, now);
                self.bench_for_fault(worker, now);
                self.relist(ledger, worker);
            }
            Fact::LeaseReturned {
                lease,
                worker,
                cause,
                ..
            } => {
                self.release(worker, *lease, now);
                if *cause == ReturnCause::NotBegun
                    && let Some(until) = self.conduct.returned(worker, now.time)
                {
                    self.bench(worker, until);
                }
                self.relist(ledger, worker);
            }
            Fact::JobEnded {
                lease,
                job,
                worker,
                outcome,
                ..
            } => {
                self.release(worker, *lease, now);
                self.take(worker, *lease);
                if matches!(outcome, Outcome::Succeeded | Outcome::Failed) {
                    self.unbench(worker);
                }
                self.relist(ledger, worker);
                if let Some((build, _)) = ledger.job(*job) {
                    let Submission { team, project, .. } = &*build.submission;
                    self.acquainted.ran(team, project, worker);
                    if 0 < build.unit_of(job.index).open {
                        let unit = build.node(job.index).unit;
                        self.prefer(worker, (job.build, unit), now);
                    }
                }
            }
            Fact::SourcesFetched { lease, worker, .. } => {
                self.release(worker, *lease, now);
                self.take(worker, *lease);
                self.unbench(worker);
                self.relist(ledger, worker);
            }
            _ => {}
        }
    }

    /// Remembers that the result of a lease was taken.
    fn take(&mut self, worker: &WorkerName, lease: LeaseId) {
        if let Some(connected) = self.workers.get_mut(worker) {
            connected.taken.insert(lease);
            if TAKEN_MAX < connected.taken.len() {
                connected.taken.pop_first();
            }
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

    pub(super) fn limit_renewals(&mut self, leases: impl Iterator<Item = LeaseId>, now: Now) {
        let until = now.time + REVOKE_GRACE;
        for lease in leases {
            // One that is not renewed any more stays so.
            self.grace.entry(lease).or_insert(until);
        }
    }
}

/// The build whose jobs may stand otherwise in the queue after `fact`.
fn build_of(fact: &Fact) -> Option<BuildId> {
    match fact {
        Fact::LeaseGranted { job, .. } => Some(job.build),
        _ => settles(fact),
    }
}

/// The build that has to be looked at after `fact`.
fn settles(fact: &Fact) -> Option<BuildId> {
    match fact {
        Fact::BuildSubmitted { submission, .. } => Some(submission.build),
        Fact::LeaseLost { job, .. }
        | Fact::LeaseReturned { job, .. }
        | Fact::AttemptFaulted { job, .. }
        | Fact::JobEnded { job, .. }
        | Fact::JobSkipped { job, .. }
        | Fact::JobGivenUp { job, .. }
        | Fact::SourcesFetched { job, .. } => Some(job.build),
        Fact::UnitRestarted { build, .. } | Fact::StopRequested { build, .. } => Some(*build),
        Fact::LeaseGranted { .. }
        | Fact::AttemptBegan { .. }
        | Fact::BuildEnded { .. }
        | Fact::BuildDeleted { .. }
        | Fact::WorkerDraining { .. }
        | Fact::WorkerDrained { .. }
        | Fact::ProjectSaved { .. }
        | Fact::ProjectDeleted { .. }
        | Fact::CachesInvalidated { .. } => None,
    }
}
