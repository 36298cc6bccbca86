//! The way to the cache: connections that a team's attempts share, and patience.
//!
//! Tasks keep the connections. An attempt asks for a client in the name of its build's team, which
//! presents the attempt's grant once per connection. What fails because the cache or the network is away
//! is tried again; every request may be repeated.

mod keeper;

use std::{
    error::Error,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cache::{
    client::{CacheClient, CacheError},
    compression::DecodeChunkError,
};
use protocol::{
    access::SignedGrant,
    message::{Refusal, RefusalCode},
    name::Team,
};
use tokio::sync::watch;
use tracing::debug;
use transport::{StreamError, back_off};

use self::keeper::Numbered;
pub(crate) use self::keeper::{CacheKeeper, CacheLinks};
use crate::{
    fault::{Fault, OrFault as _},
    log::Log,
    report::Chain,
};

/// How long a cache may be away before the log says so: a short break is no news.
const SILENT_WAIT: Duration = Duration::from_secs(2);

/// How often a request is tried that the cache answers with something that is wrong: the second answer
/// may be right, the seventh will not.
const TRIES: u32 = 6;

/// The cache as one attempt uses it.
#[derive(Debug)]
pub(crate) struct AttemptCache {
    current: watch::Receiver<Option<Numbered>>,
    team: Team,
    grant: SignedGrant,
    log: Log,
    /// Whether the log says already that the cache is away.
    said: AtomicBool,
    /// The connection on which the grant was presented.
    presented: Mutex<u64>,
}

impl AttemptCache {
    /// For a build of `team`, as far as `grant` allows. That the cache is away is said in `log`.
    pub(crate) fn new(links: &CacheLinks, (team, grant): (Team, SignedGrant), log: Log) -> Self {
        Self {
            current: links.of(&team),
            team,
            grant,
            log,
            said: AtomicBool::new(false),
            presented: Mutex::new(0),
        }
    }

    /// Carries out `request`, again and again while the cache is away or cannot for the moment: that costs
    /// the attempt time, up to its time limit, which whoever runs it keeps.
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
            let after = match judge(&error) {
                Judgement::Later(after) => after,
                Judgement::Again if failures < TRIES => None,
                Judgement::Again | Judgement::Never => return Err(Fault::new(tried, error)),
            };
            debug!(error = %Chain(&error), failures, tried, "request to the cache failed");
            let wait = back_off(failures, self.seed());
            tokio::time::sleep(wait.max(after.unwrap_or_default())).await;
        }
    }

    /// A client on the connection that there is, waiting for one if there is none.
    async fn client(&self) -> Result<CacheClient, ClientError> {
        let mut current = self.current.clone();
        let soon = tokio::time::timeout(SILENT_WAIT, current.wait_for(Option::is_some));
        let is_away = soon.await.is_err();
        if is_away && !self.said.swap(true, Ordering::Relaxed) {
            // The log has troubles of its own then, and says them elsewhere.
            let _said = self.log.say("Waiting for the cache, which is away").await;
        }
        let there = current.wait_for(Option::is_some).await;
        let there = there.map_err(|_| ClientError::Leaving)?.clone();
        let there = there.ok_or(ClientError::Leaving)?;
        let client = CacheClient::with_bulk(there.connections, self.team.clone());
        if *self.presented() != there.number {
            let presented = client.present(self.grant.clone()).await;
            match presented {
                Ok(()) => *self.presented() = there.number,
                // The request itself will find out, and be tried again.
                Err(error) if !matches!(judge(&error), Judgement::Never) => {}
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

/// What to do about a request that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Judgement {
    /// The cache is away, or cannot just now: try again, after this time if it says one.
    Later(Option<Duration>),
    /// The answer was wrong: the next one may be right.
    Again,
    /// It will not succeed.
    Never,
}

fn judge(error: &(dyn Error + 'static)) -> Judgement {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<StreamError>() {
            return Judgement::Later(None);
        }
        if error.is::<DecodeChunkError>() {
            return Judgement::Again;
        }
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return match refusal.code {
                RefusalCode::Unavailable | RefusalCode::ResourceExhausted => {
                    Judgement::Later(refusal.retry_after)
                }
                RefusalCode::Internal => Judgement::Again,
                _ => Judgement::Never,
            };
        }
        cause = error.source();
    }
    Judgement::Never
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
        let later = Judgement::Later(None);
        assert_eq!(judge(&broken()), later);
        assert_eq!(judge(&Outer(broken())), later);
        assert_eq!(judge(&Transparent(broken())), later);
        let busy = refused(RefusalCode::Unavailable);
        assert_eq!(judge(&Transparent(busy)), later);
        let internal = refused(RefusalCode::Internal);
        assert_eq!(judge(&internal), Judgement::Again);
        let forbidden = refused(RefusalCode::PermissionDenied);
        assert_eq!(judge(&forbidden), Judgement::Never);
        let missing = refused(RefusalCode::NotFound);
        assert_eq!(judge(&Transparent(missing)), Judgement::Never);
        assert_eq!(judge(&CacheError::Answer { what }), Judgement::Never);
        let seconds = Duration::from_secs(7);
        let source = Refusal::new(RefusalCode::ResourceExhausted, "full").retry_after(seconds);
        let full = CacheError::Refused { what, source };
        assert_eq!(judge(&full), Judgement::Later(Some(seconds)));
        assert!(is_denied(&Outer(refused(RefusalCode::PermissionDenied))));
        assert!(!is_denied(&refused(RefusalCode::Unavailable)) && !is_denied(&broken()));
    }
}
