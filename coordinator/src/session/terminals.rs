//! Terminals: brings people to shells inside of builds.
//!
//! A worker is told that somebody waits, and opens a stream; messages are passed on between that and the person's.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protocol::{
    access::Identity,
    build::BuildId,
    lease::LeaseId,
    message::{
        Refusal,
        terminal::{
            Gone, TERMINAL_MESSAGE_BYTES_MAX, TERMINAL_MESSAGES_MAX, TerminalId, TerminalInput,
            TerminalOpened, TerminalOutput, TerminalStart,
        },
        work::CoordinatorMessage,
    },
    name::WorkerName,
    report::Chain,
};
use scheduler::{RunningError, SessionId};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, info};
use transport::{Lane, Stream, StreamError};

use super::refusal;
use crate::farm::Farm;

/// How long a worker may take to open a stream: a round trip, on a machine that is busy.
const OPEN_TIME: Duration = Duration::from_secs(15);
/// How many people may wait for their shells at once.
const WAITING_MAX: usize = 256;
/// How many messages may wait between a lane and what it is passed on to: the lane has its own room.
const HANDED_MAX: usize = 1;

const LANE: Lane = Lane {
    messages_max: TERMINAL_MESSAGES_MAX,
    bytes_max: TERMINAL_MESSAGE_BYTES_MAX,
};

/// Who waits for which shell, and where workers hear of it.
#[derive(Debug, Default)]
pub(crate) struct Terminals {
    /// Weak, because a session ends when nobody else can say anything to its worker.
    workers: Mutex<BTreeMap<WorkerName, (SessionId, mpsc::WeakSender<CoordinatorMessage>)>>,
    waiting: Mutex<BTreeMap<TerminalId, Waiting>>,
    last: AtomicU64,
}

/// Who waits.
#[derive(Debug)]
struct Waiting {
    worker: WorkerName,
    start: TerminalStart,
    stream: oneshot::Sender<Stream>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is done under the lock that could leave a map half done.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Terminals {
    /// A worker is there.
    pub(crate) fn joined(
        &self,
        worker: &WorkerName,
        session: SessionId,
        messages: &mpsc::Sender<CoordinatorMessage>,
    ) {
        lock(&self.workers).insert(worker.clone(), (session, messages.downgrade()));
    }

    /// A worker's session is over.
    pub(crate) fn left(&self, worker: &WorkerName, session: SessionId) {
        let mut workers = lock(&self.workers);
        if workers.get(worker).is_some_and(|(of, _)| *of == session) {
            workers.remove(worker);
        }
    }

    /// A worker has opened a stream for somebody who waits. One that nobody waits for is closed.
    pub(crate) fn arrived(&self, worker: &WorkerName, start: TerminalStart, stream: Stream) {
        let mut waiting = lock(&self.waiting);
        let is_awaited = |of: &Waiting| of.worker == *worker && of.start == start;
        if waiting.get(&start.terminal).is_some_and(is_awaited)
            && let Some(of) = waiting.remove(&start.terminal)
        {
            // Who waited may have gone.
            drop(of.stream.send(stream));
        }
    }

    /// Asks the worker of a lease for a stream.
    fn ask(&self, worker: &WorkerName, lease: LeaseId) -> Result<Asked<'_>, Refusal> {
        let terminal = TerminalId(self.last.fetch_add(1, Ordering::Relaxed));
        let (stream, arrives) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        if WAITING_MAX <= waiting.len() {
            return Err(refusal::exhausted("too many people wait for shells"));
        }
        let start = TerminalStart { lease, terminal };
        let messages = lock(&self.workers).get(worker).cloned();
        let messages = messages.and_then(|(_, messages)| messages.upgrade());
        let is_asked = messages
            .is_some_and(|messages| messages.try_send(CoordinatorMessage::Attach(start)).is_ok());
        if !is_asked {
            return Err(refusal::unavailable(format!("worker {worker} is away")));
        }
        let worker = worker.clone();
        let of = Waiting {
            worker,
            start,
            stream,
        };
        waiting.insert(terminal, of);
        drop(waiting);
        Ok(Asked {
            terminals: self,
            terminal,
            arrives,
        })
    }
}

/// A stream that was asked for; dropped, nobody waits for it any more.
struct Asked<'a> {
    terminals: &'a Terminals,
    terminal: TerminalId,
    arrives: oneshot::Receiver<Stream>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        lock(&self.terminals.waiting).remove(&self.terminal);
    }
}

/// Finds the shell that somebody wants: a stream on which its lane comes next. Only members of the build's own team
/// get one: what is in a build is the team's, also to those who run the farm.
///
/// # Errors
///
/// If it is another team's or is trusted further than the person, no phase of the build runs, or it is not at a
/// breakpoint.
pub(super) async fn open(
    farm: &Farm,
    build: BuildId,
    (unit, identity): (Option<String>, &Identity),
) -> Result<Stream, Refusal> {
    let asked = farm.dispatcher.ask(move |state| {
        let summary = scheduler::build_summary(state, build);
        let running = scheduler::running_attempt(state, build, unit.as_deref());
        let trust = scheduler::submission(state, build).map(|submission| submission.trust);
        (summary.map(|summary| summary.team), trust, running)
    });
    let (team, trust, running) = asked.await?;
    if team.as_ref() != Some(&identity.team) {
        return Err(refusal::denied(format!(
            "{identity} may not open a shell in a build of another team"
        )));
    }
    // What is done in it is kept as the build's own doing.
    if trust.is_some_and(|trust| identity.role.trust() < trust) {
        return Err(refusal::denied(format!(
            "{identity} may not open a shell in a build that is trusted further: one of a protected branch"
        )));
    }
    let (lease, worker) = running.map_err(|error| match error {
        RunningError::Several { .. } | RunningError::NoUnit { .. } => {
            refusal::invalid(error.to_string())
        }
        RunningError::Nothing | RunningError::NotDebugged => {
            refusal::precondition(error.to_string())
        }
    })?;
    let away = || refusal::unavailable(format!("worker {worker} does not answer"));
    let opened = async {
        let mut asked = farm.terminals.ask(&worker, lease)?;
        let mut stream = (&mut asked.arrives).await.map_err(|_| away())?;
        let opened = stream.receive.message_within(TERMINAL_MESSAGE_BYTES_MAX);
        match opened.await {
            Ok(Some(TerminalOpened::Here)) => Ok(stream),
            Ok(Some(TerminalOpened::NotHere(why))) => Err(refusal::precondition(why)),
            Ok(None) | Err(_) => Err(away()),
        }
    };
    let stream = timeout(OPEN_TIME, opened).await.map_err(|_| away())??;
    info!(%build, %lease, %worker, "shell opened in a build");
    metrics::counter!("grange_terminals_opened_total").increment(1);
    Ok(stream)
}

/// Passes messages on between a person and a shell, until the shell or the person has gone.
///
/// # Errors
///
/// If the person cannot be told any more.
pub(super) async fn pass(person: &mut Stream, shell: Stream) -> Result<(), StreamError> {
    let Stream { send, receive } = person;
    let left = send.stopped();
    let (to_shell, typed) = mpsc::channel::<TerminalInput>(HANDED_MAX);
    let (shown, mut from_shell) = mpsc::channel::<TerminalOutput>(HANDED_MAX);
    let lane = async {
        if let Err(error) = LANE.carry(shell, typed, shown).await {
            debug!(error = %Chain(&error), "the stream of a shell broke");
        }
        // What it has brought before is still to be shown.
        pending::<Infallible>().await
    };
    let typing = async {
        while let Ok(Some(input)) = receive
            .message_within::<TerminalInput>(TERMINAL_MESSAGE_BYTES_MAX)
            .await
        {
            // With what a lane adds, a longer one would be too long for the worker, whose connection is everybody's.
            if input.is_too_long() {
                return;
            }
            if to_shell.send(input).await.is_err() {
                pending::<()>().await;
            }
        }
    };
    let showing = async {
        while let Some(output) = from_shell.recv().await {
            send.message(&output).await?;
            if output.is_last() {
                return Ok(());
            }
        }
        send.message(&TerminalOutput::Gone(Gone::WorkerLost)).await
    };
    tokio::select! {
        biased;
        ended = showing => ended,
        () = typing => Ok(()),
        // Also while the shell takes nothing.
        () = left => Ok(()),
        never = lane => match never {},
    }
}
