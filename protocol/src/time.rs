//! Time as a value: pure code is told the time, and never asks for it.

use std::{ops::Add, time::Duration};

use serde::{Deserialize, Serialize};

/// A moment on a monotonic clock, in microseconds since a start that only its owner knows.
///
/// Leases run on it. Moments of different processes cannot be compared.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Time(pub u64);

impl Time {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);

    /// How long it is from `earlier` to this moment; zero if that is the later one.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

/// A moment on the wall clock, in milliseconds since 1970-01-01 00:00 UTC.
///
/// Limits of builds and queues, retention and everything that people read run on it.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct WallTime(pub u64);

impl WallTime {
    /// How long it is from `earlier` to this moment; zero if that is the later one.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}
