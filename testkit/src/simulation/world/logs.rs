//! Logs: a worker sends what its attempts write until all of it is durable; the coordinator keeps each
//! byte once.

use std::collections::BTreeMap;

use protocol::{
    build::BuildId,
    job::JobId,
    lease::LeaseId,
    message::work::{HeldLease, LogStart},
};

use scheduler::Event;

use super::{Happening, Lane, Payload, World, coordinator::Order};
use crate::simulation::{
    dice::Dice,
    sample,
    script::{Power, SECOND},
    truth::{Broken, check},
};

/// The logs at the coordinator.
#[derive(Debug, Default)]
pub(super) struct Logs(BTreeMap<(JobId, u32), Kept>);

/// A log, as far as it is.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    synced: usize,
}

impl Logs {
    /// What is there after a stop.
    pub(super) fn restart(&mut self, power: Power, dice: Dice, key: u64) {
        for ((job, attempt), kept) in &mut self.0 {
            if power == Power::Cut {
                let new = kept.bytes.len() - kept.synced;
                let keys = [key, u64::from(job.index), u64::from(*attempt)];
                let left = dice.below("log kept", &keys, new as u64 + 1);
                kept.bytes
                    .truncate(kept.synced + usize::try_from(left).unwrap());
            }
            kept.synced = kept.bytes.len();
        }
    }

    /// The logs of a build go.
    pub(super) fn forget(&mut self, build: BuildId) {
        self.0.retain(|(job, _), _| job.build != build);
    }

    /// Checks that all that a stored attempt wrote is there, and once.
    pub(super) fn check(&self, job: JobId, attempt: u32, bytes: u64) -> Result<(), Broken> {
        let empty = Kept::default();
        let kept = self.0.get(&(job, attempt)).unwrap_or(&empty);
        check(
            kept.synced as u64 == bytes && kept.bytes.len() as u64 == bytes,
            || {
                let (synced, there) = (kept.synced, kept.bytes.len());
                format!(
                    "the log of attempt {attempt} at {job} has {there} bytes, {synced} of them durable, \
                 and its result says {bytes}"
                )
            },
        )?;
        let right = (0..).zip(&kept.bytes);
        let mut wrong = right.filter(|(at, byte)| sample::log_byte(job, attempt, *at) != **byte);
        let first = wrong.next();
        check(first.is_none(), || {
            format!("the log of attempt {attempt} at {job} is another's: {first:?}")
        })
    }
}

impl World {
    /// A command writes.
    pub(super) fn write(&mut self, worker: usize, lease: LeaseId, bytes: usize) {
        let running = self.workers[worker].running.get_mut(&lease);
        let Some(running) = running else { return };
        let (job, attempt) = (running.start.job, running.start.attempt);
        let log = &mut running.log;
        let from = log.bytes.len();
        let new = (from..from + bytes).map(|at| sample::log_byte(job, attempt, at));
        log.bytes.extend(new);
        self.send_log(worker, lease);
    }

    /// Opens the stream of a log, if there is anybody to hear it.
    pub(super) fn open_log(&mut self, worker: usize, lease: LeaseId) {
        let of = &mut self.workers[worker];
        let (Some(link), Some(running)) = (of.link, of.running.get_mut(&lease)) else {
            return;
        };
        running.log.is_open = false;
        let start = running.start;
        if self.is_joined(worker) {
            self.say(link, Lane::LogUp, Payload::LogStart(start));
        }
    }

    fn send_log(&mut self, worker: usize, lease: LeaseId) {
        let of = &mut self.workers[worker];
        let (Some(link), Some(running)) = (of.link, of.running.get_mut(&lease)) else {
            return;
        };
        let (start, log) = (running.start, &mut running.log);
        if log.is_open && log.sent < log.bytes.len() {
            let piece = log.bytes[log.sent..].to_vec();
            let offset = log.sent as u64;
            log.sent = log.bytes.len();
            self.say(link, Lane::LogUp, Payload::LogPiece(start, offset, piece));
        }
    }

    /// Sends a log from its start, whatever of it was sent before.
    pub(super) fn send_log_again(&mut self, worker: usize, lease: LeaseId) {
        if let Some(running) = self.workers[worker].running.get_mut(&lease) {
            running.log.sent = 0;
            self.send_log(worker, lease);
        }
    }

    /// Writes into a log that is another's.
    pub(super) fn forge_log(&mut self, worker: usize, held: HeldLease) {
        let Some(link) = self.workers[worker].link else {
            return;
        };
        let start = LogStart {
            lease: held.lease,
            job: held.job,
            attempt: held.attempt,
        };
        let forged = Payload::LogPiece(start, 0, b"forged".to_vec());
        self.say(link, Lane::LogUp, Payload::LogStart(start));
        self.say(link, Lane::LogUp, forged);
    }

    pub(super) fn log_acknowledged(&mut self, worker: usize, lease: LeaseId, durable: u64) {
        let Some(running) = self.workers[worker].running.get_mut(&lease) else {
            return;
        };
        let log = &mut running.log;
        let durable = usize::try_from(durable).unwrap();
        log.durable = log.durable.max(durable);
        if !log.is_open {
            log.is_open = true;
            log.sent = durable;
        }
        let is_within = durable <= log.bytes.len();
        self.require(check(is_within, || {
            format!("of the log of {lease} more is durable than was written")
        }));
        self.send_log(worker, lease);
        self.report(worker, lease);
    }

    pub(super) fn coordinator_takes_log(&mut self, link: usize, payload: Payload) {
        let (start, offset, bytes) = match payload {
            Payload::LogStart(start) => (start, 0, Vec::new()),
            Payload::LogPiece(start, offset, bytes) => (start, offset, bytes),
            _ => return,
        };
        let Some(up) = &self.coordinator.up else {
            return;
        };
        let name = &self.workers[self.links[link].worker].offer.name;
        let state = up.brain.scheduler().state();
        let record = scheduler::attempt(state, start.job, start.attempt);
        let is_its = record.is_some_and(|it| it.lease == start.lease && it.worker == *name);
        let kept = self.coordinator.logs.0.entry((start.job, start.attempt));
        let kept = kept.or_default();
        let new = coordinator::new_part(kept.bytes.len() as u64, offset, &bytes);
        match new.filter(|_| is_its) {
            Some(new) => {
                if new.len() < bytes.len() {
                    self.tally.add("log bytes sent twice");
                }
                // Said once for each stream: with its first bytes, or where there are some already.
                let is_first = kept.bytes.is_empty() || bytes.is_empty();
                kept.bytes.extend_from_slice(new);
                let is_heard = is_first && !kept.bytes.is_empty();
                let (life, keys) = (self.coordinator.life, [start.lease.0, self.now]);
                let wait = self.dice.below("log sync", &keys, SECOND / 20);
                self.after(wait, Happening::LogSync(life, link, start));
                if is_heard {
                    let lease = start.lease;
                    self.order(Order::Event(Event::Heard { lease }, None));
                }
            }
            None => {
                self.tally.add("log stream refused");
                self.say(link, Lane::LogDown, Payload::LogRefused(start.lease));
            }
        }
    }

    pub(super) fn log_sync(&mut self, life: u64, link: usize, start: LogStart) {
        if life != self.coordinator.life || self.coordinator.up.is_none() {
            return;
        }
        if let Some(kept) = self.coordinator.logs.0.get_mut(&(start.job, start.attempt)) {
            kept.synced = kept.bytes.len();
            let durable = kept.synced as u64;
            self.say(link, Lane::LogDown, Payload::LogAck(start.lease, durable));
        }
    }
}
