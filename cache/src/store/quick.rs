//! Where short reads are done: on the thread that wants them, as long as reads are quick. To go to another thread and
//! back takes longer than a look into memory, and with many small reads it takes most of the time.
//!
//! What is in memory nobody knows before, since most of it is the system's. So the reads themselves tell: after one
//! that was slow because it waited for the disk, all are done where they may block, for a time in which that one
//! is a small part. The first read that meets a disk that hangs does hang; half of the threads, where there are
//! several, never do.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use nix::sys::resource::{UsageWho, getrusage};
use protocol::time::Time;
use tokio::runtime::Handle;

use super::{Store, Trouble};

/// From here on a read that has waited was slow: longer than locks take, and less than one look at most disks.
const SLOW: Duration = Duration::from_micros(100);
/// How many times as long as a slow read took nothing is read on the thread that wants it: it waits for slow disks
/// about a hundredth of its time.
const PAUSE_FACTOR: u32 = 100;

/// Whether reads are quick.
#[derive(Debug, Default)]
pub(super) struct Quick {
    /// Until when they are taken for slow, in microseconds on the store's clock.
    slow_until: AtomicU64,
    /// How many are done at the moment by threads that want them.
    under_way: AtomicUsize,
}

/// One of those that are under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Quick {
    fn is_likely(&self, now: Time) -> bool {
        self.slow_until.load(Ordering::Relaxed) <= micros(now)
    }

    /// Begins one of at most `most`; `None`: so many are under way.
    fn begin(&self, most: usize) -> Option<UnderWay<'_>> {
        let under_way = UnderWay(&self.under_way);
        (self.under_way.fetch_add(1, Ordering::Relaxed) < most).then_some(under_way)
    }

    /// A read that ended at `now` has taken so long; whether its thread has `waited` for something meanwhile, and not
    /// only for the processor.
    fn took(&self, took: Duration, has_waited: bool, now: Time) {
        if has_waited && SLOW <= took {
            let until = micros(now + took.saturating_mul(PAUSE_FACTOR));
            self.slow_until.fetch_max(until, Ordering::Relaxed);
        }
    }
}

fn micros(time: Time) -> u64 {
    u64::try_from(time.since(Time::ZERO).as_micros()).unwrap_or(u64::MAX)
}

impl Store {
    /// Runs what looks for little, and takes some dozens of microseconds if that is in memory: here, or where it may
    /// block.
    pub(crate) async fn brief<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let (quick, clock) = (&self.shared.quick, &self.shared.clock);
        let start = clock.now();
        // A disk that hangs takes half of the runtime's threads at most: the others answer meanwhile.
        let threads = Handle::current().metrics().num_workers();
        let under_way = quick.begin((threads / 2).max(1));
        if under_way.is_none() || !quick.is_likely(start) {
            drop(under_way);
            metrics::counter!("grange_cache_brief_reads_moved_total").increment(1);
            return self.blocking(work).await;
        }
        let waits = waits();
        let done = self.seen(work(self.clone()));
        let end = clock.now();
        quick.took(end.since(start), waits != self::waits(), end);
        done
    }
}

/// How often this thread has waited, for a disk or a lock: for the processor does not count.
fn waits() -> i64 {
    // Without it no read is slow.
    let usage = getrusage(UsageWho::RUSAGE_THREAD);
    usage.map_or(0, |usage| usage.voluntary_context_switches())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn no_more_are_under_way_than_there_may_be() {
        let quick = Quick::default();
        let first = quick.begin(2).unwrap();
        let second = quick.begin(2).unwrap();
        assert!(quick.begin(2).is_none());
        drop(first);
        assert!(quick.begin(2).is_some());
        drop(second);
        assert_eq!(quick.under_way.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn after_a_read_that_waited_long_a_hundred_times_as_long_passes_before_one_is_done_here_again()
    {
        let quick = Quick::default();
        assert!(quick.is_likely(at(0)));
        quick.took(Duration::from_micros(90), true, at(1));
        quick.took(Duration::from_secs(1), false, at(1));
        assert!(quick.is_likely(at(1)));
        quick.took(Duration::from_millis(8), true, at(10));
        assert!(!quick.is_likely(at(11)) && !quick.is_likely(at(809)));
        // One that was quicker does not shorten it.
        quick.took(Duration::from_millis(1), true, at(11));
        assert!(!quick.is_likely(at(809)));
        assert!(quick.is_likely(at(810)));
        quick.took(Duration::MAX, true, at(900));
        assert!(!quick.is_likely(at(1_000_000)));
    }
}
