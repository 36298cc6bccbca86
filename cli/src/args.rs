//! What can be typed: commands, arguments and their help.

mod bench;
pub(crate) mod buildspec;
mod cache;
mod members;
mod project;
mod secret;
mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use protocol::{
    build::{Phase, Rerun},
    message::client::{PRIORITY_MAX, PRIORITY_MIN},
    name::{ProjectName, WorkerName},
};

pub(crate) use self::bench::{BenchCommand, HitsArgs};
pub(crate) use self::cache::{
    CacheCommand, ExplainArgs, GcArgs, GetArgs, LsArgs, PutArgs, VerifyArgs, WhatArgs,
};
pub(crate) use self::members::{MemberCommand, TokenCommand};
pub(crate) use self::project::{OneProjectArgs, ProjectCommand, SaveProjectArgs};
pub(crate) use self::secret::{OneSecretArgs, SecretCommand, SetSecretArgs};
pub(crate) use self::serve::{CacheServeArgs, CoordinatorArgs, JoinArgs, UpArgs, WorkerArgs};

/// A build farm for your own machines: runs CodeBuild buildspecs on as many of them as you like.
#[derive(Debug, Parser)]
#[command(name = "grange", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// The settings file; by default `grange.toml` in the current directory, then in the user's
    /// settings directory.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// How much to say of what happens inside, like `info` or `scheduler=debug,cache=trace`.
    #[arg(
        long,
        global = true,
        env = "GRANGE_LOG",
        default_value = "warn",
        value_name = "FILTER"
    )]
    pub(crate) log: String,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a whole farm in one process
    Up(UpArgs),
    /// Start the service that takes builds and hands out jobs
    Coordinator(CoordinatorArgs),
    /// The service that stores chunks, trees and results
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Start a worker, which runs phases
    Worker(WorkerArgs),
    /// Build a source tree
    Build(BuildArgs),
    /// Projects: what builds of a repository have in common
    #[command(subcommand)]
    Project(Box<ProjectCommand>),
    /// What a buildspec says, without a farm
    #[command(subcommand)]
    Buildspec(buildspec::BuildspecCommand),
    /// List builds, newest first; or delete some
    Builds(BuildsArgs),
    /// Show how a build stands, and why its jobs wait
    Status(OneBuildArgs),
    /// Print the log of a build
    Logs(LogsArgs),
    /// Stop a build
    Stop(StopArgs),
    /// Open a shell in a build that pauses at a breakpoint
    Attach(AttachArgs),
    /// Build the same source again
    Retry(RetryArgs),
    /// List or fetch the artifacts of a build
    Artifacts(ArtifactsArgs),
    /// Show what the tests of a build and their coverage say, and what changed
    Reports(OneBuildArgs),
    /// List the workers
    Workers(ReadArgs),
    /// Let a worker end what it runs and give it no more
    Drain(DrainArgs),
    /// Join tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Who has joined the farm
    #[command(subcommand)]
    Member(MemberCommand),
    /// What builds need to know and nobody else
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Say what a cache would do for a project
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print the settings that are in effect
    Config(ConfigArgs),
    /// Print completions for a shell
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether services run on this machine because somebody says so here, or would by these settings. The
    /// others may start a farm too, for themselves.
    pub(crate) const fn starts_services(&self) -> bool {
        matches!(
            self,
            Self::Up(_)
                | Self::Coordinator(_)
                | Self::Cache(CacheCommand::Serve(_))
                | Self::Worker(_)
                | Self::Config(_)
        )
    }
}

/// Which farm, and as whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct FarmArgs {
    /// The farm's coordinator; without it, the one of the settings, or an embedded farm.
    #[arg(long, env = "GRANGE_FARM", value_name = "ADDR")]
    pub(crate) farm: Option<String>,
    /// A join token, needed the first time.
    #[arg(
        long,
        env = "GRANGE_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
}

/// `grange build`.
#[derive(Args, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag that somebody types"
)]
pub(crate) struct BuildArgs {
    /// The source tree; by default the current directory, unless the project has a repository.
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
    /// Which farm.
    #[command(flatten)]
    pub(crate) farm: FarmArgs,
    /// The project that the build belongs to; by default the directory's name.
    #[arg(long)]
    pub(crate) project: Option<ProjectName>,
    /// The branch, tag or commit of the project's repository that is built, over the project's.
    #[arg(long, value_name = "VERSION", conflicts_with = "directory")]
    pub(crate) source_version: Option<String>,
    /// The buildspec, relative to the source tree; by default the project's, or `buildspec.yml`.
    #[arg(long, value_name = "FILE")]
    pub(crate) buildspec: Option<String>,
    /// A variable that goes over those of the project and of the buildspec; may be given several times.
    #[arg(long = "env", value_name = "K=V", value_parser = variable)]
    pub(crate) variables: Vec<(String, String)>,
    /// Run the buildspec's `batch` section.
    #[arg(long)]
    pub(crate) batch: bool,
    /// Whether a phase may run again after its first command has started and its worker was lost; may be
    /// given several times. Without it `post_build` may not, and all others may.
    #[arg(long = "rerun", value_name = "PHASE=always|never", value_parser = rerun)]
    pub(crate) reruns: Vec<(Phase, Rerun)>,
    /// How urgent the build is among those of its team: -10 to 10, greater is more urgent.
    #[arg(
        long,
        default_value_t = 0,
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i8).range(i64::from(PRIORITY_MIN)..=i64::from(PRIORITY_MAX))
    )]
    pub(crate) priority: i8,
    /// Restore and save no dependency caches.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Pause at `codebuild-breakpoint`, where `grange attach` opens a shell in the build.
    #[arg(long)]
    pub(crate) debug: bool,
    /// Leave `.git` at home.
    #[arg(long)]
    pub(crate) no_git: bool,
    /// Where to put the artifacts.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) artifacts: Option<PathBuf>,
    /// Print the build's id and leave.
    #[arg(long, conflicts_with = "artifacts")]
    pub(crate) detach: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How to print what was read.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct JsonArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A command that only reads.
#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    /// Which farm.
    #[command(flatten)]
    pub(crate) farm: FarmArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `grange builds`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BuildsArgs {
    /// What to do other than list.
    #[command(subcommand)]
    pub(crate) command: Option<BuildsCommand>,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Only builds of this project.
    #[arg(long)]
    pub(crate) project: Option<ProjectName>,
    /// How many to list.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) limit: u32,
}

/// `grange builds …`.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildsCommand {
    /// Delete builds that have ended, with their logs and artifacts
    Delete {
        /// Which builds: ids, beginnings of ids, or `project#number`.
        #[arg(required = true)]
        builds: Vec<String>,
        /// Which farm.
        #[command(flatten)]
        farm: FarmArgs,
    },
}

/// A command about one build.
#[derive(Args, Debug)]
pub(crate) struct OneBuildArgs {
    /// Which build: its id, a beginning of it, or `project#number`.
    pub(crate) build: String,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `grange stop`.
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    /// Which build: its id, a beginning of it, or `project#number`.
    pub(crate) build: String,
    /// Which farm.
    #[command(flatten)]
    pub(crate) farm: FarmArgs,
}

/// `grange attach`.
#[derive(Args, Debug)]
pub(crate) struct AttachArgs {
    /// Which build: its id, a beginning of it, or `project#number`.
    pub(crate) build: String,
    /// Which task of a batch, if several run.
    #[arg(long, value_name = "TASK")]
    pub(crate) unit: Option<String>,
    /// Which farm.
    #[command(flatten)]
    pub(crate) farm: FarmArgs,
}

/// `grange logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// Which build: its id, a beginning of it, or `project#number`.
    pub(crate) build: String,
    /// Wait for more until the build ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `grange retry`.
#[derive(Args, Debug)]
pub(crate) struct RetryArgs {
    /// Which build: its id, a beginning of it, or `project#number`.
    pub(crate) build: String,
    /// Print the new build's id and leave.
    #[arg(long)]
    pub(crate) detach: bool,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `grange artifacts`.
#[derive(Args, Debug)]
pub(crate) struct ArtifactsArgs {
    /// Which build: its id, a beginning of it, or `project#number`.
    pub(crate) build: String,
    /// Fetch them into this directory.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) to: Option<PathBuf>,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `grange drain`.
#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    /// The worker's name.
    pub(crate) worker: WorkerName,
    /// Which farm.
    #[command(flatten)]
    pub(crate) farm: FarmArgs,
}

/// `grange config`.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    /// How to print.
    #[command(flatten)]
    pub(crate) read: JsonArgs,
}

/// Takes `NAME=value`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form NAME=value")),
    }
}

/// Takes `NAME=value`, where a shell can call the variable by its name.
fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = key_value(text)?;
    let mut letters = name.chars();
    let first = letters.next().unwrap_or_default();
    let is_name = (first.is_ascii_alphabetic() || first == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_name {
        Ok((name, value))
    } else {
        Err(format!(
            "`{name}` cannot name a variable: letters, digits and `_`, with no digit first"
        ))
    }
}

/// Takes `post_build=always`.
fn rerun(text: &str) -> Result<(Phase, Rerun), String> {
    let phases = [
        ("install", Phase::Install),
        ("pre_build", Phase::PreBuild),
        ("build", Phase::Build),
        ("post_build", Phase::PostBuild),
    ];
    let (name, rerun) = text.split_once('=').unwrap_or((text, ""));
    let phase = phases.into_iter().find(|(known, _)| *known == name);
    let rerun = match rerun {
        "always" => Some(Rerun::Always),
        "never" => Some(Rerun::Never),
        _ => None,
    };
    match (phase, rerun) {
        (Some((_, phase)), Some(rerun)) => Ok((phase, rerun)),
        _ => Err(format!(
            "`{text}` is not one of install, pre_build, build and post_build with =always or =never"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    fn read(path: &str) -> String {
        let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    /// All flags with a default: of which command, its name, the default.
    fn defaults(command: &clap::Command, path: &str) -> Vec<[String; 3]> {
        let flags = command
            .get_arguments()
            .filter(|flag| flag.get_action().takes_values());
        let own = flags.filter_map(|flag| {
            let [value] = flag.get_default_values() else {
                return None;
            };
            let value = value.to_string_lossy().into_owned();
            Some([path.to_owned(), format!("--{}", flag.get_long()?), value])
        });
        let below = command.get_subcommands().flat_map(|command| {
            let path = format!("{path} {}", command.get_name());
            defaults(command, path.trim_start())
        });
        own.chain(below).collect()
    }

    #[test]
    fn every_flag_with_a_default_is_documented_with_it() {
        let document = read("docs/operating.md");
        let defaults = defaults(&Cli::command(), "");
        assert!(5 <= defaults.len(), "{defaults:?}");
        for [command, flag, default] in defaults {
            let of = match command.as_str() {
                "" => "all".to_owned(),
                command => format!("`{command}`"),
            };
            let row = format!("| `{flag}` | {of} | `{default}` |");
            assert!(document.contains(&row), "{row} is not in the document");
        }
        let port = format!("has the port `{}`", crate::address::PORT_DEFAULT);
        assert!(document.contains(&port));
        let lifetime = crate::command::PRINTED_TOKEN_LIFETIME;
        let documented = "made without `--lifetime`, for a day";
        assert!(document.contains(documented) && lifetime.as_secs() == 24 * 60 * 60);
    }

    #[test]
    fn units_of_systemd_call_the_program_as_it_wants_to_be_called() {
        for name in ["coordinator", "cache", "worker"] {
            let unit = read(&format!("examples/systemd/grange-{name}.service"));
            let call = unit
                .lines()
                .find_map(|line| line.strip_prefix("ExecStart="));
            let words = call.unwrap().split(' ');
            let cli = Cli::try_parse_from(words).unwrap();
            assert!(cli.command.starts_services(), "{name}");
        }
    }

    #[test]
    fn a_variable_needs_a_name() {
        assert_eq!(key_value("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(key_value("=b").is_err());
        assert!(key_value("A").is_err());
        assert_eq!(
            variable("_a1=b=c"),
            Ok(("_a1".to_owned(), "b=c".to_owned()))
        );
        for wrong in ["BAD NAME=3", "1A=3", "A-B=3", "=3"] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }
}
