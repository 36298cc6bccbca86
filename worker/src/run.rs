//! Runs a worker: from its options to its last acknowledged result.

use tokio_util::sync::CancellationToken;
use transport::Credentials;

use crate::{
    directory::{DataDirectory, DirectoryError},
    options::Options,
};

/// Why a worker ended otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Runs a worker until `stop`, and then until its attempts have ended and are stored.
///
/// # Errors
///
/// If its data directory cannot be used.
pub async fn run(
    options: Options,
    credentials: Credentials,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let _directory = DataDirectory::open(&options.directory)?;
    tracing::info!(worker = %options.name, identity = %credentials.identity, "worker starts");
    stop.cancelled().await;
    Ok(())
}
