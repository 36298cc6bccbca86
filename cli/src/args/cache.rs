//! What can be typed after `grange cache`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueHint};
use protocol::name::ProjectName;

use super::{CacheServeArgs, FarmArgs, ReadArgs};

/// `grange cache …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Start the service that stores
    Serve(CacheServeArgs),
    /// Put a directory into the cache
    Put(PutArgs),
    /// Get a directory out of the cache
    Get(GetArgs),
    /// List the directories that were put, or what is in one
    Ls(LsArgs),
    /// Show what the cache knows of a directory
    Stat(WhatArgs),
    /// Read directories and check every byte
    Verify(VerifyArgs),
    /// Delete directories that were not used for long, and make room
    Gc(GcArgs),
    /// Show what the cache holds and what it saved
    Stats(ReadArgs),
    /// Explain why a dependency cache was not there
    Explain(ExplainArgs),
    /// Let the next builds of a project find none of the dependency caches that there are
    Invalidate {
        /// The project.
        project: ProjectName,
        /// Which farm.
        #[command(flatten)]
        farm: FarmArgs,
    },
}

/// `grange cache put`.
#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// The directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) directory: PathBuf,
    /// A name to get it by, besides its digest; what had it before loses it, unless that is trusted further.
    #[arg(long, value_name = "K")]
    pub(crate) key: Option<String>,
    /// Read every file, also those that have not changed since they were put the last time.
    #[arg(long)]
    pub(crate) reread: bool,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `grange cache get`.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// Its digest, a beginning of that, or its key.
    #[arg(value_name = "DIGEST")]
    pub(crate) what: String,
    /// Where to; it must not be there yet, or be empty.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) directory: PathBuf,
    /// Restore owners, set-user-id bits and capabilities too, as far as that is permitted.
    #[arg(long)]
    pub(crate) owners: bool,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `grange cache ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Which directory to look into: its digest, a beginning of that, or its key.
    #[arg(value_name = "DIGEST")]
    pub(crate) what: Option<String>,
    /// List all that the team has in the cache.
    #[arg(long, conflicts_with = "what")]
    pub(crate) all: bool,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `grange cache stat`.
#[derive(Args, Debug)]
pub(crate) struct WhatArgs {
    /// Its digest, a beginning of that, or its key.
    #[arg(value_name = "DIGEST")]
    pub(crate) what: String,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `grange cache verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Which directories: digests, beginnings of them, or keys; without any, all that were put.
    #[arg(value_name = "DIGEST")]
    pub(crate) what: Vec<String>,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `grange cache gc`.
#[derive(Args, Debug)]
pub(crate) struct GcArgs {
    /// Also delete directories that were put and not used for so long, like `30days`.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) unused: Option<Duration>,
    /// Which farm.
    #[command(flatten)]
    pub(crate) farm: FarmArgs,
}

/// `grange cache explain`.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The key of the dependency cache, after expansion, as the log of a build shows it; without one, the
    /// keys that a build has looked for.
    #[arg(value_name = "KEY", conflicts_with = "build")]
    pub(crate) key: Option<String>,
    /// Which build: its id, a beginning of it, or `project#number`; by default the last one.
    #[arg(long, value_name = "BUILD", conflicts_with = "project")]
    pub(crate) build: Option<String>,
    /// The project; by default all of the team's.
    #[arg(long)]
    pub(crate) project: Option<ProjectName>,
    /// A source tree to compare with those that the nearest entries were made from.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) source: Option<PathBuf>,
    /// The buildspec, relative to that tree: what its key hashes is told first.
    #[arg(
        long,
        default_value = "buildspec.yml",
        value_name = "FILE",
        requires = "source"
    )]
    pub(crate) buildspec: PathBuf,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}
