//! What the farm itself failed at: never the build's doing, so it is tried again elsewhere.

use std::{error::Error, io};

/// What the farm failed at, and why.
#[derive(Debug, thiserror::Error)]
#[error("failed to {tried}")]
pub(crate) struct Fault {
    tried: String,
    source: Box<dyn Error + Send + Sync>,
}

impl Fault {
    /// What was tried, as in "failed to …", and what came in between.
    pub(crate) fn new(
        tried: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            tried: tried.into(),
            source: source.into(),
        }
    }
}

/// Turns errors into faults.
pub(crate) trait OrFault<T> {
    /// Names what was tried, as in "failed to …".
    fn or_fault(self, tried: &str) -> Result<T, Fault>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> OrFault<T> for Result<T, E> {
    fn or_fault(self, tried: &str) -> Result<T, Fault> {
        self.map_err(|error| Fault::new(tried, error))
    }
}

/// Runs `work`, which blocks, where that is allowed.
pub(crate) async fn blocking<T, E>(
    tried: &str,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Fault>
where
    T: Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.or_fault(tried),
        Err(ended) => Err(Fault::new(tried, io::Error::from(ended))),
    }
}
