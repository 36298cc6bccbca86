//! Attempts: what a worker does for each, from what it starts from to what it leaves.

use protocol::{
    build::Outcome,
    digest::Digest,
    job::JobId,
    lease::LeaseId,
    message::work::{Assignment, HeldLease, JobInput, LogStart, WorkerMessage},
    worker::Isolation,
};

use super::{Happening, World};
use crate::simulation::{
    sample,
    script::{Micros, SECOND},
};

/// An attempt that runs, or is being stored.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) assignment: Box<Assignment>,
    pub(super) start: LogStart,
    /// Steps of other epochs are not taken any more.
    pub(super) epoch: u64,
    pub(super) stage: Stage,
    /// Whether the coordinator has given its lease up.
    pub(super) is_given_up: bool,
    /// Whether the cache has lost what it starts from.
    pub(super) state_lost: bool,
    pub(super) log: Log,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Commands,
    /// Its commands must not run twice, and wait until the coordinator has noted that they start.
    Waiting,
    /// Its commands have to end, because its build stops.
    Ending,
    /// Its commands have ended; it is stored.
    Storing(Outcome),
    /// All but its log is stored.
    Stored(Outcome),
    /// Its lease was lost.
    Killed,
}

/// What an attempt writes.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) bytes: Vec<u8>,
    pub(super) durable: usize,
    pub(super) sent: usize,
    /// Whether the coordinator has said on this link how much it has.
    pub(super) is_open: bool,
}

/// What an attempt does next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Enter,
    Fetch,
    Write(usize),
    End(Outcome),
    Upload,
    Name,
    Report,
    Killed,
    OpenLog,
}

/// What becomes of attempts while there is trouble.
const OUTCOMES: &[Outcome] = &[
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Failed,
    Outcome::Fault,
    Outcome::Stopped,
];

/// How a worker names an attempt.
pub(super) fn held(assignment: &Assignment) -> HeldLease {
    HeldLease {
        lease: assignment.lease,
        job: assignment.job,
        attempt: assignment.attempt,
    }
}

impl World {
    /// Puts a step of an attempt on the agenda, after a time between two.
    pub(super) fn later(
        &mut self,
        worker: usize,
        lease: LeaseId,
        (least, most): (Micros, Micros),
        step: Step,
    ) {
        let of = &self.workers[worker];
        let Some(running) = of.running.get(&lease) else {
            return;
        };
        let wait = self.dice.below("step", &[lease.0, self.now], most - least);
        let step = Happening::Step(worker, of.life, lease, running.epoch, step);
        self.after(least + wait, step);
    }

    pub(super) fn step(
        &mut self,
        worker: usize,
        life: u64,
        lease: LeaseId,
        (epoch, step): (u64, Step),
    ) {
        let of = &self.workers[worker];
        let is_current = |running: &Running| running.epoch == epoch;
        if of.life != life || !of.running.get(&lease).is_some_and(is_current) {
            return;
        }
        if self.now < of.asleep_until {
            let step = Happening::Step(worker, life, lease, epoch, step);
            self.at(of.asleep_until, step);
            return;
        }
        match step {
            Step::Enter => self.enters_late(worker, lease),
            Step::Fetch => self.fetch(worker, lease),
            Step::Write(bytes) => self.write(worker, lease, bytes),
            Step::End(outcome) => {
                self.set_stage(worker, lease, Stage::Storing(outcome));
                self.later(worker, lease, (10_000, 200_000), Step::Upload);
            }
            Step::Upload => self.upload(worker, lease),
            Step::Name => self.name_snapshot(worker, lease),
            Step::Report => self.report(worker, lease),
            Step::Killed => self.killed(worker, lease),
            Step::OpenLog => self.open_log(worker, lease),
        }
    }

    pub(super) fn set_stage(&mut self, worker: usize, lease: LeaseId, stage: Stage) {
        if let Some(running) = self.workers[worker].running.get_mut(&lease) {
            running.stage = stage;
        }
    }

    /// Gets what the attempt starts from, and starts its commands.
    pub(super) fn fetch(&mut self, worker: usize, lease: LeaseId) {
        if !self.cache.is_up {
            self.tally.add("worker waits for the cache");
            self.later(worker, lease, (400_000, 600_000), Step::Fetch);
            return;
        }
        let of = &mut self.workers[worker];
        let assignment = &of.running[&lease].assignment;
        let (job, unit) = (assignment.job, (assignment.job.build, assignment.unit));
        let is_there = match &assignment.input {
            JobInput::Source(source) => self.cache.has(source.tree.digest),
            JobInput::Snapshot(snapshot) => self.cache.has(snapshot.digest),
            JobInput::Local => of.local.contains(&unit),
            JobInput::Nothing => true,
        };
        let is_local = assignment.input == JobInput::Local;
        if of.offer.isolation == Isolation::Host && !is_local {
            of.local.insert(unit);
        }
        let state_lost = match &assignment.input {
            JobInput::Snapshot(snapshot) => self.cache.has_lost(snapshot.digest),
            JobInput::Source(_) | JobInput::Local | JobInput::Nothing => false,
        };
        if state_lost {
            self.tally.add("worker: state of a unit is lost");
            self.truth.state_lost(unit);
            if let Some(running) = self.workers[worker].running.get_mut(&lease) {
                running.state_lost = true;
            }
        } else if !is_there && !is_local && !self.truth.is_over(job.build) {
            self.require(Err(format!("what {job} starts from was evicted")));
        }
        if !is_there {
            self.later(worker, lease, (1_000, 2_000), Step::End(Outcome::Fault));
            return;
        }
        if !self.workers[worker].running[&lease]
            .assignment
            .asks_to_begin
        {
            self.start_commands(worker, lease);
            return;
        }
        self.set_stage(worker, lease, Stage::Waiting);
        if self.is_joined(worker) {
            self.worker_says(worker, WorkerMessage::Began { lease });
        }
    }

    /// What must not run twice may start.
    pub(super) fn go_ahead(&mut self, worker: usize, lease: LeaseId) {
        let running = self.workers[worker].running.get(&lease);
        let waiting = running.filter(|running| running.stage == Stage::Waiting);
        let Some(job) = waiting.map(|running| running.start.job) else {
            return;
        };
        self.tally
            .add("worker: commands start that must not run twice");
        let starts = self.truth.starts_once(worker, job);
        self.require(starts);
        self.set_stage(worker, lease, Stage::Commands);
        self.start_commands(worker, lease);
    }

    pub(super) fn start_commands(&mut self, worker: usize, lease: LeaseId) {
        let running = &self.workers[worker].running[&lease];
        let (job, attempt) = (running.start.job, u64::from(running.start.attempt));
        let keys = [build_key(job), u64::from(job.index), attempt];
        let mut outcome = self.dice.pick("outcome", &keys, OUTCOMES);
        if !self.is_troubled() {
            outcome = Outcome::Succeeded;
        }
        let longest = match self.dice.percent("long", &keys, 4) {
            true => 100 * SECOND,
            false => 15 * SECOND,
        };
        let lasts = self.dice.below("lasts", &keys, longest);
        let limit = u64::try_from(running.assignment.time_left.as_micros()).unwrap();
        let (lasts, outcome) = match lasts < limit {
            true => (lasts, outcome),
            false => (limit, Outcome::TimedOut),
        };
        let pieces = self.dice.below("pieces", &keys, 5);
        let (life, epoch) = (self.workers[worker].life, running.epoch);
        for piece in 0..pieces {
            let bytes = 1 + self.dice.below("bytes", &[lease.0, piece], 60);
            let at = lasts * (piece + 1) / (pieces + 1);
            let step = Step::Write(usize::try_from(bytes).unwrap());
            self.after(at, Happening::Step(worker, life, lease, epoch, step));
        }
        let end = Happening::Step(worker, life, lease, epoch, Step::End(outcome));
        self.after(lasts, end);
    }

    /// Uploads what the attempt leaves for the next.
    pub(super) fn upload(&mut self, worker: usize, lease: LeaseId) {
        if !self.cache.is_up {
            self.later(worker, lease, (400_000, 600_000), Step::Upload);
            return;
        }
        match self.leaves(worker, lease) {
            Some(digest) => {
                self.cache.put(digest, self.now);
                self.later(worker, lease, (1_000, 100_000), Step::Name);
            }
            None => self.stored(worker, lease),
        }
    }

    pub(super) fn name_snapshot(&mut self, worker: usize, lease: LeaseId) {
        let Some(digest) = self.leaves(worker, lease).filter(|_| self.cache.is_up) else {
            self.later(worker, lease, (400_000, 600_000), Step::Upload);
            return;
        };
        let build = self.workers[worker].running[&lease].start.job.build;
        if self.cache.name_snapshot(build, digest) {
            self.stored(worker, lease);
        } else {
            self.later(worker, lease, (1_000, 2_000), Step::Upload);
        }
    }

    /// The snapshot that an attempt leaves, if it does.
    pub(super) fn leaves(&self, worker: usize, lease: LeaseId) -> Option<Digest> {
        let of = &self.workers[worker];
        let running = &of.running[&lease];
        let Stage::Storing(Outcome::Succeeded | Outcome::Failed) = running.stage else {
            return None;
        };
        let (job, attempt) = (running.start.job, running.start.attempt);
        let keys = [build_key(job), u64::from(job.index), u64::from(attempt)];
        let is_bare = self.is_troubled() && self.dice.percent("bare", &keys, 2);
        let is_left = of.offer.isolation == Isolation::Namespace && !is_bare;
        is_left.then(|| sample::snapshot(job, attempt).digest)
    }

    pub(super) fn stored(&mut self, worker: usize, lease: LeaseId) {
        let has_snapshot = self.leaves(worker, lease).is_some();
        let running = self.workers[worker].running.get_mut(&lease);
        if let Some(running) = running
            && let Stage::Storing(outcome) = running.stage
        {
            // Its result says of a snapshot only what was stored.
            running.stage = Stage::Stored(outcome);
            running.assignment.succeeding = has_snapshot;
        }
        self.later(worker, lease, (1_000, 10_000), Step::Report);
    }

    /// Reports an attempt, if its log is stored too; otherwise that is done when the log is.
    pub(super) fn report(&mut self, worker: usize, lease: LeaseId) {
        let of = &mut self.workers[worker];
        let Some(running) = of.running.get(&lease) else {
            return;
        };
        let Stage::Stored(outcome) = running.stage else {
            return;
        };
        if running.log.durable < running.log.bytes.len() {
            return;
        }
        let start = running.start;
        let has_snapshot = running.assignment.succeeding;
        let snapshot = has_snapshot.then(|| sample::snapshot(start.job, start.attempt));
        let bytes = running.log.bytes.len() as u64;
        let held = held(&running.assignment);
        let mut result = sample::result(outcome, snapshot, bytes);
        result.state_lost = running.state_lost;
        of.running.remove(&lease);
        of.ended.insert(lease, (held, result));
        self.tally.add("worker: attempt stored");
        self.truth.ceases(worker, lease, start.job);
        self.say_results(worker);
        self.drop_hopeless(worker);
        self.leave_if_done(worker);
    }

    /// Kills an attempt; that takes a moment.
    pub(super) fn kill(&mut self, worker: usize, lease: LeaseId) {
        let Some(running) = self.workers[worker].running.get_mut(&lease) else {
            return;
        };
        if running.stage == Stage::Killed {
            return;
        }
        running.stage = Stage::Killed;
        running.epoch += 1;
        self.tally.add("worker: attempt killed");
        self.later(worker, lease, (1_000, 900_000), Step::Killed);
    }

    pub(super) fn killed(&mut self, worker: usize, lease: LeaseId) {
        let of = &mut self.workers[worker];
        if let Some(running) = of.running.remove(&lease) {
            of.leases.release(lease);
            if !running.is_given_up {
                of.killed.insert(lease, held(&running.assignment));
            }
            self.truth.ceases(worker, lease, running.start.job);
            self.say_killed(worker);
            self.drop_hopeless(worker);
        }
        self.leave_if_done(worker);
    }

    /// The build of an attempt stops: its commands are ended, and some take their time.
    pub(super) fn interrupt(&mut self, worker: usize, lease: LeaseId, outcome: Outcome) {
        let is_troubled = self.is_troubled();
        let Some(running) = self.workers[worker].running.get_mut(&lease) else {
            return;
        };
        if !matches!(running.stage, Stage::Commands | Stage::Waiting) {
            return;
        }
        running.stage = Stage::Ending;
        running.epoch += 1;
        self.tally.add("worker: attempt interrupted");
        let ends = match is_troubled && self.dice.percent("stubborn", &[lease.0], 30) {
            true => (40 * SECOND, 110 * SECOND),
            false => (1_000, 3 * SECOND),
        };
        self.later(worker, lease, ends, Step::End(outcome));
    }
}

fn build_key(job: JobId) -> u64 {
    u64::try_from(job.build.0).unwrap()
}
