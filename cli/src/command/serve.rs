//! The services apart: `grange coordinator`, `grange cache serve`, `grange worker`.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::anyhow;
use protocol::access::Role;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use transport::Credentials;

use crate::{
    args::{CacheServeArgs, CoordinatorArgs, JoinArgs, WorkerArgs},
    command::{Context, up::ended_by_signal},
    embedded::{announce_cache, create_token, worker_name},
    error::CommandError,
    farm::{Farm, credentials, host_name, resolve},
    options, render,
};

/// How long the tokens can be used that a coordinator prints at its start.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How often the cache tells the coordinator where it is, so that one that lost its data learns it again.
const ANNOUNCEMENT: Duration = Duration::from_secs(10);

/// `grange coordinator`.
///
/// # Errors
///
/// If it cannot start or fails.
pub(crate) async fn coordinator(
    args: CoordinatorArgs,
    context: &Context,
) -> Result<(), CommandError> {
    let settings = &context.settings;
    let listen = args.listen.unwrap_or(settings.coordinator.listen);
    let configured = settings.coordinator.directory.clone();
    let directory = args
        .data
        .or(configured)
        .unwrap_or_else(|| context.places.farm());
    let mut options = options::coordinator(settings, &directory, listen);
    options.metrics_listen = args.metrics.or(options.metrics_listen);
    let (ready, started) = oneshot::channel();
    let stop = CancellationToken::new();
    let run = coordinator::run(options, ready, stop.clone());
    tokio::pin!(run);
    let ready = tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(CommandError::farm),
        Ok(ready) = started => ready,
    };
    let announced = async {
        let address = ready.address.to_string();
        ready
            .admin
            .save(&context.places.identity(&address))
            .map_err(CommandError::farm)?;
        let farm = Farm::connect(ready.address, &ready.admin).await?;
        let mut tokens = Vec::new();
        for role in [Role::Cache, Role::Worker, Role::Developer] {
            tokens.push((role, create_token(&farm, role, TOKEN_LIFETIME).await?));
        }
        render::coordinator_is_up(&address, &tokens);
        Ok::<(), CommandError>(())
    };
    tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(CommandError::farm),
        announced = announced => announced?,
    }
    tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(CommandError::farm),
        signal = ended_by_signal() => signal?,
    }
    stop.cancel();
    run.await.map_err(CommandError::farm)
}

/// `grange cache serve`.
///
/// # Errors
///
/// If it cannot start or fails.
pub(crate) async fn cache(args: CacheServeArgs, context: &Context) -> Result<(), CommandError> {
    let settings = &context.settings;
    let configured = settings.cache.directory.clone();
    let directory = args.data.or(configured);
    let directory = directory.unwrap_or_else(|| context.places.farm().join("cache"));
    let (address, identity) = join(&args.join, &directory, &host_name()).await?;
    expect_role(&identity, Role::Cache)?;
    let listen = args.listen.unwrap_or(settings.cache.listen);
    let mut options = options::cache(settings, &directory, listen);
    options.metrics_listen = args.metrics.or(options.metrics_listen);
    let (ready, started) = oneshot::channel();
    let stop = CancellationToken::new();
    let run = ::cache::server::run(options, identity.clone(), ready, stop.clone());
    tokio::pin!(run);
    let listens = tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(CommandError::farm),
        Ok(listens) = started => listens,
    };
    let advertised = args
        .advertise
        .or(settings.cache.advertise)
        .unwrap_or(listens);
    render::note(&format!(
        "the cache listens on {listens}, and is reached at {advertised}"
    ));
    tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(CommandError::farm),
        signal = ended_by_signal() => signal?,
        () = keep_announcing(address, &identity, advertised) => {}
    }
    stop.cancel();
    run.await.map_err(CommandError::farm)
}

/// `grange worker`.
///
/// # Errors
///
/// If it cannot start or fails.
pub(crate) async fn worker(args: WorkerArgs, context: &Context) -> Result<(), CommandError> {
    let settings = &context.settings;
    let name = match args.name.or_else(|| settings.worker.name.clone()) {
        Some(name) => name,
        None => worker_name(&host_name())?,
    };
    let configured = settings.worker.directory.clone();
    let directory = args.data.or(configured);
    let directory = directory.unwrap_or_else(|| context.places.data.join(format!("worker-{name}")));
    let (address, identity) = join(&args.join, &directory, name.as_str()).await?;
    expect_role(&identity, Role::Worker)?;
    let mut options = options::worker(settings, &directory, address, name)?;
    options.slots = args.slots.unwrap_or(options.slots);
    options.labels.extend(args.labels);
    options.isolation = args.isolation.or(options.isolation);
    let stop = CancellationToken::new();
    let run = ::worker::run(options, identity, stop.clone());
    tokio::pin!(run);
    tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(CommandError::farm),
        signal = ended_by_signal() => signal?,
    }
    stop.cancel();
    render::note("ending what runs; once more to leave at once");
    tokio::select! {
        biased;
        ended = ended_by_signal() => ended,
        ended = &mut run => ended.map_err(CommandError::farm),
    }
}

/// The coordinator to join, and the identity by which to: kept from before, or new for the token.
async fn join(
    args: &JoinArgs,
    directory: &Path,
    name: &str,
) -> Result<(SocketAddr, Credentials), CommandError> {
    let Some(farm) = &args.join else {
        let error = anyhow!("no farm to join was named");
        return Err(CommandError::usage(error)
            .hint("give `--join ADDR --token T`; `grange coordinator` prints both at its start"));
    };
    let address = resolve(farm).await?;
    let identity = directory.join("identity");
    let credentials = credentials(address, args.token.as_deref(), &identity, name).await?;
    Ok((address, credentials))
}

fn expect_role(credentials: &Credentials, expected: Role) -> Result<(), CommandError> {
    if credentials.identity.role == expected {
        return Ok(());
    }
    let error = anyhow!(
        "the identity kept here is {}, and a {expected} is needed",
        credentials.identity
    );
    Err(CommandError::usage(error).hint(format!(
        "make a token with `grange token create --role {expected}`, and use a directory of its own"
    )))
}

/// Tells the coordinator again and again where the cache is.
async fn keep_announcing(coordinator: SocketAddr, identity: &Credentials, address: SocketAddr) {
    let mut due = tokio::time::interval(ANNOUNCEMENT);
    loop {
        due.tick().await;
        if let Err(error) = announce_cache(coordinator, identity, address).await {
            tracing::warn!(%error, %coordinator, "failed to announce the cache");
        }
    }
}
