//! What clients are told when something goes wrong here. What is inside stays inside: they get an id,
//! and the log has the causes under it.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use protocol::{
    message::{Refusal, RefusalCode},
    report::Chain,
};

use crate::{
    cold::ColdError,
    store::{ClosureError, Trouble},
};

/// When it makes sense to try again with a full disk: somebody has to make room first.
const RETRY_FULL: Duration = Duration::from_secs(10);
/// When it makes sense to try again while the store opens itself.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// How many internal errors there were.
static ERRORS: AtomicU64 = AtomicU64::new(1);

/// The error and its causes, each once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    Chain(error).to_string()
}

/// An error that is none of the client's business.
pub(crate) fn internal(error: &(dyn Error + 'static)) -> Refusal {
    let id = ERRORS.fetch_add(1, Ordering::Relaxed);
    tracing::error!(error_id = id, error = %chain(error), "request failed");
    let message = format!("the cache has failed; its log says why under error_id={id}");
    Refusal::new(RefusalCode::Internal, message)
}

/// A request that makes no sense.
pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::InvalidArgument, message)
}

/// Something that did not come in time: the path is slow, or the client has gone.
pub(crate) fn late(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::Unavailable, message)
}

pub(crate) fn of_trouble(trouble: &Trouble) -> Refusal {
    match trouble {
        Trouble::Full { .. } => {
            metrics::counter!("grange_cache_writes_refused_total", "why" => "full").increment(1);
            Refusal::new(RefusalCode::ResourceExhausted, trouble.to_string())
                .retry_after(RETRY_FULL)
        }
        Trouble::Held { .. } => {
            metrics::counter!("grange_cache_writes_refused_total", "why" => "held").increment(1);
            Refusal::new(RefusalCode::ResourceExhausted, trouble.to_string())
                .retry_after(RETRY_FULL)
        }
        Trouble::Stopped | Trouble::Closed | Trouble::LogGone { .. } => {
            Refusal::new(RefusalCode::Unavailable, trouble.to_string()).retry_after(RETRY_SOON)
        }
        Trouble::Database { .. } | Trouble::Row { .. } | Trouble::Disk { .. } => internal(trouble),
    }
}

/// Deleting has deleted so many entries here, and the cold tier still has what it has.
pub(super) fn of_cold(error: &ColdError, deleted: u64) -> Refusal {
    tracing::warn!(error = %chain(error), "entries are not deleted in the cold tier");
    let message = format!(
        "{deleted} entries are deleted in the cache; the cold tier does not answer and may still have them: try again"
    );
    Refusal::new(RefusalCode::Internal, message)
}

pub(crate) fn of_closure(error: &ClosureError) -> Refusal {
    match error {
        ClosureError::Missing { .. } => {
            Refusal::new(RefusalCode::FailedPrecondition, error.to_string())
        }
        ClosureError::Blob { .. } | ClosureError::Layout { .. } | ClosureError::TooMany { .. } => {
            invalid(chain(error))
        }
        ClosureError::Trouble(trouble) => of_trouble(trouble),
    }
}
