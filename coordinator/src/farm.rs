//! What every session works with.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use scheduler::SessionId;
use tokio::sync::Semaphore;
use transport::{Authority, GrantSigner};

use crate::{
    bells::Bells,
    cache_link::CacheLink,
    directory::Directory,
    dispatcher::Dispatcher,
    logs::{Logs, writer::LogWriter},
    members::Members,
    secrets::Secrets,
    session::terminals::Terminals,
};

/// How many builds are planned at once: reading a megabyte of text and planning a thousand tasks takes some
/// hundred megabytes of memory, for some hundred milliseconds.
pub(crate) const PLANNED_AT_ONCE: usize = 4;

/// The coordinator, as its sessions see it.
#[derive(Debug)]
pub(crate) struct Farm {
    /// Who decides.
    pub dispatcher: Dispatcher,
    /// Who may join, and where the cache is.
    pub members: Members,
    /// Who makes certificates.
    pub authority: Authority,
    /// Who makes grants valid.
    pub signer: Arc<GrantSigner>,
    /// The logs, for reading.
    pub logs: Arc<Logs>,
    /// The logs, for writing.
    pub log_writer: LogWriter,
    /// Who tells watchers.
    pub bells: Arc<Bells>,
    /// The way to the cache.
    pub cache: CacheLink,
    /// Where all of it is kept.
    pub directory: Arc<Directory>,
    /// What builds are given that name it.
    pub secrets: Arc<Secrets>,
    /// Who waits for a shell in a build.
    pub terminals: Terminals,
    /// Turns at planning builds.
    pub planning: Semaphore,
    /// Counts the sessions of workers.
    pub sessions: AtomicU64,
}

impl Farm {
    /// An id that no other session of this coordinator's life has.
    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where somebody is who says to be at `said` over a connection from `from`: whoever listens on all
/// addresses is reached at the one that it comes from.
pub(crate) const fn reachable(said: SocketAddr, from: IpAddr) -> SocketAddr {
    if said.ip().is_unspecified() {
        SocketAddr::new(from, said.port())
    } else {
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_reached_where_it_comes_from() {
        let from = "10.0.0.7".parse().unwrap();
        let check = |said: &str, expected: &str| {
            let expected: SocketAddr = expected.parse().unwrap();
            assert_eq!(reachable(said.parse().unwrap(), from), expected);
        };
        check("0.0.0.0:7001", "10.0.0.7:7001");
        check("[::]:7001", "10.0.0.7:7001");
        check("192.168.1.2:7001", "192.168.1.2:7001");
    }
}
