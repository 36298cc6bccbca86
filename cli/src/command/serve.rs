//! The services apart: `grange coordinator`, `grange cache serve`, `grange worker`.

use std::{convert::Infallible, net::SocketAddr, path::Path, time::Duration};

use ::cache::server::RunError;
use anyhow::anyhow;
use coordinator::Ready;
use protocol::access::Role;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use transport::{Credentials, keep_renewed};

use crate::{
    address,
    args::{CacheServeArgs, CoordinatorArgs, JoinArgs, WorkerArgs},
    command::{Context, PRINTED_TOKEN_LIFETIME},
    embedded::{announce_cache, create_token, worker_name},
    error::CommandError,
    farm::Farm,
    farm_plan::{FarmPlan, hidden},
    identity::{self, Membership, Wanted, host_name},
    options, render,
};

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
    let mut plan = FarmPlan::on(args.place.data.as_deref(), settings, &context.places);
    plan.listen = args.place.listen.unwrap_or(plan.listen);
    plan.advertise = args.place.advertise.or(plan.advertise);
    let mut options = options::coordinator(settings, &plan);
    options.metrics_listen = args.place.metrics.or(options.metrics_listen);
    let wanted = context.signals.stop_first();
    let (ready, started) = oneshot::channel();
    let stop = CancellationToken::new();
    let run = coordinator::run(options, ready, stop.clone());
    tokio::pin!(run);
    let ready = tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(CommandError::farm),
        Ok(ready) = started => ready,
    };
    let announced = tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(CommandError::farm),
        announced = announce(&ready, context) => announced,
        () = wanted.wait() => Ok(()),
    };
    if announced.is_ok() {
        tokio::select! {
            biased;
            ended = &mut run => return ended.map_err(CommandError::farm),
            () = wanted.wait() => {}
        }
    }
    stop.cancel();
    run.await.map_err(CommandError::farm).and(announced)
}

/// Says how the coordinator is reached and joined.
async fn announce(ready: &Ready, context: &Context) -> Result<(), CommandError> {
    let address = address::from_here(ready.address);
    let advertised = address::from_elsewhere(ready.advertised, None);
    // Commands of the same user on this machine reach the farm without a token.
    for address in [address, advertised] {
        let saved = ready.admin.save(&context.places.identity(address));
        saved.map_err(CommandError::farm)?;
    }
    let farm = Farm::connect(address, &ready.admin).await?;
    let mut tokens = Vec::new();
    for role in [Role::Cache, Role::Worker, Role::Developer] {
        let token = create_token(&farm, role, PRINTED_TOKEN_LIFETIME).await?;
        tokens.push((role, token));
    }
    render::coordinator_is_up(advertised, &tokens)
}

/// `grange cache serve`.
///
/// # Errors
///
/// If it cannot start or fails.
pub(crate) async fn cache(args: CacheServeArgs, context: &Context) -> Result<(), CommandError> {
    let settings = &context.settings;
    let mut plan = FarmPlan::on(None, settings, &context.places);
    if let Some(data) = args.place.data {
        // All of it is there.
        plan.cache_directory = data;
        plan.cache_log_directory = None;
    }
    plan.cache_listen = args.place.listen.unwrap_or(plan.cache_listen);
    let name = host_name();
    let membership = join(&args.join, &plan.cache_directory, (Role::Cache, &name)).await?;
    let credentials = membership.credentials(args.join.token.as_deref()).await?;
    let mut options = options::cache(settings, &plan);
    options.metrics_listen = args.place.metrics.or(options.metrics_listen);
    options.salvage = args.salvage;
    let wanted = context.signals.stop_first();
    let (ready, started) = oneshot::channel();
    let stop = CancellationToken::new();
    let (current, renewed) = watch::channel(credentials);
    let run = ::cache::server::run_renewed(options, renewed.clone(), ready, stop.clone());
    tokio::pin!(run);
    let listens = tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(cache_failed),
        Ok(listens) = started => listens,
    };
    let advertised = args.place.advertise.or(settings.cache.advertise);
    let advertised = address::from_elsewhere(listens, advertised);
    render::note(&format!(
        "the cache listens on {listens}, and is reached at {advertised}"
    ));
    let Membership {
        address, directory, ..
    } = &membership;
    tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(cache_failed),
        () = wanted.wait() => {}
        never = keep_announcing(*address, &renewed, advertised) => match never {},
        never = keep_renewed(*address, directory, &current) => match never {},
    }
    stop.cancel();
    run.await.map_err(cache_failed)
}

/// What is said of a cache that does not run.
fn cache_failed(error: RunError) -> CommandError {
    let is_damaged = matches!(&error, RunError::Store { source } if source.is_damage());
    let error = CommandError::farm(error);
    if !is_damaged {
        return error;
    }
    error.hint(
        "`grange cache serve --salvage` opens it without what is damaged; builds make that again",
    )
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
    let membership = join(&args.join, &directory, (Role::Worker, name.as_str())).await?;
    let credentials = membership.credentials(args.join.token.as_deref()).await?;
    let mut options = options::worker(settings, (&directory, name), membership.address)?;
    options.slots = args.slots.unwrap_or(options.slots);
    options.labels.extend(args.labels);
    options.isolation = args.isolation.or(options.isolation);
    options.metrics_listen = args.metrics.or(settings.worker.metrics_listen);
    options.hidden = hidden(settings, &context.places);
    let wanted = context.signals.stop_first();
    let stop = ::worker::Stop::default();
    let run = ::worker::run(options, credentials, stop.clone());
    tokio::pin!(run);
    tokio::select! {
        biased;
        ended = &mut run => return ended.map_err(CommandError::farm),
        () = wanted.wait() => {}
    }
    let again = context.signals.stop_first();
    stop.drain.cancel();
    render::note("ending what runs; once more to hand it over to other workers at once");
    tokio::select! {
        biased;
        () = again.wait() => {}
        ended = &mut run => return ended.map_err(CommandError::farm),
    }
    stop.hand_over.cancel();
    render::note("handing over what runs; once more to leave at once");
    tokio::select! {
        biased;
        () = context.signals.left() => Ok(()),
        ended = &mut run => ended.map_err(CommandError::farm),
    }
}

/// The farm that a service joins, as whom.
async fn join(
    args: &JoinArgs,
    data: &Path,
    (role, name): (Role, &str),
) -> Result<Membership, CommandError> {
    let Some(farm) = &args.join else {
        let error = anyhow!("no farm to join was named");
        return Err(CommandError::usage(error)
            .hint("give `--join ADDR --token T`; `grange coordinator` prints both at its start"));
    };
    Ok(Membership {
        address: address::resolve(farm).await?,
        directory: identity::of_service(data),
        name: name.to_owned(),
        wanted: Wanted::Service(role),
    })
}

/// Tells the coordinator again and again where the cache is.
async fn keep_announcing(
    coordinator: SocketAddr,
    renewed: &watch::Receiver<Credentials>,
    address: SocketAddr,
) -> Infallible {
    let mut due = tokio::time::interval(ANNOUNCEMENT);
    loop {
        due.tick().await;
        let credentials = renewed.borrow().clone();
        if let Err(error) = announce_cache(coordinator, &credentials, address).await {
            tracing::warn!(%error, %coordinator, "failed to announce the cache");
        }
    }
}
