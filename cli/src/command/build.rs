//! `grange build`: upload, submit, follow, fetch.

mod keeping;

use std::process::ExitCode;

use anyhow::Context as _;
use cache::{
    index::LocalIndex,
    progress::{Progress, Transfer},
    put::{Put, put},
    source::list_source,
};
use protocol::{
    blob::TreeRef,
    build::{Outcome, Status},
    message::client::{ClientReply, ClientRequest, Submitted},
    name::ProjectName,
};

use crate::{
    args::{BuildArgs, RetryArgs},
    command::{
        Context, artifacts,
        follow::{self, Followed},
        project, read, source,
    },
    error::{CommandError, exit},
    farm::{Farm, unexpected},
    reach::{Purpose, Reached},
    render::{self, bar},
};

/// Builds a source tree; the exit code says what became of it.
///
/// # Errors
///
/// If the build could not be run.
pub(crate) async fn run(args: BuildArgs, context: &Context) -> Result<ExitCode, CommandError> {
    // With a project that is named, it may not be this file that counts.
    let found = match args.project {
        None => Some(source::checked_buildspec(&args, source::named(&args))?),
        Some(_) => None,
    };
    let project = source::project(&args)?;
    if let Some(directory) = &args.artifacts {
        artifacts::check_target(directory)?;
    }
    context
        .with_farm(&args.farm, Purpose::Build, async |reached| {
            if args.detach {
                reached.check_detached()?;
            }
            let known = project::known(&reached.farm, &project).await?;
            let known = known.map(|known| known.project);
            let id = source::new_id()?;
            let mut tree = None;
            let submission = if source::is_fetched(&args, known.as_ref()) {
                source::submission(&args, project.clone(), (String::new(), None), id)
            } else {
                let buildspec = source::to_submit(&args, known.as_ref(), found)?;
                let uploaded = upload(&args, (reached, context)).await?;
                tree = Some(uploaded.0.clone());
                source::submission(&args, project.clone(), (buildspec, Some(uploaded)), id)
            };
            let request = ClientRequest::Submit(Box::new(submission));
            let submitted = submit(reached, &request).await?;
            if args.detach {
                render::submitted_detached(&submitted, &project, args.json)?;
                return Ok(ExitCode::SUCCESS);
            }
            let (client, _) = reached.farm.cache().await?;
            let followed = tokio::select! {
                biased;
                followed = follow(reached, (&submitted, &project), (args.json, context)) => followed?,
                never = keeping::keep_whole(client, tree.as_ref(), (source::directory(&args), !args.no_git)) => {
                    match never {}
                }
            };
            let fetched = match &args.artifacts {
                Some(directory) => {
                    let build = submitted.build.to_string();
                    artifacts::fetch(&reached.farm, &build, directory, args.json).await
                }
                None => Ok(()),
            };
            conclude(followed, fetched)
        })
        .await
}

/// Builds the source of an earlier build again.
///
/// # Errors
///
/// If the build could not be run.
pub(crate) async fn retry(args: &RetryArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let json = args.read.json;
    context
        .with_farm(&args.read.farm, Purpose::Build, async |reached| {
            if args.detach {
                reached.check_detached()?;
            }
            let id = source::new_id()?;
            let build = args.build.clone();
            let submitted = submit(reached, &ClientRequest::Retry { build, id }).await?;
            let detail = read::detail(&reached.farm, &submitted.build.to_string()).await?;
            let project = detail.summary.project;
            if args.detach {
                render::submitted_detached(&submitted, &project, json)?;
                return Ok(ExitCode::SUCCESS);
            }
            let followed = follow(reached, (&submitted, &project), (json, context)).await?;
            conclude(followed, Ok(()))
        })
        .await
}

/// Follows a build to its end.
async fn follow(
    reached: &mut Reached,
    (submitted, project): (&Submitted, &ProjectName),
    (json, context): (bool, &Context),
) -> Result<Followed, CommandError> {
    if !json {
        let Submitted { build, number } = submitted;
        render::note(&format!("build {build} ({project}#{number})"));
    }
    follow::to_the_end(reached, submitted.build, (json, context)).await
}

/// The exit code for what became of a build. What went wrong around a build that did not succeed is told,
/// and does not hide that.
fn conclude(
    followed: Followed,
    fetched: Result<(), CommandError>,
) -> Result<ExitCode, CommandError> {
    let Followed { summary, written } = followed;
    // A reader who has seen enough of the log still wants the exit code.
    let written = written.or_else(|error| if error.is_quiet() { Ok(()) } else { Err(error) });
    let around = fetched.and(written);
    match (exit_code(summary.status), around) {
        (exit::DONE, Err(error)) => Err(error),
        (code, Err(error)) => {
            render::error(&error);
            Ok(ExitCode::from(code))
        }
        (code, Ok(())) => Ok(ExitCode::from(code)),
    }
}

fn exit_code(status: Status) -> u8 {
    match status {
        Status::Ended(Outcome::Succeeded) => exit::DONE,
        Status::Ended(Outcome::Failed) => exit::FAILED,
        Status::Ended(Outcome::Stopped) => exit::STOPPED,
        Status::Ended(Outcome::TimedOut) => exit::TIMED_OUT,
        Status::Ended(Outcome::Fault | Outcome::Skipped) | Status::Queued | Status::InProgress => {
            exit::FARM
        }
    }
}

/// Submits, again if the answer is lost: under its id it stays the same build.
async fn submit(reached: &mut Reached, request: &ClientRequest) -> Result<Submitted, CommandError> {
    let reply = reached.persist(async |farm| farm.ask(request).await);
    match reply.await? {
        ClientReply::Submitted(submitted) => Ok(submitted),
        other => Err(unexpected(&other)),
    }
}

/// Uploads the source tree, as far as the cache does not have it; what is there when a connection is lost
/// need not be sent again.
async fn upload(
    args: &BuildArgs,
    (reached, context): (&mut Reached, &Context),
) -> Result<(TreeRef, Option<String>), CommandError> {
    let uploaded = reached.persist(async |farm| upload_once(args, (farm, context)).await);
    let (tree, version, moved) = uploaded.await?;
    if !args.json {
        render::uploaded(&moved);
    }
    Ok((tree, version))
}

async fn upload_once(
    args: &BuildArgs,
    (farm, context): (&Farm, &Context),
) -> Result<(TreeRef, Option<String>, Transfer), CommandError> {
    let directory = source::directory(args).to_owned();
    let with_git = !args.no_git;
    let listed = tokio::task::spawn_blocking(move || list_source(&directory, with_git));
    let listed = bar::spin("looking at the source tree", listed).await;
    let (subject, version) = listed
        .context("looking at the source tree failed")
        .map_err(CommandError::farm)?
        .map_err(CommandError::usage)?;
    let (client, _) = farm.cache().await?;
    let progress = Progress::default();
    let index = LocalIndex::new(&context.places.indices(), &subject);
    let putting = put(&client, subject, Some(index), &progress);
    let put = bar::show("uploading", &progress, putting).await;
    let Put { tree, transfer, .. } = put.map_err(CommandError::of_put)?;
    Ok((tree, version, transfer))
}
