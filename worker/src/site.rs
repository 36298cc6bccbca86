//! What all attempts of a worker share.

use std::{collections::BTreeMap, path::PathBuf};

use protocol::{digest::Digest, worker::Isolation};
use tokio::sync::Semaphore;

use crate::{
    cache_link::CacheLinks, directory::DataDirectory, docker::Docker, layers::Layers,
    places::Places, runtimes::Runtimes, spent::Spent, terminals::Terminals, units::Units,
};

/// What all attempts of a worker share.
#[derive(Debug)]
pub(crate) struct Site {
    /// The level at which phases run.
    pub(crate) isolation: Isolation,
    /// The file system underneath.
    pub(crate) base: Digest,
    /// The worker's data.
    pub(crate) directory: DataDirectory,
    /// The program that becomes the keeper of an attempt.
    pub(crate) program: PathBuf,
    /// `PATH` of builds.
    pub(crate) path: String,
    /// The runtimes that builds can select.
    pub(crate) runtimes: Runtimes,
    /// What else builds start with.
    pub(crate) environment: BTreeMap<String, String>,
    /// The names under which `program` is a command of builds.
    pub(crate) commands: Vec<String>,
    /// Directories that commands must not see.
    pub(crate) hidden: Vec<PathBuf>,
    /// Who may use docker.
    pub(crate) docker: Docker,
    /// The protocols over which sources may be fetched with git.
    pub(crate) git_protocols: Vec<String>,
    /// The protocols over which archives may be fetched.
    pub(crate) archive_protocols: Vec<String>,
    /// Where units stand at level `host`.
    pub(crate) places: Places,
    /// Which of them are about to go.
    pub(crate) units: Units,
    /// Unpacked layers.
    pub(crate) layers: Layers,
    /// The ways to the cache.
    pub(crate) cache: CacheLinks,
    /// The ways into attempts that are debugged.
    pub(crate) terminals: Terminals,
    /// How long units have run here.
    pub(crate) spent: Spent,
    /// One permit for each attempt that may run at once.
    pub(crate) slots: Semaphore,
}
