//! The cold tier: a bucket of an S3-compatible store behind the store. Off unless one is named.
//!
//! What outlives the work on a build is written to it behind the store's back, chunks first, then the entry;
//! what is asked for and not here is read through it, verified, and kept here again. An entry is a name with
//! a title and its bytes, a chunk what the store has of it, so that any cache that is pointed at the bucket
//! has all that is in it. The tier never fails a build: where it does not do what it should, what is only
//! there counts as not there, and it is left in peace for a while.

mod bucket;
mod error;
mod fetch;
mod flights;
mod keep;
mod names;
mod policy;
mod record;
mod round;

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use metrics::counter;
use protocol::{
    access::Trust,
    message::cache::{EntryKey, EntrySummary, keys},
    name::Namespace,
    time::WallTime,
};
use tokio::{
    sync::{RwLock, RwLockWriteGuard, Semaphore, mpsc},
    time::timeout,
};
use tracing::{debug, warn};

pub(crate) use self::error::ColdError;
pub use self::error::OpenColdError;
use self::{bucket::Bucket, flights::Flights, names::Title, policy::Pause};
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

/// How many entries may wait to be written; what is over it is found by the next round.
const WAITING_MAX: usize = 10_000;
/// How many objects a listing looks at: ten requests to S3.
const LISTED_MAX: usize = 10_000;
/// How many pages a listing may have: a server that gives more of the cold tier's is broken, or has hundreds of
/// terabytes.
const PAGES_MAX: u32 = 1_000_000;
/// How long looking for entries may take: a build waits.
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);
/// How long deleting may take: some thousands of entries on a slow server. Who deletes tries again.
const DELETE_TIME_MAX: Duration = Duration::from_secs(30);
/// How many listings for builds are under way at once.
/// A listing may take ten megabytes.
const LOOKS_AT_ONCE: usize = 8;
/// How many entries are brought at once: each has its record in memory, most of some hundred kilobytes, some of 30
/// MB.
const FETCHES_AT_ONCE: usize = 8;
/// How many of them are compared with their layouts at once, which are read into memory.
const CHECKS_AT_ONCE: usize = 2;
/// How many requests one listing, one entry's chunks or one deletion may have under way: at 20 ms each they
/// fill a gigabit with chunks of the usual size.
const REQUESTS_AT_ONCE: usize = 16;
/// How many bytes of chunks may be on their way to the tier and from it: what 16 requests of the largest take,
/// as they come and unpacked.
const ROOM_BYTES: usize = 64 << 20;
/// The share of the store's budget, as a divisor, that an entry may take uncompressed to be brought: a larger one
/// would drive everything else out, and be held.
const BROUGHT_DIVISOR: u64 = 2;

/// The cold tier.
#[derive(Debug)]
pub(crate) struct Cold {
    bucket: Bucket,
    keep: Duration,
    /// How many bytes an entry may have to be brought.
    brought_max: u64,
    clock: Clock,
    /// Until when nothing is read, and nothing written.
    reads: Mutex<Pause>,
    writes: Mutex<Pause>,
    /// Keys of entries that were written here and not there yet.
    waiting: mpsc::Sender<String>,
    /// Whether something was not written there that should be.
    is_behind: AtomicBool,
    /// Who deletes keeps out who puts an entry here or there: it would come back.
    deleting: RwLock<()>,
    /// Who deletes old chunks keeps out who relies on chunks that are there.
    sweeping: RwLock<()>,
    /// Chunks that are there and not old, so that they are not asked for again: hashes.
    seen: Mutex<HashSet<[u8; 32]>>,
    flights: Flights,
    looks: Semaphore,
    fetches: Semaphore,
    checks: Semaphore,
    room: Semaphore,
}

impl Cold {
    /// The tier behind a store of so many bytes, and the keys that wait to be written to it.
    ///
    /// # Errors
    ///
    /// If the options make no sense. The server is not asked.
    pub(crate) fn open(
        options: &ColdOptions,
        budget: u64,
    ) -> Result<(Self, mpsc::Receiver<String>), OpenColdError> {
        let (waiting, written) = mpsc::channel(WAITING_MAX);
        let cold = Self {
            bucket: Bucket::open(options)?,
            keep: options.keep,
            brought_max: budget / BROUGHT_DIVISOR,
            clock: Clock::start(),
            reads: Mutex::default(),
            writes: Mutex::default(),
            waiting,
            is_behind: AtomicBool::new(false),
            deleting: RwLock::default(),
            sweeping: RwLock::default(),
            seen: Mutex::default(),
            flights: Flights::default(),
            looks: Semaphore::new(LOOKS_AT_ONCE),
            fetches: Semaphore::new(FETCHES_AT_ONCE),
            checks: Semaphore::new(CHECKS_AT_ONCE),
            room: Semaphore::new(ROOM_BYTES),
        };
        Ok((cold, written))
    }

    /// Says that an entry was written here.
    pub(crate) fn written(&self, key: &EntryKey) {
        if keys::is_lasting(&key.path) {
            self.wait_for_writing(row(key));
        }
    }

    fn wait_for_writing(&self, row: String) {
        if self.waiting.try_send(row).is_err() {
            self.is_behind.store(true, Ordering::Relaxed);
        }
    }

    /// The entries of `namespace` whose keys start with `prefix` and that are trusted at least as far as
    /// `trust`, in no order, of the first [`LISTED_MAX`] objects. None, if they cannot be had.
    pub(crate) async fn list(
        &self,
        namespace: &Namespace,
        prefix: &str,
        trust: Trust,
    ) -> Vec<(String, EntrySummary)> {
        if !keys::may_be_shared(prefix) || self.is_paused(&self.reads) {
            return Vec::new();
        }
        match self.look(&names::entries(namespace, prefix)).await {
            Ok(titles) => {
                let trusted = titles.iter().filter(|(title, _)| trust <= title.trust);
                trusted
                    .map(|(title, modified)| (title.path().to_owned(), title.summary(*modified)))
                    .collect()
            }
            Err(error) => {
                self.failed("list entries", &self.reads, &error);
                Vec::new()
            }
        }
    }

    /// Keeps out who puts an entry here or there, for as long as it is kept: for who deletes both here and
    /// there.
    pub(crate) async fn deleting(&self) -> RwLockWriteGuard<'_, ()> {
        self.deleting.write().await
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
        if self.is_paused(&self.writes) {
            return Err(ColdError::Paused);
        }
        let slow = ColdError::Slow {
            what: "delete entries",
            limit: DELETE_TIME_MAX,
        };
        let deleting = self.delete_named(names::entries(namespace, prefix));
        let deleted = timeout(DELETE_TIME_MAX, deleting)
            .await
            .unwrap_or(Err(slow));
        if let Err(error) = &deleted {
            self.failed("delete entries", &self.writes, error);
        }
        deleted
    }

    /// Deletes the entries whose names start so.
    async fn delete_named(&self, start: String) -> Result<(), ColdError> {
        let mut from = None;
        for _ in 0..PAGES_MAX {
            let (page, next) = self.bucket.list(&start, from).await?;
            let names = page.into_iter().map(|listed| listed.name);
            self.delete_all(names.filter(|name| Title::parse(name).is_some()))
                .await?;
            from = next;
            if from.is_none() {
                return Ok(());
            }
        }
        Err(endless(start))
    }

    async fn delete_all(&self, names: impl Iterator<Item = String>) -> Result<(), ColdError> {
        let names: Vec<String> = names.collect();
        stream::iter(names)
            .map(|name| async move { self.bucket.delete(&name).await })
            .buffer_unordered(REQUESTS_AT_ONCE)
            .try_collect()
            .await
    }

    /// As [`titles`](Self::titles), for who does not wait long.
    async fn look(&self, start: &str) -> Result<Vec<(Title, WallTime)>, ColdError> {
        let looking = async {
            let _turn = self.looks.acquire().await;
            self.titles(start).await
        };
        let slow = ColdError::Slow {
            what: "look for entries",
            limit: LOOK_TIME_MAX,
        };
        timeout(LOOK_TIME_MAX, looking).await.unwrap_or(Err(slow))
    }

    /// What the names say that start with `start`, and when their objects were written; of the first
    /// [`LISTED_MAX`] objects.
    async fn titles(&self, start: &str) -> Result<Vec<(Title, WallTime)>, ColdError> {
        let mut titles = Vec::new();
        let mut looked_at = 0;
        let mut from = None;
        while looked_at < LISTED_MAX {
            let (page, next) = self.bucket.list(start, from).await?;
            // An empty page with another behind it counts too.
            looked_at += page.len().max(1);
            let page = page.into_iter();
            titles.extend(page.filter_map(|one| Some((Title::parse(&one.name)?, one.modified))));
            from = next;
            if from.is_none() {
                return Ok(titles);
            }
        }
        debug!(start, "a listing of the cold tier is cut");
        Ok(titles)
    }

    fn is_paused(&self, pause: &Mutex<Pause>) -> bool {
        !lock(pause).is_over(self.clock.now())
    }

    /// Notes what went wrong with reads or with writes.
    fn failed(&self, what: &'static str, pause: &Mutex<Pause>, error: &ColdError) {
        counter!("grange_cache_cold_failures_total", "what" => what).increment(1);
        if error.is_of_server() {
            lock(pause).failed(self.clock.now());
        }
        warn!(error = error.text(), what, "the cold tier failed");
    }
}

fn endless(start: String) -> ColdError {
    ColdError::Endless {
        start,
        pages: PAGES_MAX,
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
