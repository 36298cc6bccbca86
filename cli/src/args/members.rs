//! What can be typed after `grange token` and `grange member`.

use clap::Subcommand;
use protocol::{access::Role, name::Team};

use super::{FarmArgs, ReadArgs};

/// `grange token …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a join token
    Create {
        /// For members of this team.
        #[arg(long, default_value = "main")]
        team: Team,
        /// What its holder may be: worker, cache, developer, ci or admin.
        #[arg(long)]
        role: Role,
        /// How long it can be used, like `90m` or `2days`.
        #[arg(long, default_value = "1day", value_parser = humantime::parse_duration)]
        lifetime: std::time::Duration,
        /// Which farm.
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// List the join tokens that can be used
    List(ReadArgs),
    /// Let a join token be used no more; who has joined with it stays
    Revoke {
        /// Its id, as `grange token list` shows it, or the token itself.
        #[arg(value_name = "TOKEN")]
        token: String,
        /// Which farm.
        #[command(flatten)]
        farm: FarmArgs,
    },
}

/// `grange member …`.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// List who has joined
    List(ReadArgs),
    /// Let a member's certificates count no more, and end its connections
    Revoke {
        /// Its name, or TEAM/ROLE/NAME where several have that name.
        #[arg(value_name = "NAME")]
        member: String,
        /// Which farm.
        #[command(flatten)]
        farm: FarmArgs,
    },
}
