//! Drives one attempt from its assignment to its result.
//!
//! The phase itself runs as one future, which is dropped when the attempt is interrupted. What it started
//! stands in a [`Scene`] that outlives it, so that everything is dead before anybody says that the
//! attempt has ended.

mod told;

use std::{
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use cache::ongoing::Ongoing;
use protocol::{
    agent_line,
    build::Outcome,
    job::{AttemptResult, Task},
    lease::LeaseId,
    message::work::{Assignment, LogStart},
    time::Time,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{error, warn};
use transport::Connection;

use self::told::{masked, reported};
use crate::{
    attempt::{Interrupt, Verdict},
    begin::{Begin, BeginRequest},
    cache_link::AttemptCache,
    clock,
    fault::{Fault, OrFault as _, blocking},
    ground::Ground,
    layers::remove,
    log::Log,
    phases::{self, PhaseEnd, Work},
    report::Chain,
    restoring::{self, Restoring},
    scene::Scene,
    site::Site,
    units,
};

/// How long a lost attempt goes on to send its log, which somebody may want to read. A worker that hands its
/// jobs over says so after that, and somebody waits for it.
const LOST_LOG_PATIENCE: Duration = Duration::from_secs(2);

/// How long threads of a phase that was broken off are waited for. They are told, and look at it with each
/// file; one that a disk holds up may be longer.
const THREADS_PATIENCE: Duration = Duration::from_secs(5);

/// How often the directory of an attempt is removed until it is gone, and how long to wait in between:
/// together longer than it takes to lay out a large tree.
const REMOVALS: u32 = 40;
const REMOVE_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// An attempt is over.
#[derive(Debug)]
pub(crate) struct AttemptEnd {
    /// The attempt's lease.
    pub(crate) lease: LeaseId,
    /// What is to be done about it.
    pub(crate) ending: Ending,
    /// What is to be removed of it, when all that has to be said is said; `None`: nothing yet.
    pub(crate) remains: Option<Remains>,
}

/// What is left of an attempt that is over.
#[derive(Debug)]
pub(crate) struct Remains {
    directory: PathBuf,
    /// What may still write into it for a while.
    ongoing: Ongoing,
}

/// What is to be done about an attempt that is over.
#[derive(Debug)]
pub(crate) enum Ending {
    /// It has ended, and everything of it is stored: this is to be reported.
    Reported(Box<AttemptResult>),
    /// It has ended, and nobody wants to hear of it: its lease is lost.
    Lost,
    /// Something of it may still run. Nothing may be reported, so that the lease runs out.
    Left,
}

/// What an attempt is told while it runs.
#[derive(Debug)]
pub(crate) struct Orders {
    /// To end.
    pub(crate) interrupt: watch::Receiver<Option<Interrupt>>,
    /// When everything that it started is dead, whatever happens to the worker.
    pub(crate) until: watch::Receiver<Time>,
}

/// How an attempt reaches the coordinator while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    /// For its log.
    pub(crate) connections: watch::Receiver<Option<Connection>>,
    /// To ask whether its first command may start.
    pub(crate) begins: mpsc::Sender<BeginRequest>,
    /// To tell how far its restores are.
    pub(crate) restores: mpsc::Sender<restoring::Report>,
}

/// Runs an attempt.
pub(crate) async fn drive(
    site: Arc<Site>,
    assignment: Assignment,
    mut orders: Orders,
    ways: Ways,
) -> AttemptEnd {
    let lease = assignment.lease;
    let directory = site.directory.attempts().join(lease.0.to_string());
    let started = clock::wall();
    let ongoing = Ongoing::default();
    let driven = async {
        let log = match open(&directory).await {
            Ok(log) => log,
            Err(fault) => {
                warn!(%lease, error = %Chain(&fault), "attempt cannot begin");
                let end = PhaseEnd::new(Verdict::fault(Chain(&fault).to_string()));
                return reported(end, 0, started, clock::wall());
            }
        };
        let start = LogStart {
            lease,
            job: assignment.job,
            attempt: assignment.attempt,
        };
        let mut streaming = JoinSet::new();
        let connections = ways.connections.clone();
        streaming.spawn(log.clone().stream(start, ways.connections));
        let begin = Begin::new(lease, ways.begins, assignment.asks_to_begin);
        let restoring = Restoring::new(lease, ways.restores);
        let means = Means {
            log: &log,
            directory: &directory,
            ongoing: &ongoing,
            begin: &begin,
            restoring: &restoring,
            connections,
        };
        let performed = Box::pin(perform(&site, &assignment, means, &mut orders)).await;
        let ended_at = clock::wall();
        let ran = Duration::from_millis(ended_at.0.saturating_sub(started.0));
        let unit = (assignment.job.build, assignment.unit);
        site.spent.add(unit, assignment.phase, ran);
        // The log has troubles of its own then, and says them elsewhere.
        let _kept = log.let_go().await;
        log.close();
        let end = match performed {
            Performed::Ended(end) => end,
            Performed::Lost => {
                let _sent = timeout(LOST_LOG_PATIENCE, log.stored()).await;
                return Ending::Lost;
            }
            Performed::Left(fault) => {
                error!(%lease, error = %Chain(&fault), "something of an attempt may run on");
                return Ending::Left;
            }
        };
        let log_bytes = tokio::select! {
            biased;
            () = until_lost(&mut orders.interrupt) => return Ending::Lost,
            bytes = log.stored() => bytes,
        };
        let ended_at = end.ended.unwrap_or(ended_at);
        let end = Box::new(masked(*end, &log));
        reported(*end, log_bytes, started, ended_at)
    };
    let ending = driven.await;
    let is_dead = !matches!(ending, Ending::Left);
    let remains = is_dead.then_some(Remains { directory, ongoing });
    AttemptEnd {
        lease,
        ending,
        remains,
    }
}

async fn open(directory: &Path) -> Result<Log, Fault> {
    let made = directory.to_owned();
    blocking("make the directory of an attempt", move || {
        remove(&made)?;
        std::fs::create_dir_all(&made)
    })
    .await?;
    let log = Log::create(&directory.join("log")).await;
    log.or_fault("make the log of an attempt")
}

/// What came of an attempt.
enum Performed {
    /// This. Nothing of it runs any more.
    Ended(Box<PhaseEnd>),
    /// Nothing: the lease is lost. Nothing of it runs any more.
    Lost,
    /// What it started did not end, for this reason.
    Left(Fault),
}

/// What an attempt has to work with.
struct Means<'a> {
    log: &'a Log,
    directory: &'a Path,
    ongoing: &'a Ongoing,
    begin: &'a Begin,
    restoring: &'a Restoring,
    connections: watch::Receiver<Option<Connection>>,
}

/// Runs the phase, and writes the last lines of its log.
async fn perform(
    site: &Arc<Site>,
    assignment: &Assignment,
    means: Means<'_>,
    orders: &mut Orders,
) -> Performed {
    let (log, ongoing) = (means.log, means.ongoing);
    let deadline = clock::boot() + assignment.time_left;
    let mut scene = Scene::default();
    let cache = AttemptCache::new(
        &site.cache,
        (assignment.team.clone(), assignment.grant.clone()),
        log.clone(),
    );
    let fenced = scene.fenced(orders.until.clone());
    let until = orders.until.clone();
    // Held until nothing of the attempt goes on any more.
    let mut slot = None;
    let running = async {
        slot = Some(site.slots.acquire().await);
        let mut work = Work {
            site,
            assignment,
            log,
            directory: means.directory,
            cache: &cache,
            until,
            scene: &mut scene,
            begin: means.begin,
            restoring: means.restoring,
            connections: means.connections,
            secrets: None,
        };
        phases::run(&mut work).await
    };
    let end = tokio::select! {
        biased;
        interrupt = interrupted(&mut orders.interrupt, deadline) => Err(interrupt),
        () = fenced => Err(Interrupt::Lost),
        ended = ongoing.scope(surviving(running)) => Ok(ended),
    };
    let interrupt = end.as_ref().err().copied();
    site.terminals.close(assignment.lease, interrupt);
    // Also after the phase: one that failed half-way may have left its sandbox.
    if let Err(fault) = scene.clear(log).await {
        return Performed::Left(fault);
    }
    ongoing.give_up();
    if timeout(THREADS_PATIENCE, ongoing.ended()).await.is_err() {
        warn!(lease = %assignment.lease, "threads of an attempt go on after it was given up");
    }
    drop(slot);
    if is_over(assignment, &end) {
        // No phase of the unit follows here: another try may be made elsewhere.
        if let Ground::Host { place, .. } = Ground::of(site, assignment) {
            units::clear(Arc::clone(site), place).await;
        }
    }
    let mut end = match end {
        Ok(Ok(end)) => end,
        Ok(Err(fault)) => {
            let message = log.masked(&Chain(&fault).to_string());
            warn!(lease = %assignment.lease, job = %assignment.job, error = message, "attempt is a fault");
            PhaseEnd {
                state_lost: fault.is_of_lost_state(),
                ..PhaseEnd::new(Verdict::fault(message))
            }
        }
        Err(interrupt) => match interrupt.verdict() {
            Some(verdict) => PhaseEnd::new(verdict),
            None => return Performed::Lost,
        },
    };
    if let Err(error) = say_end(log, assignment, &end).await {
        end.verdict = Verdict::fault(format!("failed to write the log: {error}"));
    }
    Performed::Ended(Box::new(end))
}

/// Whether no phase of the unit follows on this attempt here.
fn is_over<E>(assignment: &Assignment, end: &Result<Result<PhaseEnd, Fault>, E>) -> bool {
    match assignment.task {
        Task::DownloadSource { .. } => {
            !matches!(end, Ok(Ok(end)) if end.verdict.outcome == Outcome::Succeeded)
        }
        // The unit starts when it is planned, wherever that is.
        Task::FetchSources(_) => true,
        _ => false,
    }
}

/// Carries out a phase; a panic in it, which is a bug, is a fault. What the phase started stands in its
/// scene either way.
async fn surviving(
    phase: impl Future<Output = Result<PhaseEnd, Fault>>,
) -> Result<PhaseEnd, Fault> {
    let mut phase = Box::pin(phase);
    poll_fn(|context| {
        // The phase is not polled again, and what it borrowed is only ended and dropped.
        let polled = catch_unwind(AssertUnwindSafe(|| phase.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(Fault::new("run the phase", "the worker broke"))))
    })
    .await
}

async fn say_end(log: &Log, assignment: &Assignment, end: &PhaseEnd) -> io::Result<()> {
    let dropped = log.dropped().await;
    if dropped > 0 {
        log.say(&format!("{dropped} bytes of output were dropped"))
            .await?;
    }
    let Verdict { outcome, context } = &end.verdict;
    let is_planned_next = matches!(assignment.task, Task::FetchSources(_));
    if is_planned_next && *outcome == Outcome::Succeeded {
        // The phase goes on.
        return Ok(());
    }
    for line in agent_line::complete(assignment.phase, *outcome, context) {
        log.say(&line).await?;
    }
    Ok(())
}

/// Waits until the attempt has to end.
async fn interrupted(
    interrupts: &mut watch::Receiver<Option<Interrupt>>,
    deadline: Time,
) -> Interrupt {
    tokio::select! {
        biased;
        interrupt = interrupts.wait_for(Option::is_some) => match interrupt {
            Ok(interrupt) => interrupt.unwrap_or(Interrupt::Lost),
            // Nobody holds the lease any more.
            Err(_gone) => Interrupt::Lost,
        },
        () = clock::until(Some(deadline)) => Interrupt::TimedOut,
    }
}

async fn until_lost(interrupts: &mut watch::Receiver<Option<Interrupt>>) {
    let lost = |interrupt: &Option<Interrupt>| *interrupt == Some(Interrupt::Lost);
    let _lost_or_gone = interrupts.wait_for(lost).await;
}

/// Removes the directory of an attempt, once nobody writes into it any more. That is in the background, so it
/// may take as long as a disk holds a thread up: what the thread does last may be to name a layer.
pub(crate) async fn clean_up(remains: Remains) {
    let Remains { directory, ongoing } = remains;
    ongoing.give_up();
    ongoing.ended().await;
    for left in (0..REMOVALS).rev() {
        let removing = directory.clone();
        let removed = blocking("remove the directory of an attempt", move || {
            remove(&removing)
        });
        match removed.await {
            Ok(()) => return,
            Err(_) if left > 0 => tokio::time::sleep(REMOVE_AGAIN_AFTER).await,
            Err(error) => {
                // The next start removes it.
                let shown = directory.display();
                warn!(directory = %shown, error = %Chain(&error), "an attempt's directory stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_phase_that_panics_is_a_fault() {
        let broken = surviving(async { panic!("a bug") }).await;
        let message = Chain(&broken.unwrap_err()).to_string();
        assert_eq!(message, "failed to run the phase: the worker broke");
    }
}
