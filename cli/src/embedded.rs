//! A whole farm in this process: coordinator, cache and workers, wired as separate ones would be.
//!
//! The parts talk over loopback and join with tokens, so there is no second way of wiring that could
//! differ from the first. They end in the opposite order of their start, and their end is always awaited:
//! a process that ends under an open store is killed by the store's own threads.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::anyhow;
use protocol::{
    access::Role,
    message::client::{ClientReply, ClientRequest},
    name::{Team, WorkerName},
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use transport::{Credentials, keep_renewed};

use crate::{
    address,
    error::CommandError,
    farm::{Farm, unexpected},
    farm_plan::FarmPlan,
    identity::{self, Membership, Wanted, host_name},
    options, render,
    settings::File,
};

/// How long a token for a part of this very process is good for.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// The team whose machines the parts are.
pub(crate) const TEAM: &str = "main";

/// Where a farm in this process is, and who may do everything on it.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// Where this machine reaches its coordinator.
    pub(crate) address: SocketAddr,
    /// Where others do.
    pub(crate) advertised: SocketAddr,
    /// Who may do everything on it.
    pub(crate) admin: Credentials,
}

/// A farm that runs in this process, or the part of it that has started.
#[derive(Debug, Default)]
pub(crate) struct EmbeddedFarm {
    coordinator: Part,
    cache: Part,
    workers: Part,
}

/// Tasks that are stopped together.
#[derive(Debug, Default)]
struct Part {
    tasks: JoinSet<Result<(), CommandError>>,
    stop: CancellationToken,
}

impl Part {
    /// Ends the tasks in good order; gives the first failure.
    async fn end(&mut self) -> Result<(), CommandError> {
        self.stop.cancel();
        let mut first = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.unwrap_or_else(|panic| Err(CommandError::farm(panic)));
            first = first.and(ended);
        }
        first
    }

    /// Waits for a task that has ended by itself; for ever if there is none.
    async fn ended(&mut self) -> Result<(), CommandError> {
        match self.tasks.join_next().await {
            Some(ended) => ended.unwrap_or_else(|panic| Err(CommandError::farm(panic))),
            None => std::future::pending().await,
        }
    }

    /// Why the part did not come up.
    async fn not_up(&mut self) -> CommandError {
        let ended = self.ended().await.err();
        ended.unwrap_or_else(ended_early)
    }
}

impl EmbeddedFarm {
    /// Starts the parts, in the order in which they need each other. Whatever becomes of it,
    /// [`stop`](Self::stop) has to follow.
    ///
    /// # Errors
    ///
    /// If a part cannot start.
    pub(crate) async fn start(
        &mut self,
        plan: &FarmPlan,
        settings: &File,
    ) -> Result<Running, CommandError> {
        let (ready, started) = oneshot::channel();
        let options = options::coordinator(settings, plan);
        let until = self.coordinator.stop.clone();
        self.coordinator.tasks.spawn(async move {
            let run = coordinator::run(options, ready, until);
            run.await.map_err(CommandError::farm)
        });
        let Ok(ready) = started.await else {
            return Err(self.coordinator.not_up().await);
        };
        let running = Running {
            address: address::from_here(ready.address),
            advertised: address::from_elsewhere(ready.advertised, None),
            admin: ready.admin,
        };
        self.start_cache(plan, settings, &running).await?;
        for number in 1..=plan.workers {
            self.start_worker(plan, settings, (number, &running))
                .await?;
        }
        Ok(running)
    }

    /// Waits until a part fails. A worker that ends because it was told to is none: it was drained.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn failed(&mut self) -> CommandError {
        loop {
            let (ended, is_worker) = tokio::select! {
                biased;
                ended = self.coordinator.ended() => (ended, false),
                ended = self.cache.ended() => (ended, false),
                ended = self.workers.ended() => (ended, true),
            };
            match ended {
                Err(error) => return error,
                Ok(()) if is_worker => render::note("a worker has ended, as it was told to"),
                Ok(()) => return ended_early(),
            }
        }
    }

    /// Ends all parts: workers after what they run, then who hands out work, then who stores.
    ///
    /// # Errors
    ///
    /// The first failure of a part.
    ///
    /// # Cancel safety
    ///
    /// What has not ended yet is still to be stopped.
    pub(crate) async fn stop(&mut self) -> Result<(), CommandError> {
        let workers = self.workers.end().await;
        workers.and(self.stop_services().await)
    }

    /// The same, and what workers run ends at once.
    ///
    /// # Errors
    ///
    /// The first failure of a part.
    pub(crate) async fn stop_at_once(&mut self) -> Result<(), CommandError> {
        self.workers.tasks.shutdown().await;
        self.stop_services().await
    }

    async fn stop_services(&mut self) -> Result<(), CommandError> {
        let coordinator = self.coordinator.end().await;
        coordinator.and(self.cache.end().await)
    }

    async fn start_cache(
        &mut self,
        plan: &FarmPlan,
        settings: &File,
        running: &Running,
    ) -> Result<(), CommandError> {
        let directory = identity::of_service(&plan.cache_directory);
        let credentials = part_identity(running, Role::Cache, &directory, "cache").await?;
        let options = options::cache(settings, plan);
        let (ready, started) = oneshot::channel();
        let until = self.cache.stop.clone();
        let coordinator = running.address;
        let announcer = credentials.clone();
        self.cache.tasks.spawn(async move {
            let (current, renewed) = watch::channel(credentials);
            let run = cache::server::run_renewed(options, renewed, ready, until);
            tokio::select! {
                biased;
                ended = run => ended.map_err(CommandError::farm),
                never = keep_renewed(coordinator, &directory, &current) => match never {},
            }
        });
        let Ok(listens) = started.await else {
            return Err(self.cache.not_up().await);
        };
        let advertised = address::from_elsewhere(listens, plan.cache_advertise(listens));
        announce_cache(running.address, &announcer, advertised).await
    }

    async fn start_worker(
        &mut self,
        plan: &FarmPlan,
        settings: &File,
        (number, running): (u32, &Running),
    ) -> Result<(), CommandError> {
        let directory = plan.worker_directory.join(format!("worker-{number}"));
        let base = settings.worker.name.as_ref();
        let base = base.map_or_else(host_name, ToString::to_string);
        let name = worker_name(&format!("{base}-{number}"))?;
        let identity = identity::of_service(&directory);
        let credentials = part_identity(running, Role::Worker, &identity, name.as_str()).await?;
        let mut options = options::worker(settings, (&directory, name), running.address)?;
        options.isolation = plan.isolation.or(options.isolation);
        options.hidden.clone_from(&plan.hidden);
        let until = worker::Stop {
            drain: self.workers.stop.clone(),
            ..worker::Stop::default()
        };
        self.workers.tasks.spawn(async move {
            let run = worker::run(options, credentials, until);
            run.await.map_err(CommandError::farm)
        });
        Ok(())
    }
}

/// The identity of a part: kept from before if it has most of its life ahead, or new, and then the one
/// before counts no more.
async fn part_identity(
    running: &Running,
    role: Role,
    directory: &Path,
    name: &str,
) -> Result<Credentials, CommandError> {
    let membership = Membership {
        address: running.address,
        directory: directory.to_owned(),
        name: name.to_owned(),
        wanted: Wanted::Service(role),
    };
    if let Ok(Some(kept)) = Credentials::load(directory)
        && kept.fingerprint() == running.admin.fingerprint()
        && kept.grant_key() == running.admin.grant_key()
        && membership.objection(&kept, None).is_none()
        && !identity::is_half_over(&kept)
    {
        return Ok(kept);
    }
    let admin = Farm::connect(running.address, &running.admin).await?;
    // Whoever had the name had its identity here, and has lost it.
    if let ClientReply::Members(members) = admin.ask(&ClientRequest::Members).await?
        && members
            .iter()
            .any(|member| member.identity.name == name && member.identity.role == role)
    {
        let former = ClientRequest::RevokeMember(format!("{TEAM}/{role}/{name}"));
        admin.ask(&former).await?;
    }
    let token = create_token(&admin, role, TOKEN_LIFETIME).await?;
    let token = token.parse().map_err(CommandError::farm)?;
    membership.enrol(&token).await
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

fn ended_early() -> CommandError {
    CommandError::farm(anyhow!("a part of the farm ended early"))
}
