//! The gate before the writer: what is to be written waits here until the disk's budget has room for it.
//!
//! What a change makes the files grow by is taken out of the room before it is queued, so that what is
//! written at the same time by many cannot come out over the budget. Who waits is back-pressure, as far
//! as to the clients. What makes room does not come by here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Trouble;

/// What part of the budget one change takes at most, as a divisor: one that seems larger than what making room leaves
/// free would wait for ever.
const CHANGE_DIVISOR: u64 = crate::eviction::SLACK_DIVISOR;

/// What part of the budget is left, as a divisor, when it is said that somebody wants room.
const EARLY_DIVISOR: u64 = 32;

/// The gate.
#[derive(Debug)]
pub(super) struct Gate {
    /// What the files may take, in bytes.
    budget: u64,
    state: Mutex<State>,
    /// There may be room now, or never.
    moved: Notify,
    /// Somebody waits for room.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What the files take and will take by themselves, when they were measured.
    used: u64,
    /// What was written since that, in bytes of the disk.
    since: u64,
    /// What was let through and is not written yet, in bytes of the disk.
    outstanding: u64,
    /// Nothing more can go: this stays.
    stays: Option<Stays>,
}

/// What cannot go, in bytes as stored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Stays {
    /// What is held, whoever it belongs to.
    pub(super) held: u64,
    /// What is not held, and belongs to entries that are not evicted: those of builds, and those in use.
    pub(super) kept: u64,
}

/// What was let through; it is dropped when it is written, or will not be.
#[derive(Debug)]
#[must_use]
pub(super) struct Admitted {
    gate: Arc<Gate>,
    growth: u64,
}

impl Admitted {
    /// Nothing of it was written.
    pub(super) fn unused(mut self) {
        let growth = std::mem::take(&mut self.growth);
        let mut state = self.gate.lock();
        state.outstanding = state.outstanding.saturating_sub(growth);
        drop(state);
        self.gate.moved.notify_waiters();
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.outstanding = state.outstanding.saturating_sub(self.growth);
        state.since = state.since.saturating_add(self.growth);
    }
}

/// The state when a measurement begins.
#[derive(Debug)]
pub(super) struct Measuring {
    since: u64,
}

impl Gate {
    /// A gate for files that may take `budget` bytes. Nothing gets through before it was measured what
    /// they take.
    pub(super) fn new(budget: u64) -> Self {
        let state = State {
            used: budget,
            ..State::default()
        };
        Self {
            budget,
            state: Mutex::new(state),
            moved: Notify::new(),
            wanted: Notify::new(),
        }
    }

    /// What the files may take, in bytes.
    pub(super) const fn budget(&self) -> u64 {
        self.budget
    }

    /// Waits until there is room for a change that brings so many bytes.
    ///
    /// # Errors
    ///
    /// [`Trouble::Held`] if there is none, and nothing more can go at the moment.
    ///
    /// # Cancel safety
    ///
    /// Nothing was let through.
    pub(super) async fn admit(self: &Arc<Self>, bytes: u64) -> Result<Admitted, Trouble> {
        // Once in the log, once in the file.
        let growth = (2 * bytes).min(self.budget / CHANGE_DIVISOR);
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            match self.take(growth) {
                Some(admitted) => return admitted,
                None => self.wanted.notify_one(),
            }
            moved.await;
        }
    }

    fn take(self: &Arc<Self>, growth: u64) -> Option<Result<Admitted, Trouble>> {
        let mut state = self.lock();
        let taken = state
            .used
            .saturating_add(state.since + state.outstanding + growth);
        if taken <= self.budget {
            state.outstanding += growth;
            drop(state);
            if self.budget - self.budget / EARLY_DIVISOR < taken {
                // Making room takes a while: it begins before all is used up.
                self.wanted.notify_one();
            }
            return Some(Ok(Admitted {
                gate: Arc::clone(self),
                growth,
            }));
        }
        let Stays { held, kept } = state.stays?;
        drop(state);
        // Holds and builds end: it is tried again, though this one does not wait for it.
        self.wanted.notify_one();
        Some(Err(Trouble::Held {
            budget: self.budget,
            held,
            kept,
        }))
    }

    /// How many bytes may have been written since it was measured what the files take.
    pub(super) fn unmeasured(&self) -> u64 {
        self.lock().since
    }

    /// Begins to measure what the files take.
    pub(super) fn measuring(&self) -> Measuring {
        Measuring {
            since: self.lock().since,
        }
    }

    /// The files take `used` bytes, or will by themselves.
    pub(super) fn measured(&self, measuring: Measuring, used: u64) {
        let mut state = self.lock();
        state.used = used;
        // What was written while it was measured may not be in it.
        state.since = state.since.saturating_sub(measuring.since);
        let taken = state.used.saturating_add(state.since + state.outstanding);
        if taken < self.budget {
            state.stays = None;
        }
        drop(state);
        self.moved.notify_waiters();
    }

    /// Nothing more can go, because all that is there `stays`, and there is no room: who waits is refused.
    pub(super) fn exhausted(&self, stays: Stays) {
        self.lock().stays = Some(stays);
        self.moved.notify_waiters();
    }

    /// Whether nothing more can go.
    pub(super) fn is_exhausted(&self) -> bool {
        self.lock().stays.is_some()
    }

    /// Waits until somebody waits for room, or soon will.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers that are changed together, without a panic between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn measure(gate: &Gate, used: u64) {
        let measuring = gate.measuring();
        gate.measured(measuring, used);
    }

    #[test]
    fn no_more_gets_through_than_there_is_room_for_until_room_is_made() {
        let gate = Arc::new(Gate::new(2_000));
        let mut early = pin!(gate.admit(50));
        assert!(poll(early.as_mut()).is_pending(), "not measured yet");
        measure(&gate, 1_700);
        let Poll::Ready(Ok(first)) = poll(early.as_mut()) else {
            panic!("there is room");
        };
        let Poll::Ready(Ok(second)) = poll(pin!(gate.admit(50)).as_mut()) else {
            panic!("there is room");
        };
        let mut third = pin!(gate.admit(51));
        assert!(poll(third.as_mut()).is_pending());
        let mut wanted = pin!(gate.wanted());
        assert!(poll(wanted.as_mut()).is_ready());

        drop(first);
        measure(&gate, 1_800);
        assert!(
            poll(third.as_mut()).is_pending(),
            "the second is on its way"
        );
        drop(second);
        measure(&gate, 1_890);
        assert!(poll(third.as_mut()).is_ready());
    }

    #[test]
    fn what_is_written_during_a_measurement_counts() {
        let gate = Arc::new(Gate::new(2_000));
        measure(&gate, 0);
        let Poll::Ready(Ok(admitted)) = poll(pin!(gate.admit(60)).as_mut()) else {
            panic!("there is room");
        };
        let measuring = gate.measuring();
        drop(admitted);
        gate.measured(measuring, 1_800);
        assert!(poll(pin!(gate.admit(50)).as_mut()).is_pending());
        assert!(poll(pin!(gate.admit(30)).as_mut()).is_ready());
    }

    #[test]
    fn when_nothing_more_can_go_who_waits_is_refused_until_it_can() {
        let gate = Arc::new(Gate::new(2_000));
        measure(&gate, 1_990);
        let mut waits = pin!(gate.admit(50));
        assert!(poll(waits.as_mut()).is_pending());
        gate.exhausted(Stays {
            held: 600,
            kept: 300,
        });
        let Poll::Ready(Err(trouble)) = poll(waits.as_mut()) else {
            panic!("it is refused");
        };
        let message = trouble.to_string();
        for part in ["2000", "600 bytes are held", "300 more belong to entries"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(
            poll(pin!(gate.admit(50)).as_mut()).is_ready(),
            "without waiting"
        );
        measure(&gate, 100);
        assert!(matches!(
            poll(pin!(gate.admit(50)).as_mut()),
            Poll::Ready(Ok(_))
        ));
    }

    #[test]
    fn what_was_let_through_and_refused_later_takes_no_room() {
        let gate = Arc::new(Gate::new(2_000));
        measure(&gate, 1_700);
        for _ in 0..100 {
            let Poll::Ready(Ok(admitted)) = poll(pin!(gate.admit(50)).as_mut()) else {
                panic!("there is room");
            };
            admitted.unused();
        }
        assert_eq!(gate.unmeasured(), 0);
    }

    #[test]
    fn a_change_larger_than_a_small_budget_gets_through_when_room_has_been_made() {
        let gate = Arc::new(Gate::new(16_000));
        measure(&gate, crate::eviction::Targets::of(16_000, 0, 0).files);
        assert!(poll(pin!(gate.admit(50_000)).as_mut()).is_ready());
    }
}
