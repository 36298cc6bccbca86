//! Wiring: everything is opened, connected and started here, and stopped again.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::info;
use transport::{BindError, Client, ClientError, Credentials, Server, ServerLimits};

use crate::{
    bells::Bells,
    cache_link::{self, LinkSender},
    dispatcher::{self, Desk, DispatchError},
    farm::{Farm, PLANNED_AT_ONCE},
    health::{self, Health},
    identity,
    logs::{files::LogFiles, writer},
    options::{Options, OptionsError},
    recovery::{self, Kept, OpenError},
    retention,
    session::{arrival, terminals::Terminals},
};

/// How long members get to hear that the coordinator stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// What whoever runs a coordinator has to know when it is ready.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where it listens, with the true port.
    pub address: SocketAddr,
    /// Where the others reach it: what the options advertise, or else where it listens.
    pub advertised: SocketAddr,
    /// Credentials of an admin, for use by this process and its owner.
    pub admin: Credentials,
    /// Which farm this is: what join tokens start with.
    pub authority_fingerprint: [u8; 32],
    /// Where `/metrics` and `/healthz` are answered, with the true port.
    pub metrics: Option<SocketAddr>,
}

/// Why a coordinator did not start, or has stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting makes no sense: change it.
    #[error("settings of the coordinator make no sense")]
    Options {
        /// Which, and why.
        #[from]
        source: OptionsError,
    },
    /// What it keeps cannot be used; the cause says what to do.
    #[error("failed to open the coordinator's data")]
    Open {
        /// Why.
        #[from]
        source: OpenError,
    },
    /// Nothing can listen there: choose another address.
    #[error("failed to start listening")]
    Bind {
        /// Why.
        #[from]
        source: BindError,
    },
    /// The system gives no socket for the connection to the cache.
    #[error("failed to prepare the connection to the cache")]
    Client {
        /// Why.
        #[from]
        source: ClientError,
    },
    /// Nothing can listen there: choose another address.
    #[error("failed to listen on {listen} for metrics")]
    Metrics {
        /// Where.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// What was decided cannot be kept. Look at the disk and start again.
    #[error("the coordinator cannot go on")]
    Dispatch {
        /// Why.
        #[from]
        source: DispatchError,
    },
}

/// Runs a coordinator until `stop`, and says through `ready` when and where it can be reached.
///
/// Everything that it promised is on the disk at any moment, so stopping it loses nothing, and neither
/// does killing it.
///
/// # Errors
///
/// If it cannot start, or cannot go on. Then `ready` is dropped, or has been told before.
///
/// # Panics
///
/// If one of its tasks does: an invariant is broken, and what is on the disk is right.
pub async fn run(
    options: Options,
    ready: oneshot::Sender<Ready>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    options.check()?;
    cache::metrics::install();
    let opened = options.clone();
    let kept = spawn_blocking(move || recovery::open(&opened)).await;
    let kept = kept.expect("opening does not panic")?;
    let own = kept.identity.own.clone();
    let server = Server::bind(options.listen, &own, ServerLimits::default())?;
    let metrics = match options.metrics_listen {
        Some(listen) => Some(listen_for_metrics(listen).await?),
        None => None,
    };
    let address = server.local_addr();
    let told = Ready {
        address,
        advertised: options.advertise.unwrap_or(address),
        admin: kept.identity.admin.clone(),
        authority_fingerprint: kept.identity.authority.fingerprint(),
        metrics: metrics.as_ref().map(|(_, address)| *address),
    };
    // A token of its own, so that one part that fails takes the others along.
    let stop = stop.child_token();
    let services = Services {
        server: Arc::new(server),
        client: Client::new(&own)?,
        own,
        stop: stop.clone(),
        tasks: JoinSet::new(),
    };
    let server = Arc::clone(&services.server);
    let mut tasks = services.start(kept, metrics.map(|(listener, _)| listener), &options);
    info!(%address, "coordinator is ready");
    // Who started it may not want to know.
    let _told = ready.send(told);
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        // The first that ends ends all; what it says counts.
        stop.cancel();
        server.close();
        let ended = ended.expect("tasks of the coordinator do not panic");
        outcome = outcome.and(ended);
    }
    let _said_or_not = timeout(FAREWELL, server.idle()).await;
    info!("coordinator has stopped");
    outcome
}

async fn listen_for_metrics(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Metrics { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// What the tasks run on.
struct Services {
    server: Arc<Server>,
    client: Client,
    own: Credentials,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), RunError>>,
}

impl Services {
    /// Starts every task.
    fn start(
        mut self,
        kept: Kept,
        metrics: Option<TcpListener>,
        options: &Options,
    ) -> JoinSet<Result<(), RunError>> {
        let stop = self.stop.clone();
        let (dispatcher, orders) = dispatcher::queue();
        let (chores, chore_queue) = retention::queue();
        let (log_writer, log_orders) = writer::channel();
        let (cache, link) = cache_link::link(self.own.identity.team.clone());
        let bells = Arc::<Bells>::default();
        let health = Health::default();
        let farm = Arc::new(Farm {
            dispatcher,
            members: kept.members,
            authority: kept.identity.authority,
            signer: Arc::new(kept.identity.signer),
            logs: Arc::new(kept.logs),
            log_writer,
            bells: Arc::clone(&bells),
            cache,
            directory: Arc::new(kept.directory),
            secrets: Arc::new(kept.secrets),
            terminals: Terminals::default(),
            planning: Semaphore::new(PLANNED_AT_ONCE),
            sessions: AtomicU64::new(0),
        });
        let desk = Desk {
            scheduler: kept.scheduler,
            journal: kept.journal,
            signer: Arc::clone(&farm.signer),
            build_url: options.build_url.clone(),
            bells: Arc::clone(&bells),
            chores,
            health: health.clone(),
            sessions: BTreeMap::new(),
            putting: JoinSet::new(),
        };
        let desk = desk.run(orders, stop.clone());
        self.tasks.spawn(async move { Ok(desk.await?) });
        let files = LogFiles::new(Arc::clone(&farm.logs));
        self.spawn(writer::run(files, log_orders, bells, stop.clone()));
        self.connect_cache(&farm, link);
        let policy = retention::policy(options.retention, options.retention_bytes);
        let retention = retention::run(Arc::clone(&farm), policy, chore_queue, stop.clone());
        self.spawn(retention);
        self.spawn(health::gauge(farm.dispatcher.clone(), stop.clone()));
        if let Some(listener) = metrics {
            let listen = options.metrics_listen.unwrap_or(options.listen);
            let served = cache::metrics::serve(listener, move || health.get(), stop.clone());
            self.tasks.spawn(async move {
                let served = served.await;
                served.map_err(|source| RunError::Metrics { listen, source })
            });
        }
        self.spawn(arrival::run(Arc::clone(&self.server), farm, stop));
        self.tasks
    }

    /// Starts what keeps up the connection to the cache, and the certificate that it shows.
    fn connect_cache(&mut self, farm: &Arc<Farm>, link: LinkSender) {
        let told = (farm.members.cache(), farm.members.revoked());
        let link = (self.own.identity.team.clone(), link);
        let kept_up = cache_link::keep_up(self.client.clone(), told, link, self.stop.clone());
        self.spawn(kept_up);
        let renewed = identity::renew(
            Arc::clone(farm),
            (Arc::clone(&self.server), self.client.clone()),
            self.own.clone(),
            self.stop.clone(),
        );
        self.spawn(renewed);
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            Ok(())
        });
    }
}
