//! A whole farm in this process: coordinator, cache and workers, wired as separate ones would be.
//!
//! The parts talk over loopback and join with tokens, so there is no second way of wiring that could
//! differ from the first.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::anyhow;
use protocol::{
    access::Role,
    message::client::{ClientReply, ClientRequest},
    name::{Team, WorkerName},
    worker::Isolation,
};
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;
use transport::Credentials;

use crate::{
    error::CommandError,
    farm::{Farm, enrol, host_name, unexpected},
    options,
    settings::File,
};

/// How long a token for a part of this very process is good for.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// The team whose machines the parts are.
pub(crate) const TEAM: &str = "main";

/// What farm to start.
#[derive(Clone, Debug)]
pub(crate) struct FarmPlan {
    /// Where it keeps its data.
    pub(crate) directory: PathBuf,
    /// Where the coordinator listens.
    pub(crate) listen: SocketAddr,
    /// Where the cache listens.
    pub(crate) cache_listen: SocketAddr,
    /// How many workers it has.
    pub(crate) workers: u32,
    /// How they keep builds apart; `None`: the best that this machine can.
    pub(crate) isolation: Option<Isolation>,
}

impl FarmPlan {
    /// A farm for one command: on free ports of loopback, with one worker.
    pub(crate) fn for_one_command(directory: PathBuf) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            directory,
            listen: free,
            cache_listen: free,
            workers: 1,
            isolation: None,
        }
    }
}

/// A farm that runs in this process.
#[derive(Debug)]
pub(crate) struct EmbeddedFarm {
    /// Where its coordinator listens.
    pub(crate) address: SocketAddr,
    /// Who may do everything on it.
    pub(crate) admin: Credentials,
    parts: JoinSet<Result<(), CommandError>>,
    stop: CancellationToken,
}

impl EmbeddedFarm {
    /// Starts the parts, in the order in which they need each other.
    ///
    /// # Errors
    ///
    /// If a part cannot start.
    pub(crate) async fn start(plan: FarmPlan, settings: &File) -> Result<Self, CommandError> {
        let stop = CancellationToken::new();
        let mut parts = JoinSet::new();
        let (ready, started) = oneshot::channel();
        let coordinator = options::coordinator(settings, &plan.directory, plan.listen);
        let until = stop.clone();
        parts.spawn(async move {
            let run = coordinator::run(coordinator, ready, until);
            run.await.map_err(CommandError::farm)
        });
        let Ok(ready) = started.await else {
            return Err(failed(&mut parts).await);
        };
        let mut farm = Self {
            address: ready.address,
            admin: ready.admin,
            parts,
            stop,
        };
        farm.start_cache(&plan, settings).await?;
        for number in 1..=plan.workers {
            farm.start_worker(&plan, settings, number).await?;
        }
        Ok(farm)
    }

    /// Waits until a part ends by itself, which is a failure.
    pub(crate) async fn failed(&mut self) -> CommandError {
        failed(&mut self.parts).await
    }

    /// Ends all parts, workers after what they run.
    ///
    /// # Errors
    ///
    /// The first failure of a part.
    pub(crate) async fn stop(mut self) -> Result<(), CommandError> {
        self.stop.cancel();
        let mut first = Ok(());
        while let Some(ended) = self.parts.join_next().await {
            let ended = ended.unwrap_or_else(|panic| Err(CommandError::farm(panic)));
            first = first.and(ended);
        }
        first
    }

    async fn start_cache(&mut self, plan: &FarmPlan, settings: &File) -> Result<(), CommandError> {
        let directory = plan.directory.join("cache");
        let credentials = self
            .identity(Role::Cache, &directory.join("identity"), "cache")
            .await?;
        let options = options::cache(settings, &directory, plan.cache_listen);
        let announce = credentials.clone();
        let (ready, started) = oneshot::channel();
        let until = self.stop.clone();
        self.parts.spawn(async move {
            let run = cache::server::run(options, credentials, ready, until);
            run.await.map_err(CommandError::farm)
        });
        let Ok(address) = started.await else {
            return Err(failed(&mut self.parts).await);
        };
        announce_cache(self.address, &announce, address).await
    }

    async fn start_worker(
        &mut self,
        plan: &FarmPlan,
        settings: &File,
        number: u32,
    ) -> Result<(), CommandError> {
        let directory = plan.directory.join(format!("worker-{number}"));
        let name = worker_name(&format!("{}-{number}", host_name()))?;
        let identity = directory.join("identity");
        let credentials = self
            .identity(Role::Worker, &identity, name.as_str())
            .await?;
        let mut options = options::worker(settings, &directory, self.address, name)?;
        options.isolation = plan.isolation.or(options.isolation);
        let until = self.stop.clone();
        self.parts.spawn(async move {
            let run = worker::run(options, credentials, until);
            run.await.map_err(CommandError::farm)
        });
        Ok(())
    }

    /// The identity of a part: kept from before, or new.
    async fn identity(
        &self,
        role: Role,
        directory: &Path,
        name: &str,
    ) -> Result<Credentials, CommandError> {
        if let Some(known) = Credentials::load(directory).map_err(CommandError::farm)? {
            return Ok(known);
        }
        let admin = Farm::connect(self.address, &self.admin).await?;
        let token = create_token(&admin, role, TOKEN_LIFETIME).await?;
        let token = token.parse().map_err(CommandError::farm)?;
        enrol(self.address, &token, directory, name).await
    }
}

/// Makes a token for a member of the farm's own team.
///
/// # Errors
///
/// If the farm refuses.
pub(crate) async fn create_token(
    farm: &Farm,
    role: Role,
    lifetime: Duration,
) -> Result<String, CommandError> {
    let team: Team = TEAM.parse().expect("the team's name is a name");
    let request = ClientRequest::CreateToken {
        team,
        role,
        lifetime,
    };
    match farm.ask(&request).await? {
        ClientReply::Token(token) => Ok(token),
        other => Err(unexpected(&other)),
    }
}

/// Tells the coordinator where the cache is.
///
/// # Errors
///
/// If the coordinator cannot be reached or refuses.
pub(crate) async fn announce_cache(
    coordinator: SocketAddr,
    credentials: &Credentials,
    address: SocketAddr,
) -> Result<(), CommandError> {
    let farm = Farm::connect(coordinator, credentials).await?;
    match farm.ask(&ClientRequest::AnnounceCache(address)).await? {
        ClientReply::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// A machine's name as a worker's name; what a name may not hold becomes `-`.
///
/// # Errors
///
/// If nothing is left.
pub(crate) fn worker_name(text: &str) -> Result<WorkerName, CommandError> {
    let name: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') {
                c
            } else {
                '-'
            }
        })
        .collect();
    let name = name.trim_start_matches(['-', '.', '_']);
    name.parse()
        .map_err(|error| CommandError::usage(error).hint("give one with `--name`"))
}

/// Why the first part that ended did so.
async fn failed(parts: &mut JoinSet<Result<(), CommandError>>) -> CommandError {
    match parts.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Err(panic)) => CommandError::farm(panic),
        Some(Ok(Ok(()))) | None => CommandError::farm(anyhow!("a part of the farm ended early")),
    }
}
