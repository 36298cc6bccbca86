//! The limits of a server.

use std::time::Duration;

use crate::{config::Windows, congestion::Congestion, datagrams::Datagrams};

/// What a server lets clients take, and how it sends to them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServerLimits {
    /// How many connections there may be at once, strangers included.
    pub connections: usize,
    /// How many of them may be strangers: TLS is under way, or Hello has not come.
    pub strangers: usize,
    /// How many streams a member may have open at once; further ones wait.
    pub streams: u32,
    /// How much a member may have on its way that the server has not read.
    pub windows: Windows,
    /// How long a stranger may take for TLS and Hello.
    pub handshake: Duration,
    /// How it finds out how much it may send.
    pub congestion: Congestion,
    /// What its datagrams are like.
    pub datagrams: Datagrams,
    /// How many endpoints take datagrams on its port, 1 to 16.
    pub endpoints: u8,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            // A thousand workers with builds of eight teams each at a time have 12,000; and people.
            connections: 16_384,
            // A farm that comes back after a restart greets within seconds; a flood of strangers leaves
            // room for members.
            strangers: 256,
            // Four bulk transfers of 64 chunks each. Each may hold a frame of 4 MiB while it is read.
            streams: 256,
            windows: Windows::default(),
            // Three tries at a lost datagram, which are 1, 2 and 4 seconds apart.
            handshake: Duration::from_secs(10),
            congestion: Congestion::default(),
            datagrams: Datagrams::default(),
            endpoints: 1,
        }
    }
}
