//! Waiting for a state, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a state is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How often it is looked at before the test is given up: two minutes, far more than anything here
/// takes on a busy machine.
const POLLS_MAX: u32 = 6_000;

/// Waits until `state` gives something, and gives that.
///
/// # Panics
///
/// If it does not for two minutes; `what` says what was waited for.
#[track_caller]
pub fn until<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    for _ in 0..POLLS_MAX {
        if let Some(found) = state() {
            return found;
        }
        thread::sleep(POLL); // the poll interval, not what is waited for
    }
    panic!("waited in vain until {what}");
}

/// Waits until `state` holds.
///
/// # Panics
///
/// As [`until`].
#[track_caller]
pub fn until_true(what: &str, mut state: impl FnMut() -> bool) {
    until(what, || state().then_some(()));
}

/// Lets a moment pass, where it is the moment that is tested and not a state: who dies when.
pub fn moment(length: Duration) {
    thread::sleep(length); // not a poll interval, but what is tested
}

/// The time, for tests that compare when things were seen.
#[expect(clippy::disallowed_methods, reason = "the one clock of the tests")]
pub fn now() -> Instant {
    Instant::now()
}
