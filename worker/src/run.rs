//! Runs a worker: from its options to its last acknowledged result.

use std::{fs::File, io::Read as _, net::SocketAddr, path::PathBuf, sync::Arc};

use protocol::{
    digest::Digest,
    worker::{Incarnation, Isolation, WorkerOffer},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use transport::{
    Client, ClientError, ConnectError, Connection, Credentials, keep_renewed, use_renewed,
};

use crate::{
    cache_link::CacheKeeper,
    directory::{DataDirectory, DirectoryError},
    docker::Docker,
    layers::Layers,
    link::Link,
    options::{Options, Stop},
    places::Places,
    runtimes,
    sandbox::{Probe, probe},
    session::Session,
    site::Site,
    spent::Spent,
    terminals::Terminals,
    units::{self, Units},
};

/// Why a worker ended otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its data directory cannot be used: the cause says what to change.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// What it keeps of layers cannot be read: look at the disk, or delete the directory.
    #[error("failed to look through `{}`", path.display())]
    Layers {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The level that was asked for cannot be had on this machine.
    #[error("isolation level `{isolation}` cannot be had here: {why}")]
    Isolation {
        /// The level.
        isolation: Isolation,
        /// What is missing.
        why: String,
    },
    /// The system gives no random numbers: look at `/dev/urandom`.
    #[error("failed to draw a random number")]
    Random {
        /// What it says.
        source: std::io::Error,
    },
    /// Where metrics are to be served is taken, or not this machine's. Name another address.
    #[error("failed to listen on {listen} for metrics")]
    Metrics {
        /// The address.
        listen: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The credentials are of no use, or there is no socket.
    #[error("failed to make a client")]
    Client {
        /// Why.
        #[from]
        source: ClientError,
    },
    /// The coordinator refuses the worker; the cause says why, and what to do.
    #[error("the worker cannot join")]
    Refused {
        /// What it says.
        source: Box<ConnectError>,
    },
    /// A part of the worker broke: a bug.
    #[error("a part of the worker broke")]
    Broken {
        /// Which.
        #[from]
        source: JoinError,
    },
}

/// Runs a worker until `stop`, or until the coordinator has it leave, and then until its attempts have
/// ended and are stored, or were handed over.
///
/// # Errors
///
/// If the worker cannot start: its data directory, the isolation level or the coordinator do not let it.
/// A coordinator that is away is no error; the worker waits for it.
///
/// # Cancel safety
///
/// Dropping the future kills all attempts at once; their leases run out.
pub async fn run(options: Options, credentials: Credentials, stop: Stop) -> Result<(), RunError> {
    let metrics = listen_for_metrics(options.metrics_listen).await?;
    let path = options.directory.clone();
    let opened = tokio::task::spawn_blocking(move || DataDirectory::open(&path)).await?;
    let directory = opened?;
    let layers = open_layers(&directory, options.disk_budget).await?;
    let salt = runtimes::salted(&options.base_salt, &options.runtimes, &options.labels);
    let probed = probe(&directory.attempts(), &options.program, &salt).await;
    let isolation = choose(options.isolation, &probed)?;
    let offer = offer(&options, isolation, &probed);
    let seed = seed(&options);
    let taken = tokio::task::spawn_blocking(move || take(directory));
    let (directory, incarnation) = taken.await??;

    let client = Client::new(&credentials)?;
    let address = watch::Sender::new(None);
    let (cache_keeper, cache) = CacheKeeper::new(address.subscribe(), client.clone(), seed);
    let link = Link {
        address: options.coordinator,
        client: client.clone(),
        seed,
    };
    let (events, arrived) = Link::queue();
    let identity = directory.identity();
    let hidden = [&options.hidden[..], &[directory.path().to_owned()]].concat();
    let site = Site {
        isolation,
        base: probed.base,
        directory,
        program: options.program.clone(),
        path: options.path.clone(),
        runtimes: options.runtimes.clone(),
        environment: options.environment.clone(),
        commands: options.commands.clone(),
        hidden,
        docker: docker(&options),
        git_protocols: options.git_protocols.clone(),
        archive_protocols: options.archive_protocols.clone(),
        places: Places::default(),
        units: Units::default(),
        layers,
        terminals: Terminals::default(),
        spent: Spent::default(),
        cache,
        slots: Semaphore::new(usize::try_from(options.slots.max(1)).unwrap_or(1)),
    };
    let mut below = JoinSet::new();
    below.spawn(cache_keeper.keep());
    below.spawn(link.keep(events));
    let (current, renewed) = watch::channel(credentials);
    below.spawn(use_renewed(client.clone(), renewed));
    below.spawn(
        async move { match keep_renewed(options.coordinator, &identity, &current).await {} },
    );
    let site = Arc::new(site);
    below.spawn(units::keep_swept(Arc::clone(&site)));
    below.spawn(site.layers.clone().keep_durable());
    let session = Session::new(site, (offer, incarnation), address);
    if let Some(listener) = metrics {
        below.spawn(serve_metrics(listener, session.connections()));
    }
    let ended = tokio::select! {
        biased;
        ended = session.run(arrived, stop) => ended,
        source = broken(&mut below) => return Err(RunError::Broken { source }),
    };
    below.shutdown().await;
    client.close();
    client.idle().await;
    ended.map_err(|source| RunError::Refused { source })
}

fn docker(options: &Options) -> Docker {
    Docker {
        socket: options.docker_socket.clone(),
        projects: options.docker_projects.clone(),
    }
}

async fn listen_for_metrics(listen: Option<SocketAddr>) -> Result<Option<TcpListener>, RunError> {
    let Some(listen) = listen else {
        return Ok(None);
    };
    let error = |source| RunError::Metrics { listen, source };
    Ok(Some(TcpListener::bind(listen).await.map_err(error)?))
}

/// Serves metrics; the worker is well while a coordinator has it.
async fn serve_metrics(listener: TcpListener, joined: watch::Receiver<Option<Connection>>) {
    let healthy = move || match *joined.borrow() {
        Some(_) => Ok(()),
        None => Err("no coordinator has taken the worker".to_owned()),
    };
    // Ended with the worker, by being dropped.
    let served = cache::metrics::serve(listener, healthy, CancellationToken::new());
    if let Err(error) = served.await {
        error!(%error, "metrics are not served any more");
    }
}

/// Waits until one of the parts breaks; that one has nothing more to do is fine.
async fn broken(parts: &mut JoinSet<()>) -> JoinError {
    loop {
        match parts.join_next().await {
            Some(Err(source)) => return source,
            Some(Ok(())) => {}
            None => std::future::pending().await,
        }
    }
}

async fn open_layers(directory: &DataDirectory, budget: u64) -> Result<Layers, RunError> {
    let path = directory.layers();
    let opening = path.clone();
    let opened = tokio::task::spawn_blocking(move || Layers::open(&opening, budget)).await?;
    opened.map_err(|source| RunError::Layers { path, source })
}

/// The level at which this worker runs phases.
fn choose(wanted: Option<Isolation>, probed: &Probe) -> Result<Isolation, RunError> {
    let isolation = match (wanted, &probed.namespace) {
        (Some(Isolation::Host), _) => {
            info!(isolation = %Isolation::Host, "isolation as it was asked for");
            return Ok(Isolation::Host);
        }
        (Some(isolation), Err(why)) => {
            let why = why.clone();
            return Err(RunError::Isolation { isolation, why });
        }
        (_, Ok(())) => Isolation::Namespace,
        (None, Err(why)) => {
            warn!(
                isolation = %Isolation::Host,
                why,
                "isolation level `namespace` cannot be had here; units stay on this worker, and what \
                 they do outside their directories stays"
            );
            return Ok(Isolation::Host);
        }
    };
    info!(%isolation, base = ?probed.base, "isolation found out");
    for note in &probed.notes {
        info!(note, "isolation is not ideal");
    }
    Ok(isolation)
}

fn offer(options: &Options, isolation: Isolation, probed: &Probe) -> WorkerOffer {
    WorkerOffer {
        name: options.name.clone(),
        capacity: options.slots.max(1),
        labels: options.labels.clone(),
        architecture: probed.architecture.to_owned(),
        isolation,
        base: probed.base,
        runtimes: runtimes::offered(&options.runtimes),
    }
}

/// Takes the directory as a process with a number of its own. Blocking.
fn take(directory: DataDirectory) -> Result<(DataDirectory, Incarnation), RunError> {
    let incarnation = draw()?;
    directory.take(incarnation);
    Ok((directory, incarnation))
}

/// A number that no other process has.
fn draw() -> Result<Incarnation, RunError> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|source| RunError::Random { source })?;
    Ok(Incarnation(u64::from_le_bytes(bytes)))
}

/// A number that differs between the workers of a farm.
fn seed(options: &Options) -> u64 {
    let hash = *Digest::of(options.name.as_str().as_bytes()).hash();
    let (head, _) = hash.split_at(8);
    head.iter()
        .fold(0, |seed, &byte| seed << 8 | u64::from(byte))
}
