//! What can be typed after `grange project`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use protocol::{name::ProjectName, project::BatchReports};

use super::{FarmArgs, ReadArgs, key_value, variable};

/// `grange project …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ProjectCommand {
    /// Make a project
    Create(SaveProjectArgs),
    /// Change a project: what is not named stays
    Update(SaveProjectArgs),
    /// Show a project
    Show(OneProjectArgs),
    /// List the projects
    List(ReadArgs),
    /// Forget a project; its builds and their numbers stay
    Delete {
        /// Its name.
        #[arg(value_name = "NAME")]
        project: ProjectName,
        /// Which farm.
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// Print a badge (SVG) that says how the last build of a project ended
    Badge {
        /// Its name.
        #[arg(value_name = "NAME")]
        project: ProjectName,
        /// Which farm.
        #[command(flatten)]
        farm: FarmArgs,
    },
}

/// A command about one project.
#[derive(Args, Debug)]
pub(crate) struct OneProjectArgs {
    /// Its name.
    #[arg(value_name = "NAME")]
    pub(crate) project: ProjectName,
    /// How to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `grange project create` and `grange project update`.
#[derive(Args, Debug)]
pub(crate) struct SaveProjectArgs {
    /// Its name.
    #[arg(value_name = "NAME")]
    pub(crate) project: ProjectName,
    /// All of the project, in TOML or JSON; other flags go over what it says.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// The repository of its source, which the farm fetches.
    #[arg(long, value_name = "URL", conflicts_with = "upload")]
    pub(crate) git: Option<String>,
    /// The archive that is its source, which the farm fetches: .zip, .tar, .tar.gz, .tgz or .tar.zst.
    #[arg(long, value_name = "URL", conflicts_with_all = ["git", "upload"])]
    pub(crate) source_archive: Option<String>,
    /// Its source is uploaded by whoever starts a build.
    #[arg(long)]
    pub(crate) upload: bool,
    /// Which branch, tag or commit is built, or which SHA-256 an archive has to have; empty: the repository's head,
    /// and any archive.
    #[arg(long, value_name = "VERSION")]
    pub(crate) source_version: Option<String>,
    /// How many commits of history are fetched; 0: all.
    #[arg(long, value_name = "N")]
    pub(crate) depth: Option<u32>,
    /// Whether submodules are fetched.
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub(crate) submodules: Option<bool>,
    /// The secret that its repository is let in with, as `secrets-manager` names it: a token, `user:password` or a
    /// key of ssh; empty: none.
    #[arg(long, value_name = "REF")]
    pub(crate) git_credential: Option<String>,
    /// Whether the certificate of the repository's server is left unchecked.
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub(crate) insecure_ssl: Option<bool>,
    /// A secondary source, which builds find in `CODEBUILD_SRC_DIR_<ID>`; may be given several times, and
    /// without a URL takes one away.
    #[arg(long = "secondary", value_name = "ID=URL", value_parser = pair)]
    pub(crate) secondary: Vec<(String, String)>,
    /// The version of a secondary source; may be given several times.
    #[arg(long = "secondary-version", value_name = "ID=VERSION", value_parser = pair)]
    pub(crate) secondary_versions: Vec<(String, String)>,
    /// The secret that a secondary source is let in with; may be given several times, and without one takes it
    /// away.
    #[arg(long = "secondary-credential", value_name = "ID=REF", value_parser = pair)]
    pub(crate) secondary_credentials: Vec<(String, String)>,
    /// Whether the certificate of a secondary source's server is left unchecked; may be given several times.
    #[arg(long = "secondary-insecure-ssl", value_name = "ID=yes|no", value_parser = pair_yes_or_no)]
    pub(crate) secondary_insecure_ssl: Vec<(String, bool)>,
    /// The buildspec: a path in the source, or the text of one; empty: `buildspec.yml`.
    #[arg(long, value_name = "PATH|TEXT")]
    pub(crate) buildspec: Option<String>,
    /// A variable; may be given several times.
    #[arg(long = "env", value_name = "K=V", value_parser = variable)]
    pub(crate) variables: Vec<(String, String)>,
    /// A variable with the name of a parameter that has its value; may be given several times.
    #[arg(long = "parameter-store", value_name = "K=NAME", value_parser = variable)]
    pub(crate) parameter_store: Vec<(String, String)>,
    /// A variable with a reference to a secret that has its value; may be given several times.
    #[arg(long = "secrets-manager", value_name = "K=REF", value_parser = variable)]
    pub(crate) secrets_manager: Vec<(String, String)>,
    /// A variable to take away; may be given several times.
    #[arg(long = "unset", value_name = "K")]
    pub(crate) unset: Vec<String>,
    /// The image that its builds run on, which a worker has to serve; empty: any.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) environment_image: Option<String>,
    /// The type of its environment, like `LINUX_CONTAINER`; empty: any.
    #[arg(long, value_name = "TYPE")]
    pub(crate) environment_type: Option<String>,
    /// How large a machine its builds run on, like `BUILD_GENERAL1_SMALL`; empty: any.
    #[arg(long, value_name = "TYPE")]
    pub(crate) compute_type: Option<String>,
    /// Which reserved machines its builds run on, in the place of a compute type; empty: any.
    #[arg(long, value_name = "NAME")]
    pub(crate) fleet: Option<String>,
    /// Whether its builds run only where docker may be used.
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub(crate) privileged: Option<bool>,
    /// What artifacts are called; empty: as the project.
    #[arg(long, value_name = "NAME")]
    pub(crate) artifact_name: Option<String>,
    /// Whether the name in a buildspec goes over that; so from the start.
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub(crate) override_artifact_name: Option<bool>,
    /// A secondary artifact that buildspecs may have; may be given several times, and empty allows all.
    #[arg(long = "secondary-artifact", value_name = "ID")]
    pub(crate) secondary_artifacts: Vec<String>,
    /// Whether its builds have dependency caches.
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub(crate) cache: Option<bool>,
    /// The name under which it shares dependency caches that have a key; empty: it shares none.
    #[arg(long, value_name = "NAME")]
    pub(crate) cache_namespace: Option<String>,
    /// How many minutes a build may take, 5 to 2160; 0: as long as the farm lets any.
    #[arg(long, value_name = "N")]
    pub(crate) build_minutes: Option<u32>,
    /// How many minutes a build may wait, 5 to 480; 0: as long as the farm lets any.
    #[arg(long, value_name = "N")]
    pub(crate) queue_minutes: Option<u32>,
    /// How many of its builds may be there that have not ended; 0: any number.
    #[arg(long, value_name = "N")]
    pub(crate) concurrent_builds_max: Option<u32>,
    /// How many builds a batch may have; 0: as many as any.
    #[arg(long, value_name = "N")]
    pub(crate) batch_builds_max: Option<u32>,
    /// A compute type that tasks of a batch may ask for; may be given several times, and empty allows all.
    #[arg(long = "batch-compute-type", value_name = "TYPE")]
    pub(crate) batch_compute_types: Vec<String>,
    /// How many minutes a batch may take with all of its builds, 5 to 2160; 0: as many as the farm
    /// allows.
    #[arg(long, value_name = "N")]
    pub(crate) batch_timeout: Option<u32>,
    /// Whether the artifacts of a batch become one, with a directory for each task.
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub(crate) batch_combine_artifacts: Option<bool>,
    /// Whether reports of a batch that have one group are told as one, or those of each build by themselves.
    #[arg(long, value_name = "merged|individual", value_parser = batch_reports)]
    pub(crate) batch_reports: Option<BatchReports>,
    /// Whether there is a badge.
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub(crate) badge: Option<bool>,
    /// Which farm.
    #[command(flatten)]
    pub(crate) farm: FarmArgs,
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("`{text}` is neither yes nor no")),
    }
}

/// Takes `ID=yes` and `ID=no`.
fn pair_yes_or_no(text: &str) -> Result<(String, bool), String> {
    let (identifier, value) = key_value(text)?;
    Ok((identifier, yes_or_no(&value)?))
}

fn batch_reports(text: &str) -> Result<BatchReports, String> {
    let both = [BatchReports::Merged, BatchReports::Individual];
    let meant = both.into_iter().find(|mode| mode.as_str() == text);
    meant.ok_or_else(|| format!("`{text}` is neither merged nor individual"))
}

/// Takes `ID=VALUE`, where the value may be empty.
fn pair(text: &str) -> Result<(String, String), String> {
    key_value(text)
}
