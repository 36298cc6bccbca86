//! Results of attempts that fetched sources: what was fetched is held, and the build planned by it, before
//! the scheduler hears of the result.

use std::sync::Arc;

use protocol::{
    agent_line,
    build::{Outcome, Phase, PhaseContext},
    graph::JobGraph,
    job::{AttemptResult, FetchedSources, Task},
    lease::LeaseId,
    name::WorkerName,
    report::Chain,
};
use scheduler::{Event, SessionId, State, Submission};
use tracing::{debug, info, warn};

use super::{
    held_source::HeldSource,
    plan::{PlanningError, plan},
};
use crate::{clock, farm::Farm, logs::LogKey};

/// What the scheduler is to hear of an attempt that has fetched something.
pub(super) async fn event(
    farm: &Arc<Farm>,
    (session, worker): (SessionId, WorkerName),
    (lease, mut result): (LeaseId, Box<AttemptResult>),
) -> Event {
    let asked = farm.dispatcher.ask(move |state: &State| {
        let (job, attempt) = scheduler::live_attempt(state, lease)?;
        // Of another's lease nothing is believed, and nothing held.
        let record = scheduler::attempt(state, job, attempt)?;
        let known = scheduler::submission(state, job.build)?;
        (record.worker == worker).then(|| known.clone())
    });
    let known = asked.await.ok().flatten();
    if let (Some(submission), Some(fetched), Outcome::Succeeded) =
        (known, result.fetched.clone(), result.outcome)
    {
        match planned(farm, &submission, &fetched).await {
            Ok(graph) => {
                info!(build = %submission.build, jobs = graph.jobs.len(), "build planned");
                return Event::Fetched {
                    session,
                    lease,
                    result,
                    graph: Box::new(graph),
                };
            }
            Err(error) => {
                debug!(build = %submission.build, error = %error, "build cannot be planned");
                (result.outcome, result.context) = ending(&error);
                result.log_bytes = said(farm, lease, &result).await;
            }
        }
    }
    Event::Finished {
        session,
        lease,
        result,
    }
}

async fn planned(
    farm: &Farm,
    submission: &Submission,
    fetched: &FetchedSources,
) -> Result<JobGraph, PlanningError> {
    let Some(recipe) = &submission.terms.recipe else {
        let message = "the build is planned already".to_owned();
        return Err(PlanningError::Cache(message));
    };
    let primary = fetched.primary.as_ref().map(|source| &source.tree);
    let primary = primary.or(submission.source.as_ref());
    let secondary = fetched.secondary.values().map(|source| &source.tree);
    let held = HeldSource {
        namespace: submission.namespace.clone(),
        team: submission.team.clone(),
        trust: submission.trust,
        trees: primary.into_iter().chain(secondary).cloned().collect(),
    };
    let held = held.hold(farm, submission.build, true).await;
    held.map_err(|refused| PlanningError::Cache(refused.message))?;
    let mut graph = plan(recipe, primary, farm).await?;
    if let Some(Task::DownloadSource { preface, .. }) =
        graph.jobs.first_mut().map(|job| &mut job.task)
    {
        preface.follows_fetch = true;
    }
    Ok(graph)
}

/// Says in the attempt's log that its phase has ended, which the worker did not: there all went well. Gives how many
/// bytes the log has then; those that it had if it takes no more, or the build is to be tried again.
async fn said(farm: &Farm, lease: LeaseId, result: &AttemptResult) -> u64 {
    let before = result.log_bytes;
    let asked = farm
        .dispatcher
        .ask(move |state: &State| scheduler::live_attempt(state, lease));
    let (Ok(Some((job, attempt))), Outcome::Failed) = (asked.await, result.outcome) else {
        return before;
    };
    let lines = agent_line::complete(Phase::DownloadSource, result.outcome, &result.context);
    let now = i64::try_from(clock::wall().0 * 1_000).unwrap_or(i64::MAX);
    let lines = lines.map(|line| agent_line::stamp(now, &line)).concat();
    // Said a second time, by a worker that has not heard of the answer, it is there already.
    let key = LogKey { job, attempt };
    let _open = farm.log_writer.opened(key);
    let added = u64::try_from(lines.len()).unwrap_or(0);
    match farm.log_writer.append(key, before, lines.into()).await {
        Ok(durable) => durable.min(before + added),
        Err(error) => {
            warn!(%job, error = %Chain(&error), "the end of a phase is not in its log");
            before
        }
    }
}

/// How the fetching ends if nothing can be made of what was fetched.
fn ending(error: &PlanningError) -> (Outcome, PhaseContext) {
    let (outcome, code) = match error {
        PlanningError::Buildspec(_) => (Outcome::Failed, "YAML_FILE_ERROR"),
        PlanningError::Cache(_) => (Outcome::Fault, "INTERNAL_SERVICE_ERROR"),
    };
    let context = PhaseContext {
        status_code: code.to_owned(),
        message: error.to_string(),
    };
    (outcome, context)
}
