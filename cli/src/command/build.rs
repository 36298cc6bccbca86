//! `grange build`: upload, submit, follow, fetch.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use cache::{progress::Progress, source::capture_source, upload::upload_tree};
use protocol::{
    blob::TreeRef,
    build::{BuildId, Outcome, Status},
    message::client::{ClientReply, ClientRequest, Submitted},
};

use crate::{
    args::{BuildArgs, RetryArgs},
    command::{Context, Reached, artifacts, follow, source},
    error::{CommandError, exit},
    farm::{Farm, unexpected},
    render::{self, bar},
};

/// Builds a source tree; the exit code says what became of it.
///
/// # Errors
///
/// If the build could not be run.
pub(crate) async fn run(args: BuildArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let buildspec = source::checked_buildspec(&args)?;
    let project = source::project(&args)?;
    let mut reached = context.reach(&args.farm).await?;
    if args.detach && reached.embedded.is_some() {
        let error = anyhow!("an embedded farm ends with this command, and cannot build on its own");
        return Err(CommandError::usage(error)
            .hint("start one with `grange up`, and name it with `--farm`"));
    }
    let uploaded = upload(&args, &reached.farm).await?;
    let submission = source::submission(&args, project.clone(), buildspec, uploaded);
    let request = ClientRequest::Submit(Box::new(submission));
    let submitted = submit(&reached.farm, &request).await?;
    if args.detach {
        render::submitted_detached(&submitted, &project, args.json);
        return Ok(ExitCode::SUCCESS);
    }
    if !args.json {
        render::note(&format!(
            "build {} ({project}#{})",
            submitted.build, submitted.number
        ));
    }
    let code = to_the_end(&mut reached, submitted.build, args.json).await?;
    if let Some(directory) = &args.artifacts {
        artifacts::fetch(
            &reached.farm,
            &submitted.build.to_string(),
            directory,
            args.json,
        )
        .await?;
    }
    reached.close().await?;
    Ok(code)
}

/// Builds the source of an earlier build again.
///
/// # Errors
///
/// If the build could not be run.
pub(crate) async fn retry(args: &RetryArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let mut reached = context.reach(&args.read.farm).await?;
    let request = ClientRequest::Retry(args.build.clone());
    let submitted = submit(&reached.farm, &request).await?;
    render::note(&format!(
        "build {} (number {})",
        submitted.build, submitted.number
    ));
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let code = to_the_end(&mut reached, submitted.build, args.read.json).await?;
    reached.close().await?;
    Ok(code)
}

/// Follows a build to its end, and gives the exit code for what became of it.
async fn to_the_end(
    reached: &mut Reached,
    build: BuildId,
    json: bool,
) -> Result<ExitCode, CommandError> {
    let summary = follow::to_the_end(&mut reached.farm, build, json).await?;
    Ok(exit_code(summary.status))
}

fn exit_code(status: Status) -> ExitCode {
    match status {
        Status::Ended(Outcome::Succeeded) => ExitCode::SUCCESS,
        Status::Ended(Outcome::Failed) => ExitCode::from(exit::FAILED),
        Status::Ended(Outcome::Stopped) => ExitCode::from(exit::STOPPED),
        Status::Ended(Outcome::TimedOut) => ExitCode::from(exit::TIMED_OUT),
        Status::Ended(Outcome::Fault | Outcome::Skipped) | Status::Queued | Status::InProgress => {
            ExitCode::from(exit::FARM)
        }
    }
}

async fn submit(farm: &Farm, request: &ClientRequest) -> Result<Submitted, CommandError> {
    match farm.ask(request).await? {
        ClientReply::Submitted(submitted) => Ok(submitted),
        other => Err(unexpected(&other)),
    }
}

/// Uploads the source tree, as far as the cache does not have it.
async fn upload(args: &BuildArgs, farm: &Farm) -> Result<(TreeRef, Option<String>), CommandError> {
    let directory = args.directory.clone();
    let with_git = !args.no_git;
    let captured = tokio::task::spawn_blocking(move || capture_source(&directory, with_git));
    let captured = bar::spin("reading the source tree", captured).await;
    let (captured, version) = captured
        .context("reading the source tree failed")
        .map_err(CommandError::farm)?
        .map_err(CommandError::usage)?;
    let (client, _) = farm.cache().await?;
    let progress = Progress::default();
    let upload = upload_tree(&client, captured, &progress);
    let (tree, moved) = bar::show("uploading", &progress, upload)
        .await
        .map_err(CommandError::farm)?;
    if !args.json {
        render::uploaded(&moved);
    }
    Ok((tree, version))
}
