//! The cold tier: a bucket of an S3-compatible store behind the store. Off unless one is named.
//!
//! What outlives the work on a build is written to it behind the store's back, chunks first, then the entry;
//! what is asked for and not here is read through it, verified, and kept here again. An entry is a name with
//! a label and its bytes, a chunk what the store has of it, so that any cache that is pointed at the bucket
//! has all that is in it. The tier never fails a build: where it does not do what it should, what is only
//! there counts as not there, and it is left in peace for a while.

mod bucket;
mod error;
mod fetch;
mod flights;
mod keep;
mod names;
mod record;
mod round;

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use metrics::counter;
use protocol::{
    access::Trust,
    message::cache::{EntryKey, EntrySummary, keys},
    name::Namespace,
    report::Chain,
    time::Time,
};
use tokio::sync::{Semaphore, mpsc};
use tracing::warn;

pub(crate) use self::error::ColdError;
pub use self::error::OpenColdError;
use self::{bucket::Bucket, flights::Flights, names::Label};
use crate::clock::Clock;

/// Where the cold tier is, and how long it keeps things.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ColdOptions {
    /// The bucket; it has to be there.
    pub bucket: String,
    /// The server's address; `None`: AWS's own, or the one in `AWS_ENDPOINT_URL`.
    pub endpoint: Option<String>,
    /// The region; `None`: the one in `AWS_REGION`, or `us-east-1`.
    pub region: Option<String>,
    /// How the names of all its objects start.
    pub prefix: String,
    /// How long an entry stays there that no cache has or asks for any more.
    pub keep: Duration,
}

/// For how long nothing is asked of a server that did not do what it should.
const PAUSE: Duration = Duration::from_secs(60);
/// How many entries may wait to be written; what is over it is found by the next round.
const WAITING_MAX: usize = 10_000;
/// How many entries a listing gives: ten requests to S3.
const LISTED_MAX: usize = 10_000;
/// How many requests one listing, one entry's chunks or one deletion may have under way: at 20 ms each they
/// fill a gigabit with chunks of the usual size.
const REQUESTS_AT_ONCE: usize = 16;
/// How many entries are read through at once.
const FETCHES_AT_ONCE: usize = 4;

/// The cold tier.
#[derive(Debug)]
pub(crate) struct Cold {
    bucket: Bucket,
    keep: Duration,
    clock: Clock,
    /// Until when nothing is asked of the server.
    paused: Mutex<Option<Time>>,
    /// Keys of entries that were written here and not there yet.
    waiting: mpsc::Sender<String>,
    /// Whether something was not written there that should be.
    is_behind: AtomicBool,
    /// How often something was deleted: who works on an entry meanwhile looks whether it is still meant.
    deletions: AtomicU64,
    /// Chunks that are there and not old, so that they are not asked for again: hashes.
    seen: Mutex<HashSet<[u8; 32]>>,
    flights: Flights,
    fetches: Semaphore,
}

impl Cold {
    /// The tier, and the keys that wait to be written to it.
    ///
    /// # Errors
    ///
    /// If the options make no sense. The server is not asked.
    pub(crate) fn open(
        options: &ColdOptions,
    ) -> Result<(Self, mpsc::Receiver<String>), OpenColdError> {
        let (waiting, written) = mpsc::channel(WAITING_MAX);
        let cold = Self {
            bucket: Bucket::open(options)?,
            keep: options.keep,
            clock: Clock::start(),
            paused: Mutex::default(),
            waiting,
            is_behind: AtomicBool::new(false),
            deletions: AtomicU64::new(0),
            seen: Mutex::default(),
            flights: Flights::default(),
            fetches: Semaphore::new(FETCHES_AT_ONCE),
        };
        Ok((cold, written))
    }

    /// Says that an entry was written here.
    pub(crate) fn written(&self, key: &EntryKey) {
        if keys::is_lasting(&key.path) && self.waiting.try_send(row(key)).is_err() {
            self.is_behind.store(true, Ordering::Relaxed);
        }
    }

    /// The entries of `namespace` whose keys start with `prefix` and that are trusted at least as far as
    /// `trust`, in no order, at most [`LISTED_MAX`]. None, if they cannot be had.
    pub(crate) async fn list(
        &self,
        namespace: &Namespace,
        prefix: &str,
        trust: Trust,
    ) -> Vec<(String, EntrySummary)> {
        if !keys::may_last(prefix) || self.is_paused() {
            return Vec::new();
        }
        match self.labels(&names::entries(namespace, prefix)).await {
            Ok(labels) => {
                let trusted = labels.iter().filter(|label| trust <= label.trust);
                trusted
                    .map(|label| (label.path().to_owned(), label.summary()))
                    .collect()
            }
            Err(error) => {
                self.failed("list entries", &error);
                Vec::new()
            }
        }
    }

    /// Deletes the entries of `namespace` whose keys start with `prefix`. Their chunks go when they are old.
    pub(crate) async fn delete(
        &self,
        namespace: &Namespace,
        prefix: &str,
    ) -> Result<(), ColdError> {
        if !keys::may_last(prefix) {
            return Ok(());
        }
        self.deletions.fetch_add(1, Ordering::SeqCst);
        loop {
            let labels = self.labels(&names::entries(namespace, prefix)).await?;
            let more = LISTED_MAX <= labels.len();
            self.delete_all(labels.iter().map(Label::name)).await?;
            if !more {
                return Ok(());
            }
        }
    }

    async fn delete_all(&self, names: impl Iterator<Item = String>) -> Result<(), ColdError> {
        let names: Vec<String> = names.collect();
        stream::iter(names)
            .map(|name| async move { self.bucket.delete(&name).await })
            .buffer_unordered(REQUESTS_AT_ONCE)
            .try_collect()
            .await
    }

    /// What the names say that start with `start`; at most [`LISTED_MAX`] of them.
    async fn labels(&self, start: &str) -> Result<Vec<Label>, ColdError> {
        let mut labels = Vec::new();
        let mut from = None;
        loop {
            let (page, next) = self.bucket.list(start, from).await?;
            labels.extend(page.iter().filter_map(|listed| Label::parse(&listed.name)));
            from = next;
            if from.is_none() || LISTED_MAX <= labels.len() {
                labels.truncate(LISTED_MAX);
                return Ok(labels);
            }
        }
    }

    fn is_paused(&self) -> bool {
        let now = self.clock.now();
        lock(&self.paused).is_some_and(|until| now < until)
    }

    /// Notes what went wrong.
    fn failed(&self, what: &'static str, error: &ColdError) {
        counter!("grange_cache_cold_failures_total", "what" => what).increment(1);
        if error.is_of_server() {
            *lock(&self.paused) = Some(self.clock.now() + PAUSE);
        }
        warn!(error = %Chain(error), what, "the cold tier failed");
    }
}

/// The key of an entry's row, as text.
fn row(key: &EntryKey) -> String {
    format!("{}/{}", key.namespace, key.path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
