//! What can be typed for the services of a farm.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueHint};
use protocol::{name::WorkerName, worker::Isolation};

use super::key_value;

/// `grange up`.
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// Where the farm keeps its data; by default in the user's data directory.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// Where the coordinator listens.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The address that others reach the coordinator at, where that is not the one it listens on.
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<SocketAddr>,
    /// How many workers to start.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) workers: u32,
    /// How workers keep builds apart; by default the best that this machine can.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) isolation: Option<Isolation>,
}

/// `grange coordinator`.
#[derive(Args, Debug)]
pub(crate) struct CoordinatorArgs {
    /// Where it keeps what it has, and is reached.
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Where a service that others reach keeps what it has, and listens.
#[derive(Args, Debug)]
pub(crate) struct PlaceArgs {
    /// Where to keep what it has.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// Where to listen.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The address that others reach it at, where that is not the one it listens on.
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<SocketAddr>,
    /// Where to serve `/metrics` and `/healthz`.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
}

/// Joining a farm as a service.
#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    /// The coordinator to join.
    #[arg(long, value_name = "ADDR")]
    pub(crate) join: Option<String>,
    /// A join token of the service's role, needed the first time.
    #[arg(
        long,
        env = "GRANGE_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
}

/// `grange worker`.
#[derive(Args, Debug)]
pub(crate) struct WorkerArgs {
    /// Which farm to join.
    #[command(flatten)]
    pub(crate) join: JoinArgs,
    /// Where to keep layers and running attempts.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// The worker's name; by default the machine's.
    #[arg(long)]
    pub(crate) name: Option<WorkerName>,
    /// How many phases to run at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) slots: Option<u32>,
    /// What builds can ask for; may be given several times.
    #[arg(long = "label", value_name = "K=V", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// How to keep builds apart; by default the best that this machine can.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) isolation: Option<Isolation>,
    /// Where to serve `/metrics` and `/healthz`.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
}

/// `grange cache serve`.
#[derive(Args, Debug)]
pub(crate) struct CacheServeArgs {
    /// Which farm to join.
    #[command(flatten)]
    pub(crate) join: JoinArgs,
    /// Where it keeps its store, and is reached.
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Open a store that is too damaged to open, without what is damaged: builds make that again.
    #[arg(long)]
    pub(crate) salvage: bool,
}
