//! The server: a store behind a QUIC port.

mod access;
mod chunks;
mod entries;
mod listing;
mod options;
mod rates;
mod refusal;
mod session;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr, num::NonZero, sync::Arc, thread::available_parallelism, time::Duration,
};

use protocol::access::Revocation;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, SemaphorePermit, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use transport::{Credentials, GrantVerifier, Guests, Server, ServerLimits, Windows};

use self::rates::Teams;
pub use self::{
    options::{Options, RunError},
    rates::Limits,
};
pub use crate::store::{Damage, OpenStoreError};
use crate::{
    cold::Cold,
    metrics,
    store::{Store, StoreOptions, WriterThread, change::Change},
};

/// What may be on its way to the cache that it has not read, as while it waits for its disk. 32 connections that
/// bring more than it takes make it hold 256 MiB so, half of what it may take. A stream may have as much as a sender
/// keeps (4 MiB): 0.8 Gbit/s over 40 ms. Two that wait for the disk fill a connection, and what else is asked over it
/// then waits as long as the disk takes for the first of it. The chunks of a connection have to be of one team, which
/// sends them in turn: of 8 MiB with parts of the largest chunks of many teams, none is whole.
const WINDOWS: Windows = Windows {
    stream: 4 << 20,
    connection: 8 << 20,
};
/// How many connections a member may have: a sixteenth of those of the server. A worker has some for each team whose
/// builds it runs, four at most.
const MEMBER_CONNECTIONS_MAX: usize = 1_024;
/// How many bytes of chunks may be in the cache, over all connections, that are not durable yet,
/// unpacked ones included. An eighth of the memory that the cache may take.
const WRITE_ROOM_BYTES: usize = 64 << 20;
/// How many digests may be looked up at once, over all requests: 16 full requests, with the keys that
/// are made of them some 200 MiB.
const DIGESTS_AT_ONCE: usize = 1 << 20;
/// How many entries may be read or put at once: each may have a layout of 64 MiB, though most have some
/// kilobytes.
const CLOSURES_AT_ONCE: usize = 4;
/// How often the store is looked after at most, and at least: what nobody needs any more is found, and a
/// store that has stopped writing is asked to try again.
const TEND_INTERVAL: Duration = Duration::from_secs(1);
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How much of the store is read at a time to see whether it is damaged, in bytes, and how often: 8 MB/s
/// are a fraction of what a disk can, and a full store of the usual size takes two hours.
const SCRUB_STEP_BYTES: u64 = 8 << 20;
const SCRUB_STEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long nothing is read after all was.
const SCRUB_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked whether the disk gets short, and then swept: a sweep looks at all chunks, so
/// on a disk that stays short this is a load.
const SHORT_INTERVAL: Duration = Duration::from_secs(5);

/// What all connections share.
#[derive(Debug)]
struct Context {
    store: Store,
    /// What is behind it.
    cold: Option<Arc<Cold>>,
    verifier: GrantVerifier,
    write_room: Arc<Semaphore>,
    digests: Semaphore,
    closures: Semaphore,
    /// Besides `closures`, for entries that are put: these may wait for room in the budget, and who only
    /// reads does not.
    puts: Semaphore,
    /// How many bytes the store may take on the disk.
    budget: u64,
    teams: Arc<Teams>,
    guests: Guests,
    /// Whose certificates count no more, as the coordinator has said.
    revoked: watch::Sender<Arc<[Revocation]>>,
}

impl Context {
    /// Waits for room to look up so many digests, at most as many as one request may name.
    async fn reserve_digests(&self, count: usize) -> SemaphorePermit<'_> {
        let permits = u32::try_from(count).expect("the count is checked");
        let room = self.digests.acquire_many(permits).await;
        room.expect("the semaphore is never closed")
    }

    /// Waits for room to put an entry.
    async fn reserve_put(&self) -> SemaphorePermit<'_> {
        let room = self.puts.acquire().await;
        room.expect("the semaphore is never closed")
    }

    /// Waits for room for an entry's closure.
    async fn reserve_closure(&self) -> SemaphorePermit<'_> {
        let room = self.closures.acquire().await;
        room.expect("the semaphore is never closed")
    }
}

/// Runs the cache until `stop`. Says through `ready` where it listens, once it does.
///
/// # Errors
///
/// If it cannot start. Once it runs, it copes, but for a bug in the store's writer.
pub async fn run(
    options: Options,
    credentials: Credentials,
    ready: oneshot::Sender<SocketAddr>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let (_never_renewed, credentials) = watch::channel(credentials);
    run_renewed(options, credentials, ready, stop).await
}

/// As [`run`], for a cache whose certificate is renewed while it runs: from the next connection on it
/// shows what stands in `credentials`.
///
/// # Errors
///
/// If it cannot start. Once it runs, it copes, but for a bug in the store's writer.
pub async fn run_renewed(
    options: Options,
    mut renewed: watch::Receiver<Credentials>,
    ready: oneshot::Sender<SocketAddr>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let bound = bind(&options, &mut renewed).await?;
    // Last of what can fail: an open store has threads of its own, and is closed in order.
    let opened = open(&options).await?;
    serve((options, bound), opened, renewed, (ready, stop)).await
}

/// What has to be had before a store is opened.
#[derive(Debug)]
struct Bound {
    server: Server,
    verifier: GrantVerifier,
    /// What connections share that move chunks of one team.
    teams: Arc<Teams>,
    /// Where metrics are asked for.
    listener: Option<TcpListener>,
    /// The cold tier, and what waits to be written to it.
    cold: Option<(Cold, mpsc::Receiver<String>)>,
}

async fn bind(
    options: &Options,
    renewed: &mut watch::Receiver<Credentials>,
) -> Result<Bound, RunError> {
    let credentials = renewed.borrow_and_update().clone();
    let verifier = GrantVerifier::new(credentials.grant_key())
        .map_err(|source| RunError::GrantKey { source })?;
    let limits = ServerLimits {
        congestion: options.congestion,
        datagrams: options.datagrams,
        endpoints: endpoints(),
        windows: WINDOWS,
        ..ServerLimits::default()
    };
    let server = Server::bind(options.listen, &credentials, limits);
    let server = server.map_err(|source| RunError::Bind { source })?;
    let listener = match options.metrics_listen {
        Some(listen) => {
            let error = |source| RunError::Metrics { listen, source };
            Some(TcpListener::bind(listen).await.map_err(error)?)
        }
        None => None,
    };
    let cold = options.cold.as_ref();
    let cold = cold
        .map(|cold| Cold::open(cold, options.budget))
        .transpose();
    let cold = cold.map_err(|source| RunError::Cold { source })?;
    Ok(Bound {
        server,
        verifier,
        teams: Arc::new(Teams::new(options.limits)),
        listener,
        cold,
    })
}

/// Serves an open store until `stop`, or until the store's writer ends.
async fn serve(
    (options, bound): (Options, Bound),
    (store, writer): (Store, WriterThread),
    renewed: watch::Receiver<Credentials>,
    (ready, stop): (oneshot::Sender<SocketAddr>, CancellationToken),
) -> Result<(), RunError> {
    metrics::install();
    let Bound {
        server,
        verifier,
        teams,
        listener,
        cold,
    } = bound;
    // The end of the writer ends all the rest, too.
    let stop = stop.child_token();
    // Requests that are under way when the cache stops still want the store looked after.
    let served = CancellationToken::new();
    let mut tasks = JoinSet::new();
    if let Some(listener) = listener {
        let (store, stop) = (store.clone(), stop.clone());
        let healthy = move || store.stopped().map_or(Ok(()), Err);
        tasks.spawn(async move {
            if let Err(error) = metrics::serve(listener, healthy, stop).await {
                error!(%error, "metrics are not served any more");
            }
        });
    }
    tasks.spawn(tend(
        store.clone(),
        options.budget,
        options.hold,
        served.clone(),
    ));
    tasks.spawn(scrub(store.clone(), stop.clone()));
    let cold = cold.map(|cold| spawn_cold(cold, &store, &stop, &mut tasks));
    info!(listen = %server.local_addr(), directory = %options.directory.display(), "cache runs");
    // Whoever started this may not want to know.
    let _gone = ready.send(server.local_addr());
    let context = Arc::new(Context {
        store,
        cold,
        verifier,
        write_room: Arc::new(Semaphore::new(WRITE_ROOM_BYTES)),
        digests: Semaphore::new(DIGESTS_AT_ONCE),
        closures: Semaphore::new(CLOSURES_AT_ONCE),
        puts: Semaphore::new(CLOSURES_AT_ONCE),
        budget: options.budget,
        teams,
        guests: Guests::new(MEMBER_CONNECTIONS_MAX),
        revoked: watch::Sender::new(Arc::new([])),
    });
    accept(&server, &context, renewed, &stop).await;
    let writer_ended = context.store.writer_has_ended();
    stop.cancel();
    served.cancel();
    server.close();
    server.idle().await;
    while tasks.join_next().await.is_some() {}
    // The writer ends when nobody can bring it anything any more.
    drop(context);
    if tokio::task::spawn_blocking(move || writer.join())
        .await
        .is_err()
    {
        error!("the end of the store's writer was not seen");
    }
    if writer_ended {
        return Err(RunError::Writer);
    }
    info!("cache has stopped");
    Ok(())
}

/// How many endpoints take datagrams: with one for two cores, taking them in holds up none of the connections,
/// which have the other cores. More than four would wait for the network of most machines: one connection moved
/// 1.2 GB/s on two cores, client included.
fn endpoints() -> u8 {
    const ENDPOINTS_MAX: usize = 4;
    let cores = available_parallelism().map_or(1, NonZero::get);
    u8::try_from((cores / 2).clamp(1, ENDPOINTS_MAX)).expect("four fit")
}

/// Has what is written to the store, and what is not yet there, written to the cold tier until `stop`.
fn spawn_cold(
    (cold, written): (Cold, mpsc::Receiver<String>),
    store: &Store,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Arc<Cold> {
    let cold = Arc::new(cold);
    let (tier, behind, until) = (Arc::clone(&cold), store.clone(), stop.clone());
    tasks.spawn(async move { tier.write_behind(&behind, written, until).await });
    let (tier, store, until) = (Arc::clone(&cold), store.clone(), stop.clone());
    tasks.spawn(async move { tier.make_rounds(&store, until).await });
    cold
}

async fn open(options: &Options) -> Result<(Store, WriterThread), RunError> {
    let options = StoreOptions {
        directory: options.directory.clone(),
        log_directory: options.log_directory.clone(),
        budget: options.budget,
        free_low_water: options.free_low_water,
        hold: options.hold,
        salvage: options.salvage,
    };
    let opened = tokio::task::spawn_blocking(move || Store::open(options)).await;
    let opened = opened.expect("opening a store does not panic");
    opened.map_err(|source| RunError::Store { source })
}

/// Takes connections until `stop`, or until the store's writer ends, which cancels `stop`; returns when
/// all of them are over.
async fn accept(
    server: &Server,
    context: &Arc<Context>,
    mut renewed: watch::Receiver<Credentials>,
    stop: &CancellationToken,
) {
    let mut sessions = JoinSet::new();
    loop {
        let arriving = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = context.store.writer_ended() => {
                error!("the store's writer has ended; the cache ends");
                stop.cancel();
                break;
            }
            Some(ended) = sessions.join_next() => {
                if let Err(error) = ended {
                    error!(%error, "a connection's task has failed");
                }
                continue;
            }
            Ok(()) = renewed.changed() => {
                let credentials = renewed.borrow_and_update().clone();
                match server.replace_credentials(&credentials) {
                    Ok(()) => info!(until = credentials.valid_until().0, "certificate renewed"),
                    Err(error) => {
                        error!(error = %refusal::chain(&error), "certificate not renewed");
                    }
                }
                continue;
            }
            arriving = server.accept() => arriving,
        };
        let Some(arriving) = arriving else { break };
        sessions.spawn(session::serve(arriving, Arc::clone(context), stop.clone()));
    }
    while sessions.join_next().await.is_some() {}
}

/// Looks after the store until `stop`.
async fn tend(store: Store, budget: u64, hold: Duration, stop: CancellationToken) {
    let sweep_every = (hold / 4).clamp(TEND_INTERVAL, SWEEP_INTERVAL_MAX);
    let mut tend = interval(TEND_INTERVAL);
    let mut sweep = interval(sweep_every);
    let mut short = interval(SHORT_INTERVAL);
    loop {
        let is_swept = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = tend.tick() => {
                if store.stopped().is_some()
                    && let Err(trouble) = store.change(Change::Probe).await
                {
                    debug!(error = %refusal::chain(&trouble), "the store still does not write");
                }
                false
            }
            _ = sweep.tick() => true,
            () = store.wants_room() => true,
            _ = short.tick() => {
                store.count_stalls();
                store.is_short_of_room()
            }
        };
        if !is_swept {
            continue;
        }
        // What the sweep has begun ends by itself, soon after `end`.
        let swept = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            swept = store.sweep(budget) => swept,
        };
        match swept {
            Ok(swept) => debug!(?swept, "store swept"),
            Err(trouble) => warn!(error = %refusal::chain(&trouble), "store not swept"),
        }
    }
    store.end().await;
}

/// Reads everything, slowly, and again a while after that, until `stop`; at once and as quickly as it goes
/// when a damaged chunk was met by something that cannot set it aside.
async fn scrub(store: Store, stop: CancellationToken) {
    let mut step = interval(SCRUB_STEP_INTERVAL);
    let mut after = None;
    // Whether this pass began after the doubt did.
    let mut is_urgent = false;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = store.falls_into_doubt() => (after, is_urgent) = (None, true),
            _ = step.tick(), if !is_urgent => {}
            () = std::future::ready(()), if is_urgent => {}
        }
        let scrubbed = match store.scrub(after, SCRUB_STEP_BYTES).await {
            Ok(scrubbed) => scrubbed,
            // While the store is being opened again, say; the next step begins where this one did.
            Err(trouble) => {
                debug!(error = %refusal::chain(&trouble), "chunks not scrubbed");
                step.tick().await;
                continue;
            }
        };
        after = scrubbed.last;
        if after.is_some() {
            continue;
        }
        if is_urgent {
            is_urgent = false;
            store.is_trusted_again();
        }
        if let Err(trouble) = store.scrub_rows().await {
            debug!(error = %refusal::chain(&trouble), "rows not scrubbed");
        }
        step.reset_after(SCRUB_INTERVAL);
    }
}

fn interval(every: Duration) -> Interval {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
