//! Refusals: what clients are told, and what stays in the log.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use protocol::{
    message::{Refusal, RefusalCode},
    report::Chain,
};
use tracing::error;

use crate::dispatcher::Stopped;

/// When to ask again somebody who cannot answer now: about as long as a restart takes.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Counts the failures of this coordinator's life, to find them in its log.
static FAILURES: AtomicU64 = AtomicU64::new(1);

/// The request makes no sense.
pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::InvalidArgument, message)
}

/// What it names is not there, or not for this client to know of.
pub(crate) fn not_found(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::NotFound, message)
}

/// This client may not do it.
pub(crate) fn denied(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::PermissionDenied, message)
}

/// Something has to be done first.
pub(crate) fn precondition(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::FailedPrecondition, message)
}

/// A limit is reached.
pub(crate) fn exhausted(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::ResourceExhausted, message)
}

/// It cannot be done now.
pub(crate) fn unavailable(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::Unavailable, message).retry_after(RETRY_AFTER)
}

/// The coordinator has failed. The client sees a number, the log has the causes under it.
pub(crate) fn internal(what: &'static str, cause: &(dyn Error + 'static)) -> Refusal {
    let failure = FAILURES.fetch_add(1, Ordering::Relaxed);
    error!(failure, what, error = %Chain(cause), "request failed");
    let message =
        format!("failed to {what}; the coordinator's log has the cause as failure {failure}");
    Refusal::new(RefusalCode::Internal, message)
}

impl From<Stopped> for Refusal {
    fn from(stopped: Stopped) -> Self {
        unavailable(stopped.to_string())
    }
}
