//! What can be typed after `grange secret`. A value never is: arguments are seen by everybody on a machine.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use protocol::{name::ProjectName, secret::SecretId};

use super::{FarmArgs, ReadArgs};

/// `grange secret …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Set a secret; its value comes from a file, from standard input, or from what is typed unseen
    Set(SetSecretArgs),
    /// List secrets, who set them and when; values are never shown
    List {
        /// Only those for this project.
        #[arg(long)]
        project: Option<ProjectName>,
        /// How to read.
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Delete a secret, all its versions
    Delete(OneSecretArgs),
}

/// Which secret.
#[derive(Args, Debug)]
pub(crate) struct OneSecretArgs {
    /// Its name, as buildspecs have it below `env.secrets-manager` and `env.parameter-store`.
    #[arg(value_name = "NAME")]
    pub(crate) id: SecretId,
    /// The project that it is for; without it, all projects of the team.
    #[arg(long)]
    pub(crate) project: Option<ProjectName>,
    /// Which farm.
    #[command(flatten)]
    pub(crate) farm: FarmArgs,
}

/// `grange secret set`.
#[derive(Args, Debug)]
pub(crate) struct SetSecretArgs {
    /// Which.
    #[command(flatten)]
    pub(crate) secret: OneSecretArgs,
    /// The file that holds the value, byte for byte.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
}
