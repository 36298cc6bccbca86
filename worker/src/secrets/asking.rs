//! Asking the coordinator for the secrets of a unit, again and again while it is away.

use std::time::Duration;

use protocol::{
    lease::LeaseId,
    message::{Refusal, RefusalCode, work::WorkRequest},
    secret::SecretsReply,
};
use tokio::{sync::watch, time::sleep};
use tracing::debug;
use transport::{Connection, StreamError};

use crate::{fault::Fault, report::Chain};

/// How long to wait before the question is asked again, where it was not answered.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

const TRIED: &str = "ask for the secrets of the build";

/// What the coordinator says to the holder of `lease`.
///
/// # Errors
///
/// If it refuses, or the worker leaves.
pub(crate) async fn ask(
    connections: &mut watch::Receiver<Option<Connection>>,
    lease: LeaseId,
) -> Result<SecretsReply, Fault> {
    loop {
        let connection = match connections.wait_for(Option::is_some).await {
            Ok(connection) => connection.clone(),
            Err(_gone) => return Err(Fault::new(TRIED, "the worker is leaving")),
        };
        let Some(connection) = connection else {
            continue;
        };
        match ask_over(&connection, lease).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(refusal)) if refusal.code == RefusalCode::Unavailable => {
                debug!(%lease, reason = refusal.message, "secrets are not to be had yet");
            }
            Ok(Err(refusal)) => return Err(Fault::new(TRIED, refusal)),
            Err(error) => {
                debug!(%lease, error = %Chain(&error), "question for secrets broke off");
            }
        }
        sleep(ASK_AGAIN_AFTER).await;
    }
}

async fn ask_over(
    connection: &Connection,
    lease: LeaseId,
) -> Result<Result<SecretsReply, Refusal>, StreamError> {
    let mut stream = connection.open().await?;
    stream.request(&WorkRequest::Secrets(lease)).await
}
