//! The lines of the script: what people do, and what goes wrong.

use protocol::{lease::LeaseId, message::work::WorkerMessage};
use scheduler::Event;

use super::{Happening, World, coordinator::Order};
use crate::simulation::{
    sample,
    script::{Line, Micros, Moment, Power, SECOND, What},
};

/// How long a death waits for the decision that it is to come in.
const ARMED: Micros = 8 * SECOND;

impl World {
    pub(super) fn line(&mut self, line: Line) {
        if let Some(trouble) = line.what.trouble() {
            self.tally.add(trouble);
        }
        match line.what {
            What::Submit { build, shape } => {
                let submission = sample::submission(build, shape);
                self.truth
                    .submits(submission.build, submission.graph.clone());
                self.submit(build, submission, None);
            }
            What::Retry { build, retry } => self.retry(build, retry),
            What::Stop { build } => {
                if let Some(build) = self.taken(build) {
                    self.order(Order::Event(Event::Stop { build }, None));
                }
            }
            What::Delete { build } => {
                if let Some(build) = self.taken(build) {
                    self.order(Order::Event(Event::Delete { build }, None));
                }
            }
            What::Drain { worker } => {
                let worker = self.workers[place(worker)].offer.name.clone();
                self.order(Order::Event(Event::Drain { worker }, None));
            }
            What::Leaves { worker } => {
                if self.is_awake(place(worker)) {
                    self.leave(place(worker));
                    self.leave_if_done(place(worker));
                }
            }
            What::HandsOver { worker } => {
                if self.is_awake(place(worker)) {
                    self.hand_over(place(worker));
                }
            }
            What::WorkerDies { worker, lasts } => self.worker_dies(place(worker), lasts),
            What::WorkerSleeps { worker, lasts } => self.worker_sleeps(place(worker), lasts),
            What::WorkerRepeats { worker } => self.repeat(place(worker)),
            What::WorkerForges { worker } => self.forge(place(worker), line.number),
            What::LinkBreaks { worker, lasts } => {
                self.link_breaks(place(worker), lasts, line.number);
            }
            What::LinkStalls { worker, lasts } => {
                self.link_stalls(place(worker), lasts, line.number);
            }
            What::ClientLost { build, lasts } => self.client_cut_off(build, lasts),
            What::AllDie { lasts } => {
                self.coordinator_dies(Power::Cut, lasts);
                self.cache_dies(lasts);
                for worker in 0..self.workers.len() {
                    self.worker_dies(worker, lasts);
                }
            }
            what => self.coordinator_trouble(what, line.number),
        }
    }

    /// Trouble of the coordinator's machine and of the cache.
    fn coordinator_trouble(&mut self, what: What, number: u64) {
        match what {
            What::CoordinatorDies { when, power, lasts } => self.arm(when, power, lasts),
            What::CoordinatorSleeps { lasts } => self.coordinator_sleeps(lasts),
            What::DiskFull { lasts } => {
                self.coordinator.disk.set_full(true);
                self.after(lasts, Happening::DiskHasRoom);
            }
            What::DiskSlow { lasts } => self.coordinator.slow_until = self.now + lasts,
            What::StatePut => self.coordinator.state_wanted = true,
            What::WallJumps { millis } => self.coordinator.wall_off += millis,
            What::CacheDies { lasts } => self.cache_dies(lasts),
            What::CacheLoses => self.cache.lose(self.dice, number),
            What::Evicts if 0 < self.cache.evict(self.now) => {
                self.tally.add("something was evicted");
            }
            _ => {}
        }
    }

    fn cache_dies(&mut self, lasts: Micros) {
        self.cache.is_up = false;
        self.after(SECOND + lasts, Happening::CacheStarts);
    }

    /// Lets the coordinator die at a step of what it does next.
    fn arm(&mut self, when: Moment, power: Power, lasts: Micros) {
        match when {
            Moment::Between => self.coordinator_dies(power, lasts),
            Moment::Starting(operation) => {
                self.coordinator_dies(power, lasts);
                self.coordinator.start_fuse = Some((operation, power));
            }
            _ => {
                self.coordinator.armed = Some((when, power, lasts));
                self.coordinator.state_wanted |= matches!(when, Moment::PuttingState(_));
                let life = self.coordinator.life;
                self.after(ARMED, Happening::CoordinatorDies(life, power, lasts));
            }
        }
    }

    fn is_awake(&self, worker: usize) -> bool {
        let of = &self.workers[worker];
        of.is_alive && of.asleep_until <= self.now
    }

    fn link_breaks(&mut self, worker: usize, lasts: Micros, number: u64) {
        self.workers[worker].cut_until = self.now + lasts;
        if let Some(link) = self.workers[worker].link {
            let longest = |who| {
                let most = [SECOND / 10, 12 * SECOND, super::IDLE_MAX];
                self.dice.pick(who, &[number], &most)
            };
            let (worker_sees, coordinator_sees) = (longest("worker"), longest("coordinator"));
            let worker_after = self.dice.below("worker sees", &[number], worker_sees);
            let coordinator_after =
                self.dice
                    .below("coordinator sees", &[number], coordinator_sees);
            self.break_link(link, (worker_after, coordinator_after));
        }
    }

    fn link_stalls(&mut self, worker: usize, lasts: Micros, number: u64) {
        if super::IDLE_MAX < lasts {
            self.link_breaks(worker, lasts, number);
        } else if let Some(link) = self.workers[worker].link {
            self.links[link].stalled_until = self.now + lasts;
        }
    }

    /// A worker says again what it has said before.
    fn repeat(&mut self, worker: usize) {
        if !self.is_awake(worker) || !self.is_joined(worker) {
            return;
        }
        for message in self.workers[worker].said.clone() {
            self.tally.add("message doubled");
            self.worker_says(worker, message);
        }
        for lease in self.running(worker) {
            self.send_log_again(worker, lease);
        }
    }

    /// A worker says things that it has no right to.
    fn forge(&mut self, worker: usize, number: u64) {
        self.workers[worker].lies = true;
        if !self.is_awake(worker) || !self.is_joined(worker) {
            return;
        }
        let foreign = self.foreign(worker);
        for held in &foreign {
            self.forge_log(worker, *held);
        }
        let mut foreign: Vec<LeaseId> = foreign.iter().map(|held| held.lease).collect();
        foreign.push(LeaseId(u64::MAX));
        let said = self.workers[worker].said.iter().rev();
        let mut renewals = said.filter_map(|message| match message {
            WorkerMessage::Renew { sequence, .. } => Some(*sequence),
            _ => None,
        });
        // One that was said before would be ignored for that; the worker's next one is, after this.
        let sequence = renewals.next().unwrap_or(0) + 1;
        self.tally.add("message forged");
        self.worker_says(
            worker,
            WorkerMessage::Renew {
                sequence,
                leases: foreign.clone(),
            },
        );
        self.worker_says(
            worker,
            WorkerMessage::HandOver {
                leases: foreign.clone(),
            },
        );
        for lease in foreign {
            self.tally.add("message forged");
            self.worker_says(worker, WorkerMessage::Began { lease });
            self.worker_says(worker, WorkerMessage::Declined { lease });
            let outcome = self.dice.pick(
                "forged",
                &[number, lease.0],
                &[
                    protocol::build::Outcome::Succeeded,
                    protocol::build::Outcome::Failed,
                ],
            );
            let result = sample::result(outcome, None, 0);
            self.worker_says(worker, WorkerMessage::Finished { lease, result });
        }
    }

    /// Somebody wants a build again.
    fn retry(&mut self, build: u64, retry: u64) {
        let Some(first) = self.taken(build) else {
            return;
        };
        let Some(known) = self.submitted(build) else {
            return;
        };
        let mut submission = known.clone();
        submission.build = sample::build_id(retry);
        self.truth.retries(first, submission.build);
        self.submit(retry, submission, Some(first));
    }
}

fn place(worker: u64) -> usize {
    usize::try_from(worker).unwrap()
}
