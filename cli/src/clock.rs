//! The one clock of the program's own: for the dates of certificates.

use protocol::time::WallTime;
use rustix::time::{ClockId, clock_gettime};

/// Now, on the wall clock; 1970 if it is set before that.
pub(crate) fn wall() -> WallTime {
    let now = clock_gettime(ClockId::Realtime);
    let millis = now.tv_sec.saturating_mul(1_000) + now.tv_nsec / 1_000_000;
    WallTime(u64::try_from(millis).unwrap_or(0))
}
