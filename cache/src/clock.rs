//! The crate's one clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use protocol::time::{Time, WallTime};

/// Says what time it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "the shell's one clock")]
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// How long the clock has run.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// The time of day.
    #[expect(clippy::disallowed_methods, reason = "the shell's one clock")]
    pub(crate) fn wall() -> WallTime {
        // Before 1970 a machine has no valid certificates either.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        WallTime(0) + since.unwrap_or_default()
    }
}
