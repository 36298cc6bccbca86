//! What a worker is told when it starts.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use protocol::{name::WorkerName, worker::Isolation};
use tokio_util::sync::CancellationToken;

/// How a worker is told to end. Dropping its future ends it at once.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Let what runs end, and the units that are kept here; then leave.
    pub drain: CancellationToken,
    /// Kill what runs, and give its jobs to others at once; then leave.
    pub hand_over: CancellationToken,
}

/// What a worker is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the coordinator is; it says where the cache is.
    pub coordinator: SocketAddr,
    /// The worker's name, unique in the farm.
    pub name: WorkerName,
    /// How many attempts it runs at once; at least 1.
    pub slots: u32,
    /// What its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// The level at which it runs phases; `None`: `namespace` if the machine can, else `host`.
    pub isolation: Option<Isolation>,
    /// The worker's own data: layers, attempts, identity. Nobody else writes there. For the level
    /// `namespace` it must not lie on an overlay itself.
    pub directory: PathBuf,
    /// Other directories that builds must not see, like the data of services on the same machine. The
    /// worker's own is hidden in any case. Isolation level `host` cannot hide anything.
    pub hidden: Vec<PathBuf>,
    /// The `grange` program, which is started again as the keeper of each attempt.
    pub program: PathBuf,
    /// The versions of runtimes that builds can select: by runtime and version, the directory of its programs.
    pub runtimes: BTreeMap<String, BTreeMap<String, PathBuf>>,
    /// What the owner adds to the base's digest, to keep machines apart that look alike.
    pub base_salt: String,
    /// `PATH` of builds.
    pub path: String,
    /// What else builds start with, like where this machine keeps its certificates. Variables of the
    /// build go over these.
    pub environment: BTreeMap<String, String>,
    /// The names under which `program` is a command that builds find on their `PATH`.
    pub commands: Vec<String>,
    /// The protocols over which it fetches sources with git, as addresses name them.
    pub git_protocols: Vec<String>,
    /// The protocols over which it fetches sources that are archives.
    pub archive_protocols: Vec<String>,
    /// The socket of this machine's docker.
    pub docker_socket: PathBuf,
    /// The projects whose builds may use it, as `TEAM/PROJECT`. They are root on this machine then.
    pub docker_projects: Vec<String>,
    /// How many bytes unpacked layers may take before those not in use go.
    pub disk_budget: u64,
    /// Where to serve metrics and health over HTTP, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
}
