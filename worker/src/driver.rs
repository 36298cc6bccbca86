//! Drives one attempt from its assignment to its result.
//!
//! The phase itself runs as one future, which is dropped when the attempt is interrupted. What it started
//! stands in a [`Scene`] that outlives it, so that everything is dead before anybody says that the
//! attempt has ended.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use protocol::{
    job::AttemptResult,
    lease::LeaseId,
    message::work::{Assignment, LogStart},
    time::{Time, WallTime},
};
use tokio::{sync::watch, task::JoinSet};
use tracing::warn;
use transport::Connection;

use crate::{
    agent_line,
    attempt::{Interrupt, Verdict},
    cache_link::AttemptCache,
    clock,
    fault::{Fault, OrFault as _, blocking},
    layers::remove,
    log::Log,
    phases::{self, PhaseEnd, Work},
    report::Chain,
    scene::Scene,
    site::Site,
};

/// How long a lost attempt goes on to send its log, which somebody may want to read.
const LOST_LOG_PATIENCE: Duration = Duration::from_secs(10);

/// An attempt has ended, and everything of it is stored.
#[derive(Debug)]
pub(crate) struct AttemptEnd {
    /// The attempt's lease.
    pub(crate) lease: LeaseId,
    /// What to report; `None`: nothing, because the lease is lost.
    pub(crate) result: Option<Box<AttemptResult>>,
}

/// What to report of an attempt whose task broke.
pub(crate) fn broken(lease: LeaseId) -> AttemptEnd {
    let now = clock::wall();
    let end = PhaseEnd::new(Verdict::fault("worker broke while it ran the phase"));
    AttemptEnd {
        lease,
        result: Some(Box::new(result_of(end, 0, now, now))),
    }
}

/// Runs an attempt.
pub(crate) async fn drive(
    site: Arc<Site>,
    assignment: Assignment,
    mut interrupts: watch::Receiver<Option<Interrupt>>,
    connections: watch::Receiver<Option<Connection>>,
) -> AttemptEnd {
    let lease = assignment.lease;
    let directory = site.directory.attempts().join(lease.0.to_string());
    let started = clock::wall();
    let driven = async {
        let log = match open(&directory).await {
            Ok(log) => log,
            Err(fault) => {
                warn!(%lease, error = %Chain(&fault), "attempt cannot begin");
                let end = PhaseEnd::new(Verdict::fault(Chain(&fault).to_string()));
                return Some(result_of(end, 0, started, clock::wall()));
            }
        };
        let start = LogStart {
            lease,
            job: assignment.job,
            attempt: assignment.attempt,
        };
        let mut streaming = JoinSet::new();
        streaming.spawn(log.clone().stream(start, connections));
        let ended = perform(&site, &assignment, &log, &directory, &mut interrupts).await;
        let ended_at = clock::wall();
        log.close();
        let Some(end) = ended else {
            let _sent = tokio::time::timeout(LOST_LOG_PATIENCE, log.stored()).await;
            return None;
        };
        let log_bytes = tokio::select! {
            biased;
            () = until_lost(&mut interrupts) => return None,
            bytes = log.stored() => bytes,
        };
        let ended_at = end.ended.unwrap_or(ended_at);
        Some(result_of(end, log_bytes, started, ended_at))
    };
    let result = driven.await;
    clean_up(directory).await;
    AttemptEnd {
        lease,
        result: result.map(Box::new),
    }
}

async fn open(directory: &std::path::Path) -> Result<Log, Fault> {
    let made = directory.to_owned();
    blocking("make the directory of an attempt", move || {
        remove(&made)?;
        std::fs::create_dir_all(&made)
    })
    .await?;
    let log = Log::create(&directory.join("log")).await;
    log.or_fault("make the log of an attempt")
}

/// Runs the phase, writes the last lines of its log, and gives what came of it; `None`: the lease is
/// lost. Nothing of it runs any more afterwards.
async fn perform(
    site: &Arc<Site>,
    assignment: &Assignment,
    log: &Log,
    directory: &std::path::Path,
    interrupts: &mut watch::Receiver<Option<Interrupt>>,
) -> Option<PhaseEnd> {
    let deadline = clock::boot() + assignment.time_left;
    let mut scene = Scene::default();
    let cache = AttemptCache::new(
        site.cache.clone(),
        assignment.team.clone(),
        assignment.grant.clone(),
    );
    let running = async {
        let _slot = site.slots.acquire().await;
        let mut work = Work {
            site,
            assignment,
            log,
            directory,
            cache: &cache,
            scene: &mut scene,
        };
        phases::run(&mut work).await
    };
    let end = tokio::select! {
        biased;
        interrupt = interrupted(interrupts, deadline) => Err(interrupt),
        ended = running => Ok(ended),
    };
    // Also after the phase: one that failed half-way may have left its sandbox.
    scene.clear(log).await;
    let mut end = match end {
        Ok(Ok(end)) => end,
        Ok(Err(fault)) => {
            let message = Chain(&fault).to_string();
            warn!(lease = %assignment.lease, job = %assignment.job, error = message, "attempt is a fault");
            PhaseEnd::new(Verdict::fault(message))
        }
        Err(interrupt) => PhaseEnd::new(interrupt.verdict()?),
    };
    if let Err(error) = say_end(log, assignment, &end).await {
        end.verdict = Verdict::fault(format!("failed to write the log: {error}"));
    }
    Some(end)
}

async fn say_end(log: &Log, assignment: &Assignment, end: &PhaseEnd) -> io::Result<()> {
    let dropped = log.dropped().await;
    if dropped > 0 {
        log.say(&format!("{dropped} bytes of output were dropped"))
            .await?;
    }
    let Verdict { outcome, context } = &end.verdict;
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

async fn clean_up(directory: PathBuf) {
    let shown = directory.display().to_string();
    let removed = blocking("remove the directory of an attempt", move || {
        remove(&directory)
    });
    if let Err(error) = removed.await {
        // The next start removes it.
        warn!(directory = shown, error = %Chain(&error), "an attempt's directory stays");
    }
}

fn result_of(end: PhaseEnd, log_bytes: u64, started: WallTime, ended: WallTime) -> AttemptResult {
    AttemptResult {
        outcome: end.verdict.outcome,
        context: end.verdict.context,
        snapshot: end.snapshot,
        artifact: end.artifact,
        cache_uses: end.cache_uses,
        log_bytes,
        started,
        ended,
    }
}
