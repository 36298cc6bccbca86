//! One function per command: it gathers what was typed, asks the farm, and hands what came to
//! [`render`].

mod artifacts;
mod attach;
mod bench;
mod build;
mod buildspec;
mod cache;
mod follow;
mod leftovers;
mod members;
mod project;
mod read;
pub(crate) mod reports;
mod secret;
mod serve;
mod source;
mod up;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::CommandFactory as _;

pub(crate) use self::{
    artifacts::{Content, Published},
    cache::{Changes, Explanation, Lookup, Near},
};
use crate::{
    args::{BenchCommand, BuildsCommand, CacheCommand, Cli, Command, MemberCommand, TokenCommand},
    error::CommandError,
    places::Places,
    render,
    settings::File,
    signals::Signals,
};

/// How long the tokens can be used that a farm or coordinator prints at its start.
pub(crate) const PRINTED_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// What every command may need to know.
#[derive(Debug)]
pub(crate) struct Context {
    /// The user's directories.
    pub(crate) places: Places,
    /// The settings.
    pub(crate) settings: File,
    /// Where they come from; `None`: there is no file.
    pub(crate) settings_file: Option<PathBuf>,
    /// Whether somebody wants the command to end.
    pub(crate) signals: Signals,
}

/// Runs a command; the exit code is that of `docs/operating.md`.
///
/// # Errors
///
/// If the command could not do what was asked.
pub(crate) async fn run(command: Command, context: &Context) -> Result<ExitCode, CommandError> {
    match command {
        Command::Up(args) => up::run(&args, context).await?,
        Command::Coordinator(args) => serve::coordinator(args, context).await?,
        Command::Cache(CacheCommand::Serve(args)) => serve::cache(args, context).await?,
        Command::Cache(command) => return cache::run(command, context).await,
        Command::Worker(args) => serve::worker(args, context).await?,
        Command::Build(args) => return build::run(args, context).await,
        Command::Project(command) => project::run(*command, context).await?,
        Command::Buildspec(command) => return buildspec::run(&command),
        Command::Builds(args) => match args.command {
            None => read::builds(&args, context).await?,
            Some(BuildsCommand::Delete { builds, farm }) => {
                read::delete(&builds, &farm, context).await?;
            }
        },
        Command::Status(args) => read::status(&args, context).await?,
        Command::Logs(args) => follow::logs(&args, context).await?,
        Command::Stop(args) => read::stop(&args, context).await?,
        Command::Attach(args) => return attach::run(&args, context).await,
        Command::Retry(args) => return build::retry(&args, context).await,
        Command::Artifacts(args) => artifacts::run(&args, context).await?,
        Command::Reports(args) => reports::run(&args, context).await?,
        Command::Workers(args) => read::workers(&args, context).await?,
        Command::Drain(args) => read::drain(&args, context).await?,
        Command::Token(TokenCommand::Create {
            team,
            role,
            lifetime,
            farm,
        }) => {
            let request = protocol::message::client::ClientRequest::CreateToken {
                team,
                role,
                lifetime,
            };
            read::create_token(&request, &farm, context).await?;
        }
        Command::Token(TokenCommand::List(args)) => members::tokens(&args, context).await?,
        Command::Token(TokenCommand::Revoke { token, farm }) => {
            members::revoke_token(token, &farm, context).await?;
        }
        Command::Member(MemberCommand::List(args)) => members::list(&args, context).await?,
        Command::Member(MemberCommand::Revoke { member, farm }) => {
            members::revoke(member, &farm, context).await?;
        }
        Command::Secret(command) => secret::run(command, context).await?,
        Command::Bench(BenchCommand::Hits(args)) => bench::hits(args).await?,
        Command::Config(args) => render::settings(context, args.read.json)?,
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "grange", &mut text);
            render::out::print(&String::from_utf8_lossy(&text))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
