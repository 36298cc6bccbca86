//! The phases of a unit as `CodeBuild` tells them: `Build.phases[]`.
//!
//! Pure. A unit's jobs are six of the eleven phases; the others are what happens around them. Phases are
//! entered one after the other, each when the one before it ends; what was not entered is not there.

mod batch;

use serde::Serialize;

pub use self::batch::{BatchPhase, batch_timeline};
use crate::{
    build::{Outcome, Phase, PhaseContext, Status},
    message::client::{BuildSummary, PhaseDetail, UnitDetail},
    time::WallTime,
};

/// A phase that was entered.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Entry<P = Phase> {
    /// Which phase.
    pub phase: P,
    /// How it stands; `None` for `COMPLETED`, which has no status.
    pub status: Option<Status>,
    /// When it was entered.
    pub started: WallTime,
    /// When it ended; `None`: it has not, or is `COMPLETED`.
    pub ended: Option<WallTime>,
    /// How long it took, in whole seconds; `None` as for `ended`.
    pub seconds: Option<u64>,
    /// Why it ended as it did: one, after its end.
    pub contexts: Vec<PhaseContext>,
}

/// The phases that a unit of a build has entered, in order. The last is the current one.
pub fn timeline(build: &BuildSummary, unit: &UnitDetail) -> Vec<Entry> {
    let mut line = Line {
        entries: Vec::new(),
        at: build.submitted,
    };
    line.pass(Phase::Submitted, build.submitted);
    let entered = |phase: &&PhaseDetail| phase.started.is_some();
    let Some(first) = unit.phases.iter().find(entered) else {
        return line.never_started(build, unit);
    };
    let first = first.started.unwrap_or(build.submitted);
    line.pass(Phase::Queued, first);
    line.pass(Phase::Provisioning, first);
    for phase in unit.phases.iter().filter(entered) {
        line.enter(phase);
    }
    if let Status::Ended(outcome) = unit.status {
        let end = build.ended.filter(|_| unit.identifier.is_none());
        let end = end.unwrap_or(line.at);
        match outcome {
            // Nothing is finished then.
            Outcome::Stopped => line.stop(unit, end),
            _ => line.pass(Phase::Finalizing, end),
        }
        line.complete();
    }
    line.entries
}

/// The phases so far.
struct Line<P> {
    entries: Vec<Entry<P>>,
    /// When the last of them ended.
    at: WallTime,
}

impl<P> Line<P> {
    /// Adds a phase that went well until `end`, or until now if that is before.
    fn pass(&mut self, phase: P, end: WallTime) {
        self.end(phase, Outcome::Succeeded, (end, PhaseContext::default()));
    }

    fn end(&mut self, phase: P, outcome: Outcome, (end, context): (WallTime, PhaseContext)) {
        let started = self.at;
        let end = end.max(started);
        self.entries.push(Entry {
            phase,
            status: Some(Status::Ended(outcome)),
            started,
            ended: Some(end),
            seconds: Some(end.since(started).as_secs()),
            contexts: vec![context],
        });
        self.at = end;
    }

    fn open(&mut self, phase: P) {
        self.entries.push(Entry {
            phase,
            status: Some(Status::InProgress),
            started: self.at,
            ended: None,
            seconds: None,
            contexts: Vec::new(),
        });
    }
}

impl Line<Phase> {
    fn enter(&mut self, detail: &PhaseDetail) {
        match (detail.status, detail.ended) {
            (Status::Ended(outcome), Some(end)) => {
                let context = detail.context.clone().unwrap_or_default();
                self.end(detail.phase, outcome, (end, context));
            }
            // Between two tries it waits, and is in progress for all that.
            _ => self.open(detail.phase),
        }
    }

    fn complete(&mut self) {
        self.entries.push(Entry {
            phase: Phase::Completed,
            status: None,
            started: self.at,
            ended: None,
            seconds: None,
            contexts: Vec::new(),
        });
    }

    /// The unit was stopped: in the phase that ended so, or before the next one.
    fn stop(&mut self, unit: &UnitDetail, end: WallTime) {
        let stopped = Some(Status::Ended(Outcome::Stopped));
        if self.entries.iter().any(|entry| entry.status == stopped) {
            return;
        }
        if let Some(next) = unit.phases.iter().find(|phase| phase.started.is_none()) {
            let context = next.context.clone().unwrap_or_default();
            self.end(next.phase, Outcome::Stopped, (end, context));
        }
    }

    /// No phase of the unit has started: it waits, has waited in vain, or was never to run.
    fn never_started(mut self, build: &BuildSummary, unit: &UnitDetail) -> Vec<Entry> {
        let Status::Ended(outcome) = unit.status else {
            self.open(Phase::Queued);
            return self.entries;
        };
        if outcome == Outcome::Skipped {
            return Vec::new();
        }
        let given_up = unit.phases.iter().find(|phase| phase.context.is_some());
        let context = given_up.and_then(|phase| phase.context.clone());
        let end = unit.phases.iter().filter_map(|phase| phase.ended).max();
        let end = end.or(build.ended).unwrap_or(self.at);
        self.end(Phase::Queued, outcome, (end, context.unwrap_or_default()));
        self.complete();
        self.entries
    }
}

#[cfg(test)]
mod tests;
