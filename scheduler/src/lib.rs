//! Who runs what and when: every decision of the coordinator, as a state machine without a clock, a
//! network, a disk or tasks.
//!
//! [`Scheduler::apply`] takes an [`Event`] and gives [`Fact`]s, which the shell journals and syncs, and
//! [`Effect`]s, which it carries out after that. [`Scheduler::replay`] folds journalled facts again.

mod assignment;
mod conduct;
mod decide;
mod effect;
mod event;
mod fact;
mod fetched;
mod fold;
mod holdings;
mod index;
mod lease;
mod outcome;
mod placement;
mod presence;
mod project;
mod query;
mod queue;
mod retention;
mod retry;
mod scheduler;
mod settle;
mod shares;
mod state;
mod terms;
mod timer;
mod weights;
mod worker;

pub use crate::{
    assignment::{AssignmentDraft, GRANT_MARGIN, assignment},
    conduct::{RETURNS_MAX, VANISHINGS_MAX},
    effect::Effect,
    event::{Event, Ignored, Now, SessionId, Submission},
    fact::{Fact, Limits, Platform, RestartCause, ReturnCause, StopCause},
    fold::FoldError,
    lease::{BEGIN_LIMIT, LEASE_FENCE, REVOKE_GRACE},
    placement::PREFERENCE_WAIT,
    project::{active_of_project, knows_project, project, projects},
    query::{
        AttemptRecord, Counts, ResolveError, RunningError, RuntimesFound, Scope, SecretsAsked,
        active_builds, attempt, build_detail, build_phase, build_summary, builds, counts,
        environment, is_ended, knows_worker, live_attempt, namespaces, resolve, running_attempt,
        runtimes, secrets_asked, submission, workers,
    },
    queue::PRIORITY_STEP,
    retention::{RetentionPolicy, overdue},
    retry::{ATTEMPTS_MAX, BENCH_FIRST, BENCH_MAX},
    scheduler::{Deadline, Decision, Scheduler},
    state::{Config, Image, Ledger, State},
    terms::{Origin, Terms},
    weights::{NoRoom, room, weight},
};

#[cfg(test)]
mod tests;
