//! What can be typed after `grange buildspec`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

/// `grange buildspec …`.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildspecCommand {
    /// Say all that is wrong with buildspecs, with the place and the repair of each mistake
    Check(CheckArgs),
    /// Show the jobs that a buildspec becomes: what each needs, and what each can share
    Plan(PlanArgs),
    /// Write a buildspec for a source tree; one that is there stays
    Init(InitArgs),
}

/// `grange buildspec check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The buildspecs.
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Print one JSON object per file.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `grange buildspec plan`.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The buildspec. If it has a `batch` section, that is planned.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// How to show the jobs.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    format: PlanFormat,
    /// Print one JSON object, as `--format json` does.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// The source tree, in which the buildspecs are that batch tasks name.
    #[arg(long, default_value = ".", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) source: PathBuf,
    /// Plan a single build, although there is a `batch` section.
    #[arg(long)]
    pub(crate) no_batch: bool,
}

impl PlanArgs {
    /// How to show the jobs.
    pub(crate) const fn format(&self) -> PlanFormat {
        if self.json {
            PlanFormat::Json
        } else {
            self.format
        }
    }
}

/// How to show jobs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PlanFormat {
    /// A table
    Text,
    /// A flowchart of Mermaid
    Mermaid,
    /// A graph of Graphviz
    Dot,
    /// One JSON object
    Json,
}

/// `grange buildspec init`.
#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// The source tree.
    #[arg(default_value = ".", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) directory: PathBuf,
}
