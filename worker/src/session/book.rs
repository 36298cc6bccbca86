//! What a worker has under way: attempts that run, results that the coordinator has not acknowledged, and
//! attempts that were killed and that it has not taken back.

use std::collections::BTreeMap;

use protocol::{
    job::{AttemptResult, JobId},
    lease::LeaseId,
    message::work::{HeldLease, WorkerMessage},
    time::Time,
};
use tokio::{
    sync::{oneshot, watch},
    task,
};

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
    /// Tells it when everything that it started is dead in any case.
    pub(super) until: watch::Sender<Time>,
    /// Its task.
    pub(super) task: task::Id,
    /// Lets its first command start, if it waits for that.
    pub(super) go_ahead: Option<oneshot::Sender<()>>,
    /// Whether the coordinator has given its lease up.
    pub(super) is_given_up: bool,
}

impl Running {
    const fn held(&self, lease: LeaseId) -> HeldLease {
        HeldLease {
            lease,
            job: self.job,
            attempt: self.attempt,
        }
    }
}

#[derive(Debug)]
struct Ended {
    held: HeldLease,
    result: Box<AttemptResult>,
}

/// Attempts and results by lease; a lease is in one of the three at most.
#[derive(Debug, Default)]
pub(super) struct Book {
    running: BTreeMap<LeaseId, Running>,
    ended: BTreeMap<LeaseId, Ended>,
    /// Nothing of these runs any more, and the coordinator may not know.
    killed: BTreeMap<LeaseId, HeldLease>,
    /// Something of these may run on, as long as this process lives.
    left: Vec<HeldLease>,
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

    /// Tells all attempts to end.
    pub(super) fn interrupt_all(&mut self, why: Interrupt) {
        let running: Vec<LeaseId> = self.running.keys().copied().collect();
        for lease in running {
            self.interrupt(lease, why);
        }
    }

    /// The coordinator has given a lease up: nothing is to be said of it any more.
    pub(super) fn give_up(&mut self, lease: LeaseId) {
        if let Some(running) = self.running.get_mut(&lease) {
            running.is_given_up = true;
        }
        self.ended.remove(&lease);
        self.killed.remove(&lease);
    }

    /// Keeps that an attempt was killed, unless the coordinator knows.
    pub(super) fn keep_killed(&mut self, lease: LeaseId, running: &Running) {
        if !running.is_given_up {
            self.killed.insert(lease, running.held(lease));
        }
    }

    /// Keeps that something of an attempt may run on: nobody may have its job before its lease has run out.
    pub(super) fn keep_left(&mut self, lease: LeaseId, running: &Running) {
        self.left.push(running.held(lease));
    }

    /// Forgets the killed attempts that `keep` does not want.
    pub(super) fn retain_killed(&mut self, keep: impl Fn(LeaseId) -> bool) {
        self.killed.retain(|&lease, _| keep(lease));
    }

    /// The leases of killed attempts.
    pub(super) fn killed(&self) -> Vec<LeaseId> {
        self.killed.keys().copied().collect()
    }

    /// An attempt waits for its first command to be let start.
    pub(super) fn wait_to_begin(&mut self, lease: LeaseId, go_ahead: oneshot::Sender<()>) {
        if let Some(running) = self.running.get_mut(&lease) {
            running.go_ahead = Some(go_ahead);
        }
    }

    /// Lets the first command of an attempt start; gives whether it waited for that.
    pub(super) fn go_ahead(&mut self, lease: LeaseId) -> bool {
        let running = self.running.get_mut(&lease);
        let waiting = running.and_then(|running| running.go_ahead.take());
        // An attempt that is being killed does not wait any more.
        waiting.is_some_and(|go_ahead| go_ahead.send(()).is_ok())
    }

    /// The leases of attempts that wait for their first command to be let start.
    pub(super) fn waiting_to_begin(&self) -> Vec<LeaseId> {
        let waiting = self.running.iter();
        let waiting = waiting.filter(|(_, running)| running.go_ahead.is_some());
        waiting.map(|(&lease, _)| lease).collect()
    }

    /// Tells all attempts until when what they start may run; `None`: what was said before counts.
    pub(super) fn prolong(&self, until: impl Fn(LeaseId) -> Option<Time>) {
        for (&lease, running) in &self.running {
            let until = until(lease);
            running.until.send_if_modified(|now| {
                let later = until.filter(|until| until != now);
                later.inspect(|&later| *now = later).is_some()
            });
        }
    }

    /// Keeps what came of an attempt until it is acknowledged.
    pub(super) fn keep_result(
        &mut self,
        lease: LeaseId,
        running: &Running,
        result: Box<AttemptResult>,
    ) {
        let held = running.held(lease);
        self.ended.insert(lease, Ended { held, result });
    }

    /// The coordinator knows what came of an attempt.
    pub(super) fn acknowledged(&mut self, lease: LeaseId) {
        self.ended.remove(&lease);
        self.killed.remove(&lease);
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

    /// What to name to a new stream: everything. What is not named the coordinator gives to others at
    /// once, so an attempt that is being killed is named until it is dead.
    pub(super) fn holds(&self) -> Vec<HeldLease> {
        let running = self.running.iter();
        let running = running.map(|(&lease, running)| running.held(lease));
        let ended = self.ended.values().map(|ended| ended.held);
        let killed = self.killed.values().copied();
        let left = self.left.iter().copied();
        running.chain(ended).chain(killed).chain(left).collect()
    }

    /// Whether there is an attempt or a result under this lease.
    pub(super) fn knows(&self, lease: LeaseId) -> bool {
        self.running.contains_key(&lease)
            || self.ended.contains_key(&lease)
            || self.killed.contains_key(&lease)
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
        self.running.is_empty() && self.ended.is_empty() && self.killed.is_empty()
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
                until: watch::Sender::default(),
                task,
                go_ahead: None,
                is_given_up: false,
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
            secondary_artifacts: Default::default(),
            exported: None,
            reports: Vec::new(),
            cache_uses: Vec::new(),
            log_bytes: 0,
            started: WallTime(1),
            ended: WallTime(2),
            state_lost: false,
            fetched: None,
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
        book.acknowledged(A);
        assert_eq!(book.finished(), []);
        assert!(!book.is_empty(), "an attempt still runs");
    }

    #[tokio::test]
    async fn a_new_stream_hears_of_results_and_of_attempts_until_they_are_dead_and_taken_back() {
        let (mut book, _interrupts) = book();
        let leases = |book: &Book| -> Vec<_> {
            let holds = book.holds().into_iter();
            holds.map(|held| held.lease).collect()
        };
        assert_eq!(leases(&book), [B, A]);
        book.interrupt(B, Interrupt::Lost);
        assert_eq!(leases(&book), [B, A], "it may still run");
        let ended = book.end(B).unwrap();
        book.keep_killed(B, &ended);
        assert_eq!(leases(&book), [A, B]);
        assert_eq!(book.killed(), [B]);
        book.acknowledged(B);
        assert_eq!(leases(&book), [A]);
    }

    #[tokio::test]
    async fn what_the_coordinator_has_given_up_is_not_handed_over() {
        let (mut book, _interrupts) = book();
        book.give_up(B);
        let ended = book.end(B).unwrap();
        book.keep_killed(B, &ended);
        assert_eq!(book.killed(), []);
    }

    #[tokio::test]
    async fn what_may_run_on_is_named_and_not_handed_over() {
        let (mut book, _interrupts) = book();
        let ended = book.end(B).unwrap();
        book.keep_left(B, &ended);
        assert_eq!(book.killed(), []);
        assert!(book.holds().iter().any(|held| held.lease == B));
    }

    #[tokio::test]
    async fn an_attempt_waits_to_begin_until_it_is_let() {
        let (mut book, _interrupts) = book();
        let (go_ahead, mut goes) = oneshot::channel();
        book.wait_to_begin(B, go_ahead);
        assert_eq!(book.waiting_to_begin(), [B]);
        assert!(goes.try_recv().is_err());
        assert!(book.go_ahead(B));
        assert_eq!(goes.try_recv(), Ok(()));
        assert!(!book.go_ahead(B), "it does not wait any more");
        assert_eq!(book.waiting_to_begin(), []);
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
