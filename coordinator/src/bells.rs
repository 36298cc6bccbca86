//! Bells: how watchers of a build hear that there is something new, and where. What it is they read
//! where it is kept, at their own speed, so that a slow one holds up nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use protocol::{build::BuildId, job::JobId, message::work::RestoreProgress};
use tokio::sync::Notify;

use crate::logs::LogKey;

/// The bells of all builds that somebody listens to.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    builds: Mutex<BTreeMap<BuildId, Vec<Weak<Listener>>>>,
}

/// A listener. It misses nothing that happens after it was made, but hears what happened many times as
/// once.
#[derive(Debug)]
pub(crate) struct Bell(Arc<Listener>);

/// Where there is something new. Bounded by the jobs and attempts of one build.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct News {
    /// Jobs that stand otherwise than before.
    pub jobs: BTreeSet<u32>,
    /// Logs that have grown.
    pub logs: BTreeSet<LogKey>,
    /// Jobs whose workers restore what they start from, and how far they are.
    pub restores: BTreeMap<u32, RestoreProgress>,
}

#[derive(Debug, Default)]
struct Listener {
    news: Mutex<News>,
    rung: Notify,
}

impl Bells {
    /// Listens to a build, known or not.
    pub(crate) fn listen(&self, build: BuildId) -> Bell {
        let listener = Arc::<Listener>::default();
        let mut builds = lock(&self.builds);
        // Builds that nobody listens to any more and that nothing happens to would stay otherwise.
        builds.retain(|_, listeners| listeners.iter().any(|listener| 0 < listener.strong_count()));
        let listeners = builds.entry(build).or_default();
        listeners.push(Arc::downgrade(&listener));
        Bell(listener)
    }

    /// Tells all who listen to a job's build that it stands otherwise than before.
    pub(crate) fn job_changed(&self, job: JobId) {
        self.ring(job.build, |news| {
            news.jobs.insert(job.index);
        });
    }

    /// Tells all who listen to a log's build that it has grown.
    pub(crate) fn log_grown(&self, key: LogKey) {
        self.ring(key.job.build, |news| {
            news.logs.insert(key);
        });
    }

    /// Tells all who listen to a job's build how far its worker is with restoring what it starts from.
    pub(crate) fn restoring(&self, job: JobId, progress: RestoreProgress) {
        self.ring(job.build, |news| {
            news.restores.insert(job.index, progress);
        });
    }

    /// Tells all who listen to a build that it has ended, or is gone.
    pub(crate) fn build_changed(&self, build: BuildId) {
        self.ring(build, |_| {});
    }

    fn ring(&self, build: BuildId, note: impl Fn(&mut News)) {
        let mut builds = lock(&self.builds);
        let Some(listeners) = builds.get_mut(&build) else {
            return;
        };
        listeners.retain(|listener| {
            let Some(listener) = listener.upgrade() else {
                return false;
            };
            note(&mut lock(&listener.news));
            listener.rung.notify_one();
            true
        });
        if listeners.is_empty() {
            builds.remove(&build);
        }
    }
}

impl Bell {
    /// Waits until something is new since the last time.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(crate) async fn rung(&self) {
        self.0.rung.notified().await;
    }

    /// Takes what is new.
    pub(crate) fn take(&self) -> News {
        mem::take(&mut *lock(&self.0.news))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is done under these locks that could leave something half done.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn job(build: u128, index: u32) -> JobId {
        JobId {
            build: BuildId(build),
            index,
        }
    }

    #[tokio::test]
    async fn who_listens_hears_all_of_its_own_build_and_nothing_of_others() {
        let bells = Bells::default();
        let bell = bells.listen(BuildId(1));
        let other = bells.listen(BuildId(2));
        bells.job_changed(job(1, 4));
        bells.job_changed(job(1, 4));
        bells.job_changed(job(1, 5));
        let key = LogKey {
            job: job(1, 4),
            attempt: 1,
        };
        bells.log_grown(key);
        let so_far = |bytes_done| RestoreProgress {
            bytes_done,
            bytes_total: 9,
        };
        bells.restoring(job(1, 5), so_far(3));
        bells.restoring(job(1, 5), so_far(6));
        bell.rung().await;
        let expected = News {
            jobs: BTreeSet::from([4, 5]),
            logs: BTreeSet::from([key]),
            restores: BTreeMap::from([(5, so_far(6))]),
        };
        assert_eq!(bell.take(), expected);
        assert_eq!(bell.take(), News::default());
        assert_eq!(other.take(), News::default());
    }

    #[test]
    fn who_has_gone_is_forgotten() {
        let bells = Bells::default();
        drop(bells.listen(BuildId(1)));
        bells.build_changed(BuildId(1));
        assert!(lock(&bells.builds).is_empty());
        drop(bells.listen(BuildId(2)));
        drop(bells.listen(BuildId(3)));
        assert_eq!(lock(&bells.builds).len(), 1);
    }
}
