//! A connection between two members of a farm, past the handshake.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use protocol::access::Identity;
use quinn::VarInt;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

use crate::{
    certificate::Certificate,
    stream::{Stream, StreamError},
};

/// The connection has done what it was for.
pub(crate) const CLOSE_DONE: VarInt = VarInt::from_u32(0);
/// The client is refused; the reason says why.
pub(crate) const CLOSE_REFUSED: VarInt = VarInt::from_u32(1);
/// The other side sent what makes no sense.
pub(crate) const CLOSE_VIOLATION: VarInt = VarInt::from_u32(2);

/// QUIC's code for a server that takes no more connections (RFC 9000, 20.1).
const CONNECTION_REFUSED: u64 = 0x2;
/// QUIC's codes for TLS alerts are these and the alert.
const CRYPTO_CODES: std::ops::Range<u64> = 0x100..0x200;

/// A connection. Clones are the same connection; it ends when the last of them and of its streams is
/// gone, or when either side closes it.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    quic: quinn::Connection,
    /// Held by who sends something large, for each in whose name that is.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    peer: Option<Certificate>,
    /// The place among the server's connections.
    _place: Option<OwnedSemaphorePermit>,
}

/// The turn to send something large; it ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Turn(
    #[expect(dead_code, reason = "what counts is that it is held")] OwnedMutexGuard<()>,
);

/// Which of the two sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// This one.
    Here,
    /// The other one.
    There,
}

/// Why a connection is over.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConnectionLost {
    /// The other side has closed it, in order.
    #[error("the other side closed the connection{}", because(reason))]
    Closed {
        /// Why, in its words; may be empty.
        reason: String,
    },
    /// The server wants nothing of this client.
    #[error("{reason}")]
    Refused {
        /// Why, in its words.
        reason: String,
    },
    /// The server has as many connections as it takes. Try again later.
    #[error("the server has no room for another connection")]
    Full,
    /// This side has closed it.
    #[error("this side closed the connection")]
    ClosedHere,
    /// Nothing came for so long that the other side must be gone. Connect again.
    #[error("the other side does not answer")]
    Silent,
    /// The other side has been restarted, and knows nothing of the connection. Connect again.
    #[error("the other side was restarted")]
    Restarted,
    /// One side does not take the other's certificate.
    #[error("TLS failed: {reason}")]
    Tls {
        /// Who found it so.
        side: Side,
        /// TLS's number for it (RFC 8446, 6).
        alert: u8,
        /// In its words.
        reason: String,
    },
    /// One side does not follow QUIC.
    #[error("QUIC failed: {reason}")]
    Quic {
        /// In the library's words.
        reason: String,
    },
}

/// `: reason`, or nothing.
fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

impl From<quinn::ConnectionError> for ConnectionLost {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError;
        match error {
            ConnectionError::TransportError(error) => {
                lost(Side::Here, error.code.into(), error.to_string())
            }
            ConnectionError::ConnectionClosed(close) => {
                lost(Side::There, close.error_code.into(), close.to_string())
            }
            ConnectionError::ApplicationClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                if close.error_code == CLOSE_REFUSED {
                    Self::Refused { reason }
                } else {
                    Self::Closed { reason }
                }
            }
            ConnectionError::Reset => Self::Restarted,
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => Self::Quic {
                reason: error.to_string(),
            },
        }
    }
}

fn lost(side: Side, code: u64, reason: String) -> ConnectionLost {
    if CRYPTO_CODES.contains(&code) {
        let alert = code.to_le_bytes()[0];
        ConnectionLost::Tls {
            side,
            alert,
            reason,
        }
    } else if code == CONNECTION_REFUSED {
        ConnectionLost::Full
    } else {
        ConnectionLost::Quic { reason }
    }
}

impl Connection {
    pub(crate) fn new(
        quic: quinn::Connection,
        peer: Option<Certificate>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                quic,
                turns: Mutex::default(),
                peer,
                _place: place,
            }),
        }
    }

    /// Who is at the other end, as its certificate says; `None`: a client without a certificate, who has
    /// just enrolled.
    pub fn peer(&self) -> Option<&Identity> {
        self.certificate().map(|certificate| &certificate.identity)
    }

    /// The other side's certificate. It was good when the connection began; whether it still is, whoever
    /// keeps the connection checks.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.shared.peer.as_ref()
    }

    /// Opens a stream for a request. Only clients open streams. Waits while as many are open as the
    /// server allows.
    ///
    /// # Errors
    ///
    /// If the connection is over.
    ///
    /// # Cancel safety
    ///
    /// Nothing is opened.
    pub async fn open(&self) -> Result<Stream, StreamError> {
        let (send, receive) =
            self.shared
                .quic
                .open_bi()
                .await
                .map_err(|error| StreamError::Lost {
                    source: error.into(),
                })?;
        Ok(Stream::new(&self.shared.quic, send, receive))
    }

    /// Waits until nobody else on the connection sends something large in the name of `whose`, in the order of
    /// asking. Large things that go one after another arrive whole one after another; without turns the
    /// connection's window fills with some of each, and a receiver that takes a few at a time may never have one
    /// that it can end. Each name has turns of its own, because the other side may hold up one and not another.
    ///
    /// Whoever has the turn has to be polled until it is dropped.
    ///
    /// # Cancel safety
    ///
    /// Loses the place in the queue.
    pub async fn turn(&self, whose: &str) -> Turn {
        let turn = {
            let turns = self.shared.turns.lock();
            // Each is added and taken out in one step.
            let mut turns = turns.unwrap_or_else(PoisonError::into_inner);
            if !turns.contains_key(whose) {
                // Those that nobody has or waits for.
                turns.retain(|_, turn| 1 < Arc::strong_count(turn));
            }
            Arc::clone(turns.entry(whose.to_owned()).or_default())
        };
        Turn(turn.lock_owned().await)
    }

    /// The next stream that the client opens; `None` when the connection is over.
    ///
    /// # Cancel safety
    ///
    /// No stream is lost.
    pub async fn accept(&self) -> Option<Stream> {
        let (send, receive) = self.shared.quic.accept_bi().await.ok()?;
        Some(Stream::new(&self.shared.quic, send, receive))
    }

    /// Waits until the connection is over, and says why, for people.
    ///
    /// # Cancel safety
    ///
    /// Can be asked again.
    pub async fn closed(&self) -> String {
        ConnectionLost::from(self.shared.quic.closed().await).to_string()
    }

    /// Why the connection is over; `None`: it is not.
    pub fn lost(&self) -> Option<ConnectionLost> {
        self.shared.quic.close_reason().map(ConnectionLost::from)
    }

    /// Ends the connection at once, with all its streams. The other side is told the reason, as far as it
    /// fits in one datagram.
    pub fn close(&self, reason: &str) {
        self.shared.quic.close(CLOSE_DONE, reason.as_bytes());
    }

    /// Where the other side is now; a client may move.
    pub fn remote(&self) -> SocketAddr {
        remote(self.shared.quic.remote_address())
    }

    /// How many bytes of datagrams this connection has sent and received, handshake, acknowledgements and
    /// what was sent again included.
    pub fn datagram_bytes(&self) -> (u64, u64) {
        let stats = self.shared.quic.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// How many datagrams these were.
    pub fn datagrams(&self) -> (u64, u64) {
        let stats = self.shared.quic.stats();
        (stats.udp_tx.datagrams, stats.udp_rx.datagrams)
    }

    /// How many bytes may be on their way at the moment, as the controller has it.
    #[cfg(test)]
    pub(crate) fn congestion_window(&self) -> u64 {
        self.shared.quic.stats().path.cwnd
    }

    /// How long a datagram and its acknowledgement take at the moment.
    pub fn round_trip(&self) -> std::time::Duration {
        self.shared.quic.rtt()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer())
            .field("remote", &self.remote())
            .finish_non_exhaustive()
    }
}

/// The address as people know it: sockets for both families show IPv4 addresses inside IPv6 ones.
pub(crate) fn remote(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}
