//! The `grange` program: every subcommand, arguments, printing, exit codes. The only crate that prints.

#[cfg(not(target_os = "linux"))]
compile_error!("grange runs on Linux: its workers use Linux's namespaces and overlays");

mod address;
mod args;
mod beacon;
mod build_command;
mod clock;
mod command;
mod ecosystem;
mod embedded;
mod error;
mod farm;
mod farm_plan;
mod history;
mod identity;
mod key_template;
mod options;
mod places;
mod reach;
mod render;
mod settings;
mod signals;

use std::{
    env,
    ffi::OsString,
    io::{IsTerminal as _, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use cache::allocator;
use clap::Parser as _;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use crate::{
    args::Cli, command::Context, error::CommandError, places::Places, settings::File,
    signals::Signals,
};

fn main() -> ExitCode {
    let mut words = env::args_os();
    let called = words.next().unwrap_or_default();
    if let Some(code) = other_program(&called, words) {
        return code;
    }
    allocator::tune();
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            if !error.is_quiet() {
                render::error(&error);
            }
            error.exit_code()
        }
    }
}

/// This file is also the keeper of a phase's processes, what unpacks archives, and the commands that builds find on
/// their `PATH`. None of them may start a runtime.
fn other_program(called: &OsString, mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let name = Path::new(called).file_name()?.to_str()?;
    if let Some(code) = build_command::run(name, &mut words) {
        return Some(code);
    }
    match words.next()?.to_str()? {
        "keeper" => Some(worker::sandbox::keeper_main(words)),
        "unpack" => Some(worker::archive::unpack_main(words)),
        _ => None,
    }
}

fn run(cli: Cli) -> Result<ExitCode, CommandError> {
    let filter = EnvFilter::try_new(&cli.log);
    let filter = filter
        .context("the filter given with `--log` makes no sense")
        .map_err(CommandError::usage)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();

    let places = Places::find()?;
    let (settings, settings_file) = settings(&cli, &places)?;
    let context = Context {
        places,
        settings,
        settings_file,
        signals: Signals::new(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")
        .map_err(CommandError::farm)?;
    let done = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        tasks.spawn(context.signals.clone().listen());
        let done = command::run(cli.command, &context).await;
        tasks.shutdown().await;
        done
    });
    // What a command that was left waits for need not end.
    runtime.shutdown_background();
    done
}

/// The settings for a command, and where they come from. What stands in the current directory may be
/// somebody's source tree: commands that only use a farm do not let it say how services run here.
fn settings(cli: &Cli, places: &Places) -> Result<(File, Option<PathBuf>), CommandError> {
    let here = Places::settings_here();
    let users = places.settings_of_user();
    let load = |named: Option<&Path>, candidates: &[PathBuf]| {
        File::load(named, candidates).map_err(CommandError::usage)
    };
    let named = cli.config.as_deref();
    if named.is_some() || cli.command.starts_services() || !here.exists() {
        return load(named, &[here, users]);
    }
    let (of_tree, path) = load(None, &[here])?;
    let (of_user, _) = load(None, &[users])?;
    let settings = File {
        client: of_tree.client,
        ..of_user
    };
    Ok((settings, path))
}
