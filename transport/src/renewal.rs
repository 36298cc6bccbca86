//! Certificates that last as long as their member runs: each is replaced at half its life.

use std::{
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use protocol::time::WallTime;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use crate::{client::Client, credentials::Credentials, enrol::renew};

/// How often it is looked whether a certificate is to be renewed, and how soon a renewal that failed is
/// tried again: often enough for one that lives for an hour, and a machine that slept is late by no more
/// than this.
const RENEWAL_CHECK: Duration = Duration::from_secs(60);

/// Renews the credentials in `current` at half their life, for ever: gets new ones from the coordinator,
/// keeps them in `directory`, and shows them in `current`. What fails is logged and tried again.
///
/// # Cancel safety
///
/// The credentials that are there go on counting.
pub async fn keep_renewed(
    coordinator: SocketAddr,
    directory: &Path,
    current: &watch::Sender<Credentials>,
) -> Infallible {
    loop {
        let credentials = current.borrow().clone();
        let left = credentials.renew_at().since(wall());
        if !left.is_zero() {
            sleep(left.min(RENEWAL_CHECK)).await;
            continue;
        }
        match renew(coordinator, &credentials).await {
            Ok(renewed) => {
                if let Err(error) = renewed.save(directory) {
                    let error: &(dyn Error + 'static) = &error;
                    warn!(error, "renewed certificate cannot be kept");
                }
                info!(valid_until = renewed.valid_until().0, "certificate renewed");
                current.send_replace(renewed);
            }
            Err(error) => {
                let error: &(dyn Error + 'static) = &error;
                warn!(error, "certificate cannot be renewed");
            }
        }
        // A certificate without a life ahead of it must not be renewed in a circle.
        sleep(RENEWAL_CHECK).await;
    }
}

/// Has `client` show what stands in `renewed` from the next connection on, until nobody renews any more.
///
/// # Cancel safety
///
/// Nothing is lost if the future is dropped.
pub async fn use_renewed(client: Client, mut renewed: watch::Receiver<Credentials>) {
    while renewed.changed().await.is_ok() {
        let credentials = renewed.borrow_and_update().clone();
        if let Err(error) = client.replace_credentials(&credentials) {
            let error: &(dyn Error + 'static) = &error;
            warn!(error, "renewed certificate cannot be used");
        }
    }
}

/// The wall time; 1970 if the machine's clock is set before that.
#[expect(clippy::disallowed_methods, reason = "the shell's one clock")]
fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    WallTime::default() + since.unwrap_or_default()
}
