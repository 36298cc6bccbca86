//! What a worker has under way: attempts that run, and results that the coordinator has not acknowledged.

use std::collections::BTreeMap;

use protocol::{
    job::{AttemptResult, JobId},
    lease::LeaseId,
    message::work::{HeldLease, WorkerMessage},
};
use tokio::{sync::watch, task};

use crate::attempt::Interrupt;

/// An attempt that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// The job.
    pub(super) job: JobId,
    /// Which try.
    pub(super) attempt: u32,
    /// Tells it to end. The first reason counts, except that a lost lease overrides all.
    pub(super) interrupt: watch::Sender<Option<Interrupt>>,
    /// Its task.
    pub(super) task: task::Id,
}

#[derive(Debug)]
struct Ended {
    held: HeldLease,
    result: Box<AttemptResult>,
}

/// Attempts and results by lease; a lease is in one of the two at most.
#[derive(Debug, Default)]
pub(super) struct Book {
    running: BTreeMap<LeaseId, Running>,
    ended: BTreeMap<LeaseId, Ended>,
}

impl Book {
    /// An attempt begins.
    pub(super) fn begin(&mut self, lease: LeaseId, running: Running) {
        self.running.insert(lease, running);
    }

    /// An attempt has ended.
    pub(super) fn end(&mut self, lease: LeaseId) -> Option<Running> {
        self.running.remove(&lease)
    }

    /// Tells an attempt to end; if it does not run, nothing happens.
    pub(super) fn interrupt(&mut self, lease: LeaseId, why: Interrupt) {
        let Some(running) = self.running.get(&lease) else {
            return;
        };
        running.interrupt.send_if_modified(|interrupt| {
            let counts = interrupt.is_none() || why == Interrupt::Lost;
            if counts {
                *interrupt = Some(why);
            }
            counts
        });
    }

    /// Keeps what came of an attempt until it is acknowledged.
    pub(super) fn keep_result(
        &mut self,
        lease: LeaseId,
        running: &Running,
        result: Box<AttemptResult>,
    ) {
        let held = HeldLease {
            lease,
            job: running.job,
            attempt: running.attempt,
        };
        self.ended.insert(lease, Ended { held, result });
    }

    /// A result is not needed any more.
    pub(super) fn forget_result(&mut self, lease: LeaseId) {
        self.ended.remove(&lease);
    }

    /// Forgets the results that `keep` does not want.
    pub(super) fn retain_results(&mut self, keep: impl Fn(LeaseId) -> bool) {
        self.ended.retain(|&lease, _| keep(lease));
    }

    /// The leases of results.
    pub(super) fn results(&self) -> Vec<LeaseId> {
        self.ended.keys().copied().collect()
    }

    /// All results, as messages.
    pub(super) fn finished(&self) -> Vec<WorkerMessage> {
        let message = |(&lease, ended): (&LeaseId, &Ended)| WorkerMessage::Finished {
            lease,
            result: ended.result.clone(),
        };
        self.ended.iter().map(message).collect()
    }

    /// What to name to a new stream: all results, and the attempts whose leases `is_held` says are.
    pub(super) fn holds(&self, is_held: impl Fn(LeaseId) -> bool) -> Vec<HeldLease> {
        let running = self.running.iter().filter(|(lease, _)| is_held(**lease));
        let running = running.map(|(&lease, running)| HeldLease {
            lease,
            job: running.job,
            attempt: running.attempt,
        });
        let ended = self.ended.values().map(|ended| ended.held);
        running.chain(ended).collect()
    }

    /// Whether there is an attempt or a result under this lease.
    pub(super) fn knows(&self, lease: LeaseId) -> bool {
        self.running.contains_key(&lease) || self.ended.contains_key(&lease)
    }

    /// The lease of the attempt that a task runs.
    pub(super) fn of_task(&self, task: task::Id) -> Option<LeaseId> {
        let found = self
            .running
            .iter()
            .find(|(_, running)| running.task == task);
        found.map(|(&lease, _)| lease)
    }

    /// How many attempts run.
    pub(super) fn attempts(&self) -> usize {
        self.running.len()
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.ended.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        build::{BuildId, Outcome, PhaseContext},
        time::WallTime,
    };

    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    fn running() -> (Running, watch::Receiver<Option<Interrupt>>) {
        let (interrupt, interrupts) = watch::channel(None);
        let job = JobId {
            build: BuildId(7),
            index: 3,
        };
        let task = task::JoinSet::new().spawn(async {}).id();
        (
            Running {
                job,
                attempt: 1,
                interrupt,
                task,
            },
            interrupts,
        )
    }

    fn result() -> Box<AttemptResult> {
        Box::new(AttemptResult {
            outcome: Outcome::Succeeded,
            context: PhaseContext::default(),
            snapshot: None,
            artifact: None,
            cache_uses: Vec::new(),
            log_bytes: 0,
            started: WallTime(1),
            ended: WallTime(2),
        })
    }

    /// A book in which `A` has ended and `B` runs.
    fn book() -> (Book, watch::Receiver<Option<Interrupt>>) {
        let mut book = Book::default();
        let (ended, _) = running();
        book.begin(A, ended);
        let ended = book.end(A).unwrap();
        book.keep_result(A, &ended, result());
        let (goes_on, interrupts) = running();
        book.begin(B, goes_on);
        (book, interrupts)
    }

    #[tokio::test]
    async fn a_result_is_said_until_it_is_acknowledged() {
        let (mut book, _interrupts) = book();
        for _ in 0..2 {
            let said = book.finished();
            assert!(matches!(
                said[..],
                [WorkerMessage::Finished { lease: A, .. }]
            ));
        }
        book.forget_result(A);
        assert_eq!(book.finished(), []);
        assert!(!book.is_empty(), "an attempt still runs");
    }

    #[tokio::test]
    async fn a_new_stream_hears_of_results_and_of_attempts_whose_leases_are_held() {
        let (book, _interrupts) = book();
        let leases = |holds: Vec<HeldLease>| -> Vec<_> {
            holds.into_iter().map(|held| held.lease).collect()
        };
        assert_eq!(leases(book.holds(|_| true)), [B, A]);
        assert_eq!(
            leases(book.holds(|_| false)),
            [A],
            "a result outlives its lease"
        );
    }

    #[tokio::test]
    async fn a_lost_lease_overrides_why_an_attempt_ends_and_nothing_else_does() {
        let (mut book, interrupts) = book();
        book.interrupt(B, Interrupt::Stopped);
        book.interrupt(B, Interrupt::TimedOut);
        assert_eq!(*interrupts.borrow(), Some(Interrupt::Stopped));
        book.interrupt(B, Interrupt::Lost);
        book.interrupt(B, Interrupt::Stopped);
        assert_eq!(*interrupts.borrow(), Some(Interrupt::Lost));
    }
}
