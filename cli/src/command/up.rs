//! `grange up`: a whole farm in one process, until somebody stops it.

use std::time::Duration;

use protocol::access::Role;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::UpArgs,
    command::Context,
    embedded::{EmbeddedFarm, FarmPlan, create_token},
    error::CommandError,
    farm::Farm,
    render,
};

/// How long the token can be used that `up` prints for further workers.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Starts the farm, says how to reach and join it, and waits for the end.
///
/// # Errors
///
/// If a part of the farm cannot start or fails.
pub(crate) async fn run(args: UpArgs, context: &Context) -> Result<(), CommandError> {
    let settings = &context.settings;
    let plan = FarmPlan {
        directory: args.data.unwrap_or_else(|| context.places.farm()),
        listen: args.listen.unwrap_or(settings.coordinator.listen),
        cache_listen: cache_listen(&args.listen, settings.cache.listen),
        workers: args.workers.unwrap_or(1),
        isolation: args.isolation,
    };
    let mut farm = EmbeddedFarm::start(plan, settings).await?;
    let address = farm.address.to_string();
    // Commands of the same user on this machine reach the farm without a token.
    let identity = context.places.identity(&address);
    farm.admin.save(&identity).map_err(CommandError::farm)?;
    let admin = Farm::connect(farm.address, &farm.admin).await?;
    let worker_token = create_token(&admin, Role::Worker, TOKEN_LIFETIME).await?;
    let client_token = create_token(&admin, Role::Developer, TOKEN_LIFETIME).await?;
    render::farm_is_up(&address, &worker_token, &client_token);
    tokio::select! {
        biased;
        ended = ended_by_signal() => ended?,
        error = farm.failed() => return Err(error),
    }
    render::note("ending what runs; once more to leave at once");
    tokio::select! {
        biased;
        ended = ended_by_signal() => ended,
        stopped = farm.stop() => stopped,
    }
}

/// The cache listens where the coordinator does, on its own port: any free one if the coordinator has
/// any free one.
fn cache_listen(
    listen: &Option<std::net::SocketAddr>,
    cache: std::net::SocketAddr,
) -> std::net::SocketAddr {
    match listen {
        Some(listen) if listen.port() == 0 => *listen,
        Some(listen) => (listen.ip(), cache.port()).into(),
        None => cache,
    }
}

/// Waits until somebody wants this process to end.
///
/// # Errors
///
/// If signals cannot be watched.
pub(crate) async fn ended_by_signal() -> Result<(), CommandError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::farm)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::farm)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
