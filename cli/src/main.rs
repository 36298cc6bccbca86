//! The `grange` program: every subcommand, arguments, printing, exit codes. The only crate that prints.

mod args;
mod build_command;
mod command;
mod embedded;
mod error;
mod farm;
mod options;
mod places;
mod render;
mod settings;

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::{args::Cli, command::Context, error::CommandError, places::Places, settings::File};

/// What is said of the inside when nobody asks: what somebody must act on, or soon may have to.
const LOG_DEFAULT: &str = "warn";

fn main() -> ExitCode {
    let mut words = env::args_os();
    let called = words.next().unwrap_or_default();
    if let Some(code) = other_program(&called, words) {
        return code;
    }
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            render::error(&error);
            error.exit_code()
        }
    }
}

/// This file is also the keeper of a phase's processes, and the commands that builds find on their
/// `PATH`. Both must not start a runtime.
fn other_program(called: &OsString, mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let name = Path::new(called).file_name()?.to_str()?;
    if let Some(code) = build_command::run(name, &mut words) {
        return Some(code);
    }
    (words.next()? == *"keeper").then(|| worker::sandbox::keeper_main(words))
}

fn run(cli: Cli) -> Result<ExitCode, CommandError> {
    if !cfg!(target_os = "linux") {
        let error = anyhow::anyhow!("grange runs on Linux, and this is {}", env::consts::OS);
        return Err(CommandError::usage(error));
    }
    let filter = EnvFilter::try_new(cli.log.as_deref().unwrap_or(LOG_DEFAULT));
    let filter = filter
        .context("the filter given with `--log` makes no sense")
        .map_err(CommandError::usage)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();

    let places = Places::find()?;
    let (settings, settings_file) =
        File::load(cli.config.as_deref(), &places.settings_files()).map_err(CommandError::usage)?;
    let context = Context {
        places,
        settings,
        settings_file,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")
        .map_err(CommandError::farm)?;
    runtime.block_on(command::run(cli.command, &context))
}
