//! Conduct: how workers behaved, and who is put aside for it.
//!
//! A worker that faults, that gives back what it was given, or that comes and goes gets no jobs for a
//! while, longer each time. Good conduct wipes it out. Workers that are gone are remembered for
//! [`BENCH_MAX`](crate::BENCH_MAX), so that going away and coming back is no way out.

use std::collections::BTreeMap;

use protocol::{name::WorkerName, time::Time};

use crate::retry;

/// How often in a row a worker may give back what it never began before it is put aside: now and then a
/// connection is lost with an assignment on it.
pub const RETURNS_MAX: u32 = 3;

/// How often in a row a worker may go again soon after it has come, having done nothing.
pub const VANISHINGS_MAX: u32 = 3;

/// What is held against each worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conduct {
    of: BTreeMap<WorkerName, Record>,
}

/// What is held against a worker, each since it last did something well.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// How often it was put aside.
    benched: u32,
    /// How often it gave a lease back.
    returns: u32,
    /// How often it came and went.
    vanishings: u32,
}

impl Conduct {
    /// A worker faulted; gives until when it is put aside.
    pub(crate) fn faulted(&mut self, worker: &WorkerName, now: Time) -> Time {
        let record = self.of.entry(worker.clone()).or_default();
        record.benched = record.benched.saturating_add(1);
        now + retry::bench_time(record.benched)
    }

    /// A worker gave back what it never began; gives until when it is put aside, if it is.
    pub(crate) fn returned(&mut self, worker: &WorkerName, now: Time) -> Option<Time> {
        let record = self.of.entry(worker.clone()).or_default();
        record.returns = record.returns.saturating_add(1);
        (RETURNS_MAX <= record.returns).then(|| self.faulted(worker, now))
    }

    /// A worker went again soon after it had come; gives until when it is put aside, if it is.
    pub(crate) fn vanished(&mut self, worker: &WorkerName, now: Time) -> Option<Time> {
        let record = self.of.entry(worker.clone()).or_default();
        record.vanishings = record.vanishings.saturating_add(1);
        (VANISHINGS_MAX <= record.vanishings).then(|| self.faulted(worker, now))
    }

    /// A worker stayed: that it came and went before does not count any more.
    pub(crate) fn stayed(&mut self, worker: &WorkerName) {
        if let Some(record) = self.of.get_mut(worker) {
            record.vanishings = 0;
        }
    }

    /// Nothing is held against a worker any more.
    pub(crate) fn forget(&mut self, worker: &WorkerName) {
        self.of.remove(worker);
    }

    /// Whether anything is held against a worker.
    pub(crate) fn knows(&self, worker: &WorkerName) -> bool {
        self.of.contains_key(worker)
    }
}
