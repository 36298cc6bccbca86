//! Sources that were fetched: the build is planned by what they say, and starts with them.
//!
//! A build whose source nobody uploads is taken with one job that does something, the fetching. What the
//! attempt at that gives is planned by the shell; from then on the build is as if it had been submitted so.

use protocol::{
    build::{Outcome, PhaseContext},
    graph::JobGraph,
    job::{AttemptResult, FetchedSources, JobId, Task},
    lease::LeaseId,
};

use crate::{
    decide::{Turn, fits},
    event::{SessionId, Submission},
    fact::Fact,
    fold::{FoldError, insert, known_job, release},
    lease,
    state::{self, Build, JobState, Ledger},
    weights::room,
};

/// Takes what an attempt has fetched, with the jobs that follow from it.
pub(crate) fn fetched(
    turn: &mut Turn<'_>,
    (session, lease): (SessionId, LeaseId),
    mut result: Box<AttemptResult>,
    graph: JobGraph,
) {
    let Some(name) = turn.sender(session) else {
        return;
    };
    let known = lease::check(turn.state, &name, lease).ok();
    let known = known.map(|lease| lease.job);
    let build = known.and_then(|job| turn.state.ledger.builds.get(&job.build));
    let (Some(job), Some(build), Some(fetched)) = (known, build, &result.fetched) else {
        return lease::finish(turn, session, lease, result);
    };
    if build.stop.is_some() || !is_fetching(build, job) || result.outcome != Outcome::Succeeded {
        return lease::finish(turn, session, lease, result);
    }
    let room = room(turn.state, &build.submission.team, graph.weight());
    let refused = match room {
        Err(why) => Some(why.to_string()),
        Ok(()) if !state::is_sound(&graph) || !fits(&graph) || graph.jobs.is_empty() => {
            Some("The plan of the build makes no sense.".to_owned())
        }
        Ok(()) => None,
    };
    if let Some(message) = refused {
        result.outcome = Outcome::Failed;
        result.context = PhaseContext {
            status_code: "CLIENT_ERROR".to_owned(),
            message,
        };
        return lease::finish(turn, session, lease, result);
    }
    let submission = Box::new(planned(&build.submission, fetched, graph));
    let at = turn.now.wall;
    turn.record(Fact::SourcesFetched {
        lease,
        job,
        worker: name.clone(),
        submission,
        log_bytes: result.log_bytes,
        at,
    });
}

/// Whether the job is the fetching of sources.
pub(crate) fn is_fetching(build: &Build, job: JobId) -> bool {
    matches!(build.node(job.index).task, Task::FetchSources(_))
}

/// The build with its sources and its jobs.
fn planned(submission: &Submission, fetched: &FetchedSources, graph: JobGraph) -> Submission {
    let mut planned = submission.clone();
    planned.graph = graph;
    planned.terms.recipe = None;
    if let Some(primary) = &fetched.primary {
        planned.source = Some(primary.tree.clone());
        let commit = Some(primary.commit.clone()).filter(|commit| !commit.is_empty());
        planned.source_version.clone_from(&commit);
        if let Some(origin) = &mut planned.terms.origin {
            origin.commit = commit;
        }
    }
    for (identifier, source) in &fetched.secondary {
        if let Some(origin) = planned.terms.secondary.get_mut(identifier) {
            origin.commit = Some(source.commit.clone());
            origin.tree = Some(source.tree.clone());
        }
    }
    planned
}

/// Puts a build that is planned in the place of what it was; other facts change nothing.
pub(crate) fn fold(ledger: &mut Ledger, fact: &Fact) -> Result<(), FoldError> {
    let Fact::SourcesFetched {
        lease,
        job,
        submission,
        ..
    } = fact
    else {
        return Ok(());
    };
    let (lease, job) = (*lease, *job);
    let id = job.build;
    let known = known_job(ledger, job)?;
    if known.jobs[job.index as usize].state != JobState::Running(lease) {
        return Err(FoldError::Standing { job });
    }
    let is_sound = state::is_sound(&submission.graph) && !submission.graph.jobs.is_empty();
    if submission.build != id || !is_sound {
        return Err(FoldError::Graph { build: id });
    }
    release(ledger, lease, job)?;
    let Some(old) = ledger.builds.remove(&id) else {
        return Err(FoldError::UnknownBuild { build: id });
    };
    let index = &mut ledger.index;
    for (unit, of) in (0..).zip(&old.units) {
        if let Some(placement) = &of.placement {
            index.unbind(id, unit, &placement.worker);
        }
    }
    for (at, _) in (0..).zip(&old.jobs) {
        let job = JobId {
            build: id,
            index: at,
        };
        index.queue.remove(job);
        index.again.remove(&job);
        index.doomed.remove(&job);
    }
    if let Some(limit) = old.limit() {
        index.limits.remove(&(limit, id));
    }
    index.fallen.remove(&id);
    index.remove(id, &old);
    let mut build = Build::new(
        submission.clone(),
        old.number,
        old.order,
        old.limits,
        old.submitted,
    );
    build.started = old.started;
    // Logs are named by the number of their attempt.
    if let Some(first) = build.jobs.first_mut() {
        first.tries = old.jobs[job.index as usize].tries.clone();
        first.fetches = u32::try_from(first.tries.len()).unwrap_or(u32::MAX);
    }
    insert(ledger, build);
    Ok(())
}
