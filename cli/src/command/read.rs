//! The commands that look, and those that say one word to the farm.

use anyhow::anyhow;
use protocol::message::client::{BuildDetail, ClientReply, ClientRequest};

use crate::{
    args::{BuildsArgs, DrainArgs, FarmArgs, OneBuildArgs, ReadArgs, StopArgs},
    command::Context,
    error::CommandError,
    farm::{Farm, unexpected},
    reach::Purpose,
    render,
};

/// `grange builds`.
///
/// # Errors
///
/// If the farm cannot be reached or refuses.
pub(crate) async fn builds(args: &BuildsArgs, context: &Context) -> Result<(), CommandError> {
    let request = ClientRequest::Builds {
        project: args.project.clone(),
        limit: args.limit,
    };
    match ask(&request, &args.read.farm, context).await? {
        ClientReply::Builds(builds) => render::builds(&builds, args.read.json),
        other => Err(unexpected(&other)),
    }
}

/// `grange builds delete`.
///
/// # Errors
///
/// If the farm cannot be reached, or does not know one of the builds; those before it are deleted.
pub(crate) async fn delete(
    builds: &[String],
    farm: &FarmArgs,
    context: &Context,
) -> Result<(), CommandError> {
    context
        .with_farm(farm, Purpose::Ask, async |reached| {
            for build in builds {
                let request = ClientRequest::Delete(build.clone());
                expect_done(&reached.farm.ask(&request).await?)?;
                render::note(&format!("deleted {build}"));
            }
            Ok(())
        })
        .await
}

/// `grange status`.
///
/// # Errors
///
/// If the farm cannot be reached or does not know the build.
pub(crate) async fn status(args: &OneBuildArgs, context: &Context) -> Result<(), CommandError> {
    context
        .with_farm(&args.read.farm, Purpose::Ask, async |reached| {
            let detail = detail(&reached.farm, &args.build).await?;
            render::status(&detail, args.read.json)
        })
        .await
}

/// All of how a build stands.
///
/// # Errors
///
/// If the farm cannot be reached or does not know the build.
pub(crate) async fn detail(farm: &Farm, build: &str) -> Result<BuildDetail, CommandError> {
    match farm.ask(&ClientRequest::Build(build.to_owned())).await? {
        ClientReply::Build(detail) => Ok(*detail),
        other => Err(unexpected(&other)),
    }
}

/// `grange stop`.
///
/// # Errors
///
/// If the farm cannot be reached or does not know the build.
pub(crate) async fn stop(args: &StopArgs, context: &Context) -> Result<(), CommandError> {
    let request = ClientRequest::Stop(args.build.clone());
    expect_done(&ask(&request, &args.farm, context).await?)
}

/// `grange workers`.
///
/// # Errors
///
/// If the farm cannot be reached or refuses.
pub(crate) async fn workers(args: &ReadArgs, context: &Context) -> Result<(), CommandError> {
    match ask(&ClientRequest::Workers, &args.farm, context).await? {
        ClientReply::Workers(workers) => render::workers(&workers, args.json),
        other => Err(unexpected(&other)),
    }
}

/// `grange drain`.
///
/// # Errors
///
/// If the farm cannot be reached or does not know the worker.
pub(crate) async fn drain(args: &DrainArgs, context: &Context) -> Result<(), CommandError> {
    let request = ClientRequest::Drain(args.worker.clone());
    expect_done(&ask(&request, &args.farm, context).await?)
}

/// `grange token create`.
///
/// # Errors
///
/// If there is no farm, or it refuses.
pub(crate) async fn create_token(
    request: &ClientRequest,
    farm: &FarmArgs,
    context: &Context,
) -> Result<(), CommandError> {
    if farm.farm.is_none() && context.settings.client.farm.is_none() {
        let error = anyhow!("no farm was named, and an embedded one cannot be joined");
        return Err(CommandError::usage(error).hint("name one with `--farm ADDR`"));
    }
    match ask(request, farm, context).await? {
        ClientReply::Token(token) => render::line(&token),
        other => Err(unexpected(&other)),
    }
}

/// Asks once, and ends what had to be started for it.
///
/// # Errors
///
/// If the farm cannot be reached or refuses.
pub(super) async fn ask(
    request: &ClientRequest,
    farm: &FarmArgs,
    context: &Context,
) -> Result<ClientReply, CommandError> {
    context
        .with_farm(farm, Purpose::Ask, async |reached| {
            reached.farm.ask(request).await
        })
        .await
}

/// Expects an answer that says no more than that it is done.
///
/// # Errors
///
/// If it says something else.
pub(super) fn expect_done(reply: &ClientReply) -> Result<(), CommandError> {
    match reply {
        ClientReply::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}
