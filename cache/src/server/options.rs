//! The cache's settings, and why it does not run with them.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use transport::{BindError, Congestion, Datagrams, GrantKeyError};

use super::rates::Limits;
use crate::{
    cold::{ColdOptions, OpenColdError},
    store::OpenStoreError,
};

/// The cache's settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Where to listen, over QUIC; port 0 means any that is free.
    pub listen: SocketAddr,
    /// Where the cache keeps everything: `store` and `version` in it are its own.
    pub directory: PathBuf,
    /// Where the store's log is, if not in `store`: an empty directory, on a disk of its own to be of use. A log
    /// that is elsewhere moves there.
    pub log_directory: Option<PathBuf>,
    /// How many bytes the store may take on the disk, as `du` counts them; but for a log elsewhere. Writes wait while entries are
    /// evicted for them, and are refused while all that could go is held.
    pub budget: u64,
    /// How many bytes the disk must have left for anything to be written.
    pub free_low_water: u64,
    /// How long what was reported, written or read stays at least.
    pub hold: Duration,
    /// Where to answer `/metrics` and `/healthz`, over HTTP; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Whether a store that is too damaged to open is opened all the same, without what is damaged.
    pub salvage: bool,
    /// What one connection and one team may have it move.
    pub limits: Limits,
    /// How it finds out how much it may send to a client.
    pub congestion: Congestion,
    /// What its datagrams are like.
    pub datagrams: Datagrams,
    /// The bucket behind the store; `None`: there is none.
    pub cold: Option<ColdOptions>,
}

/// Why the cache does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store does not open; its message says what to do.
    #[error("failed to open the store")]
    Store {
        /// Why.
        source: OpenStoreError,
    },
    /// The credentials are damaged: enrol again.
    #[error("failed to read the key of grants in the cache's credentials")]
    GrantKey {
        /// What is wrong.
        source: GrantKeyError,
    },
    /// The settings of the cold tier are wrong.
    #[error("failed to set up the cold tier")]
    Cold {
        /// Why.
        source: OpenColdError,
    },
    /// The port cannot be had.
    #[error("failed to start the cache's server")]
    Bind {
        /// Why.
        source: BindError,
    },
    /// The store does not write any more: a bug. Its log has the panic; start the cache again.
    #[error("the store's writer has ended though nobody stopped it")]
    Writer,
    /// The port for metrics cannot be had.
    #[error("failed to listen on {listen} for metrics")]
    Metrics {
        /// Where.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}
