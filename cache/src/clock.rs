//! The crate's one clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use protocol::time::{Time, WallTime};

/// Says what time it is.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// How far tests have moved it on, in microseconds.
    #[cfg(test)]
    ahead: std::sync::atomic::AtomicU64,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "the shell's one clock")]
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
            #[cfg(test)]
            ahead: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// How long the clock has run.
    #[cfg(not(test))]
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// How long the clock has run, and how far it was moved on.
    #[cfg(test)]
    pub(crate) fn now(&self) -> Time {
        let ahead = self.ahead.load(std::sync::atomic::Ordering::SeqCst);
        Time::ZERO + self.start.elapsed() + std::time::Duration::from_micros(ahead)
    }

    /// Moves the clock on.
    #[cfg(test)]
    pub(crate) fn advance(&self, by: std::time::Duration) {
        let by = u64::try_from(by.as_micros()).unwrap();
        self.ahead
            .fetch_add(by, std::sync::atomic::Ordering::SeqCst);
    }

    /// The time of day.
    #[expect(clippy::disallowed_methods, reason = "the shell's one clock")]
    pub(crate) fn wall() -> WallTime {
        // Before 1970 a machine has no valid certificates either.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        WallTime(0) + since.unwrap_or_default()
    }
}
