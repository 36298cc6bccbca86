//! The session of a worker: one owner of leases, attempts and results that were not acknowledged yet.
//!
//! One task, one loop: whatever happens (a message, an attempt that ended, a moment that came) is looked
//! at in turn, and nothing in the loop waits for anybody. Connections come and go below it; what the
//! worker holds is named to each new one.

mod book;

use std::{net::SocketAddr, sync::Arc};

use protocol::{
    lease::LeaseId,
    message::work::{Assignment, CoordinatorMessage, RevokeReason, WorkerMessage},
    worker::WorkerOffer,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use transport::{ConnectError, Connection};

use self::book::{Book, Running};
use crate::{
    attempt::Interrupt,
    clock,
    driver::{self, AttemptEnd, Ending},
    leases::Leases,
    link::{LinkEvent, Up},
    site::Site,
};

/// What a session runs with.
#[derive(Debug)]
pub(crate) struct Session {
    site: Arc<Site>,
    offer: WorkerOffer,
    leases: Leases,
    book: Book,
    tasks: JoinSet<AttemptEnd>,
    /// The stream, if there is one.
    up: Option<Up>,
    /// Whether the coordinator has answered on it.
    joined: bool,
    /// Whether the worker is about to end.
    leaving: bool,
    /// For the logs.
    connections: watch::Sender<Option<Connection>>,
    /// Where the cache is.
    cache: watch::Sender<Option<SocketAddr>>,
}

impl Session {
    /// A session that has no stream yet. It tells `cache` where the cache is.
    pub(crate) fn new(
        site: Arc<Site>,
        offer: WorkerOffer,
        cache: watch::Sender<Option<SocketAddr>>,
    ) -> Self {
        Self {
            site,
            offer,
            leases: Leases::default(),
            book: Book::default(),
            tasks: JoinSet::new(),
            up: None,
            joined: false,
            leaving: false,
            connections: watch::Sender::new(None),
            cache,
        }
    }

    /// Works until told to stop, by `stop` or by the coordinator, and then until every attempt has ended
    /// and its result is acknowledged.
    ///
    /// # Errors
    ///
    /// If the coordinator refuses the worker before it ever took it.
    pub(crate) async fn run(
        mut self,
        mut link: mpsc::Receiver<LinkEvent>,
        stop: CancellationToken,
    ) -> Result<(), Box<ConnectError>> {
        while !(self.leaving && self.book.is_empty()) {
            tokio::select! {
                biased;
                () = stop.cancelled(), if !self.leaving => self.leave("told to stop"),
                () = clock::until(self.leases.deadline()) => self.tick(),
                Some(event) = link.recv() => self.link_event(event)?,
                Some(ended) = self.tasks.join_next_with_id() => match ended {
                    Ok((_, ended)) => self.ended(ended),
                    Err(failed) => self.broken(&failed),
                },
            }
        }
        if let Some(up) = &self.up {
            info!(coordinator = %up.connection.remote(), "the worker leaves");
        }
        Ok(())
    }

    fn leave(&mut self, reason: &str) {
        if self.leaving {
            return;
        }
        info!(
            reason,
            attempts = self.book.attempts(),
            "the worker is about to leave"
        );
        self.leaving = true;
        if self.joined {
            self.say(WorkerMessage::Leaving);
        }
        self.drop_hopeless();
    }

    /// A moment has come: leases end, renewals are due.
    fn tick(&mut self) {
        let now = clock::boot();
        for lease in self.leases.expired(now) {
            warn!(%lease, "lease ran out");
            self.book.interrupt(lease, Interrupt::Lost);
        }
        self.drop_hopeless();
        if let Some((sequence, leases)) = self.leases.renewal(now) {
            self.say(WorkerMessage::Renew { sequence, leases });
            self.say_results();
        }
    }

    /// A worker that leaves does not wait for a coordinator that has given the results up.
    fn drop_hopeless(&mut self) {
        if self.leaving {
            let leases = &self.leases;
            self.book.retain_results(|lease| leases.is_held(lease));
        }
    }

    fn link_event(&mut self, event: LinkEvent) -> Result<(), Box<ConnectError>> {
        match event {
            LinkEvent::Up(up) => {
                self.leases.joining(clock::boot());
                self.up = Some(up);
                self.joined = false;
                let leases = &self.leases;
                let holds = self.book.holds(|lease| leases.is_held(lease));
                self.say(WorkerMessage::Join {
                    offer: self.offer.clone(),
                    holds,
                });
            }
            LinkEvent::Down => {
                self.up = None;
                self.joined = false;
                self.leases.disconnected();
                self.connections.send_replace(None);
            }
            LinkEvent::Arrived(message) => self.arrived(message),
            LinkEvent::Refused(error) => return Err(error),
        }
        Ok(())
    }

    fn arrived(&mut self, message: CoordinatorMessage) {
        debug!(?message, "message from the coordinator");
        match message {
            CoordinatorMessage::Joined { cache, leases } => self.joined(cache, &leases),
            CoordinatorMessage::Assign(assignment) => self.assigned(*assignment),
            CoordinatorMessage::Renewed { sequence, leases } => {
                for lease in self.leases.renewed(sequence, &leases) {
                    self.lost(lease);
                }
            }
            CoordinatorMessage::Revoke { lease, reason } => match reason {
                RevokeReason::Stopped => self.book.interrupt(lease, Interrupt::Stopped),
                RevokeReason::TimedOut => self.book.interrupt(lease, Interrupt::TimedOut),
                RevokeReason::Lost => {
                    self.leases.release(lease);
                    self.lost(lease);
                }
            },
            CoordinatorMessage::Acknowledged { lease } => {
                self.leases.release(lease);
                self.book.forget_result(lease);
            }
            CoordinatorMessage::Drain => self.leave("drained"),
        }
    }

    fn joined(&mut self, cache: SocketAddr, kept: &[LeaseId]) {
        let now = clock::boot();
        for lease in self.leases.joined(kept, now) {
            self.lost(lease);
        }
        // A result outlives its lease here as long as the coordinator still wants it.
        self.book.retain_results(|lease| kept.contains(&lease));
        for lease in self.book.results() {
            if !self.leases.is_held(lease) {
                self.leases.granted(lease, now);
            }
        }
        self.joined = true;
        self.cache.send_replace(Some(cache));
        let connection = self.up.as_ref().map(|up| up.connection.clone());
        self.connections.send_replace(connection);
        self.say_results();
        if self.leaving {
            self.say(WorkerMessage::Leaving);
        }
    }

    /// The coordinator has given a lease up.
    fn lost(&mut self, lease: LeaseId) {
        warn!(%lease, "lease lost");
        self.book.interrupt(lease, Interrupt::Lost);
        self.book.forget_result(lease);
    }

    fn assigned(&mut self, assignment: Assignment) {
        let lease = assignment.lease;
        if self.book.knows(lease) {
            return;
        }
        if !self.joined || !self.leases.granted(lease, clock::boot()) {
            // It runs out unused, and the coordinator gives the job to somebody else.
            warn!(%lease, job = %assignment.job, "assignment came too late to begin");
            return;
        }
        info!(
            %lease,
            job = %assignment.job,
            attempt = assignment.attempt,
            phase = %assignment.phase,
            "attempt begins"
        );
        let (interrupt, interrupts) = watch::channel(None);
        let (job, attempt) = (assignment.job, assignment.attempt);
        let task = self.tasks.spawn(driver::drive(
            Arc::clone(&self.site),
            assignment,
            interrupts,
            self.connections.subscribe(),
        ));
        let running = Running {
            job,
            attempt,
            interrupt,
            task: task.id(),
        };
        self.book.begin(lease, running);
    }

    fn ended(&mut self, ended: AttemptEnd) {
        let AttemptEnd { lease, ending } = ended;
        let Some(running) = self.book.end(lease) else {
            return;
        };
        let result = match ending {
            Ending::Reported(result) => result,
            Ending::Lost => {
                info!(%lease, job = %running.job, "attempt ended unreported");
                self.leases.release(lease);
                return;
            }
            Ending::Left => {
                self.leases.release(lease);
                self.leave("processes of an attempt may run on, and a new start ends them");
                return;
            }
        };
        info!(%lease, job = %running.job, outcome = %result.outcome, "attempt ended");
        self.book.keep_result(lease, &running, result);
        self.say_results();
        self.drop_hopeless();
    }

    /// The task of an attempt panicked: a bug. Its sandbox dies without anybody waiting for it, so there
    /// is nothing that may be said of it.
    fn broken(&mut self, failed: &tokio::task::JoinError) {
        error!(error = %failed, "an attempt's task broke");
        if let Some(lease) = self.book.of_task(failed.id()) {
            let ending = Ending::Left;
            self.ended(AttemptEnd { lease, ending });
        }
    }

    fn say_results(&mut self) {
        if !self.joined {
            return;
        }
        for message in self.book.finished() {
            self.say(message);
        }
    }

    /// Hands a message to the link. One that does not take it is broken.
    fn say(&mut self, message: WorkerMessage) {
        let Some(up) = &self.up else { return };
        if up.outgoing.try_send(message).is_err() {
            up.connection.close("nobody reads what the worker says");
            self.up = None;
            self.joined = false;
        }
    }
}
