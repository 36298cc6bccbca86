//! What can be typed after `grange bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::JsonArgs;

/// How many bytes an entry may be supposed to have: 1 TiB, so that the sum of millions of lookups is a number of
/// 64 bits.
const ENTRY_BYTES_MAX: u64 = 1 << 40;
/// How many seconds it may be supposed to save: a week is more than a build may take.
const ENTRY_SECONDS_MAX: u64 = 7 * 24 * 60 * 60;

/// `grange bench`.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// How often a cache would have what the builds of a history look up; nothing is built
    ///
    /// For each commit, oldest first, the key and the fallback keys of the buildspec's `cache` section are
    /// expanded as its build would: `codebuild-hash-files`, the variables of the buildspec, `CODEBUILD_SRC_DIR`
    /// and `CODEBUILD_RESOLVED_SOURCE_VERSION`; what else a shell would do counts as it is written. Without
    /// such a section the lock files choose, as they do in builds. These lookups, and those of the files of the
    /// source trees, are replayed through simulated caches of several sizes.
    ///
    /// What an entry of the dependency cache takes and saves is not known before it is built: `--entry-bytes`
    /// and `--entry-seconds` say it for the newest commit, and for the others it is in proportion to the lines
    /// of the files that the key is made of. Two entries share the lines that they have in common. Source
    /// trees are measured as they are, by file; what they save is the time to send them, at 10 MB/s. Of a file of
    /// more than 1 MiB all is one line. What changes in the entry of a key that is made of no files is not known:
    /// it counts as the same.
    ///
    /// With chunks a request counts as soon as anything of what it needs was there, however little: the bytes and
    /// the seconds say how much.
    Hits(HitsArgs),
}

/// `grange bench hits`.
#[derive(Args, Debug)]
pub(crate) struct HitsArgs {
    /// The repository, which git has to be able to read.
    #[arg(long, value_name = "DIR")]
    pub(crate) repo: PathBuf,
    /// How many commits, the last before HEAD.
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) commits: u32,
    /// The buildspec, relative to the repository, as it stands there now.
    #[arg(long, default_value = "buildspec.yml", value_name = "FILE")]
    pub(crate) buildspec: PathBuf,
    /// How many bytes the newest commit's entry of the dependency cache is supposed to have.
    #[arg(long, default_value_t = 200_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=ENTRY_BYTES_MAX))]
    pub(crate) entry_bytes: u64,
    /// How many seconds it is supposed to save.
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=ENTRY_SECONDS_MAX))]
    pub(crate) entry_seconds: u64,
    /// Write `hits-repository.md` and its charts to this directory, too.
    #[arg(long, value_name = "DIR")]
    pub(crate) documents: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub(crate) read: JsonArgs,
}
