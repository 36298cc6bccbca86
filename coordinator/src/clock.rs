//! The coordinator's one clock: the only place that reads the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::time::{Time, WallTime};
use rustix::time::{ClockId, clock_gettime};
use scheduler::Now;
use tokio::time::sleep;

/// How long a deadline may be missed by when the machine has slept.
const NAP: Duration = Duration::from_secs(1);

/// The monotonic time, in microseconds since the machine started. It goes on while the machine sleeps,
/// so that a lease ends on time by both its parties' reckoning.
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    Time(u64::try_from(micros).expect("the monotonic clock starts at zero and fits for ages"))
}

/// The wall time; 1970 if the machine's clock is set before that.
#[expect(clippy::disallowed_methods, reason = "the shell's one clock")]
pub(crate) fn wall() -> WallTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    WallTime::default() + since
}

/// Both, as the scheduler takes them.
pub(crate) fn both() -> Now {
    Now {
        time: now(),
        wall: wall(),
    }
}

/// Waits until the wall clock says `end`.
pub(crate) async fn until(end: WallTime) {
    loop {
        let left = end.since(wall());
        if left.is_zero() {
            return;
        }
        sleep(left.min(NAP)).await;
    }
}

/// Waits for `wait`, or a little, whichever is shorter: whoever calls this looks at the clock again. A timer
/// of the runtime stands still while the machine sleeps, and the clock does not.
pub(crate) async fn nap(wait: Duration) {
    sleep(wait.min(NAP)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_is_looked_at_again_soon_however_far_it_is() {
        // Whoever waited to its end would miss it by as long as the machine has slept.
        let nap = tokio::time::timeout(10 * NAP, nap(Duration::from_secs(3_600)));
        nap.await.unwrap();
        until(wall()).await;
    }

    #[test]
    fn time_does_not_go_back_and_the_wall_clock_is_the_machines() {
        let (a, b) = (now(), now());
        assert!(a <= b);
        let file = tempfile::NamedTempFile::new().unwrap();
        let made = file.as_file().metadata().unwrap().modified().unwrap();
        let made = WallTime::default() + made.duration_since(UNIX_EPOCH).unwrap();
        // In milliseconds since 1970, as files have it.
        let apart = wall().since(made).max(made.since(wall()));
        assert!(apart < Duration::from_secs(60), "{apart:?}");
    }
}
