//! The dispatcher: the one task that owns the scheduler.
//!
//! Everything that can move a job passes through one queue, so what happens has one order. The task takes
//! what is in the queue at once, lets the scheduler decide about each event, journals all that was decided
//! with one sync, and only then carries out what follows and answers questions: nobody hears of anything
//! that a power cut could undo. It decides nothing itself, and never waits for a worker or a client.

use std::{
    collections::BTreeMap,
    fmt, mem,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use protocol::message::work::CoordinatorMessage;
use scheduler::{Effect, Event, Scheduler, SessionId, State};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use transport::GrantSigner;

use crate::{
    assign,
    bells::Bells,
    clock,
    health::Health,
    journal::{AppendError, Journal},
    record,
    report::Chain,
    retention::{Chore, Chores},
};

/// How many orders may wait, and are decided about before one sync. Past it sessions wait: that is the
/// farm's back-pressure.
const ORDERS_MAX: usize = 1_024;
/// How many bytes of facts one sync covers, at most by one event more: a bound on memory, and far below
/// what a group of the journal may have.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many messages may wait for a worker: an assignment, a revocation and an acknowledgement for each
/// slot of a large machine. A worker that does not take them for so long is cut off, and comes back when
/// it can.
pub(crate) const OUTBOX_MAX: usize = 1_024;
/// How long the disk gets before facts that it refused are written again.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Hands orders to the dispatcher. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Dispatcher {
    orders: mpsc::Sender<Order>,
    gone: Arc<Gone>,
}

/// The queue that [`Desk::run`] takes orders from.
#[derive(Debug)]
pub(crate) struct Orders {
    orders: mpsc::Receiver<Order>,
    gone: Arc<Gone>,
}

/// Sessions that are over. They are told beside the queue, because who ends by being cancelled cannot wait
/// for a place in it. As many as there are sessions at most.
#[derive(Debug, Default)]
struct Gone {
    sessions: Mutex<Vec<SessionId>>,
    added: Notify,
}

type Question = Box<dyn FnOnce(&State) + Send>;

enum Order {
    /// Something happened; then somebody may want to know how things stand.
    Event(Event, Option<Question>),
    /// Somebody wants to know how things stand.
    Ask(Question),
    /// A session is there that messages to a worker go to.
    Attach(SessionId, Outbox),
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event, _) => f.debug_tuple("Event").field(event).finish(),
            Self::Ask(_) => f.write_str("Ask"),
            Self::Attach(session, _) => f.debug_tuple("Attach").field(session).finish(),
        }
    }
}

/// Where messages to a worker go.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Holds [`OUTBOX_MAX`].
    pub messages: mpsc::Sender<CoordinatorMessage>,
    /// Where this worker is told that the cache is.
    pub cache: SocketAddr,
}

/// The coordinator stops: nothing is decided any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the coordinator stops")]
pub(crate) struct Stopped;

/// Why the dispatcher has ended. The coordinator has to stop: the next start reads what is certain.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// What was decided may or may not be on disk. Look at the disk and start again.
    #[error("failed to journal what was decided")]
    Journal {
        /// What the journal says.
        source: AppendError,
    },
}

/// The two ends of the dispatcher's queue.
pub(crate) fn queue() -> (Dispatcher, Orders) {
    let (sender, receiver) = mpsc::channel(ORDERS_MAX);
    let gone = Arc::<Gone>::default();
    let dispatcher = Dispatcher {
        orders: sender,
        gone: Arc::clone(&gone),
    };
    let orders = Orders {
        orders: receiver,
        gone,
    };
    (dispatcher, orders)
}

impl Dispatcher {
    /// Lets something happen, without waiting for what is decided.
    ///
    /// # Errors
    ///
    /// If the coordinator stops.
    pub(crate) async fn tell(&self, event: Event) -> Result<(), Stopped> {
        let sent = self.orders.send(Order::Event(event, None)).await;
        sent.map_err(|_| Stopped)
    }

    /// Lets something happen, and answers a question when all that was decided about it is durable.
    ///
    /// # Errors
    ///
    /// If the coordinator stops.
    pub(crate) async fn apply<A: Send + 'static>(
        &self,
        event: Event,
        question: impl FnOnce(&State) -> A + Send + 'static,
    ) -> Result<A, Stopped> {
        let (question, answer) = boxed(question);
        let order = Order::Event(event, Some(question));
        self.orders.send(order).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Answers a question about what is decided and durable.
    ///
    /// # Errors
    ///
    /// If the coordinator stops.
    pub(crate) async fn ask<A: Send + 'static>(
        &self,
        question: impl FnOnce(&State) -> A + Send + 'static,
    ) -> Result<A, Stopped> {
        let (question, answer) = boxed(question);
        let sent = self.orders.send(Order::Ask(question)).await;
        sent.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Says that a worker's session is over. Does not wait.
    pub(crate) fn left(&self, session: SessionId) {
        // Nothing is done under the lock that could leave the list half done.
        let gone = self.gone.sessions.lock();
        gone.unwrap_or_else(PoisonError::into_inner).push(session);
        self.gone.added.notify_one();
    }

    /// Lets messages to a worker go to `outbox`. To be called before its worker joins.
    ///
    /// # Errors
    ///
    /// If the coordinator stops.
    pub(crate) async fn attach(&self, session: SessionId, outbox: Outbox) -> Result<(), Stopped> {
        let sent = self.orders.send(Order::Attach(session, outbox)).await;
        sent.map_err(|_| Stopped)
    }
}

fn boxed<A: Send + 'static>(
    question: impl FnOnce(&State) -> A + Send + 'static,
) -> (Question, oneshot::Receiver<A>) {
    let (sender, receiver) = oneshot::channel();
    let question = Box::new(move |state: &State| {
        // Who asked may have gone.
        let _told = sender.send(question(state));
    });
    (question, receiver)
}

/// All that the dispatcher works with.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Who decides.
    pub scheduler: Scheduler,
    /// Where it is written down.
    pub journal: Journal,
    /// What makes grants valid.
    pub signer: Arc<GrantSigner>,
    /// Who tells watchers.
    pub bells: Arc<Bells>,
    /// Who deletes what is not needed any more.
    pub chores: Chores,
    /// Whether the disk takes what is decided.
    pub health: Health,
    /// The sessions of workers.
    pub sessions: BTreeMap<SessionId, Outbox>,
}

/// What one sync is to cover, and what follows it.
#[derive(Default)]
struct Group {
    records: Vec<Vec<u8>>,
    bytes: usize,
    effects: Vec<Effect>,
    questions: Vec<Question>,
}

impl Desk {
    /// Takes orders until stopped. What was not synced by then was promised to nobody.
    ///
    /// # Errors
    ///
    /// If the journal cannot be trusted any more.
    pub(crate) async fn run(
        mut self,
        mut orders: Orders,
        stop: CancellationToken,
    ) -> Result<(), DispatchError> {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                count = orders.orders.recv_many(&mut batch, ORDERS_MAX) => if count == 0 {
                    return Ok(());
                },
                () = orders.gone.added.notified() => {}
                () = self.deadline() => {}
            }
            let gone = {
                let gone = orders.gone.sessions.lock();
                mem::take(&mut *gone.unwrap_or_else(PoisonError::into_inner))
            };
            if !gone.is_empty() {
                // What they said before comes before, and is in the queue by now.
                let waiting = std::iter::from_fn(|| orders.orders.try_recv().ok());
                batch.extend(waiting.take(ORDERS_MAX));
            }
            let left = |session| Order::Event(Event::WorkerLeft { session }, None);
            batch.extend(gone.into_iter().map(left));
            self = self.decide(mem::take(&mut batch), &stop).await?;
        }
    }

    /// Decides about all orders, or about the time that has passed if there are none.
    async fn decide(
        mut self,
        orders: Vec<Order>,
        stop: &CancellationToken,
    ) -> Result<Self, DispatchError> {
        let mut group = Group::default();
        // Also if there is something else to do: questions move no time.
        let wait = self.scheduler.next_deadline().wait(clock::both());
        if orders.is_empty() || wait == Some(Duration::ZERO) {
            self.event(Event::Tick, &mut group);
        }
        for order in orders {
            match order {
                Order::Attach(session, outbox) => {
                    self.sessions.insert(session, outbox);
                }
                Order::Ask(question) => group.questions.push(question),
                Order::Event(event, question) => {
                    if let Event::WorkerLeft { session } = &event {
                        self.sessions.remove(session);
                    }
                    self.event(event, &mut group);
                    group.questions.extend(question);
                }
            }
            if GROUP_BYTES_MAX <= group.bytes {
                self = self.settle(mem::take(&mut group), stop).await?;
            }
        }
        self = self.settle(group, stop).await?;
        if self.journal.wants_state() {
            self = self.put_state().await;
        }
        Ok(self)
    }

    fn event(&mut self, event: Event, group: &mut Group) {
        debug!(?event, "event");
        let decision = self.scheduler.apply(clock::both(), event);
        for fact in &decision.facts {
            let record = record::encode(fact);
            group.bytes += record.len();
            group.records.push(record);
        }
        group.effects.extend(decision.effects);
        for ignored in decision.ignored {
            let reason = ignored.as_str();
            metrics::counter!("grange_messages_ignored_total", "reason" => reason).increment(1);
        }
    }

    /// Makes a group durable, then lets the world know.
    async fn settle(
        mut self,
        group: Group,
        stop: &CancellationToken,
    ) -> Result<Self, DispatchError> {
        self.journal = append(self.journal, group.records, &self.health, stop).await?;
        for effect in group.effects {
            debug!(?effect, "effect");
            self.carry_out(effect);
        }
        for question in group.questions {
            question(self.scheduler.state());
        }
        Ok(self)
    }

    /// Puts the state beside the journal. That it fails is no harm: the journal is only longer.
    async fn put_state(mut self) -> Self {
        let ledger = self.scheduler.ledger().clone();
        let mut journal = self.journal;
        let put = spawn_blocking(move || {
            let put = record::encode_state(&ledger);
            let put = put.and_then(|state| journal.put_state(&state).map(|()| state.len()));
            (journal, put)
        });
        let put_result;
        (self.journal, put_result) = put.await.expect("writing the state does not panic");
        match put_result {
            Ok(bytes) => info!(bytes, "state put beside the journal"),
            Err(error) => {
                warn!(error = %Chain(&error), "failed to put the state beside the journal");
            }
        }
        self
    }

    /// Hands an effect to whoever does it, without waiting.
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Assign { session, lease } => {
                let assignment =
                    assign::assignment(self.scheduler.state(), lease, clock::wall(), &self.signer);
                if let Some(assignment) = assignment {
                    self.send(session, CoordinatorMessage::Assign(Box::new(assignment)));
                }
            }
            Effect::Revoke {
                session,
                lease,
                reason,
            } => self.send(session, CoordinatorMessage::Revoke { lease, reason }),
            Effect::Renewed {
                session,
                sequence,
                leases,
            } => self.send(session, CoordinatorMessage::Renewed { sequence, leases }),
            Effect::Acknowledge { session, lease } => {
                self.send(session, CoordinatorMessage::Acknowledged { lease });
            }
            Effect::Joined { session, leases } => {
                if let Some(outbox) = self.sessions.get(&session) {
                    let cache = outbox.cache;
                    self.send(session, CoordinatorMessage::Joined { cache, leases });
                }
            }
            Effect::GoAhead { session, lease } => {
                self.send(session, CoordinatorMessage::GoAhead { lease });
            }
            Effect::Dismiss { session } => self.send(session, CoordinatorMessage::Dismissed),
            Effect::Drain { session } => self.send(session, CoordinatorMessage::Drain),
            Effect::Close { session } => {
                self.sessions.remove(&session);
            }
            Effect::PhaseChanged { job } => self.bells.job_changed(job),
            Effect::BuildEnded { build } => {
                self.bells.build_changed(build);
                self.chores.add(Chore::Ended { build });
            }
            Effect::DeleteContent { build, namespace } => {
                self.bells.build_changed(build);
                self.chores.add(Chore::Deleted { build, namespace });
            }
        }
    }

    /// Puts a message into a worker's outbox; a worker whose outbox is full is cut off.
    fn send(&mut self, session: SessionId, message: CoordinatorMessage) {
        let Some(outbox) = self.sessions.get(&session) else {
            return;
        };
        match outbox.messages.try_send(message) {
            // One that has closed says so by itself.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                warn!(%session, "worker does not take its messages and is cut off");
                metrics::counter!("grange_workers_cut_off_total").increment(1);
                // The session ends when it sees that nothing more can come.
                self.sessions.remove(&session);
            }
        }
    }

    /// Waits until the scheduler has something to decide by itself.
    async fn deadline(&self) {
        loop {
            let wait = self.scheduler.next_deadline().wait(clock::both());
            match wait {
                Some(Duration::ZERO) => return,
                Some(wait) => clock::nap(wait).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// Appends records; as long as the disk refuses to take them, tries again, up to a stop. Is never given up
/// in the middle of a write: the next coordinator would find the file changing under it.
async fn append(
    mut journal: Journal,
    mut records: Vec<Vec<u8>>,
    health: &Health,
    stop: &CancellationToken,
) -> Result<Journal, DispatchError> {
    let count = records.len();
    if count == 0 {
        return Ok(journal);
    }
    loop {
        let task = spawn_blocking(move || {
            let appended = journal.append(&records);
            (journal, records, appended)
        });
        let appended;
        (journal, records, appended) = task.await.expect("appending does not panic");
        match appended {
            Ok(()) => {
                health.set(Ok(()));
                metrics::counter!("grange_facts_journalled_total").increment(count as u64);
                metrics::counter!("grange_journal_syncs_total").increment(1);
                return Ok(journal);
            }
            Err(source @ AppendError::NotWritten { .. }) => {
                error!(error = %Chain(&source), "journal refused; nothing is decided until it is written");
                metrics::counter!("grange_journal_refused_total").increment(1);
                health.set(Err(Chain(&source).to_string()));
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(DispatchError::Journal { source }),
                    () = sleep(REFUSED_PAUSE) => {}
                }
            }
            Err(source @ AppendError::Uncertain { .. }) => {
                return Err(DispatchError::Journal { source });
            }
        }
    }
}

#[cfg(test)]
mod tests;
