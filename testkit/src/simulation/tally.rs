//! How often what happened.

use std::{collections::BTreeMap, fmt};

use protocol::build::Outcome;
use scheduler::{Fact, Ignored, RestartCause, ReturnCause, StopCause};

/// Counts, by name.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    /// One more.
    pub(super) fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// One more fact of its kind.
    pub(super) fn add_fact(&mut self, fact: &Fact) {
        self.add(kind(fact));
    }

    /// One more message that changed nothing.
    pub(super) fn add_ignored(&mut self, ignored: Ignored) {
        self.add(match ignored {
            Ignored::Duplicate => "ignored: duplicate",
            Ignored::Late => "ignored: late",
            Ignored::Forged => "ignored: forged",
            Ignored::OutOfOrder => "ignored: out of order",
        });
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// How often something happened.
    pub fn times(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// The names of all that a simulation has to see, and that happened less often than `times`.
    pub fn rarer_than(&self, times: u64) -> Vec<&'static str> {
        let rare = EXPECTED.iter().copied();
        rare.filter(|what| self.times(what) < times).collect()
    }
}

/// A line for each name, by name.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.0 {
            writeln!(f, "{times:>10} {what}")?;
        }
        Ok(())
    }
}

const fn kind(fact: &Fact) -> &'static str {
    match fact {
        Fact::BuildSubmitted { .. } => "fact: build submitted",
        Fact::LeaseGranted { attempt: 1, .. } => "fact: lease granted",
        Fact::LeaseGranted { .. } => "fact: lease granted for another try",
        Fact::AttemptBegan { .. } => "fact: attempt began",
        Fact::LeaseReturned { cause, .. } => match cause {
            ReturnCause::NotBegun => "fact: lease returned, not begun",
            ReturnCause::HandedOver => "fact: lease returned, handed over",
        },
        Fact::LeaseLost { .. } => "fact: lease lost",
        Fact::AttemptFaulted { .. } => "fact: attempt faulted",
        Fact::JobEnded { outcome, .. } => match outcome {
            Outcome::Succeeded => "fact: job succeeded",
            Outcome::Failed => "fact: job failed",
            Outcome::TimedOut => "fact: job timed out",
            Outcome::Stopped => "fact: job stopped",
            Outcome::Fault | Outcome::Skipped => "fact: job ended otherwise",
        },
        Fact::JobSkipped { .. } => "fact: job skipped",
        Fact::JobGivenUp { outcome, .. } => match outcome {
            Outcome::Fault => "fact: job given up, tried too often",
            _ => "fact: job given up, its build stops",
        },
        Fact::UnitRestarted { cause, .. } => match cause {
            RestartCause::WorkerLost => "fact: unit restarted, worker lost",
            RestartCause::WorkerLeaves => "fact: unit restarted, worker leaves",
            RestartCause::StateLost => "fact: unit restarted, state lost",
        },
        Fact::StopRequested { cause, .. } => match cause {
            StopCause::Stopped => "fact: stop requested",
            StopCause::TimedOut => "fact: build timed out",
            StopCause::FastFail => "fact: build fails fast",
        },
        Fact::BuildEnded { outcome, .. } => match outcome {
            Outcome::Succeeded => "fact: build succeeded",
            Outcome::Failed => "fact: build failed",
            Outcome::Fault => "fact: build faulted",
            Outcome::TimedOut => "fact: build ended in time-out",
            Outcome::Stopped | Outcome::Skipped => "fact: build ended stopped",
        },
        Fact::BuildDeleted { .. } => "fact: build deleted",
        Fact::WorkerDraining { .. } => "fact: worker draining",
        Fact::WorkerDrained { .. } => "fact: worker drained",
        Fact::SourcesFetched { .. } => "fact: sources fetched",
        Fact::ProjectSaved { .. } => "fact: project saved",
        Fact::ProjectDeleted { .. } => "fact: project deleted",
        Fact::CachesInvalidated { .. } => "fact: caches invalidated",
    }
}

/// What a simulation has to see: one in which something never happens proves nothing about it.
const EXPECTED: &[&str] = &[
    "all die together",
    "build deleted",
    "build retried",
    "build stopped",
    "cache dies",
    "cache evicts",
    "cache loses what it holds",
    "client has gone before it hears",
    "client hears the end",
    "client is cut off",
    "coordinator dies while it starts",
    "coordinator is killed",
    "coordinator loses power",
    "coordinator's disk is full",
    "coordinator's disk is slow",
    "coordinator's machine sleeps",
    "decision durable, and nobody heard of it",
    "decision lost, or not known to be durable",
    "effects lost",
    "fact: attempt began",
    "fact: attempt faulted",
    "fact: build deleted",
    "fact: build ended in time-out",
    "fact: build ended stopped",
    "fact: build failed",
    "fact: build fails fast",
    "fact: build faulted",
    "fact: build submitted",
    "fact: build succeeded",
    "fact: build timed out",
    "fact: job failed",
    "fact: job given up, its build stops",
    "fact: job given up, tried too often",
    "fact: job skipped",
    "fact: job stopped",
    "fact: job succeeded",
    "fact: job timed out",
    "fact: lease granted",
    "fact: lease granted for another try",
    "fact: lease lost",
    "fact: lease returned, handed over",
    "fact: lease returned, not begun",
    "fact: stop requested",
    "fact: unit restarted, state lost",
    "fact: unit restarted, worker leaves",
    "fact: unit restarted, worker lost",
    "fact: worker drained",
    "fact: worker draining",
    "ignored: duplicate",
    "ignored: forged",
    "ignored: late",
    "ignored: out of order",
    "journal refused",
    "lease lost, nothing was heard",
    "link breaks",
    "link stalls",
    "log bytes sent twice",
    "log stream refused",
    "message delayed",
    "message doubled",
    "message forged",
    "message into a broken link",
    "message lost with its link",
    "message of an old session after that of a new one",
    "message that nobody reads",
    "old session closed for a new one",
    "something was evicted",
    "start refused, the disk is full",
    "state not put, or not to the end",
    "state put",
    "state put beside the journal",
    "submission said",
    "tail of the journal never written",
    "tail of the journal torn off",
    "wall clock jumps",
    "worker dies",
    "worker forges messages",
    "worker hands over",
    "worker leaves",
    "worker lies about what it holds",
    "worker repeats itself",
    "worker told to leave",
    "worker waits for the cache",
    "worker's machine sleeps",
    "worker: assignment comes too late",
    "worker: attempt begins",
    "worker: attempt begins late",
    "worker: attempt interrupted",
    "worker: attempt killed",
    "worker: attempt never begins",
    "worker: attempt stored",
    "worker: commands start that must not run twice",
    "worker: gives back what it killed",
    "worker: has left",
    "worker: knows that the process before has ended",
    "worker: lease lost",
    "worker: lease runs out",
    "worker: result said",
    "worker: says again that it leaves",
    "worker: state of a unit is lost",
];
