//! The way to the cache: one connection that all attempts share, and patience.
//!
//! A task keeps the connection. An attempt asks for a client in the name of its build's team, which
//! presents the attempt's grant once per connection. What fails because the cache or the network is away
//! is tried again; every request may be repeated.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cache::{
    client::{CacheClient, CacheError},
    compression::DecodeChunkError,
};
use protocol::{
    access::{Role, SignedGrant},
    message::{Refusal, RefusalCode},
    name::Team,
};
use tokio::sync::watch;
use tracing::{debug, info, warn};
use transport::{Client, Connection, StreamError, back_off};

use crate::{
    fault::{Fault, OrFault as _},
    report::Chain,
};

/// How long an attempt waits for a cache that is away: a restart, with the recovery of a large store,
/// takes less.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a request is tried while the cache can be reached.
const TRIES: u32 = 6;

/// A connection, told from the one before it.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    connection: Connection,
}

/// The connection to the cache, for whoever wants one.
#[derive(Clone, Debug)]
pub(crate) struct CacheLink {
    current: watch::Receiver<Option<Numbered>>,
}

/// What keeps the connection to the cache.
#[derive(Debug)]
pub(crate) struct CacheKeeper {
    current: watch::Sender<Option<Numbered>>,
    /// Where the cache is; `None`: nobody has said yet.
    pub(crate) address: watch::Receiver<Option<SocketAddr>>,
    /// Who connects.
    pub(crate) client: Client,
    /// Differs between workers.
    pub(crate) seed: u64,
}

impl CacheKeeper {
    /// A keeper and the link that it keeps.
    pub(crate) fn new(
        address: watch::Receiver<Option<SocketAddr>>,
        client: Client,
        seed: u64,
    ) -> (Self, CacheLink) {
        let current = watch::Sender::new(None);
        let link = CacheLink {
            current: current.subscribe(),
        };
        let keeper = Self {
            current,
            address,
            client,
            seed,
        };
        (keeper, link)
    }

    /// Keeps a connection to wherever the cache is, until nobody says where that is any more.
    pub(crate) async fn keep(mut self) {
        let mut failures = 0;
        let mut number = 0;
        loop {
            let address = match self.address.wait_for(Option::is_some).await {
                Ok(address) => *address,
                Err(_gone) => return,
            };
            let Some(address) = address else { continue };
            tokio::time::sleep(back_off(failures, self.seed)).await;
            let connection = match self.client.connect(address, Role::Cache).await {
                Ok(connection) => connection,
                Err(error) => {
                    failures += 1;
                    warn!(cache = %address, failures, error = %Chain(&error), "no link to the cache");
                    continue;
                }
            };
            info!(cache = %address, "linked to the cache");
            failures = 1;
            number += 1;
            self.current.send_replace(Some(Numbered {
                number,
                connection: connection.clone(),
            }));
            let moved = self.address.wait_for(|now| *now != Some(address));
            tokio::select! {
                biased;
                reason = connection.closed() => {
                    warn!(cache = %address, reason, "link to the cache lost");
                }
                _ = moved => connection.close("the cache is elsewhere"),
            }
            self.current.send_replace(None);
        }
    }
}

/// The cache as one attempt uses it.
#[derive(Debug)]
pub(crate) struct AttemptCache {
    link: CacheLink,
    team: Team,
    grant: SignedGrant,
    /// The connection on which the grant was presented.
    presented: Mutex<u64>,
}

impl AttemptCache {
    /// For a build of `team`, as far as `grant` allows.
    pub(crate) const fn new(link: CacheLink, team: Team, grant: SignedGrant) -> Self {
        Self {
            link,
            team,
            grant,
            presented: Mutex::new(0),
        }
    }

    /// Carries out `request`, again and again if the cache is away or cannot for the moment.
    ///
    /// # Errors
    ///
    /// What the last try failed at; `tried` names it.
    pub(crate) async fn with<T, E, F>(
        &self,
        tried: &str,
        request: impl Fn(CacheClient) -> F,
    ) -> Result<T, Fault>
    where
        E: Error + Send + Sync + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut failures = 0;
        let mut denied = false;
        loop {
            let client = self.client().await.or_fault(tried)?;
            let error = match request(client).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            // The cache may have forgotten the grant, among the many of this worker.
            if !denied && is_denied(&error) {
                denied = true;
                *self.presented() = 0;
                continue;
            }
            failures += 1;
            if !may_pass(&error) || failures == TRIES {
                return Err(Fault::new(tried, error));
            }
            debug!(error = %Chain(&error), failures, tried, "request to the cache failed");
            tokio::time::sleep(back_off(failures, self.seed())).await;
        }
    }

    /// A client on the connection that there is, waiting for one if there is none.
    async fn client(&self) -> Result<CacheClient, ClientError> {
        let mut current = self.link.current.clone();
        let waiting = current.wait_for(Option::is_some);
        let there = tokio::time::timeout(PATIENCE, waiting).await;
        let there = there.map_err(|_| ClientError::Away)?;
        let there = there.map_err(|_| ClientError::Leaving)?.clone();
        let there = there.ok_or(ClientError::Away)?;
        let client = CacheClient::new(there.connection, self.team.clone());
        if *self.presented() != there.number {
            let presented = client.present(self.grant.clone()).await;
            match presented {
                Ok(()) => *self.presented() = there.number,
                // The request itself will find out, and be tried again.
                Err(error) if may_pass(&error) => {}
                Err(source) => return Err(ClientError::Grant { source }),
            }
        }
        Ok(client)
    }

    fn presented(&self) -> MutexGuard<'_, u64> {
        self.presented
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Differs between attempts, as grants do.
    fn seed(&self) -> u64 {
        let bytes = self.grant.signature.iter().take(8);
        bytes.fold(0, |seed, &byte| seed << 8 | u64::from(byte))
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    /// Nobody could connect for a long time.
    #[error("the cache was not to be reached for {} s", PATIENCE.as_secs())]
    Away,
    /// The worker is about to end.
    #[error("the worker is leaving")]
    Leaving,
    /// The grant is not accepted, and will not be.
    #[error("failed to present the grant of the attempt")]
    Grant {
        /// What the cache says.
        source: CacheError,
    },
}

/// Whether what failed may well succeed when it is tried again: the connection broke, or the cache says
/// that it cannot just now.
fn may_pass(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<StreamError>() || error.is::<DecodeChunkError>() {
            return true;
        }
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return matches!(
                refusal.code,
                RefusalCode::Unavailable | RefusalCode::Internal | RefusalCode::ResourceExhausted
            );
        }
        cause = error.source();
    }
    false
}

/// Whether the cache says that the attempt may not do this.
fn is_denied(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return refusal.code == RefusalCode::PermissionDenied;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to fetch")]
    struct Outer(#[source] CacheError);

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Transparent(CacheError);

    #[test]
    fn what_the_network_did_is_tried_again_and_what_the_cache_forbids_is_not() {
        let what = "read chunks";
        let broken = || CacheError::Stream {
            what,
            source: StreamError::Reset,
        };
        let refused = |code| CacheError::Refused {
            what,
            source: Refusal::new(code, "no"),
        };
        assert!(may_pass(&broken()));
        assert!(may_pass(&Outer(broken())));
        assert!(may_pass(&Transparent(broken())));
        assert!(may_pass(&Transparent(refused(RefusalCode::Unavailable))));
        assert!(!may_pass(&refused(RefusalCode::PermissionDenied)));
        assert!(is_denied(&Outer(refused(RefusalCode::PermissionDenied))));
        assert!(!is_denied(&refused(RefusalCode::Unavailable)) && !is_denied(&broken()));
        assert!(!may_pass(&Transparent(refused(RefusalCode::NotFound))));
        assert!(!may_pass(&CacheError::Answer { what }));
    }
}
