//! One function per command: it gathers what was typed, asks the farm, and hands what came to
//! [`render`].

mod artifacts;
mod build;
mod follow;
mod read;
mod serve;
mod source;
mod up;

use std::{path::PathBuf, process::ExitCode};

use clap::CommandFactory as _;

use crate::{
    args::{BuildsCommand, CacheCommand, Cli, Command, FarmArgs, TokenCommand},
    embedded::{EmbeddedFarm, FarmPlan},
    error::CommandError,
    farm::Farm,
    places::Places,
    render,
    settings::File,
};

/// What every command may need to know.
#[derive(Debug)]
pub(crate) struct Context {
    /// The user's directories.
    pub(crate) places: Places,
    /// The settings.
    pub(crate) settings: File,
    /// Where they come from; `None`: there is no file.
    pub(crate) settings_file: Option<PathBuf>,
}

/// A farm that a command talks to, and the parts of it that run in this process.
#[derive(Debug)]
pub(crate) struct Reached {
    /// The farm.
    pub(crate) farm: Farm,
    /// Its parts, if it is an embedded one.
    pub(crate) embedded: Option<EmbeddedFarm>,
}

impl Reached {
    /// Ends the parts that run in this process.
    ///
    /// # Errors
    ///
    /// The first failure of a part.
    pub(crate) async fn close(self) -> Result<(), CommandError> {
        match self.embedded {
            Some(parts) => parts.stop().await,
            None => Ok(()),
        }
    }
}

impl Context {
    /// Connects to the farm that is named, or starts an embedded one.
    ///
    /// # Errors
    ///
    /// If the farm cannot be reached, joined or started.
    pub(crate) async fn reach(&self, args: &FarmArgs) -> Result<Reached, CommandError> {
        let named = Farm::named(args, &self.settings.client, &self.places).await?;
        if let Some(farm) = named {
            return Ok(Reached {
                farm,
                embedded: None,
            });
        }
        let plan = FarmPlan::for_one_command(self.places.farm());
        let embedded = EmbeddedFarm::start(plan, &self.settings).await?;
        let farm = Farm::connect(embedded.address, &embedded.admin).await?;
        Ok(Reached {
            farm,
            embedded: Some(embedded),
        })
    }
}

/// Runs a command; the exit code is that of `docs/operating.md`.
///
/// # Errors
///
/// If the command could not do what was asked.
pub(crate) async fn run(command: Command, context: &Context) -> Result<ExitCode, CommandError> {
    match command {
        Command::Up(args) => up::run(args, context).await?,
        Command::Coordinator(args) => serve::coordinator(args, context).await?,
        Command::Cache(CacheCommand::Serve(args)) => serve::cache(args, context).await?,
        Command::Cache(CacheCommand::Stats(args)) => read::cache_stats(&args, context).await?,
        Command::Worker(args) => serve::worker(args, context).await?,
        Command::Build(args) => return build::run(args, context).await,
        Command::Builds(args) => match args.command {
            None => read::builds(&args, context).await?,
            Some(BuildsCommand::Delete { builds, farm }) => {
                read::delete(&builds, &farm, context).await?;
            }
        },
        Command::Status(args) => read::status(&args, context).await?,
        Command::Logs(args) => read::logs(&args, context).await?,
        Command::Stop(args) => read::stop(&args, context).await?,
        Command::Retry(args) => return build::retry(&args, context).await,
        Command::Artifacts(args) => artifacts::run(&args, context).await?,
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
        Command::Config(args) => render::settings(context, args.read.json)?,
        Command::Completions { shell } => {
            let mut cli = Cli::command();
            clap_complete::generate(shell, &mut cli, "grange", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}
