//! Timers: what falls due on the monotonic clock.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{build::BuildId, lease::LeaseId, name::WorkerName, time::Time};

/// What falls due. At one moment in this order: a lease that ends is settled before its worker is given
/// up.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Timer {
    /// A lease ends.
    Lease(LeaseId),
    /// Of an attempt nothing was heard, and its lease is not renewed any more.
    Begin(LeaseId),
    /// A worker that is not connected is given up, with the units that are bound to it.
    Gone(WorkerName),
    /// A worker that was put aside gets jobs again.
    Bench(WorkerName),
    /// A worker that has not come back is forgotten, and that it drains.
    Away(WorkerName),
    /// What is held against a worker that is not there is forgotten.
    Pardon(WorkerName),
    /// A unit does not wait any longer for the worker that holds its layers.
    Preference(BuildId, u32),
}

/// Timers with their moments, each timer once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    at: BTreeMap<Timer, Time>,
    order: BTreeSet<(Time, Timer)>,
}

impl Timers {
    /// Sets `timer` to `time`, wherever it was before.
    pub(crate) fn set(&mut self, timer: Timer, time: Time) {
        self.clear(&timer);
        self.order.insert((time, timer.clone()));
        self.at.insert(timer, time);
    }

    /// Takes `timer` away, if it is set.
    pub(crate) fn clear(&mut self, timer: &Timer) {
        if let Some(time) = self.at.remove(timer) {
            self.order.remove(&(time, timer.clone()));
        }
    }

    /// Takes away the first timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        let due = self.order.first().is_some_and(|(time, _)| *time <= now);
        let (_, timer) = due.then(|| self.order.pop_first()).flatten()?;
        self.at.remove(&timer);
        Some(timer)
    }

    /// When `timer` falls due; `None`: it is not set.
    pub(crate) fn get(&self, timer: &Timer) -> Option<Time> {
        self.at.get(timer).copied()
    }

    /// When the first timer falls due.
    pub(crate) fn next(&self) -> Option<Time> {
        self.order.first().map(|(time, _)| *time)
    }
}
