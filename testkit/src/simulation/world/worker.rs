//! Workers: their sessions with the coordinator.
//!
//! Which attempts may go on, and until when, is the worker's own rule (`worker::leases`); around it the
//! session does what the real one does.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use protocol::{
    build::{BuildId, Outcome},
    digest::Digest,
    job::AttemptResult,
    lease::LeaseId,
    message::work::{
        Assignment, CoordinatorMessage, HeldLease, LogStart, RevokeReason, WorkerMessage,
    },
    time::Time,
    worker::{Incarnation, WorkerOffer},
};
use scheduler::BEGIN_LIMIT;
use worker::{departure::Departure, leases::Leases};

use super::{
    Clock, Happening, Lane, Link, Payload, Traffic, World,
    attempt::{Log, Running, Stage, Step, held},
};
use crate::simulation::{
    dice::Dice,
    script::{Micros, SECOND, Script},
};

/// How long a worker that hands over waits for its attempts to be dead and for the coordinator to know.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(10);
/// How long the line is that each attempt begins its log with, in bytes.
const FIRST_LINE: usize = 20;
/// How many messages a worker remembers that it said, to repeat itself.
const SAID_MAX: usize = 12;

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) offer: WorkerOffer,
    pub(super) clock: Clock,
    /// Counts its deaths.
    pub(super) life: u64,
    pub(super) is_alive: bool,
    pub(super) asleep_until: Micros,
    /// When its link to the coordinator can carry anything again.
    pub(super) cut_until: Micros,
    pub(super) leases: Leases,
    pub(super) running: BTreeMap<LeaseId, Running>,
    pub(super) ended: BTreeMap<LeaseId, (HeldLease, Box<AttemptResult>)>,
    /// Nothing of these runs any more, and the coordinator may not know.
    pub(super) killed: BTreeMap<LeaseId, HeldLease>,
    pub(super) link: Option<usize>,
    pub(super) links: u64,
    pub(super) departure: Departure,
    /// Whether it will lie about what it holds when it joins next.
    pub(super) lies: bool,
    /// Units whose state is here, at level `host`.
    pub(super) local: BTreeSet<(BuildId, u32)>,
    pub(super) said: VecDeque<WorkerMessage>,
}

impl Worker {
    /// A worker that has not connected yet.
    pub(super) fn new(script: &Script, worker: u64) -> Self {
        let (capacity, isolation) = script.worker(worker);
        let offer = WorkerOffer {
            name: format!("w{worker}").parse().unwrap(),
            capacity,
            labels: BTreeMap::new(),
            architecture: "x86_64".to_owned(),
            isolation,
            base: Digest::of(b"base"),
            runtimes: Default::default(),
        };
        Self {
            offer,
            clock: Clock::of(Dice(script.seed), &[worker]),
            life: 0,
            is_alive: true,
            asleep_until: 0,
            cut_until: 0,
            leases: Leases::default(),
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            killed: BTreeMap::new(),
            link: None,
            links: 0,
            departure: Departure::default(),
            lies: false,
            local: BTreeSet::new(),
            said: VecDeque::new(),
        }
    }

    fn holds(&self) -> Vec<HeldLease> {
        let running = self.running.iter();
        let running = running.map(|(_, running)| held(&running.assignment));
        let ended = self.ended.values().map(|(held, _)| *held);
        let killed = self.killed.values().copied();
        running.chain(ended).chain(killed).collect()
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.ended.is_empty() && self.killed.is_empty()
    }

    fn is_done(&self, now: Time) -> bool {
        self.departure.is_done(now, self.is_empty())
    }
}

impl World {
    /// When a worker has something to do by itself.
    pub(super) fn worker_deadline(&self, worker: usize) -> Option<Micros> {
        let of = &self.workers[worker];
        let moments = [of.leases.deadline(), of.departure.hands_over_until()];
        let deadline = moments.into_iter().flatten().min();
        let deadline = deadline.filter(|_| of.is_alive)?;
        // A busy machine is late.
        let late = self
            .dice
            .below("late", &[worker as u64, deadline.0], SECOND / 5);
        Some(
            (of.clock.real(deadline) + late)
                .max(of.asleep_until)
                .max(self.now),
        )
    }

    pub(super) fn worker_tick(&mut self, worker: usize) {
        let of = &mut self.workers[worker];
        let now = of.clock.time(self.now);
        for lease in of.leases.expired(now) {
            self.tally.add("worker: lease runs out");
            self.kill(worker, lease);
        }
        self.drop_hopeless(worker);
        let of = &mut self.workers[worker];
        if let Some((sequence, leases)) = of.leases.renewal(now) {
            self.worker_says(worker, WorkerMessage::Renew { sequence, leases });
            self.say_again(worker);
        }
        self.leave_if_done(worker);
    }

    /// Tries to connect, and tries again later if that cannot be.
    pub(super) fn connect(&mut self, worker: usize) {
        let of = &mut self.workers[worker];
        if !of.is_alive || of.link.is_some() {
            return;
        }
        let cut = of.cut_until.max(of.asleep_until);
        if self.now < cut || !self.coordinator.is_there(self.now) {
            let keys = [worker as u64, self.now];
            let wait = self.dice.below("reconnect", &keys, 2 * SECOND);
            self.after(SECOND / 2 + wait, Happening::Connect(worker));
            return;
        }
        let traffic = Traffic {
            sent: 0,
            arrived: 0,
            arriving: 0,
            last_at: 0,
        };
        of.links += 1;
        of.link = Some(self.links.len());
        of.departure.disconnected();
        of.leases.joining(of.clock.time(self.now));
        self.links.push(Link {
            worker,
            life: of.life,
            number: of.links,
            at_worker: true,
            at_coordinator: true,
            is_broken: false,
            session: None,
            stalled_until: 0,
            lanes: [traffic; 4],
        });
        let (incarnation, connection) = (Incarnation(of.life), of.links);
        let mut holds = of.holds();
        if std::mem::take(&mut of.lies) {
            self.tally.add("worker lies about what it holds");
            holds.extend(self.foreign(worker));
        }
        let ended = self.before(worker);
        if ended.is_some() {
            self.tally
                .add("worker: knows that the process before has ended");
        }
        let join = WorkerMessage::Join {
            offer: self.workers[worker].offer.clone(),
            incarnation,
            connection,
            ended,
            leaving: self.workers[worker].departure.is_leaving(),
            holds,
        };
        self.worker_says(worker, join);
    }

    /// The process of a worker before the one that there is, if it knows that nothing of it runs any more.
    fn before(&self, worker: usize) -> Option<Incarnation> {
        let life = self.workers[worker].life;
        let keys = [worker as u64, life];
        let is_certain = self.dice.percent("certain", &keys, 70);
        life.checked_sub(1).filter(|_| is_certain).map(Incarnation)
    }

    /// A worker sees that its link is gone.
    pub(super) fn worker_notices(&mut self, link: usize) {
        self.links[link].at_worker = false;
        let worker = self.links[link].worker;
        let of = &mut self.workers[worker];
        if of.link != Some(link) {
            return;
        }
        of.link = None;
        of.departure.disconnected();
        of.leases.disconnected();
        self.drop_hopeless(worker);
        self.leave_if_done(worker);
        self.after(SECOND / 10, Happening::Connect(worker));
    }

    pub(super) fn worker_says(&mut self, worker: usize, message: WorkerMessage) {
        let of = &mut self.workers[worker];
        let Some(link) = of.link else { return };
        if !matches!(message, WorkerMessage::Join { .. }) {
            of.said.push_back(message.clone());
            if SAID_MAX < of.said.len() {
                of.said.pop_front();
            }
        }
        self.say(link, Lane::SessionUp, Payload::Worker(message));
    }

    pub(super) fn worker_hears(&mut self, link: usize, payload: Payload) {
        let worker = self.links[link].worker;
        if self.workers[worker].link != Some(link) {
            return;
        }
        match payload {
            Payload::Coordinator(message) => self.worker_obeys(worker, message),
            Payload::LogAck(lease, durable) => self.log_acknowledged(worker, lease, durable),
            Payload::LogRefused(lease) => {
                let of = &self.workers[worker];
                if let Some(running) = of.running.get(&lease) {
                    let step =
                        Happening::Step(worker, of.life, lease, running.epoch, Step::OpenLog);
                    self.after(SECOND / 5, step);
                }
            }
            Payload::Worker(_) | Payload::LogStart(_) | Payload::LogPiece(..) => {}
        }
    }

    fn worker_obeys(&mut self, worker: usize, message: CoordinatorMessage) {
        match message {
            CoordinatorMessage::Joined { leases, .. } => self.joined(worker, &leases),
            CoordinatorMessage::Assign(assignment) => self.assigned(worker, assignment),
            CoordinatorMessage::Renewed { sequence, leases } => {
                for lease in self.workers[worker].leases.renewed(sequence, &leases) {
                    self.lost(worker, lease);
                }
            }
            CoordinatorMessage::Revoke { lease, reason } => match reason {
                RevokeReason::Stopped => self.interrupt(worker, lease, Outcome::Stopped),
                RevokeReason::TimedOut => self.interrupt(worker, lease, Outcome::TimedOut),
                RevokeReason::Lost => {
                    self.workers[worker].leases.release(lease);
                    self.lost(worker, lease);
                }
            },
            CoordinatorMessage::Acknowledged { lease } => {
                let of = &mut self.workers[worker];
                of.leases.release(lease);
                of.ended.remove(&lease);
                of.killed.remove(&lease);
            }
            CoordinatorMessage::GoAhead { lease } => self.go_ahead(worker, lease),
            CoordinatorMessage::Dismissed => self.workers[worker].departure.dismissed(),
            CoordinatorMessage::Drain => self.leave(worker),
            // People are not simulated.
            CoordinatorMessage::Attach(_) => {}
        }
        self.leave_if_done(worker);
    }

    fn joined(&mut self, worker: usize, kept: &[LeaseId]) {
        let of = &mut self.workers[worker];
        let now = of.clock.time(self.now);
        let lost = of.leases.joined(kept, now);
        of.ended.retain(|lease, _| kept.contains(lease));
        of.killed.retain(|lease, _| kept.contains(lease));
        let results: Vec<LeaseId> = of.ended.keys().copied().collect();
        for lease in results {
            if !of.leases.is_held(lease) {
                of.leases.granted(lease, now);
            }
        }
        let has_to_say = of.departure.joined();
        for lease in lost {
            self.lost(worker, lease);
        }
        if has_to_say {
            self.tally.add("worker: says again that it leaves");
            self.worker_says(worker, WorkerMessage::Leaving);
        }
        self.say_again(worker);
        for lease in self.running(worker) {
            self.open_log(worker, lease);
        }
    }

    /// The leases of what a worker runs.
    pub(super) fn running(&self, worker: usize) -> Vec<LeaseId> {
        self.workers[worker].running.keys().copied().collect()
    }

    pub(super) fn is_joined(&self, worker: usize) -> bool {
        self.workers[worker].departure.is_joined()
    }

    fn assigned(&mut self, worker: usize, assignment: Box<Assignment>) {
        let of = &mut self.workers[worker];
        let (lease, job) = (assignment.lease, assignment.job);
        if of.running.contains_key(&lease)
            || of.ended.contains_key(&lease)
            || of.killed.contains_key(&lease)
        {
            return;
        }
        if !of.departure.is_joined() || !of.leases.granted(lease, of.clock.time(self.now)) {
            self.tally.add("worker: assignment comes too late");
            self.worker_says(worker, WorkerMessage::Declined { lease });
            return;
        }
        self.tally.add("worker: attempt begins");
        let start = LogStart {
            lease,
            job,
            attempt: assignment.attempt,
        };
        let running = Running {
            assignment,
            start,
            epoch: 0,
            stage: Stage::Commands,
            is_given_up: false,
            state_lost: false,
            log: Log::default(),
        };
        of.running.insert(lease, running);
        let capacity = of.offer.capacity as usize;
        // What waits, ends or is stored has its slot; what is killed has none.
        let held = of.running.values();
        let held = held.filter(|running| running.stage != Stage::Killed);
        let is_within = held.count() <= capacity;
        self.require(match is_within {
            true => Ok(()),
            false => Err(format!("w{worker} is to run more than it has slots")),
        });
        let begins = self.truth.begins(worker, lease, job);
        self.require(begins);
        self.open_log(worker, lease);
        self.enters(worker, lease);
    }

    /// An attempt begins with a line that says which phase it enters: nearly always at once.
    fn enters(&mut self, worker: usize, lease: LeaseId) {
        let is_odd = self.is_troubled() && self.dice.percent("odd", &[lease.0], 4);
        if !is_odd {
            self.write(worker, lease, FIRST_LINE);
            self.later(worker, lease, (10_000, 300_000), Step::Fetch);
        } else if self.dice.percent("never", &[lease.0], 50) {
            self.tally.add("worker: attempt never begins");
        } else {
            self.tally.add("worker: attempt begins late");
            let about = (BEGIN_LIMIT.as_secs() - 20, BEGIN_LIMIT.as_secs() + 10);
            let about = (about.0 * SECOND, about.1 * SECOND);
            self.later(worker, lease, about, Step::Enter);
        }
    }

    /// An attempt that was slow to begin does.
    pub(super) fn enters_late(&mut self, worker: usize, lease: LeaseId) {
        self.write(worker, lease, FIRST_LINE);
        self.later(worker, lease, (10_000, 300_000), Step::Fetch);
    }

    /// Says everything that was not answered yet.
    fn say_again(&mut self, worker: usize) {
        self.say_results(worker);
        self.say_killed(worker);
        let of = &self.workers[worker];
        if !of.departure.is_joined() {
            return;
        }
        let waiting = of.running.iter();
        let waiting = waiting.filter(|(_, running)| running.stage == Stage::Waiting);
        let waiting: Vec<LeaseId> = waiting.map(|(lease, _)| *lease).collect();
        for lease in waiting {
            self.worker_says(worker, WorkerMessage::Began { lease });
        }
    }

    /// Gives back what was killed; a worker that hands over says so even if there is nothing.
    pub(super) fn say_killed(&mut self, worker: usize) {
        let of = &self.workers[worker];
        let leases: Vec<LeaseId> = of.killed.keys().copied().collect();
        let hands_over = of.departure.hands_over_until().is_some();
        if of.departure.is_joined() && (hands_over || !leases.is_empty()) {
            self.tally.add("worker: gives back what it killed");
            self.worker_says(worker, WorkerMessage::HandOver { leases });
        }
    }

    /// Kills all attempts and gives their jobs back.
    pub(super) fn hand_over(&mut self, worker: usize) {
        self.leave(worker);
        let of = &mut self.workers[worker];
        let until = of.clock.time(self.now) + HAND_OVER_LIMIT;
        of.departure.hand_over(until);
        for lease in self.running(worker) {
            self.kill(worker, lease);
        }
        self.say_killed(worker);
        self.leave_if_done(worker);
    }

    pub(super) fn say_results(&mut self, worker: usize) {
        let of = &self.workers[worker];
        if !of.departure.is_joined() {
            return;
        }
        let results = of
            .ended
            .iter()
            .map(|(lease, (_, result))| WorkerMessage::Finished {
                lease: *lease,
                result: result.clone(),
            });
        for message in results.collect::<Vec<_>>() {
            self.tally.add("worker: result said");
            self.worker_says(worker, message);
        }
    }

    /// The coordinator has given a lease up.
    fn lost(&mut self, worker: usize, lease: LeaseId) {
        self.tally.add("worker: lease lost");
        self.kill(worker, lease);
        let of = &mut self.workers[worker];
        if let Some(running) = of.running.get_mut(&lease) {
            running.is_given_up = true;
        }
        of.ended.remove(&lease);
        of.killed.remove(&lease);
    }

    /// A worker is about to leave.
    pub(super) fn leave(&mut self, worker: usize) {
        let of = &mut self.workers[worker];
        let Some(is_told) = of.departure.leave() else {
            return;
        };
        if is_told {
            self.worker_says(worker, WorkerMessage::Leaving);
        }
        self.drop_hopeless(worker);
    }

    /// A worker that leaves does not wait for a coordinator that has given the results up.
    pub(super) fn drop_hopeless(&mut self, worker: usize) {
        let of = &mut self.workers[worker];
        if of.departure.is_leaving() {
            let leases = &of.leases;
            of.ended.retain(|lease, _| leases.is_held(*lease));
            if !of.departure.is_joined() {
                // Their leases run out by themselves.
                of.killed.clear();
            }
        }
    }

    pub(super) fn leave_if_done(&mut self, worker: usize) {
        let of = &self.workers[worker];
        if of.is_alive && of.is_done(of.clock.time(self.now)) {
            self.tally.add("worker: has left");
            self.worker_dies(worker, 5 * SECOND);
        }
    }
}
