//! `grange up`: a whole farm in one process, until somebody stops it.

use protocol::access::Role;

use crate::{
    args::UpArgs,
    beacon::{Beacon, Lifetime},
    command::{Context, PRINTED_TOKEN_LIFETIME},
    embedded::{EmbeddedFarm, Running, create_token},
    error::CommandError,
    farm::Farm,
    farm_plan::FarmPlan,
    render,
};

/// Starts the farm, says how to reach and join it, and waits for the end.
///
/// # Errors
///
/// If a part of the farm cannot start or fails.
pub(crate) async fn run(args: &UpArgs, context: &Context) -> Result<(), CommandError> {
    let plan = FarmPlan::for_many(args, &context.settings, &context.places);
    let stop = context.signals.stop_first();
    let mut farm = EmbeddedFarm::default();
    let ended = tokio::select! {
        biased;
        () = stop.wait() => Ok(()),
        failed = serve(&plan, &mut farm, context) => failed,
    };
    if let Err(error) = ended {
        // The first failure is the one to be told.
        let _ended = farm.stop_at_once().await;
        return Err(error);
    }
    render::note("ending what runs; once more to leave at once");
    tokio::select! {
        biased;
        () = context.signals.left() => {}
        stopped = farm.stop() => return stopped,
    }
    farm.stop_at_once().await
}

/// Starts the farm and waits for a failure.
async fn serve(
    plan: &FarmPlan,
    farm: &mut EmbeddedFarm,
    context: &Context,
) -> Result<(), CommandError> {
    let started = farm.start(plan, &context.settings).await;
    let running = started.map_err(|error| {
        if error.is_in_use() {
            return error.hint("another farm runs on it; `--data DIR` names another directory");
        }
        error
    })?;
    let _beacon = Beacon::light(&plan.directory, &running, Lifetime::Service)?;
    announce(&running, context).await?;
    Err(farm.failed().await)
}

/// Says how the farm is reached and joined.
async fn announce(running: &Running, context: &Context) -> Result<(), CommandError> {
    // Commands of the same user on this machine reach the farm without a token.
    for address in [running.address, running.advertised] {
        let saved = running.admin.save(&context.places.identity(address));
        saved.map_err(CommandError::farm)?;
    }
    let admin = Farm::connect(running.address, &running.admin).await?;
    let worker_token = create_token(&admin, Role::Worker, PRINTED_TOKEN_LIFETIME).await?;
    let client_token = create_token(&admin, Role::Developer, PRINTED_TOKEN_LIFETIME).await?;
    render::farm_is_up(running.advertised, &worker_token, &client_token)
}
