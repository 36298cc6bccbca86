//! The moment at which a sandbox ends by itself: kept by a timer of its own, on the clock that goes on
//! while the machine sleeps, so that a worker that is stopped or asleep holds nothing up.

use std::{io, os::fd::OwnedFd};

use protocol::time::Time;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// When everything is to be killed.
#[derive(Debug)]
pub(super) struct Fence {
    timer: OwnedFd,
    /// `None`: at no set time.
    until: Option<Time>,
}

impl Fence {
    /// A fence at `until`; `None`: at no set time.
    ///
    /// # Errors
    ///
    /// If the system gives no timer.
    pub(super) fn new(until: Option<Time>) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
        let mut fence = Self { timer, until: None };
        if let Some(until) = until {
            fence.set(until);
        }
        Ok(fence)
    }

    /// Moves the fence.
    pub(super) fn set(&mut self, until: Time) {
        self.until = Some(until);
        // All zeros would be never.
        let micros = i64::try_from(until.0).unwrap_or(i64::MAX).max(1);
        let once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let at = Itimerspec {
            it_interval: once,
            it_value: Timespec {
                tv_sec: micros / 1_000_000,
                tv_nsec: micros % 1_000_000 * 1_000,
            },
        };
        // A moment that is past is now, so there is nothing to refuse.
        let _set = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &at);
    }

    /// Readable when the moment has come.
    pub(super) const fn timer(&self) -> &OwnedFd {
        &self.timer
    }

    /// Whether everything is to be killed now.
    pub(super) fn is_over(&self) -> bool {
        let now = clock_gettime(ClockId::Boottime);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        let now = Time(u64::try_from(micros).unwrap_or(u64::MAX));
        self.until.is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn a_fence_stands_at_the_last_moment_that_was_named() {
        let fires = |fence: &Fence| {
            let none = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            poll(
                &mut [PollFd::new(fence.timer(), PollFlags::IN)],
                Some(&none),
            )
            .unwrap()
                == 1
        };
        let mut fence = Fence::new(Some(Time(1))).unwrap();
        assert!(fires(&fence) && fence.is_over());
        fence.set(Time(u64::MAX / 2));
        assert!(!fires(&fence) && !fence.is_over());
        let never = Fence::new(None).unwrap();
        assert!(!fires(&never) && !never.is_over());
    }
}
