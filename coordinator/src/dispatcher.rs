//! The dispatcher: the one task that owns the scheduler.
//!
//! Everything that can move a job passes through one queue, so what happens has one order. The task takes
//! what is in the queue at once, lets the scheduler decide about each event, journals all that was decided
//! with one sync, and only then carries out what follows and answers questions: nobody hears of anything
//! that a power cut could undo. It decides nothing itself, and never waits for a worker or a client.

mod append;
mod queue;

use std::{collections::BTreeMap, io, mem, sync::Arc, time::Duration};

use protocol::{message::work::CoordinatorMessage, report::Chain};
use scheduler::{Deadline, Effect, Event, Scheduler, SessionId};
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use transport::GrantSigner;

pub(crate) use self::queue::{Dispatcher, OUTBOX_MAX, Orders, Outbox, Stopped, queue};
use self::{
    append::append,
    queue::{ORDERS_MAX, Order, Question},
};
use crate::{
    assign,
    bells::Bells,
    clock,
    health::Health,
    journal::{AppendError, Journal},
    record,
    retention::{Chore, Chores},
};

/// How many bytes of facts one sync covers, at most by one event more: a bound on memory, and far below
/// what a group of the journal may have.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;

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

/// All that the dispatcher works with.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Who decides.
    pub scheduler: Scheduler,
    /// Where it is written down.
    pub journal: Journal,
    /// What makes grants valid.
    pub signer: Arc<GrantSigner>,
    /// Where builds have pages: a pattern; `None`: nowhere.
    pub build_url: Option<String>,
    /// Who tells watchers.
    pub bells: Arc<Bells>,
    /// Who deletes what is not needed any more.
    pub chores: Chores,
    /// Whether the disk takes what is decided.
    pub health: Health,
    /// The sessions of workers.
    pub sessions: BTreeMap<SessionId, Outbox>,
    /// The state that is being written beside the journal; one at a time. Gives its size in bytes.
    pub putting: JoinSet<io::Result<u64>>,
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
            let deadline = self.scheduler.next_deadline();
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.end().await,
                Some(put) = self.putting.join_next() => {
                    self.state_put(put.expect("writing the state does not panic"));
                }
                count = orders.orders.recv_many(&mut batch, ORDERS_MAX) => if count == 0 {
                    return self.end().await;
                },
                () = orders.gone.added.notified() => {}
                () = due(deadline) => {}
            }
            let gone = orders.gone.take();
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
        if self.journal.wants_state() && self.putting.is_empty() {
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

    /// Begins to put the state beside the journal: an image of it is made here, and encoded and written
    /// beside the facts that follow. That it fails is no harm: the journal is only longer.
    async fn put_state(self) -> Self {
        let begun = spawn_blocking(move || {
            let mut desk = self;
            let place = desk.journal.begin_state();
            let image = desk.scheduler.ledger().image();
            (desk, place, image)
        });
        let (mut desk, place, image) = begun.await.expect("beginning a state does not panic");
        match place {
            Ok(place) => {
                desk.putting.spawn_blocking(move || {
                    let state = record::encode_state(&image)?;
                    drop(image);
                    place.put(&state)
                });
            }
            Err(error) => desk.state_put(Err(error)),
        }
        desk
    }

    fn state_put(&mut self, put: io::Result<u64>) {
        match put {
            Ok(bytes) => {
                self.journal.state_put(bytes);
                info!(bytes, "state put beside the journal");
            }
            Err(error) => {
                warn!(error = %Chain(&error), "failed to put the state beside the journal");
            }
        }
    }

    /// Waits for what is being written: nobody else may find the files changing.
    async fn end(mut self) -> Result<(), DispatchError> {
        while let Some(put) = self.putting.join_next().await {
            self.state_put(put.expect("writing the state does not panic"));
        }
        Ok(())
    }

    /// Hands an effect to whoever does it, without waiting.
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Assign { session, lease } => {
                let with = (&*self.signer, self.build_url.as_deref());
                let assignment =
                    assign::assignment(self.scheduler.state(), lease, clock::wall(), with);
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
}

/// Waits until the scheduler has something to decide by itself.
async fn due(deadline: Deadline) {
    loop {
        match deadline.wait(clock::both()) {
            Some(Duration::ZERO) => return,
            Some(wait) => clock::nap(wait).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
