//! What people hear of a restore that takes long: how far it is, now and then.

use std::{future::Future, time::Duration};

use cache::progress::Progress;
use protocol::{lease::LeaseId, message::work::RestoreProgress};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

/// How often it is said: often enough for a bar to move, seldom enough that a thousand workers that restore
/// at once cost the coordinator nothing.
const PERIOD: Duration = Duration::from_millis(500);

/// How far the restore of an attempt is.
pub(crate) type Report = (LeaseId, RestoreProgress);

/// Tells how far the restores of one attempt are.
#[derive(Clone, Debug)]
pub(crate) struct Restoring {
    lease: LeaseId,
    reports: mpsc::Sender<Report>,
    period: Duration,
}

impl Restoring {
    /// For the attempt under `lease`.
    pub(crate) const fn new(lease: LeaseId, reports: mpsc::Sender<Report>) -> Self {
        Self {
            lease,
            reports,
            period: PERIOD,
        }
    }

    /// Does `work`, and tells meanwhile how far it is by `progress`, if it takes longer than a moment. A
    /// report for which there is no room is left out.
    pub(crate) async fn tell<T>(&self, progress: &Progress, work: impl Future<Output = T>) -> T {
        let mut due = interval(self.period);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        due.reset();
        let mut said = None;
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => {
                    if let Some(last) = said {
                        self.say(over(last));
                    }
                    return done;
                }
                _ = due.tick() => {
                    let now = so_far(progress);
                    if let Some(now) = now && said != Some(now) {
                        self.say(now);
                        said = Some(now);
                    }
                }
            }
        }
    }

    fn say(&self, progress: RestoreProgress) {
        // Somebody who looks at a bar misses nothing by one report.
        let _left_out = self.reports.try_send((self.lease, progress));
    }
}

/// How far a transfer is; `None`: nobody knows yet how much there is to do, or it is done.
fn so_far(progress: &Progress) -> Option<RestoreProgress> {
    let now = progress.now();
    // One that was tried again counts some bytes twice.
    (now.bytes_done < now.bytes_total).then_some(RestoreProgress {
        bytes_done: now.bytes_done,
        bytes_total: now.bytes_total,
    })
}

/// That a restore is over, however it ended.
const fn over(last: RestoreProgress) -> RestoreProgress {
    RestoreProgress {
        bytes_done: last.bytes_total,
        ..last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: LeaseId = LeaseId(4);

    fn restoring(room: usize) -> (Restoring, mpsc::Receiver<Report>) {
        let (reports, heard) = mpsc::channel(room);
        let mut restoring = Restoring::new(LEASE, reports);
        restoring.period = Duration::from_millis(1);
        (restoring, heard)
    }

    #[tokio::test]
    async fn a_restore_that_takes_long_is_told_as_it_moves_and_that_it_is_over() {
        let (restoring, mut heard) = restoring(8);
        let progress = Progress::default();
        let work = async {
            progress.expect(1, 10);
            let mut told = Vec::new();
            for _ in 0..3 {
                progress.advance(2);
                let (lease, heard) = heard.recv().await.unwrap();
                assert_eq!(lease, LEASE);
                told.push((heard.bytes_done, heard.bytes_total));
            }
            told
        };
        assert_eq!(
            restoring.tell(&progress, work).await,
            [(2, 10), (4, 10), (6, 10)]
        );
        let (_, last) = heard.recv().await.unwrap();
        assert_eq!(last.bytes_done, last.bytes_total);
        drop(restoring);
        assert_eq!(heard.recv().await, None);
    }

    #[tokio::test]
    async fn a_short_one_is_not_told() {
        let (restoring, mut heard) = restoring(1);
        let progress = Progress::default();
        progress.expect(1, 10);
        restoring.tell(&progress, async {}).await;
        assert!(heard.try_recv().is_err());
    }

    #[tokio::test]
    async fn one_that_nobody_hears_goes_on() {
        let (restoring, heard) = restoring(1);
        let progress = Progress::default();
        progress.expect(1, 1_000);
        let mut left = 5;
        let moving = std::future::poll_fn(|context| {
            // Woken by the next tick too, whose report finds no room.
            progress.advance(1);
            left -= 1;
            context.waker().wake_by_ref();
            if left == 0 {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        });
        restoring.tell(&progress, moving).await;
        assert!(heard.len() <= 1);
    }
}
