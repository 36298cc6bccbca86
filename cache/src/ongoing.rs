//! What goes on in threads for somebody who may give it up.
//!
//! A future that is dropped stops; the threads that it has sent to work do not: they unpack, read and hash on
//! for nobody, below directories that others want to remove. An [`Ongoing`] knows of all that was begun in
//! its scope, tells it to end, and can be waited for. Outside of any scope threads run as usual.

use std::{future::Future, io, num::NonZero, thread::available_parallelism};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many threads of one kind a transfer has at most: past this, disks and networks are the limit, and each takes
/// some megabytes.
const THREADS_MAX: usize = 8;

tokio::task_local! {
    /// For whom this task, or this thread, works.
    static FOR: Ongoing;
}

/// All that goes on for somebody. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Ongoing {
    threads: TaskTracker,
    given_up: CancellationToken,
}

impl Ongoing {
    /// Carries out `work`; the threads that it sends off belong to this, also after it was dropped.
    pub fn scope<F: Future>(&self, work: F) -> impl Future<Output = F::Output> {
        FOR.scope(self.clone(), work)
    }

    /// Nobody wants what is still going on: it ends soon, with an error that nobody reads.
    pub fn give_up(&self) {
        self.given_up.cancel();
        self.threads.close();
    }

    /// Waits, after [`give_up`](Self::give_up), until nothing goes on any more.
    pub async fn ended(&self) {
        self.threads.wait().await;
    }
}

/// Whether what runs here was given up. Long work asks now and then.
pub fn is_given_up() -> bool {
    FOR.try_with(|of| of.given_up.is_cancelled())
        .unwrap_or(false)
}

/// An error if what runs here was given up.
pub(crate) fn check() -> io::Result<()> {
    match is_given_up() {
        true => Err(io::Error::other("nobody wants it any more")),
        false => Ok(()),
    }
}

/// As [`tokio::task::spawn_blocking`], on behalf of whoever this is done for.
pub fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    tokio::task::spawn_blocking(owned(work))
}

/// How many threads a transfer has of one kind: one for each core, and two at least, because one computes while the
/// other waits for the disk.
pub(crate) fn threads() -> usize {
    available_parallelism()
        .map_or(1, NonZero::get)
        .clamp(2, THREADS_MAX)
}

/// The same work, on behalf of whoever this is done for, for a thread that is started otherwise.
pub fn owned<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let of = FOR.try_with(|of| (of.clone(), of.threads.token())).ok();
    move || match of {
        Some((of, _token)) => FOR.sync_scope(of, work),
        None => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::mpsc};

    use super::*;

    #[tokio::test]
    async fn what_a_dropped_future_has_sent_off_is_told_and_waited_for() {
        let ongoing = Ongoing::default();
        let (go, went) = mpsc::channel::<()>();
        let (told, seen) = mpsc::channel();
        let work = async move {
            let thread = spawn_blocking(move || {
                told.send(is_given_up()).unwrap();
                went.recv().unwrap();
                told.send(is_given_up()).unwrap();
            });
            thread.await.unwrap();
        };
        {
            let mut work = pin!(ongoing.scope(work));
            tokio::select! {
                biased;
                () = &mut work => panic!("it waits"),
                () = std::future::ready(()) => {}
            }
        }
        assert!(!seen.recv().unwrap());
        ongoing.give_up();
        let mut ended = pin!(ongoing.ended());
        tokio::select! {
            biased;
            () = &mut ended => panic!("it still runs"),
            () = std::future::ready(()) => {}
        }
        go.send(()).unwrap();
        ended.await;
        assert!(seen.recv().unwrap(), "it could see that it was given up");
        assert!(!is_given_up(), "here nobody gave anything up");
    }
}
