//! Results of attempts that fetched sources: what was fetched is held, and the build planned by it, before
//! the scheduler hears of the result.

use std::sync::Arc;

use protocol::{
    build::{Outcome, PhaseContext},
    graph::JobGraph,
    job::{AttemptResult, FetchedSources, Task},
    lease::LeaseId,
    name::WorkerName,
};
use scheduler::{Event, SessionId, State, Submission};
use tracing::{debug, info};

use super::{
    held_source::HeldSource,
    plan::{PlanningError, plan},
};
use crate::farm::Farm;

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
