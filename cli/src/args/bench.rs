//! What can be typed after `grange bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::JsonArgs;

/// `grange bench`.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// How often a cache would have what the builds of a history look up; nothing is built
    Hits(HitsArgs),
}

/// `grange bench hits`.
#[derive(Args, Debug)]
pub(crate) struct HitsArgs {
    /// The repository, which git has to be able to read.
    #[arg(long, value_name = "DIR")]
    pub(crate) repo: PathBuf,
    /// How many commits, the last before HEAD.
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub(crate) commits: u32,
    /// The buildspec, relative to the repository, as it stands there now.
    #[arg(long, default_value = "buildspec.yml", value_name = "FILE")]
    pub(crate) buildspec: PathBuf,
    /// How many bytes an entry of the dependency cache is supposed to have.
    #[arg(long, default_value_t = 200_000_000, value_name = "N")]
    pub(crate) entry_bytes: u64,
    /// How many seconds it is supposed to save.
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub(crate) entry_seconds: u64,
    /// How to print.
    #[command(flatten)]
    pub(crate) read: JsonArgs,
}
