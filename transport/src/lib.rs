//! QUIC connections between the members of a farm, and who they are.
//!
//! The one crate that names quinn, rustls and rcgen. It knows requests, streams and identities, and
//! nothing of what is said over them beyond the handshake. Every connection is mutually authenticated
//! by the farm's own [`Authority`], except that of a newcomer, who may only [`enrol`](enrol()).

mod authority;
mod certificate;
mod client;
mod config;
mod congestion;
mod connection;
mod credentials;
mod datagrams;
mod dial;
mod endpoints;
mod enrol;
mod files;
mod grant;
mod guests;
mod lane;
mod reconnect;
mod renewal;
mod seal;
mod server;
mod socket;
mod stream;
mod tls;
mod token;

pub use authority::{Authority, AuthorityError, IssueError};
pub use certificate::{Certificate, ParseCertificateError};
pub use client::{Client, ClientError};
pub use config::Windows;
pub use congestion::Congestion;
pub use connection::{Connection, ConnectionLost, Side, Turn};
pub use credentials::{Credentials, CredentialsError, SelfIssueError};
pub use datagrams::Datagrams;
pub use dial::ConnectError;
pub use enrol::{EnrolError, enrol, renew};
pub use files::KeepError;
pub use grant::{GrantError, GrantKeyError, GrantSigner, GrantVerifier};
pub use guests::{Crowded, Guests, Place};
pub use lane::Lane;
pub use reconnect::{BACK_OFF_MAX, back_off};
pub use renewal::{keep_renewed, use_renewed};
pub use seal::{OpenSealError, SEAL_BYTES, Seal, create_seal_key, draw_seal_key, load_seal_key};
pub use server::{Arriving, BindError, Greeting, HandshakeError, Server, ServerLimits};
pub use stream::{ReceiveHalf, SendHalf, Stream, StreamError};
pub use tls::TlsError;
pub use token::{JoinToken, ParseTokenError};

#[cfg(test)]
mod tests;
