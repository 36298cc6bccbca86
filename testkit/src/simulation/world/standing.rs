//! How workers stand at the coordinator: who gets nothing new, and whose units may start again.
//!
//! It hears what the scheduler hears and decides, in the same order, and holds each decision against that:
//! who leaves, is to leave or was put aside gets nothing; a unit that is kept on a worker starts again only if
//! something has happened to that worker.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    build::{BuildId, Outcome},
    name::WorkerName,
    time::Time,
    worker::Incarnation,
};
use scheduler::{
    BENCH_FIRST, Decision, Effect, Event, Fact, LEASE_FENCE, Now, RestartCause, ReturnCause,
    SessionId,
};

use crate::simulation::truth::{Broken, Truth, check};

/// A worker that comes.
#[derive(Debug)]
pub(super) struct Joins {
    pub(super) session: SessionId,
    pub(super) name: WorkerName,
    pub(super) incarnation: Incarnation,
    /// Whether it is the first connection of that process.
    pub(super) is_first: bool,
    /// Whether it leaves.
    pub(super) leaves: bool,
}

impl Joins {
    /// Who comes with an event, if somebody does.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let Event::WorkerJoined {
            session,
            offer,
            incarnation,
            connection,
            leaving,
            ..
        } = event
        else {
            return None;
        };
        Some(Self {
            session: *session,
            name: offer.name.clone(),
            incarnation: *incarnation,
            is_first: *connection <= 1,
            leaves: *leaving,
        })
    }
}

/// How workers stand. The copy of what is durable knows only what facts say.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    sessions: BTreeMap<WorkerName, SessionId>,
    leaving: BTreeSet<WorkerName>,
    /// Which process of each worker came last, since the start.
    processes: BTreeMap<WorkerName, Incarnation>,
    /// Who is to leave, and which process of it; `None`: the one that was here when the coordinator started.
    /// It is so for as long as no other process comes, whatever the scheduler says.
    draining: BTreeMap<WorkerName, Option<Incarnation>>,
    /// Until when nothing may be given to each, at least.
    aside: BTreeMap<WorkerName, Time>,
    /// Since when each is not there.
    away: BTreeMap<WorkerName, Time>,
    /// Where the state of units is that is in one place only.
    bound: BTreeMap<(BuildId, u32), WorkerName>,
    /// Those of them to whose state something has happened.
    shaken: BTreeSet<(BuildId, u32)>,
}

impl Standing {
    /// The coordinator has started: nobody is there, and nothing is held against anybody.
    pub(super) fn started(durable: &Self, now: Time) -> Self {
        let kept = durable.bound.values().cloned();
        Self {
            away: kept.map(|worker| (worker, now)).collect(),
            draining: durable.draining.clone(),
            bound: durable.bound.clone(),
            shaken: durable.shaken.clone(),
            ..Self::default()
        }
    }

    /// The scheduler is about to hear something.
    pub(super) fn hears(&mut self, event: &Event, now: Now) {
        let of = |session: &SessionId| {
            let mut sessions = self.sessions.iter();
            let known = sessions.find(|(_, known)| *known == session);
            known.map(|(name, _)| name.clone())
        };
        match event {
            Event::WorkerLeft { session } => {
                if let Some(name) = of(session) {
                    self.sessions.remove(&name);
                    self.leaving.remove(&name);
                    self.away.insert(name, now.time);
                }
            }
            Event::Leaving { session } => self.leaving.extend(of(session)),
            Event::HandOver { session, .. } => {
                let left = of(session).filter(|name| self.leaving.contains(name));
                let bound = self.bound.iter();
                let its = bound.filter(|(_, worker)| Some(*worker) == left.as_ref());
                self.shaken.extend(its.map(|(unit, _)| *unit));
            }
            _ => {}
        }
    }

    /// The scheduler has decided; what it decided follows from `event`.
    pub(super) fn decides(
        &mut self,
        joins: Option<Joins>,
        decision: &Decision,
        (now, truth): (Now, &Truth),
    ) -> Result<(), Broken> {
        let is_taken = |session: SessionId| {
            let mut effects = decision.effects.iter();
            effects.any(
                |effect| matches!(effect, Effect::Joined { session: of, .. } if *of == session),
            )
        };
        let mut came = None;
        if let Some(joins) = joins.filter(|joins| is_taken(joins.session)) {
            let name = joins.name;
            self.leaving.remove(&name);
            if joins.leaves {
                self.leaving.insert(name.clone());
            }
            let drains = self.draining.get(&name);
            let is_another = drains.is_some_and(|drains| match drains {
                Some(drains) => *drains != joins.incarnation,
                None => joins.is_first,
            });
            if is_another {
                self.draining.remove(&name);
            }
            self.processes.insert(name.clone(), joins.incarnation);
            // It was away until now, and what was decided about its units may have come before.
            came = Some(name.clone());
            self.sessions.insert(name, joins.session);
        }
        for fact in &decision.facts {
            self.check(fact, now, truth)?;
            self.learn(fact, truth);
            match fact {
                Fact::LeaseLost { worker, .. } | Fact::AttemptFaulted { worker, .. } => {
                    let until = now.time + BENCH_FIRST;
                    self.aside.insert(worker.clone(), until);
                }
                Fact::JobEnded {
                    worker,
                    outcome: Outcome::Succeeded | Outcome::Failed,
                    ..
                } => {
                    self.aside.remove(worker);
                }
                _ => {}
            }
        }
        if let Some(name) = came {
            self.away.remove(&name);
        }
        Ok(())
    }

    fn check(&self, fact: &Fact, now: Now, truth: &Truth) -> Result<(), Broken> {
        match fact {
            Fact::LeaseGranted { job, worker, .. } => {
                let aside = self.aside.get(worker).copied().unwrap_or_default();
                check(aside <= now.time, || {
                    format!("{worker} was put aside, and gets {job}")
                })?;
                let unit = truth.unit_of(*job);
                let is_kept = unit.is_some_and(|unit| self.bound.get(&unit) == Some(worker));
                check(is_kept || !self.leaving.contains(worker), || {
                    format!("{worker} leaves, and gets {job}")
                })?;
                check(is_kept || !self.draining.contains_key(worker), || {
                    format!("{worker} drains, and gets {job}")
                })
            }
            Fact::WorkerDraining {
                worker,
                incarnation,
                ..
            } => {
                let known = self.processes.get(worker).copied();
                check(known.is_none() || known == *incarnation, || {
                    format!("{worker} is to leave as {incarnation:?}, and is {known:?}")
                })
            }
            Fact::UnitRestarted {
                build,
                unit,
                cause: RestartCause::WorkerLost | RestartCause::WorkerLeaves,
                ..
            } => {
                let unit = (*build, *unit);
                let worker = self.bound.get(&unit);
                let away = worker.and_then(|worker| self.away.get(worker));
                let is_gone = away.is_some_and(|since| *since + LEASE_FENCE <= now.time);
                check(is_gone || self.shaken.contains(&unit), || {
                    format!("unit {unit:?} starts again, and nothing happened to {worker:?}")
                })
            }
            _ => Ok(()),
        }
    }

    /// Takes up a fact.
    pub(super) fn learn(&mut self, fact: &Fact, truth: &Truth) {
        match fact {
            Fact::LeaseGranted {
                job,
                worker,
                platform,
                ..
            } if platform.is_bound() => {
                let unit = truth.unit_of(*job);
                self.bound.extend(unit.map(|unit| (unit, worker.clone())));
            }
            Fact::LeaseLost { job, .. }
            | Fact::AttemptFaulted { job, .. }
            | Fact::LeaseReturned {
                job,
                cause: ReturnCause::HandedOver,
                ..
            } => self.shaken.extend(truth.unit_of(*job)),
            Fact::LeaseReturned { job, breaks, .. } if *breaks => {
                self.shaken.extend(truth.unit_of(*job));
            }
            Fact::UnitRestarted { build, unit, .. } => {
                self.bound.remove(&(*build, *unit));
                self.shaken.remove(&(*build, *unit));
            }
            Fact::WorkerDraining {
                worker,
                incarnation,
                ..
            } => {
                self.draining.insert(worker.clone(), *incarnation);
            }
            // Which process it is that it speaks of is not known: of all others it is not asked.
            Fact::WorkerDrained { worker, .. } if self.draining.get(worker) == Some(&None) => {
                self.draining.remove(worker);
            }
            _ => {}
        }
    }
}
