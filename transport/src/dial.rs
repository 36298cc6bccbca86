//! How a connection comes about: TLS, Hello, Welcome; and what it means when it does not.

use std::{net::SocketAddr, time::Duration};

use protocol::{
    access::{Identity, Role},
    message::{
        Refusal,
        handshake::{Hello, Purpose, Welcome},
    },
    version,
};
use tokio::time::timeout;

use crate::{
    authority::server_name,
    certificate::ParseCertificateError,
    certificate::peer_certificate,
    client::ClientError,
    connection::{Connection, ConnectionLost, Side, remote},
    stream::{Stream, StreamError},
};

/// How long connecting may take, greeting included: three tries at a lost first datagram, which are 1, 2
/// and 4 seconds apart.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// TLS's alerts about certificates (RFC 8446, 6).
mod alert {
    /// The certificate does not name whom it should, or cannot be read.
    pub(super) const BAD_CERTIFICATE: u8 = 42;
    /// The certificate is not for this use.
    pub(super) const UNSUPPORTED_CERTIFICATE: u8 = 43;
    /// The certificate has expired, or does not count yet.
    pub(super) const CERTIFICATE_EXPIRED: u8 = 45;
    /// Somebody else has issued the certificate.
    pub(super) const UNKNOWN_CA: u8 = 48;
    /// The certificate's signature is wrong.
    pub(super) const DECRYPT_ERROR: u8 = 51;
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Members of this role do not serve. A mistake of the caller.
    #[error("nothing serves as {role}")]
    NoService {
        /// The role.
        role: Role,
    },
    /// The address is of a kind that this machine cannot reach.
    #[error("failed to reach {addr}")]
    Address {
        /// Which.
        addr: SocketAddr,
        /// What the library says.
        source: quinn::ConnectError,
    },
    /// The system gives no UDP port.
    #[error("failed to open a UDP port for {addr}")]
    Socket {
        /// Where to.
        addr: SocketAddr,
        /// What it says.
        source: ClientError,
    },
    /// Nobody answered. Try again later.
    #[error(
        "no answer from the {service} at {addr} within {}s; is it running there, and may UDP pass?",
        after.as_secs()
    )]
    NoAnswer {
        /// Who should be there.
        service: Role,
        /// Where.
        addr: SocketAddr,
        /// The limit.
        after: Duration,
    },
    /// The server is of another farm: connect to another address, or enrol with a token of that farm.
    #[error("{addr} belongs to another farm than {who}; check the address, or join that farm")]
    OtherFarm {
        /// Where.
        addr: SocketAddr,
        /// Who tried.
        who: String,
        /// What TLS says.
        source: ConnectionLost,
    },
    /// Somebody of this farm is there, and is not the service: connect to another address.
    #[error("{addr} is not the {service} of this farm; check the address")]
    OtherService {
        /// Who should be there.
        service: Role,
        /// Where.
        addr: SocketAddr,
        /// What TLS says.
        source: ConnectionLost,
    },
    /// The server's certificate does not count now: the server has to renew it, or a clock is wrong.
    #[error(
        "the certificate of the {service} at {addr} has expired, or does not count yet; \
         check the clocks of both machines"
    )]
    ServerExpired {
        /// Whose it is.
        service: Role,
        /// Where.
        addr: SocketAddr,
        /// What TLS says.
        source: ConnectionLost,
    },
    /// The server does not take the client's certificate because of its dates: enrol again.
    #[error(
        "the {service} at {addr} says that the certificate of {who} has expired, or does not count \
         yet; join again with a new token, or check the clocks of both machines"
    )]
    Expired {
        /// Who refused it.
        service: Role,
        /// Where.
        addr: SocketAddr,
        /// Whose it is.
        who: String,
        /// What TLS says.
        source: ConnectionLost,
    },
    /// The server does not take the client's certificate: enrol again.
    #[error(
        "the {service} at {addr} does not take the certificate of {who}; \
         join again with a new token"
    )]
    NotTaken {
        /// Who refused it.
        service: Role,
        /// Where.
        addr: SocketAddr,
        /// Whose it is.
        who: String,
        /// What TLS says.
        source: ConnectionLost,
    },
    /// The server has heard the client, and refused it in its own words: another version, a role that may
    /// not do this, a certificate that was revoked.
    #[error("the {service} at {addr} refused")]
    Refused {
        /// Who refused.
        service: Role,
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: Refusal,
    },
    /// The connection broke before the greeting was over. Try again.
    #[error("failed to connect to the {service} at {addr}")]
    Lost {
        /// Who should be there.
        service: Role,
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: ConnectionLost,
    },
    /// The server's answer makes no sense: it is of another version than it said, or broken.
    #[error("failed to greet the {service} at {addr}")]
    Greet {
        /// Who should be there.
        service: Role,
        /// Where.
        addr: SocketAddr,
        /// What is wrong with it.
        source: StreamError,
    },
    /// The server takes the client, and is of another version: install the same on both.
    #[error(
        "the {service} at {addr} speaks protocol {theirs} (grange {program}), this program speaks \
         protocol {ours} (grange {ours_program}); install the same version of grange on both",
        ours_program = version::PROGRAM
    )]
    Version {
        /// Who is there.
        service: Role,
        /// Where.
        addr: SocketAddr,
        /// The server's.
        theirs: u32,
        /// The server's, as people know it.
        program: String,
        /// This program's.
        ours: u32,
    },
    /// The server's certificate is the farm's, and says nothing.
    #[error("the {service} at {addr} has a certificate that says nothing")]
    Certificate {
        /// Whose it is.
        service: Role,
        /// Where.
        addr: SocketAddr,
        /// What is wrong with it.
        source: ParseCertificateError,
    },
}

/// Who connects whereto.
pub(crate) struct Dial<'a> {
    pub(crate) endpoint: &'a quinn::Endpoint,
    /// Who connects; `None`: a newcomer.
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) addr: SocketAddr,
    pub(crate) service: Role,
    /// How long it may take.
    pub(crate) limit: Duration,
}

impl Dial<'_> {
    /// Connects and greets, within the time limit.
    pub(crate) async fn connect(
        &self,
        config: quinn::ClientConfig,
        purpose: Purpose,
    ) -> Result<(Connection, Welcome), ConnectError> {
        timeout(self.limit, self.connect_in_time(config, purpose))
            .await
            .unwrap_or_else(|_over| Err(self.no_answer()))
    }

    async fn connect_in_time(
        &self,
        config: quinn::ClientConfig,
        purpose: Purpose,
    ) -> Result<(Connection, Welcome), ConnectError> {
        let (addr, service) = (self.addr, self.service);
        let name = server_name(service).ok_or(ConnectError::NoService { role: service })?;
        let quic = self
            .endpoint
            .connect_with(config, addr, name)
            .map_err(|source| ConnectError::Address { addr, source })?
            .await
            .map_err(|error| self.lost(error.into()))?;
        let welcome = match greet(&quic, purpose).await {
            Ok(Ok(welcome)) => welcome,
            Ok(Err(source)) => {
                return Err(ConnectError::Refused {
                    service,
                    addr,
                    source,
                });
            }
            Err(source) => return Err(self.not_greeted(&quic, source)),
        };
        if welcome.protocol != version::PROTOCOL {
            return Err(ConnectError::Version {
                service,
                addr,
                theirs: welcome.protocol,
                program: welcome.program,
                ours: version::PROTOCOL,
            });
        }
        let certificate = peer_certificate(&quic).map_err(|source| ConnectError::Certificate {
            service,
            addr,
            source,
        })?;
        Ok((Connection::new(quic, certificate, None), welcome))
    }

    /// In TLS 1.3 a client is connected before the server has seen its certificate: that it is refused
    /// shows while greeting.
    fn not_greeted(&self, quic: &quinn::Connection, error: StreamError) -> ConnectError {
        let lost = match &error {
            StreamError::Lost { source } => Some(source.clone()),
            _ => quic.close_reason().map(ConnectionLost::from),
        };
        match lost {
            Some(lost) if lost != ConnectionLost::ClosedHere => self.lost(lost),
            _ => ConnectError::Greet {
                service: self.service,
                addr: self.addr,
                source: error,
            },
        }
    }

    fn no_answer(&self) -> ConnectError {
        ConnectError::NoAnswer {
            service: self.service,
            addr: self.addr,
            after: self.limit,
        }
    }

    /// What a lost connection means to somebody who wanted to greet.
    fn lost(&self, source: ConnectionLost) -> ConnectError {
        let (service, addr) = (self.service, remote(self.addr));
        let who = || {
            self.identity
                .map_or_else(|| "a newcomer".to_owned(), Identity::to_string)
        };
        match source {
            ConnectionLost::Silent => self.no_answer(),
            ConnectionLost::Tls {
                side: Side::Here,
                alert,
                ..
            } => match alert {
                alert::UNKNOWN_CA | alert::DECRYPT_ERROR => ConnectError::OtherFarm {
                    addr,
                    who: who(),
                    source,
                },
                alert::BAD_CERTIFICATE | alert::UNSUPPORTED_CERTIFICATE => {
                    ConnectError::OtherService {
                        service,
                        addr,
                        source,
                    }
                }
                alert::CERTIFICATE_EXPIRED => ConnectError::ServerExpired {
                    service,
                    addr,
                    source,
                },
                _ => ConnectError::Lost {
                    service,
                    addr,
                    source,
                },
            },
            ConnectionLost::Tls {
                side: Side::There,
                alert: alert::CERTIFICATE_EXPIRED,
                ..
            } => ConnectError::Expired {
                service,
                addr,
                who: who(),
                source,
            },
            ConnectionLost::Tls {
                side: Side::There, ..
            } => ConnectError::NotTaken {
                service,
                addr,
                who: who(),
                source,
            },
            source => ConnectError::Lost {
                service,
                addr,
                source,
            },
        }
    }
}

/// Says Hello on the first stream and reads the answer.
async fn greet(
    quic: &quinn::Connection,
    purpose: Purpose,
) -> Result<Result<Welcome, Refusal>, StreamError> {
    let lost = |error: quinn::ConnectionError| StreamError::Lost {
        source: error.into(),
    };
    let (send, receive) = quic.open_bi().await.map_err(lost)?;
    let mut stream = Stream::new(quic, send, receive);
    let hello = Hello {
        protocol: version::PROTOCOL,
        program: version::PROGRAM.to_owned(),
        purpose,
    };
    match stream.send.message(&hello).await {
        Ok(()) => stream.send.finish(),
        // There may be an answer that says why.
        Err(StreamError::Stopped) => {}
        Err(error) => return Err(error),
    }
    stream.answer().await
}
