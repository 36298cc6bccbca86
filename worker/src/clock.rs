//! The worker's clocks: the one place of this crate that asks for the time.

use std::time::Duration;

use protocol::time::{Time, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Now, on the clock that leases run on: monotonic, and going on while the machine sleeps.
pub(crate) fn boot() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    Time(positive(now.tv_sec) * 1_000_000 + positive(now.tv_nsec) / 1_000)
}

/// Now, on the wall clock.
pub(crate) fn wall() -> WallTime {
    WallTime(positive(wall_micros()) / 1_000)
}

/// Now, on the wall clock, in microseconds since 1970-01-01 00:00 UTC.
pub(crate) fn wall_micros() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

/// Now, on the wall clock, in nanoseconds since 1970-01-01 00:00 UTC.
pub(crate) fn wall_nanos() -> i64 {
    wall_micros().saturating_mul(1_000)
}

fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The longest that [`until`] trusts the runtime's timers, which stand still while the machine sleeps: a
/// quarter of what is allowed for killing an attempt.
const NAP: Duration = Duration::from_millis(250);

/// Waits until `at` on the clock of [`boot`]; `None`: for ever. A machine that wakes up after that hears
/// of it within [`NAP`].
///
/// # Cancel safety
///
/// Nothing is lost if the future is dropped.
pub(crate) async fn until(at: Option<Time>) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    loop {
        let left = at.since(boot());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(NAP)).await;
    }
}
