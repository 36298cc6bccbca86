//! The dispatcher's queue: how sessions hand it orders.

use std::{
    fmt, mem,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::message::work::CoordinatorMessage;
use scheduler::{Event, SessionId, State};
use tokio::sync::{Notify, mpsc, oneshot};

/// How many orders may wait, and are decided about before one sync. Past it sessions wait: that is the
/// farm's back-pressure.
pub(super) const ORDERS_MAX: usize = 1_024;
/// How many messages may wait for a worker: an assignment, a revocation and an acknowledgement for each
/// slot of a large machine. A worker that does not take them for so long is cut off, and comes back when
/// it can.
pub(crate) const OUTBOX_MAX: usize = 1_024;

/// Hands orders to the dispatcher. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Dispatcher {
    orders: mpsc::Sender<Order>,
    gone: Arc<Gone>,
}

/// The queue that `Desk::run` takes orders from.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) gone: Arc<Gone>,
}

/// Sessions that are over. They are told beside the queue, because who ends by being cancelled cannot wait
/// for a place in it. As many as there are sessions at most.
#[derive(Debug, Default)]
pub(super) struct Gone {
    sessions: Mutex<Vec<SessionId>>,
    pub(super) added: Notify,
}

impl Gone {
    /// Takes all that there are.
    pub(super) fn take(&self) -> Vec<SessionId> {
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SessionId>> {
        // Nothing is done under the lock that could leave the list half done.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody wants to know.
pub(super) type Question = Box<dyn FnOnce(&State) + Send>;

/// What the dispatcher is to do next.
pub(super) enum Order {
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
        self.gone.lock().push(session);
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
