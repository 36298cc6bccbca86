//! Retention: old builds are deleted, and what belongs to builds that are over or gone goes with them.
//!
//! What the scheduler says is not needed any more is deleted at once if the cache is there. Whatever was
//! missed (the cache was away, the coordinator stopped in between) a sweep finds, which compares what is
//! kept with what is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cache::client::{CacheClient, CacheError};
use protocol::{build::BuildId, message::cache::keys, name::Namespace, report::Chain};
use scheduler::{Event, RetentionPolicy};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{clock, dispatcher::Stopped, farm::Farm};

/// How many chores may wait. What does not fit the next sweep finds.
const CHORES_MAX: usize = 1_024;
/// How often everything is compared, at least. What a sweep finds is not urgent.
const SWEEP_PERIOD: Duration = Duration::from_secs(60 * 60);
/// How long a start and a cache that has come back get before the sweep: builds come first.
const SWEEP_DELAY: Duration = Duration::from_secs(30);
/// How old an entry has to be for a sweep to find that its build does not exist: a build is submitted
/// moments after its source is held.
const ORPHAN_AGE: Duration = Duration::from_secs(60 * 60);
/// How long the cache may take to delete a build's entries before it counts as away.
const DELETE_LIMIT: Duration = Duration::from_secs(60);
/// How many ended builds are kept at most: what the scheduler holds in memory with ease.
pub(crate) const BUILDS_MAX: usize = 100_000;
/// How many bytes of memory the graphs of ended builds may take: as much as those of the builds of a team
/// that have not ended.
const WEIGHT_MAX: u64 = 1 << 29;

/// Something that is not needed any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Chore {
    /// A build has ended: its snapshots are not needed.
    Ended {
        /// The build.
        build: BuildId,
    },
    /// A build is forgotten, or was never taken: nothing of it is needed.
    Deleted {
        /// The build.
        build: BuildId,
        /// Where its entries are.
        namespace: Namespace,
    },
}

/// Hands chores to the task that does them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Chores(mpsc::Sender<Chore>);

/// The two ends of the queue of chores.
pub(crate) fn queue() -> (Chores, mpsc::Receiver<Chore>) {
    let (sender, receiver) = mpsc::channel(CHORES_MAX);
    (Chores(sender), receiver)
}

impl Chores {
    /// Hands over a chore without waiting.
    pub(crate) fn add(&self, chore: Chore) {
        if self.0.try_send(chore).is_err() {
            debug!("chore left to the next sweep");
        }
    }
}

/// Why something was not deleted. The next sweep tries again.
#[derive(Debug, thiserror::Error)]
enum DeleteError {
    /// The cache is away.
    #[error("the cache is away")]
    Away,
    /// The cache did not delete.
    #[error("the cache did not delete")]
    Cache {
        /// Why.
        #[from]
        source: CacheError,
    },
    /// The disk did not delete.
    #[error("failed to delete logs")]
    Logs {
        /// Why.
        #[from]
        source: std::io::Error,
    },
    /// The disk did not delete.
    #[error("failed to drop the key of a build")]
    Key {
        /// Why.
        source: std::io::Error,
    },
    /// The coordinator stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Does chores until stopped.
pub(crate) async fn run(
    farm: Arc<Farm>,
    policy: RetentionPolicy,
    mut chores: mpsc::Receiver<Chore>,
    stop: CancellationToken,
) {
    let mut link = farm.cache.follow();
    let period = SWEEP_PERIOD.min(policy.age);
    let mut due = clock::now() + SWEEP_DELAY.min(period);
    loop {
        let wait = due.since(clock::now());
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            chore = chores.recv() => match chore {
                Some(chore) => Some(chore),
                None => return,
            },
            // Chores may have failed while it was away.
            changed = link.changed() => {
                if changed.is_ok() && link.borrow_and_update().is_some() {
                    due = clock::now() + SWEEP_DELAY.min(period);
                }
                continue;
            }
            () = sleep(wait) => None,
        };
        if next.is_none() {
            due = clock::now() + period;
        }
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            done = carry_out(&farm, &policy, next) => done,
        };
        match done {
            Ok(()) => {}
            Err(DeleteError::Away) => debug!("deletions wait for the cache"),
            Err(error) => warn!(error = %Chain(&error), "something is not deleted yet"),
        }
    }
}

/// Does a chore, or sweeps if there is none.
async fn carry_out(
    farm: &Farm,
    policy: &RetentionPolicy,
    chore: Option<Chore>,
) -> Result<(), DeleteError> {
    match chore {
        None => sweep(farm, policy).await,
        Some(Chore::Ended { build }) => {
            // First: it needs no cache, and what was sealed with it is of no use then.
            forget_key(farm, build).await?;
            forget_overdue(farm, policy).await?;
            let namespace = farm.dispatcher.ask(move |state| {
                let submission = scheduler::submission(state, build)?;
                Some(submission.namespace.clone())
            });
            let Some(namespace) = namespace.await? else {
                return Ok(());
            };
            delete_entries(farm, &namespace, &[keys::snapshots(build)]).await
        }
        Some(Chore::Deleted { build, namespace }) => {
            forget_key(farm, build).await?;
            delete_logs(farm, build).await?;
            let prefixes = [
                keys::source(build),
                keys::snapshots(build),
                keys::artifacts(build),
            ];
            delete_entries(farm, &namespace, &prefixes).await
        }
    }
}

/// Lets the scheduler forget the builds whose time is over; their chores come from that.
async fn forget_overdue(farm: &Farm, policy: &RetentionPolicy) -> Result<(), Stopped> {
    let policy = *policy;
    let overdue = farm
        .dispatcher
        .ask(move |state| scheduler::overdue(state, clock::wall(), &policy))
        .await?;
    for build in overdue {
        info!(%build, "build is over its retention and deleted");
        metrics::counter!("grange_builds_retired_total").increment(1);
        farm.dispatcher.tell(Event::Delete { build }).await?;
    }
    Ok(())
}

/// Drops the key under which what is left of a build is sealed.
async fn forget_key(farm: &Farm, build: BuildId) -> Result<(), DeleteError> {
    let secrets = Arc::clone(&farm.secrets);
    let forgotten = spawn_blocking(move || secrets.forget(build)).await;
    let forgotten = forgotten.expect("dropping a key does not panic");
    forgotten.map_err(|source| DeleteError::Key { source })
}

async fn delete_logs(farm: &Farm, build: BuildId) -> Result<(), DeleteError> {
    farm.log_writer.forget(build).await;
    let logs = Arc::clone(&farm.logs);
    let deleted = spawn_blocking(move || logs.delete(build)).await;
    Ok(deleted.expect("deleting logs does not panic")?)
}

async fn delete_entries(
    farm: &Farm,
    namespace: &Namespace,
    prefixes: &[String],
) -> Result<(), DeleteError> {
    let client = farm.cache.client().await.map_err(|_| DeleteError::Away)?;
    for prefix in prefixes {
        delete(&client, namespace, prefix).await?;
    }
    Ok(())
}

async fn delete(
    client: &CacheClient,
    namespace: &Namespace,
    prefix: &str,
) -> Result<(), DeleteError> {
    let deleted = timeout(DELETE_LIMIT, client.delete_entries(namespace, prefix)).await;
    let deleted = deleted.map_err(|_| DeleteError::Away)??;
    debug!(%namespace, prefix, deleted, "entries deleted");
    Ok(())
}

/// Deletes everything that belongs to no build that is known, and the snapshots of builds that ended.
async fn sweep(farm: &Farm, policy: &RetentionPolicy) -> Result<(), DeleteError> {
    forget_overdue(farm, policy).await?;
    let secrets = Arc::clone(&farm.secrets);
    let keys = spawn_blocking(move || secrets.builds()).await;
    let keys = keys.expect("looking at keys does not panic");
    let keys = keys.map_err(|source| DeleteError::Key { source })?;
    for (build, standing) in standings(farm, keys.into_iter().collect()).await? {
        if standing != Standing::Active {
            forget_key(farm, build).await?;
        }
    }
    let logs = Arc::clone(&farm.logs);
    let logged = spawn_blocking(move || logs.builds()).await;
    let logged = logged.expect("looking at logs does not panic")?;
    for (build, standing) in standings(farm, logged.into_iter().collect()).await? {
        if standing == Standing::Unknown {
            delete_logs(farm, build).await?;
        }
    }
    let mut namespaces = farm.dispatcher.ask(scheduler::namespaces).await?;
    namespaces.extend(farm.members.teams().into_iter().map(Namespace::from));
    let client = farm.cache.client().await.map_err(|_| DeleteError::Away)?;
    for namespace in namespaces {
        for kind in Kind::ALL {
            sweep_entries(farm, &client, &namespace, kind).await?;
        }
    }
    Ok(())
}

/// How a build stands, as far as what it keeps is concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    Unknown,
    Active,
    Ended,
}

async fn standings(
    farm: &Farm,
    builds: BTreeSet<BuildId>,
) -> Result<BTreeMap<BuildId, Standing>, Stopped> {
    let asked = farm.dispatcher.ask(move |state| {
        let standing = |build| match scheduler::is_ended(state, build) {
            None => Standing::Unknown,
            Some(false) => Standing::Active,
            Some(true) => Standing::Ended,
        };
        builds
            .into_iter()
            .map(|build| (build, standing(build)))
            .collect()
    });
    asked.await
}

/// What builds keep at the cache.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Source,
    Snapshot,
    Artifact,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Source, Self::Snapshot, Self::Artifact];

    /// How the keys of all of a kind start.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Source => "source/",
            Self::Snapshot => "snapshot/",
            Self::Artifact => "artifact/",
        }
    }

    /// How the keys of one build start.
    fn of(self, build: BuildId) -> String {
        match self {
            Self::Source => keys::source(build),
            Self::Snapshot => keys::snapshots(build),
            Self::Artifact => keys::artifacts(build),
        }
    }

    /// Whether a build that stands so needs it.
    fn is_needed(self, standing: Standing) -> bool {
        match standing {
            Standing::Unknown => false,
            Standing::Active => true,
            Standing::Ended => self != Self::Snapshot,
        }
    }
}

async fn sweep_entries(
    farm: &Farm,
    client: &CacheClient,
    namespace: &Namespace,
    kind: Kind,
) -> Result<(), DeleteError> {
    let entries = client.list_entries(namespace, kind.prefix()).await?;
    let now = clock::wall();
    let old = entries
        .iter()
        .filter(|(_, entry)| ORPHAN_AGE <= now.since(entry.written));
    let builds = old.filter_map(|(key, _)| build_of(kind, key)).collect();
    for (build, standing) in standings(farm, builds).await? {
        if !kind.is_needed(standing) {
            delete(client, namespace, &kind.of(build)).await?;
        }
    }
    Ok(())
}

/// The build that a key belongs to.
fn build_of(kind: Kind, key: &str) -> Option<BuildId> {
    let rest = key.strip_prefix(kind.prefix())?;
    let id = rest.split('/').next()?;
    id.parse().ok()
}

/// The scheduler's policy for what the options say.
pub(crate) const fn policy(age: Duration, bytes_max: u64) -> RetentionPolicy {
    RetentionPolicy {
        age,
        builds_max: BUILDS_MAX,
        bytes_max,
        weight_max: WEIGHT_MAX,
    }
}

#[cfg(test)]
mod tests {
    use protocol::job::JobId;

    use super::*;
    use crate::options::{RETENTION, RETENTION_BYTES};

    #[test]
    fn each_key_of_a_build_says_whose_it_is() {
        let build = BuildId::from_random([7; 16]);
        let job = JobId { build, index: 3 };
        let check = |kind: Kind, key: &str| {
            assert_eq!(build_of(kind, key), Some(build), "{key}");
            assert!(key.starts_with(&kind.of(build)), "{key}");
        };
        check(Kind::Source, &keys::source(build));
        check(Kind::Snapshot, &keys::snapshot(job, 1));
        check(Kind::Artifact, &keys::artifact(build, 0, 1));
        assert_eq!(build_of(Kind::Source, "source/else"), None);
        assert_eq!(build_of(Kind::Source, &keys::snapshot(job, 1)), None);
    }

    #[test]
    fn snapshots_are_needed_until_the_end_and_the_rest_until_the_build_is_deleted() {
        for kind in Kind::ALL {
            assert!(kind.is_needed(Standing::Active));
            assert!(!kind.is_needed(Standing::Unknown));
        }
        assert!(!Kind::Snapshot.is_needed(Standing::Ended));
        assert!(Kind::Source.is_needed(Standing::Ended));
        assert!(Kind::Artifact.is_needed(Standing::Ended));
    }

    #[test]
    fn reports_expire_after_30_days() {
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(policy(RETENTION, RETENTION_BYTES).age, 30 * day);
        // They are among the entries of the build's artifacts, which go with it.
        let build = BuildId::from_random([7; 16]);
        let key = keys::reports(build, 0, 1);
        assert!(key.starts_with(&Kind::Artifact.of(build)), "{key}");
        assert!(!Kind::Artifact.is_needed(Standing::Unknown));
    }
}
