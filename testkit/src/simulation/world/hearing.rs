//! What the coordinator has heard of attempts: one of which something was heard keeps its lease for as long
//! as its worker renews it; one of which nothing is heard loses it.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{build::BuildId, job::JobId, lease::LeaseId, name::WorkerName, time::Time};
use scheduler::{BEGIN_LIMIT, Decision, Effect, Event, Fact, LEASE_FENCE, SessionId};

use crate::simulation::truth::{Broken, check};

/// The leases that are out, as the running program knows them.
#[derive(Clone, Debug, Default)]
pub(super) struct Hearing {
    out: BTreeMap<LeaseId, Out>,
    /// Builds that stop, or stopped before the program started: their leases end some time.
    stopping: BTreeSet<BuildId>,
    sessions: BTreeMap<SessionId, WorkerName>,
}

#[derive(Clone, Debug)]
struct Out {
    job: JobId,
    worker: Option<WorkerName>,
    /// From when on something has to be heard of it.
    since: Time,
    is_heard: bool,
}

/// A renewal that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    session: SessionId,
    sequence: u64,
    leases: Vec<LeaseId>,
}

impl Hearing {
    /// The coordinator has started, and these leases are out.
    pub(super) fn started(
        leases: impl Iterator<Item = (LeaseId, JobId)>,
        stopping: BTreeSet<BuildId>,
        now: Time,
    ) -> Self {
        let out = leases.map(|(lease, job)| {
            let out = Out {
                job,
                worker: None,
                since: now,
                is_heard: false,
            };
            (lease, out)
        });
        Self {
            out: out.collect(),
            stopping,
            sessions: BTreeMap::new(),
        }
    }

    /// The scheduler is about to hear something.
    pub(super) fn hears(&mut self, event: &Event) -> Option<Asked> {
        match event {
            Event::Heard { lease } => {
                if let Some(out) = self.out.get_mut(lease) {
                    out.is_heard = true;
                }
            }
            Event::WorkerJoined { session, offer, .. } => {
                self.sessions.insert(*session, offer.name.clone());
            }
            Event::Renew {
                session,
                sequence,
                leases,
            } => {
                return Some(Asked {
                    session: *session,
                    sequence: *sequence,
                    leases: leases.clone(),
                });
            }
            _ => {}
        }
        None
    }

    /// How many attempts were lost of which nothing was heard in time.
    pub(super) fn lost_unheard(&self, decision: &Decision, now: Time) -> usize {
        let lost = decision.facts.iter().filter_map(|fact| match fact {
            Fact::LeaseLost { lease, .. } => self.out.get(lease),
            _ => None,
        });
        let is_late = |out: &&Out| !out.is_heard && out.since + BEGIN_LIMIT <= now;
        lost.filter(is_late).count()
    }

    /// The scheduler has decided.
    pub(super) fn decides(
        &mut self,
        asked: Option<Asked>,
        decision: &Decision,
        now: Time,
    ) -> Result<(), Broken> {
        for fact in &decision.facts {
            match fact {
                Fact::LeaseGranted {
                    lease, job, worker, ..
                } => {
                    let out = Out {
                        job: *job,
                        worker: Some(worker.clone()),
                        since: now,
                        is_heard: false,
                    };
                    self.out.insert(*lease, out);
                }
                Fact::LeaseLost { lease, .. }
                | Fact::LeaseReturned { lease, .. }
                | Fact::AttemptFaulted { lease, .. }
                | Fact::JobEnded { lease, .. } => {
                    self.out.remove(lease);
                }
                Fact::StopRequested { build, .. } => {
                    self.stopping.insert(*build);
                }
                _ => {}
            }
        }
        for effect in &decision.effects {
            if let Effect::Joined { session, leases } = effect {
                let name = self.sessions.get(session);
                for lease in leases {
                    if let Some(out) = self.out.get_mut(lease) {
                        out.worker = name.cloned();
                    }
                }
            }
        }
        let late = |out: &Out| !out.is_heard && out.since + BEGIN_LIMIT + LEASE_FENCE <= now;
        let late = self.out.iter().find(|(_, out)| late(out));
        check(late.is_none(), || {
            format!("nothing was heard of {late:?}, and it is out at {now:?}")
        })?;
        asked.map_or(Ok(()), |asked| self.check_answer(&asked, decision))
    }

    /// What was heard of and is renewed by the one who has it is renewed.
    fn check_answer(&self, asked: &Asked, decision: &Decision) -> Result<(), Broken> {
        let mut answers = decision.effects.iter().filter_map(|effect| match effect {
            Effect::Renewed {
                session,
                sequence,
                leases,
            } if *session == asked.session && *sequence == asked.sequence => Some(leases),
            _ => None,
        });
        // One that comes twice, or too late, is not answered.
        let Some(answer) = answers.next() else {
            return Ok(());
        };
        let name = self.sessions.get(&asked.session);
        let is_due = |out: &&Out| {
            let is_its = out.worker.is_some() && out.worker.as_ref() == name;
            is_its && out.is_heard && !self.stopping.contains(&out.job.build)
        };
        let due = asked.leases.iter();
        let due = due.filter(|lease| self.out.get(lease).filter(is_due).is_some());
        let mut left = due.filter(|lease| !answer.contains(lease));
        let left = left.next();
        check(left.is_none(), || {
            format!("{left:?} was heard of and is asked for, and is not renewed")
        })
    }
}
