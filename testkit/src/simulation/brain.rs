//! The scheduler of the simulation: the real one, as it is or with something wrong about it.
//!
//! What is wrong is made outside the scheduler, by changing what it is told and what it says. So there is no
//! switch in what ships that could turn a rule off.

use std::collections::BTreeMap;

use protocol::{
    build::BuildId,
    graph::OutcomeSet,
    job::JobId,
    lease::{LEASE_MARGIN, LeaseId},
    message::work::HeldLease,
    name::WorkerName,
    time::Time,
};
use scheduler::{
    BENCH_MAX, Config, Deadline, Decision, Effect, Event, Fact, LEASE_FENCE, Ledger, Now,
    RestartCause, Scheduler, SessionId,
};

use super::{mutant::Mutant, sample};

/// The real scheduler, as it is or with something wrong about it.
#[derive(Debug)]
pub(super) struct Brain {
    scheduler: Scheduler,
    mutant: Option<Mutant>,
    /// How results ended that were taken.
    taken: BTreeMap<LeaseId, Fact>,
    /// Whose each lease is, or was, and what for.
    granted: BTreeMap<LeaseId, (WorkerName, JobId)>,
    sessions: BTreeMap<WorkerName, SessionId>,
    /// Units that are kept on one worker, and have not ended.
    kept: BTreeMap<(BuildId, u32), WorkerName>,
    /// Who was told that it may leave.
    dismissed: BTreeMap<SessionId, WorkerName>,
    /// What was known before the last decision.
    before: Option<Ledger>,
}

impl Brain {
    /// A scheduler that knows nothing.
    pub(super) fn new(config: Config, mutant: Option<Mutant>) -> Self {
        Self::restored(config, Ledger::default(), mutant)
    }

    /// A scheduler that knows `ledger`.
    pub(super) fn restored(config: Config, ledger: Ledger, mutant: Option<Mutant>) -> Self {
        Self {
            scheduler: Scheduler::restored(config, ledger),
            mutant,
            taken: BTreeMap::new(),
            granted: BTreeMap::new(),
            sessions: BTreeMap::new(),
            kept: BTreeMap::new(),
            dismissed: BTreeMap::new(),
            before: None,
        }
    }

    /// The scheduler.
    pub(super) const fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// What a state beside the journal keeps.
    pub(super) fn ledger(&self) -> &Ledger {
        match (&self.before, self.mutant) {
            (Some(before), Some(Mutant::StateTooOld)) => before,
            _ => self.scheduler.ledger(),
        }
    }

    /// Takes up a journalled fact.
    pub(super) fn replay(&mut self, fact: &Fact) -> Result<(), scheduler::FoldError> {
        self.scheduler.replay(fact)
    }

    /// Ends recovery.
    pub(super) fn recovered(&mut self, now: Now) {
        match self.mutant {
            Some(Mutant::StartForgetsLeases) => {}
            // Nobody is there yet who could be given a job, so nothing else comes of this.
            Some(Mutant::StartWithoutFence) => self.scheduler.recovered(Now {
                time: Time(now.time.0.saturating_sub(micros(LEASE_FENCE))),
                ..now
            }),
            _ => self.scheduler.recovered(now),
        }
    }

    /// When time matters next.
    pub(super) fn next_deadline(&self) -> Deadline {
        let deadline = self.scheduler.next_deadline();
        match self.mutant {
            Some(Mutant::FenceWithoutMargin) => Deadline {
                time: deadline.time.map(earlier),
                ..deadline
            },
            _ => deadline,
        }
    }

    /// Decides what follows from `event`.
    pub(super) fn apply(&mut self, now: Now, event: Event) -> Decision {
        if self.mutant == Some(Mutant::StateTooOld) {
            self.before = Some(self.scheduler.ledger().clone());
        }
        let mut decision = match self.mutant {
            None => self.scheduler.apply(now, event),
            Some(mutant) => self.wrongly(mutant, now, event),
        };
        self.learn(&decision.facts);
        if self.mutant == Some(Mutant::GrantNotJournalled) {
            let is_kept = |fact: &Fact| !matches!(fact, Fact::LeaseGranted { .. });
            decision.facts.retain(is_kept);
        }
        decision
    }

    fn learn(&mut self, facts: &[Fact]) {
        if self.mutant.is_none() {
            return;
        }
        for fact in facts {
            match fact {
                Fact::LeaseGranted {
                    lease,
                    job,
                    worker,
                    platform,
                    ..
                } => {
                    self.granted.insert(*lease, (worker.clone(), *job));
                    let known = scheduler::submission(self.scheduler.state(), job.build);
                    if let Some(known) = known.filter(|_| platform.is_bound()) {
                        let unit = known.graph.jobs[job.index as usize].unit;
                        self.kept.insert((job.build, unit), worker.clone());
                    }
                }
                Fact::BuildEnded { build, .. } => self.kept.retain(|(of, _), _| of != build),
                Fact::JobEnded { lease, .. } => {
                    self.taken.insert(*lease, fact.clone());
                }
                _ => {}
            }
        }
    }

    fn wrongly(&mut self, mutant: Mutant, now: Now, event: Event) -> Decision {
        if let Event::WorkerJoined { session, offer, .. } = &event {
            self.sessions.insert(offer.name.clone(), *session);
        }
        match (mutant, event) {
            (Mutant::RenewAfterExpiry, event @ Event::Renew { .. }) => {
                let deadline = self.scheduler.next_deadline().time.unwrap_or(now.time);
                let time = now.time.min(Time(deadline.0.saturating_sub(1)));
                self.scheduler.apply(Now { time, ..now }, event)
            }
            (Mutant::FenceWithoutMargin, event) => {
                let time = now.time + LEASE_MARGIN;
                let mut decision = self.scheduler.apply(Now { time, ..now }, Event::Tick);
                add(&mut decision, self.scheduler.apply(now, event));
                decision
            }
            (Mutant::EdgeAcceptsAnything, Event::Submit(mut submission)) => {
                let jobs = submission.graph.jobs.iter_mut();
                for edge in jobs.flat_map(|job| &mut job.needs) {
                    edge.accepts = OutcomeSet::ENDED;
                }
                self.scheduler.apply(now, Event::Submit(submission))
            }
            (Mutant::NotPutAside, event @ Event::Finished { .. }) => {
                let time = Time(now.time.0.saturating_sub(micros(BENCH_MAX)));
                self.scheduler.apply(Now { time, ..now }, event)
            }
            (Mutant::DrainForgotten, event) => self.drain_forgotten(now, event),
            (Mutant::BegunWhenGiven, event) => self.begun_when_given(now, event),
            (_, event @ Event::Finished { .. }) => self.finished_wrongly(mutant, now, event),
            (Mutant::AnswerWithoutRenewal, event) => self.answered_wrongly(now, event),
            (Mutant::StoredRunsAgain, event) => {
                let mut decision = self.scheduler.apply(now, event);
                self.restart_units(&mut decision);
                decision
            }
            (Mutant::BeginNotNoted, Event::Began { session, lease }) => Decision {
                effects: vec![Effect::GoAhead { session, lease }],
                ..Decision::default()
            },
            (Mutant::NotNamedIsTakenBack, Event::WorkerLeft { session }) => {
                self.taken_back(now, session)
            }
            (Mutant::StopEndsAttempts, event @ Event::Stop { .. }) => self.stopped(now, event),
            (Mutant::SlotTooMany, mut event @ Event::WorkerJoined { .. }) => {
                if let Event::WorkerJoined { offer, .. } = &mut event {
                    offer.capacity += 1;
                }
                self.scheduler.apply(now, event)
            }
            (Mutant::LeavingNotHeard, Event::Leaving { .. }) => Decision::default(),
            (Mutant::GoneAtOnce, event @ Event::WorkerLeft { .. }) => self.gone_at_once(now, event),
            (Mutant::HeardNotHeard, Event::Heard { .. }) => Decision::default(),
            (_, event) => self.scheduler.apply(now, event),
        }
    }

    fn finished_wrongly(&mut self, mutant: Mutant, now: Now, event: Event) -> Decision {
        let Event::Finished {
            session,
            lease,
            mut result,
        } = event
        else {
            return self.scheduler.apply(now, event);
        };
        let mut as_if = (session, lease);
        let is_live = scheduler::live_attempt(self.scheduler.state(), lease).is_some();
        let granted = self.granted.get(&lease).cloned();
        match (mutant, granted) {
            (Mutant::DuplicateTaken, _) if !is_live => {
                if let Some(taken) = self.taken.get(&lease) {
                    return Decision {
                        facts: vec![taken.clone()],
                        effects: vec![Effect::Acknowledge { session, lease }],
                        ..Decision::default()
                    };
                }
            }
            (Mutant::LateResultTaken, Some((_, job))) if !is_live => {
                let present = self.granted.iter().rev().find(|(other, (_, of))| {
                    *of == job && scheduler::live_attempt(self.scheduler.state(), **other).is_some()
                });
                if let Some((other, (worker, _))) = present {
                    let holder = self.sessions.get(worker).copied();
                    as_if = (holder.unwrap_or(session), *other);
                }
            }
            (Mutant::FaultLosesState, _) => result.state_lost = true,
            (Mutant::ForeignResultTaken, Some((worker, _))) => {
                let holder = self.sessions.get(&worker).copied();
                as_if.0 = holder.unwrap_or(session);
            }
            _ => {}
        }
        let (session, lease) = as_if;
        let event = Event::Finished {
            session,
            lease,
            result,
        };
        self.scheduler.apply(now, event)
    }

    /// Tells the scheduler of no lease that is to be renewed, and the worker that all are.
    fn answered_wrongly(&mut self, now: Now, mut event: Event) -> Decision {
        let mut named = Vec::new();
        match &mut event {
            Event::Renew { leases, .. } => named = std::mem::take(leases),
            Event::WorkerJoined { holds, .. } => {
                let holds: Vec<HeldLease> = std::mem::take(holds);
                named = holds.iter().map(|held| held.lease).collect();
            }
            _ => {}
        }
        let is_live =
            |lease: &LeaseId| scheduler::live_attempt(self.scheduler.state(), *lease).is_some();
        named.retain(is_live);
        let mut decision = self.scheduler.apply(now, event);
        for effect in &mut decision.effects {
            if let Effect::Renewed { leases, .. } | Effect::Joined { leases, .. } = effect {
                leases.clone_from(&named);
            }
        }
        decision
    }

    fn restart_units(&mut self, decision: &mut Decision) {
        for fact in decision.facts.clone() {
            let Fact::LeaseLost {
                job, worker, at, ..
            } = fact
            else {
                continue;
            };
            let known = scheduler::submission(self.scheduler.state(), job.build);
            let unit = known.map(|known| known.graph.jobs[job.index as usize].unit);
            let restarted = Fact::UnitRestarted {
                build: job.build,
                unit: unit.unwrap_or_default(),
                worker,
                cause: RestartCause::WorkerLost,
                at,
            };
            if self.scheduler.replay(&restarted).is_ok() {
                decision.facts.push(restarted);
            }
        }
    }

    /// Lets what is kept on a worker start again, unless it runs.
    fn gone_at_once(&mut self, now: Now, event: Event) -> Decision {
        let Event::WorkerLeft { session } = event else {
            return self.scheduler.apply(now, event);
        };
        let mut decision = self.scheduler.apply(now, event);
        let name = self.sessions.iter().find(|(_, of)| **of == session);
        let name = name.map(|(name, _)| name.clone());
        for ((build, unit), worker) in self.kept.clone() {
            let restarted = Fact::UnitRestarted {
                build,
                unit,
                worker: worker.clone(),
                cause: RestartCause::WorkerLost,
                at: now.wall,
            };
            let is_its = Some(&worker) == name.as_ref();
            if is_its && self.scheduler.replay(&restarted).is_ok() {
                self.kept.remove(&(build, unit));
                decision.facts.push(restarted);
            }
        }
        decision
    }

    /// Lets who was told that it may leave work again when its connection is gone.
    fn drain_forgotten(&mut self, now: Now, event: Event) -> Decision {
        let left = match &event {
            Event::WorkerLeft { session } => self.dismissed.remove(session),
            _ => None,
        };
        let mut decision = self.scheduler.apply(now, event);
        for effect in &decision.effects {
            if let Effect::Dismiss { session } = effect {
                let name = self.sessions.iter().find(|(_, of)| *of == session);
                let name = name.map(|(name, _)| (*session, name.clone()));
                self.dismissed.extend(name);
            }
        }
        if let Some(worker) = left {
            let at = now.wall;
            let drained = Fact::WorkerDrained { worker, at };
            if self.scheduler.replay(&drained).is_ok() {
                decision.facts.push(drained);
            }
        }
        decision
    }

    fn begun_when_given(&mut self, now: Now, event: Event) -> Decision {
        let mut decision = self.scheduler.apply(now, event);
        let granted = decision.facts.iter().filter_map(|fact| match fact {
            Fact::LeaseGranted { lease, .. } => Some(*lease),
            _ => None,
        });
        for lease in granted.collect::<Vec<_>>() {
            let heard = Event::Heard { lease };
            add(&mut decision, self.scheduler.apply(now, heard));
        }
        decision
    }

    /// As if a worker whose connection is lost had said that it never began anything.
    fn taken_back(&mut self, now: Now, session: SessionId) -> Decision {
        let mut decision = Decision::default();
        let name = self.sessions.iter().find(|(_, of)| **of == session);
        let name = name.map(|(name, _)| name.clone());
        let granted = self.granted.iter();
        let its = granted.filter(|(_, (worker, _))| Some(worker) == name.as_ref());
        for lease in its.map(|(lease, _)| *lease).collect::<Vec<_>>() {
            let declined = Event::Declined { session, lease };
            add(&mut decision, self.scheduler.apply(now, declined));
        }
        let left = Event::WorkerLeft { session };
        add(&mut decision, self.scheduler.apply(now, left));
        decision
    }

    fn stopped(&mut self, now: Now, event: Event) -> Decision {
        let mut decision = self.scheduler.apply(now, event);
        for effect in decision.effects.clone() {
            if let Effect::Revoke { session, lease, .. } = effect {
                let result = sample::result(protocol::build::Outcome::Stopped, None, 0);
                let finished = Event::Finished {
                    session,
                    lease,
                    result,
                };
                add(&mut decision, self.scheduler.apply(now, finished));
            }
        }
        decision
    }
}

fn add(decision: &mut Decision, more: Decision) {
    decision.facts.extend(more.facts);
    decision.effects.extend(more.effects);
    decision.ignored.extend(more.ignored);
}

fn earlier(time: Time) -> Time {
    Time(time.0.saturating_sub(micros(LEASE_MARGIN)))
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}
