//! The session of a worker: one owner of leases, attempts and results that were not acknowledged yet.
//!
//! One task, one loop: whatever happens (a message, an attempt that ended, a moment that came) is looked
//! at in turn, and nothing in the loop waits for anybody. Connections come and go below it; what the
//! worker holds is named to each new one.

mod book;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use protocol::{
    lease::LeaseId,
    message::{
        terminal::TerminalStart,
        work::{Assignment, CoordinatorMessage, RevokeReason, WorkerMessage},
    },
    time::Time,
    worker::{Incarnation, WorkerOffer},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, error, info, warn};
use transport::{ConnectError, Connection};

use self::book::{Book, Running};
use crate::{
    attempt::Interrupt,
    begin::BeginRequest,
    clock,
    departure::Departure,
    driver::{self, AttemptEnd, Ending, Orders, Ways},
    leases::Leases,
    link::{LinkEvent, Up},
    options::Stop,
    restoring,
    site::Site,
    terminals::ATTACHING_MAX,
    units,
};

/// How long a worker that hands its jobs over waits for its attempts to be dead and for the coordinator to
/// take them: somebody sits there and waits.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(10);

/// How long a worker that leaves waits for what its attempts left to be cleared away: a disk that takes longer may
/// take for ever.
const CLEARING_PATIENCE: Duration = Duration::from_secs(30);

/// How many attempts may wait to be noted as about to begin; the session looks at once.
const BEGINS_MAX: usize = 64;

/// How many reports of restores may wait to be passed on; one that finds no room is left out.
const RESTORES_MAX: usize = 64;

/// What a session runs with.
#[derive(Debug)]
pub(crate) struct Session {
    site: Arc<Site>,
    offer: WorkerOffer,
    leases: Leases,
    book: Book,
    tasks: JoinSet<AttemptEnd>,
    /// Units that go, and what is left of attempts.
    clearing: JoinSet<()>,
    /// Terminals that people have in attempts, and those that wait for one.
    terminals: JoinSet<()>,
    /// The stream, if there is one.
    up: Option<Up>,
    /// Whether the coordinator has answered on it, and whether the worker is about to end.
    departure: Departure,
    /// Which process this is, and how many connections it has had.
    process: (Incarnation, u64),
    /// Attempts whose first command is about to start.
    begins: (mpsc::Sender<BeginRequest>, mpsc::Receiver<BeginRequest>),
    /// How far restores are.
    restores: (
        mpsc::Sender<restoring::Report>,
        mpsc::Receiver<restoring::Report>,
    ),
    /// For the logs.
    connections: watch::Sender<Option<Connection>>,
    /// Where the cache is.
    cache: watch::Sender<Option<SocketAddr>>,
}

impl Session {
    /// A session that has no stream yet. It tells `cache` where the cache is.
    pub(crate) fn new(
        site: Arc<Site>,
        (offer, incarnation): (WorkerOffer, Incarnation),
        cache: watch::Sender<Option<SocketAddr>>,
    ) -> Self {
        Self {
            site,
            offer,
            leases: Leases::default(),
            book: Book::default(),
            tasks: JoinSet::new(),
            clearing: JoinSet::new(),
            terminals: JoinSet::new(),
            up: None,
            departure: Departure::default(),
            process: (incarnation, 0),
            begins: mpsc::channel(BEGINS_MAX),
            restores: mpsc::channel(RESTORES_MAX),
            connections: watch::Sender::new(None),
            cache,
        }
    }

    /// The connection to the coordinator; `None` while it has not taken the worker.
    pub(crate) fn connections(&self) -> watch::Receiver<Option<Connection>> {
        self.connections.subscribe()
    }

    /// Works until told to stop, by `stop` or by the coordinator, and then until every attempt has ended
    /// and its result is acknowledged, and until the coordinator has no more of the units that are kept
    /// here. Is it not there, the worker does not wait for it.
    ///
    /// # Errors
    ///
    /// If the coordinator refuses the worker before it ever took it.
    pub(crate) async fn run(
        mut self,
        mut link: mpsc::Receiver<LinkEvent>,
        stop: Stop,
    ) -> Result<(), Box<ConnectError>> {
        while !self.is_done() {
            tokio::select! {
                biased;
                () = stop.drain.cancelled(), if !self.departure.is_leaving() => self.leave("told to stop"),
                () = stop.hand_over.cancelled(), if self.departure.hands_over_until().is_none() => self.hand_over(),
                () = clock::until(self.deadline()) => self.tick(),
                Some(request) = self.begins.1.recv() => self.wait_to_begin(request),
                Some(report) = self.restores.1.recv() => self.mention(report),
                Some(event) = link.recv() => self.link_event(event)?,
                Some(_cleared) = self.clearing.join_next() => {}
                Some(_left) = self.terminals.join_next() => {}
                Some(ended) = self.tasks.join_next_with_id() => match ended {
                    Ok((_, ended)) => self.ended(ended),
                    Err(failed) => self.broken(&failed),
                },
            }
        }
        let cleared = async { while self.clearing.join_next().await.is_some() {} };
        if timeout(CLEARING_PATIENCE, cleared).await.is_err() {
            warn!("what attempts left is not cleared away yet; the next start does it");
        }
        if let Some(up) = &self.up {
            info!(coordinator = %up.connection.remote(), "the worker leaves");
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.departure.is_done(clock::boot(), self.book.is_empty())
    }

    fn deadline(&self) -> Option<Time> {
        let moments = [self.leases.deadline(), self.departure.hands_over_until()];
        moments.into_iter().flatten().min()
    }

    /// Kills all attempts and gives their jobs back.
    fn hand_over(&mut self) {
        self.leave("told to hand over");
        info!(
            attempts = self.book.attempts(),
            "the worker hands its jobs over"
        );
        self.departure.hand_over(clock::boot() + HAND_OVER_LIMIT);
        self.book.interrupt_all(Interrupt::Lost);
        self.say_killed();
    }

    fn leave(&mut self, reason: &str) {
        let Some(is_told) = self.departure.leave() else {
            return;
        };
        info!(
            reason,
            attempts = self.book.attempts(),
            "the worker is about to leave"
        );
        if is_told {
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
            self.say_again();
        }
    }

    /// A worker that leaves does not wait for a coordinator that has given the results up.
    fn drop_hopeless(&mut self) {
        if self.departure.is_leaving() {
            let leases = &self.leases;
            self.book.retain_results(|lease| leases.is_held(lease));
            if !self.departure.is_joined() {
                // Their leases run out by themselves.
                self.book.retain_killed(|_| false);
            }
        }
    }

    fn link_event(&mut self, event: LinkEvent) -> Result<(), Box<ConnectError>> {
        match event {
            LinkEvent::Up(up) => {
                self.leases.joining(clock::boot());
                self.up = Some(up);
                self.departure.disconnected();
                self.process.1 += 1;
                self.say(WorkerMessage::Join {
                    offer: self.offer.clone(),
                    incarnation: self.process.0,
                    connection: self.process.1,
                    ended: self.site.directory.before(),
                    leaving: self.departure.is_leaving(),
                    holds: self.book.holds(),
                });
            }
            LinkEvent::Down => {
                self.up = None;
                self.departure.disconnected();
                self.leases.disconnected();
                self.connections.send_replace(None);
                self.drop_hopeless();
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
                if !self.leases.awaits(sequence) {
                    ignored("out_of_order");
                }
                for lease in self.leases.renewed(sequence, &leases) {
                    self.lost(lease);
                }
                self.book.prolong(|lease| self.leases.fence(lease));
            }
            CoordinatorMessage::Revoke { lease, .. } if !self.book.knows(lease) => ignored("late"),
            CoordinatorMessage::Revoke { lease, reason } => match reason {
                RevokeReason::Stopped => self.book.interrupt(lease, Interrupt::Stopped),
                RevokeReason::TimedOut => self.book.interrupt(lease, Interrupt::TimedOut),
                RevokeReason::Lost => {
                    self.leases.release(lease);
                    self.lost(lease);
                }
            },
            CoordinatorMessage::Acknowledged { lease } => {
                if !self.book.knows(lease) {
                    ignored("late");
                }
                self.leases.release(lease);
                self.book.acknowledged(lease);
                if let Some(place) = self.site.units.acknowledged(lease) {
                    let site = Arc::clone(&self.site);
                    self.clearing.spawn(units::clear(site, place));
                }
            }
            CoordinatorMessage::GoAhead { lease } => {
                if !self.book.go_ahead(lease) {
                    ignored("duplicate");
                }
            }
            CoordinatorMessage::Attach(start) => self.attach(start),
            CoordinatorMessage::Dismissed => self.departure.dismissed(),
            CoordinatorMessage::Drain => self.leave("drained"),
        }
    }

    /// Somebody wants a shell in an attempt.
    fn attach(&mut self, start: TerminalStart) {
        let may = self.terminals.len() < ATTACHING_MAX;
        let Some(up) = self.up.as_ref().filter(|_| may) else {
            return ignored("late");
        };
        let (site, connection) = (Arc::clone(&self.site), up.connection.clone());
        self.terminals.spawn(async move {
            if let Err(error) = site.terminals.serve(&connection, start).await {
                debug!(lease = %start.lease, error = %error, "the stream of a terminal broke");
            }
        });
    }

    fn joined(&mut self, cache: SocketAddr, kept: &[LeaseId]) {
        let now = clock::boot();
        for lease in self.leases.joined(kept, now) {
            self.lost(lease);
        }
        self.book.prolong(|lease| self.leases.fence(lease));
        // A result outlives its lease here as long as the coordinator still wants it.
        self.book.retain_results(|lease| kept.contains(&lease));
        self.book.retain_killed(|lease| kept.contains(&lease));
        for lease in self.book.results() {
            if !self.leases.is_held(lease) {
                self.leases.granted(lease, now);
            }
        }
        if self.departure.joined() {
            self.say(WorkerMessage::Leaving);
        }
        self.cache.send_replace(Some(cache));
        let connection = self.up.as_ref().map(|up| up.connection.clone());
        self.connections.send_replace(connection);
        self.say_again();
    }

    /// The coordinator has given a lease up.
    fn lost(&mut self, lease: LeaseId) {
        warn!(%lease, "lease lost");
        self.book.interrupt(lease, Interrupt::Lost);
        self.book.give_up(lease);
    }

    fn assigned(&mut self, assignment: Assignment) {
        let lease = assignment.lease;
        if self.book.knows(lease) {
            return ignored("duplicate");
        }
        if !self.departure.is_joined() || !self.leases.granted(lease, clock::boot()) {
            warn!(%lease, job = %assignment.job, "assignment came too late to begin");
            ignored("late");
            self.say(WorkerMessage::Declined { lease });
            return;
        }
        info!(
            %lease,
            job = %assignment.job,
            attempt = assignment.attempt,
            phase = %assignment.phase,
            "attempt begins"
        );
        let Some(fence) = self.leases.fence(lease) else {
            return;
        };
        let (interrupt, interrupts) = watch::channel(None);
        let (until, untils) = watch::channel(fence);
        let orders = Orders {
            interrupt: interrupts,
            until: untils,
        };
        let (job, attempt) = (assignment.job, assignment.attempt);
        let task = self.tasks.spawn(driver::drive(
            Arc::clone(&self.site),
            assignment,
            orders,
            Ways {
                connections: self.connections.subscribe(),
                begins: self.begins.0.clone(),
                restores: self.restores.0.clone(),
            },
        ));
        let running = Running {
            job,
            attempt,
            interrupt,
            until,
            task: task.id(),
            go_ahead: None,
            is_given_up: false,
        };
        self.book.begin(lease, running);
    }

    fn ended(&mut self, ended: AttemptEnd) {
        let AttemptEnd {
            lease,
            ending,
            remains,
        } = ended;
        // What is said does not wait for it.
        if let Some(remains) = remains {
            self.clearing.spawn(driver::clean_up(remains));
        }
        let Some(running) = self.book.end(lease) else {
            return;
        };
        let result = match ending {
            Ending::Reported(result) => result,
            Ending::Lost => {
                info!(%lease, job = %running.job, "attempt ended unreported");
                self.leases.release(lease);
                self.book.keep_killed(lease, &running);
                self.say_killed();
                return;
            }
            Ending::Left => {
                self.leases.release(lease);
                self.book.keep_left(lease, &running);
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
            self.ended(AttemptEnd {
                lease,
                ending: Ending::Left,
                remains: None,
            });
        }
    }

    /// The first command of an attempt is about to start.
    fn wait_to_begin(&mut self, request: BeginRequest) {
        let BeginRequest { lease, go_ahead } = request;
        self.book.wait_to_begin(lease, go_ahead);
        if self.departure.is_joined() {
            self.say(WorkerMessage::Began { lease });
        }
    }

    /// Says everything that was not answered yet.
    fn say_again(&mut self) {
        self.say_results();
        self.say_killed();
        if self.departure.is_joined() {
            for lease in self.book.waiting_to_begin() {
                self.say(WorkerMessage::Began { lease });
            }
        }
    }

    /// Gives back what was killed; a worker that hands over says so even if there is nothing, for the
    /// units that it keeps.
    fn say_killed(&mut self) {
        let leases = self.book.killed();
        let hands_over = self.departure.hands_over_until().is_some();
        if self.departure.is_joined() && (hands_over || !leases.is_empty()) {
            self.say(WorkerMessage::HandOver { leases });
        }
    }

    fn say_results(&mut self) {
        if !self.departure.is_joined() {
            return;
        }
        for message in self.book.finished() {
            self.say(message);
        }
    }

    /// Passes on how far a restore is, if the link has room.
    fn mention(&self, (lease, progress): restoring::Report) {
        if let Some(up) = self.up.as_ref().filter(|_| self.departure.is_joined()) {
            // Nothing depends on it.
            let _left_out = up
                .outgoing
                .try_send(WorkerMessage::Restoring { lease, progress });
        }
    }

    /// Hands a message to the link. One that does not take it is broken.
    fn say(&mut self, message: WorkerMessage) {
        let Some(up) = &self.up else { return };
        if up.outgoing.try_send(message).is_err() {
            up.connection.close("nobody reads what the worker says");
            self.up = None;
            self.departure.disconnected();
        }
    }
}

/// Counts a message of the coordinator that changed nothing, for those who watch over the farm.
fn ignored(reason: &'static str) {
    metrics::counter!("grange_worker_messages_ignored_total", "reason" => reason).increment(1);
}
