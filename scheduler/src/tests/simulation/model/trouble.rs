//! What goes wrong: connections, workers, the coordinator, and workers that lie.

use protocol::{build::BuildId, lease::LeaseId};

use crate::{
    Event, Fact, Scheduler, SessionId,
    tests::{
        sample::result,
        simulation::model::{BUILDS, Happening, OUTCOMES, WORKERS, World},
    },
};

impl World {
    /// A worker and its connection part; the coordinator hears of it some time later.
    pub(super) fn part(&mut self, index: usize) {
        let Some(session) = self.workers[index].session.take() else {
            return;
        };
        if let Some(of) = self.sessions.get_mut(&session) {
            of.is_open = false;
            self.deliver(
                session,
                0,
                Happening::ToCoordinator(Event::WorkerLeft { session }),
            );
        }
        self.later(20_000, Happening::Join(index));
    }

    /// A worker dies with all that it runs, and starts again.
    pub(super) fn die(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        worker.attempts.clear();
        worker.local.clear();
        worker.incarnation += 100;
        worker.is_dismissed = false;
        self.part(index);
    }

    /// Lets something go wrong.
    pub(super) fn trouble(&mut self) {
        let index = usize::try_from(self.random.below(WORKERS as u64)).unwrap();
        match self.random.below(9) {
            0 | 1 => {
                self.note("connection broke");
                self.part(index);
            }
            2 => {
                self.note("worker died");
                self.die(index);
            }
            3 => self.crash(),
            4 => {
                let build = BuildId(u128::from(1 + self.random.below(BUILDS)));
                self.tell(Event::Stop { build });
            }
            5 => {
                let worker = self.workers[index].offer.name.clone();
                self.tell(Event::Drain { worker });
            }
            6 => {
                if let Some(session) = self.workers[index].session {
                    self.deliver(
                        session,
                        0,
                        Happening::ToCoordinator(Event::Leaving { session }),
                    );
                }
            }
            _ => self.forge(index),
        }
    }

    /// A worker says things that it has no right to.
    fn forge(&mut self, index: usize) {
        self.note("forged message");
        let session = self.workers[index].session.unwrap_or(SessionId(0));
        let granted = |fact: &Fact| match fact {
            Fact::LeaseGranted { lease, worker, .. }
                if *worker != self.workers[index].offer.name =>
            {
                Some(*lease)
            }
            _ => None,
        };
        let foreign: Vec<LeaseId> = self.facts.iter().filter_map(granted).collect();
        self.tell(Event::Renew {
            session,
            sequence: 0,
            leases: foreign.clone(),
        });
        for lease in foreign.into_iter().chain([LeaseId(u64::MAX)]) {
            let word = *self.random.pick(OUTCOMES);
            self.tell(Event::Finished {
                session,
                lease,
                result: Box::new(result(word)),
            });
        }
    }

    /// The coordinator dies and starts again from its facts; half of the time in the middle of a
    /// decision, whose last facts and all effects are lost.
    fn crash(&mut self) {
        self.note("coordinator crashed");
        if self.random.percent(50) {
            let next = self
                .happenings
                .iter()
                .find_map(|(at, happening)| match happening {
                    Happening::ToCoordinator(..) => Some(*at),
                    _ => None,
                });
            let next = next.and_then(|at| self.happenings.remove(&at));
            if let Some(Happening::ToCoordinator(event)) = next {
                let decision = self.scheduler.apply(self.moment(), event);
                let kept = self.random.below(decision.facts.len() as u64 + 1);
                let kept = usize::try_from(kept).unwrap();
                self.facts.extend(decision.facts.into_iter().take(kept));
                self.note("coordinator crashed in the middle of a decision");
            }
        }
        self.scheduler = Scheduler::new(self.config);
        for fact in &self.facts {
            self.scheduler.replay(fact).unwrap();
        }
        self.scheduler.recovered(self.moment());
        for index in 0..WORKERS {
            self.part(index);
        }
        self.happenings
            .retain(|_, happening| !matches!(happening, Happening::ToCoordinator(..)));
    }
}
