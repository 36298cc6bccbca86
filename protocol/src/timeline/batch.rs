//! The phases of a batch as `CodeBuild` tells them: `BuildBatch.phases[]`.

use serde::Serialize;

use super::{Entry, Line};
use crate::{
    build::{Outcome, PhaseContext, Status},
    message::client::{BuildDetail, PhaseDetail},
    project::BatchConfig,
    time::WallTime,
};

/// A phase of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BatchPhase {
    /// It was taken.
    Submitted,
    /// Its `batch` section is fetched and read.
    DownloadBatchspec,
    /// Its builds wait or run.
    InProgress,
    /// What its builds published becomes one artifact.
    CombineArtifacts,
    /// It is over, and went well.
    Succeeded,
    /// It is over, and did not.
    Failed,
    /// Somebody stopped it.
    Stopped,
}

impl BatchPhase {
    /// CodeBuild's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::DownloadBatchspec => "DOWNLOAD_BATCHSPEC",
            Self::InProgress => "IN_PROGRESS",
            Self::CombineArtifacts => "COMBINE_ARTIFACTS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Stopped => "STOPPED",
        }
    }

    /// The last phase of a batch with this outcome.
    const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Stopped => Self::Stopped,
            Outcome::Failed | Outcome::Fault | Outcome::TimedOut | Outcome::Skipped => Self::Failed,
        }
    }
}

/// The phases that a batch has entered, in order. The last is the current one. Empty: it is no batch.
pub fn batch_timeline(batch: &BuildDetail) -> Vec<Entry<BatchPhase>> {
    let Some(config) = &batch.batch else {
        return Vec::new();
    };
    let summary = &batch.summary;
    let mut line = Line {
        entries: Vec::new(),
        at: summary.submitted,
    };
    line.pass(BatchPhase::Submitted, summary.submitted);
    let ending = match (summary.status, summary.ended) {
        (Status::Ended(outcome), Some(end)) => Some((outcome, end)),
        _ => None,
    };
    let is_planned = batch.units.iter().all(|unit| unit.identifier.is_some());
    match ending {
        _ if is_planned => line.pass(BatchPhase::DownloadBatchspec, planned(batch)),
        None => line.open(BatchPhase::DownloadBatchspec),
        Some((outcome, end)) => {
            let context = context_of(batch);
            line.end(BatchPhase::DownloadBatchspec, outcome, (end, context));
        }
    }
    match ending {
        None if is_planned => line.open(BatchPhase::InProgress),
        None => {}
        Some((outcome, end)) => {
            if is_planned {
                let context = context_of(batch);
                line.end(BatchPhase::InProgress, outcome, (end, context));
                if outcome == Outcome::Succeeded && combines(config, batch) {
                    line.pass(BatchPhase::CombineArtifacts, end);
                }
            }
            let (last, nothing) = (BatchPhase::of(outcome), PhaseContext::default());
            line.end(last, outcome, (end, nothing));
        }
    }
    line.entries
}

/// Whether there is anything that becomes one artifact.
fn combines(config: &BatchConfig, batch: &BuildDetail) -> bool {
    config.combine_artifacts && batch.units.iter().any(|unit| unit.artifact.is_some())
}

/// When it was known which builds it has: at once, unless the source was fetched first.
fn planned(batch: &BuildDetail) -> WallTime {
    let phases = || batch.units.iter().flat_map(|unit| &unit.phases);
    let submitted = batch.summary.submitted;
    if phases().all(|phase| phase.fetches == 0) {
        return submitted;
    }
    let own = |phase: &&PhaseDetail| phase.fetches == 0;
    let first = phases().filter(own).filter_map(|phase| phase.started).min();
    first.or(batch.summary.ended).unwrap_or(submitted)
}

/// Why it ended as it did, if it did not go well: what the first of its phases says that failed, or else that was
/// stopped. What a task may fail in says nothing of the batch.
fn context_of(batch: &BuildDetail) -> PhaseContext {
    if batch.summary.status == Status::Ended(Outcome::Succeeded) {
        return PhaseContext::default();
    }
    let units = batch.units.iter().filter(|unit| !unit.ignore_failure);
    let of = |wanted: &[Outcome]| {
        let mut phases = units.clone().flat_map(|unit| &unit.phases);
        phases.find_map(|phase| match phase.status {
            Status::Ended(outcome) if wanted.contains(&outcome) => phase.context.clone(),
            _ => None,
        })
    };
    of(&[Outcome::Failed, Outcome::Fault, Outcome::TimedOut])
        .or_else(|| of(&[Outcome::Stopped]))
        .unwrap_or_default()
}
