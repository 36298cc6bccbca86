//! The session of one worker: its messages become events, what the scheduler has for it is sent, and its
//! logs are taken.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use protocol::{
    access::Identity,
    job::AttemptResult,
    lease::LeaseId,
    message::{
        terminal::TERMINALS_OF_WORKER_MAX,
        work::{CoordinatorMessage, HeldLease, RestoreProgress, WorkRequest, WorkerMessage},
    },
    name::{Team, WorkerName},
    report::Chain,
    worker::WorkerOffer,
};
use scheduler::{Event, SessionId};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, spawn_blocking},
};
use tracing::{debug, info, warn};
use transport::{Connection, ReceiveHalf, SendHalf, Stream, StreamError};

use super::{delivery, fetched, log, result};
use crate::{
    dispatcher::{OUTBOX_MAX, Outbox},
    farm::Farm,
    logs::LogKey,
};

/// How many slots a worker may say it has: more than any machine has cores.
const CAPACITY_MAX: u32 = 1_024;
/// How many leases a message may name: those of all slots, and as many that are being handed over.
const LEASES_MAX: usize = 2 * CAPACITY_MAX as usize;
/// How many labels a worker may have; people write them by hand.
const LABELS_MAX: usize = 100;
/// How many of them may be terminals.
const TERMINALS_MAX: u32 = 64;
const _: () = assert!(TERMINALS_MAX as usize == TERMINALS_OF_WORKER_MAX);
/// How many streams a worker may have open at once: the greeting, the session, for each slot a log and a
/// question for secrets, a log for each attempt that is over and has some to bring, and terminals.
pub(super) const STREAMS_MAX: u32 = 2 + 3 * CAPACITY_MAX + TERMINALS_MAX;
/// The longest first message of a stream, in bytes: three numbers.
const REQUEST_BYTES_MAX: usize = 1024;

/// What came of one of a worker's streams.
enum Ended {
    /// A log is over, one way or the other; a question is answered; or the stream is another's now.
    Answered,
    /// The session is, and why.
    Session(&'static str),
}

/// Serves a worker until it leaves; says why it ended.
pub(crate) async fn run(
    connection: &Connection,
    identity: &Identity,
    farm: &Arc<Farm>,
) -> &'static str {
    let Ok(name) = identity.name.parse::<WorkerName>() else {
        return "the certificate's name is no worker's name; join again under another";
    };
    let member = (name.clone(), identity.team.clone());
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = streams.join_next(), if !streams.is_empty() => match ended {
                Ok(Ended::Answered) => {}
                Ok(Ended::Session(why)) => {
                    info!(worker = %name, reason = why, "worker leaves");
                    return why;
                }
                Err(error) => {
                    warn!(worker = %name, error = %Chain(&error), "a worker's stream failed");
                    return "the coordinator failed; connect again";
                }
            },
            stream = connection.accept() => {
                let Some(stream) = stream else {
                    return "the worker has left";
                };
                let serve = serve(stream, connection.clone(), member.clone(), Arc::clone(farm));
                streams.spawn(serve);
            }
        }
    }
}

/// Serves one stream, by what it says that it carries.
async fn serve(
    mut stream: Stream,
    connection: Connection,
    member: (WorkerName, Team),
    farm: Arc<Farm>,
) -> Ended {
    let name = &member.0;
    let request = stream.receive.message_within(REQUEST_BYTES_MAX).await;
    match request {
        Ok(Some(WorkRequest::Log(start))) => {
            log::run(stream, start, name, &farm).await;
            Ended::Answered
        }
        Ok(Some(WorkRequest::Secrets(lease))) => {
            delivery::run(stream, lease, name, &farm).await;
            Ended::Answered
        }
        Ok(Some(WorkRequest::Terminal(start))) => {
            farm.terminals.arrived(name, start, stream);
            Ended::Answered
        }
        Ok(Some(WorkRequest::Session)) => {
            Ended::Session(session(stream, &connection, &member, &farm).await)
        }
        Ok(None) => Ended::Answered,
        Err(error) => {
            debug!(worker = %name, error = %Chain(&error), "stream says nothing");
            Ended::Answered
        }
    }
}

/// Serves the stream that carries the session; says why it ended.
async fn session(
    mut stream: Stream,
    connection: &Connection,
    (name, team): &(WorkerName, Team),
    farm: &Arc<Farm>,
) -> &'static str {
    let (offer, process, holds) = match stream.receive.message::<WorkerMessage>().await {
        Ok(Some(WorkerMessage::Join {
            offer,
            incarnation,
            connection,
            ended,
            leaving,
            holds,
        })) => (offer, (incarnation, connection, ended, leaving), holds),
        Ok(Some(_)) => return refused("the first message of a worker has to be that it joins"),
        Ok(None) | Err(_) => return "the worker has left",
    };
    let offer = match check(offer, &holds, name) {
        Ok(offer) => offer,
        Err(why) => return refused(why),
    };
    let mut cache = farm.members.cache();
    let Some(address) = cache_address(&mut cache, connection).await else {
        return "the worker has left";
    };
    let session = farm.next_session();
    info!(worker = %name, %session, capacity = offer.capacity, isolation = %offer.isolation, "worker joins");
    let (messages, outbox) = mpsc::channel(OUTBOX_MAX);
    farm.terminals.joined(name, session, &messages);
    let attached = Outbox {
        messages,
        cache: address,
    };
    let joined = Event::WorkerJoined {
        session,
        team: team.clone(),
        incarnation: process.0,
        connection: process.1,
        ended: process.2,
        leaving: process.3,
        offer: Box::new(offer),
        holds,
    };
    // From here on the dispatcher has to hear that the session is over, however it ends.
    let _leaves = Leaves {
        session,
        worker: name.clone(),
        farm: Arc::clone(farm),
    };
    let attached = farm.dispatcher.attach(session, attached).await;
    if attached.is_err() || farm.dispatcher.tell(joined).await.is_err() {
        return "the coordinator stops";
    }
    tokio::select! {
        biased;
        why = send(stream.send, outbox) => why,
        why = receive(stream.receive, (session, name), farm) => why,
        _ = cache.changed() => "the cache has moved; connect again to hear where it is",
    }
}

/// Tells the dispatcher that a session is over, when it is dropped: sessions end by being cancelled, too.
struct Leaves {
    session: SessionId,
    worker: WorkerName,
    farm: Arc<Farm>,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.farm.terminals.left(&self.worker, self.session);
        self.farm.dispatcher.left(self.session);
    }
}

/// Checks what a worker says of itself. Its name is what its certificate says.
fn check(
    offer: WorkerOffer,
    holds: &[HeldLease],
    name: &WorkerName,
) -> Result<WorkerOffer, &'static str> {
    if offer.capacity == 0 || CAPACITY_MAX < offer.capacity {
        return Err("a worker has 1 to 1,024 slots");
    }
    if LEASES_MAX < holds.len() {
        return Err("a worker cannot hold so many leases");
    }
    if LABELS_MAX < offer.labels.len() {
        return Err("a worker has at most 100 labels");
    }
    Ok(WorkerOffer {
        name: name.clone(),
        ..offer
    })
}

/// Where the cache is, waiting until one has announced itself; `None` if the worker leaves before.
async fn cache_address(
    cache: &mut watch::Receiver<Option<SocketAddr>>,
    connection: &Connection,
) -> Option<SocketAddr> {
    tokio::select! {
        biased;
        known = cache.wait_for(Option::is_some) => known.ok().and_then(|known| *known),
        why = connection.closed() => {
            debug!(reason = why, "worker left before there was a cache");
            None
        }
    }
}

async fn send(
    mut stream: SendHalf,
    mut outbox: mpsc::Receiver<CoordinatorMessage>,
) -> &'static str {
    while let Some(message) = outbox.recv().await {
        if let Err(error) = stream.message(&message).await {
            debug!(error = %Chain(&error), "worker cannot be told anything");
            return "the worker has left";
        }
    }
    "another worker of this name has joined, or this one did not take its messages"
}

async fn receive(
    mut stream: ReceiveHalf,
    (session, worker): (SessionId, &WorkerName),
    farm: &Arc<Farm>,
) -> &'static str {
    // What they do is told in its time; the worker says it again if it hears nothing.
    let mut plans: JoinSet<LeaseId> = JoinSet::new();
    let mut planned = BTreeSet::new();
    loop {
        let message = match stream.message::<WorkerMessage>().await {
            Ok(Some(message)) => message,
            Ok(None) | Err(StreamError::Lost { .. } | StreamError::Reset) => {
                return "the worker has left";
            }
            Err(error) => {
                warn!(error = %Chain(&error), "worker says what makes no sense");
                return refused("the worker says what makes no sense");
            }
        };
        if let WorkerMessage::Restoring { lease, progress } = message {
            restoring(farm, worker, lease, progress).await;
            continue;
        }
        let message = match message {
            WorkerMessage::Finished { lease, result } => {
                let result = taken(farm, worker, (lease, result)).await;
                WorkerMessage::Finished { lease, result }
            }
            other => other,
        };
        let event = match event(message, session) {
            Ok(event) => event,
            Err(why) => return refused(why),
        };
        while let Some(Ok(lease)) = plans.try_join_next() {
            planned.remove(&lease);
        }
        if let Event::Finished { lease, result, .. } = &event
            && result.fetched.is_some()
        {
            let (lease, result) = (*lease, result.clone());
            if planned.len() < LEASES_MAX && planned.insert(lease) {
                let of = (session, worker.clone());
                plans.spawn(plan_fetched(Arc::clone(farm), of, (lease, result)));
            }
            continue;
        }
        if farm.dispatcher.tell(event).await.is_err() {
            return "the coordinator stops";
        }
    }
}

/// What is taken of a result: one that says what cannot be is a fault of its worker's.
async fn taken(
    farm: &Farm,
    worker: &WorkerName,
    (lease, result): (LeaseId, Box<AttemptResult>),
) -> Box<AttemptResult> {
    let said = result.clone();
    let why = match result::bounded(*result) {
        Ok(result) => match lacks(farm, lease, result.log_bytes).await {
            Some(why) => why,
            None => return Box::new(result),
        },
        Err(error) => error.to_string(),
    };
    warn!(%worker, %lease, reason = why, "a result cannot be taken");
    metrics::counter!("grange_messages_refused_total").increment(1);
    let fault = result::bounded(result::fault(*said, why));
    Box::new(fault.expect("a fault names nothing"))
}

/// What is missing of an attempt's log, if less of it is durable than its result says; what a stored phase left
/// is there. Of a lease that is not out any more the result changes nothing.
async fn lacks(farm: &Farm, lease: LeaseId, bytes: u64) -> Option<String> {
    let asked = farm
        .dispatcher
        .ask(move |state| scheduler::live_attempt(state, lease));
    let (job, attempt) = asked.await.ok().flatten()?;
    let logs = Arc::clone(&farm.logs);
    let length = spawn_blocking(move || logs.length(LogKey { job, attempt }));
    // A disk that does not say is not the worker's doing.
    let length = length.await.ok()?.ok()?;
    let lacks = || {
        format!("The phase's log is said to have {bytes} bytes, and {length} of them were kept.")
    };
    (length < bytes).then(lacks)
}

/// Plans a build whose sources were fetched, and tells the scheduler.
async fn plan_fetched(
    farm: Arc<Farm>,
    of: (SessionId, WorkerName),
    (lease, result): (LeaseId, Box<AttemptResult>),
) -> LeaseId {
    let event = fetched::event(&farm, of, (lease, result)).await;
    // The worker says it again to the coordinator that comes after.
    let _stopped = farm.dispatcher.tell(event).await;
    lease
}

/// Passes on how far a restore is to those who follow its build, if the job is this worker's.
async fn restoring(farm: &Farm, worker: &WorkerName, lease: LeaseId, progress: RestoreProgress) {
    let asked = farm.dispatcher.ask(move |state| {
        let (job, attempt) = scheduler::live_attempt(state, lease)?;
        let record = scheduler::attempt(state, job, attempt)?;
        Some((job, record.worker))
    });
    match asked.await {
        Ok(Some((job, runs))) if runs == *worker => farm.bells.restoring(job, progress),
        Ok(_) => {
            // Of another's, or of one that is over.
            metrics::counter!("grange_messages_ignored_total", "reason" => "late").increment(1);
        }
        // The coordinator stops.
        Err(_) => {}
    }
}

/// Counts a message for which a worker is sent away.
fn refused(why: &'static str) -> &'static str {
    metrics::counter!("grange_messages_refused_total").increment(1);
    why
}

/// What a message means to the scheduler; or why the worker is sent away for it.
fn event(message: WorkerMessage, session: SessionId) -> Result<Event, &'static str> {
    Ok(match message {
        WorkerMessage::Join { .. } => return Err("a worker joins once for each connection"),
        WorkerMessage::Restoring { .. } => {
            return Err("a restore is nothing that is decided about");
        }
        WorkerMessage::Renew { sequence, leases } => Event::Renew {
            session,
            sequence,
            leases: few(leases)?,
        },
        WorkerMessage::Finished { lease, result } => Event::Finished {
            session,
            lease,
            result,
        },
        WorkerMessage::Began { lease } => Event::Began { session, lease },
        WorkerMessage::Declined { lease } => Event::Declined { session, lease },
        WorkerMessage::HandOver { leases } => Event::HandOver {
            session,
            leases: few(leases)?,
        },
        WorkerMessage::Leaving => Event::Leaving { session },
    })
}

fn few(leases: Vec<LeaseId>) -> Result<Vec<LeaseId>, &'static str> {
    if LEASES_MAX < leases.len() {
        return Err("a worker cannot hold so many leases");
    }
    Ok(leases)
}
