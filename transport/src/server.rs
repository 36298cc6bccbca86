//! The side that listens: connections arrive, greet, and are welcomed or refused.
//!
//! A stranger gets one stream for one Hello, a few kilobytes of memory and a few seconds; everything
//! else comes with [`Greeting::welcome`]. Whether an identity may be here is the caller's decision.

mod limits;

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use protocol::{
    access::{Identity, Role},
    codec,
    message::{
        Refusal, RefusalCode,
        handshake::{Hello, IssuedCertificate, Purpose, Welcome},
    },
    version,
};
use quinn::EndpointConfig;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::debug;

pub use self::limits::ServerLimits;
use crate::{
    certificate::{Certificate, ParseCertificateError, peer_certificate},
    config::{self, Ids, Windows},
    connection::{CLOSE_DONE, CLOSE_REFUSED, Connection, ConnectionLost, remote},
    credentials::Credentials,
    datagrams::Datagrams,
    endpoints::Endpoints,
    stream::{Stream, StreamError},
    tls::{self, TlsError},
};

/// The largest Hello, in bytes: a token, a name and a certificate request take less than one.
const HELLO_BYTES_MAX: usize = 4 * 1024;
/// How long a refusal or a certificate may take to arrive before this side goes on all the same.
const DELIVERY_WAIT: Duration = Duration::from_secs(2);

/// A server on a UDP port.
pub struct Server {
    endpoints: Endpoints,
    places: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    limits: ServerLimits,
    role: Role,
}

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, not this machine's, or not allowed: listen on another.
    #[error("failed to listen on {listen}")]
    Socket {
        /// Where.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The credentials are damaged: enrol again.
    #[error("failed to listen as {identity}")]
    Credentials {
        /// Whose they are.
        identity: Box<Identity>,
        /// What is wrong with them.
        source: TlsError,
    },
}

/// Why a client did not get through. The connection is over; there is nothing to do but to log it.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// TLS or QUIC failed: a certificate of another farm, one that has expired, no QUIC at all.
    #[error("failed to connect with {remote}")]
    Connect {
        /// From where.
        remote: SocketAddr,
        /// Why.
        source: ConnectionLost,
    },
    /// The certificate is the farm's, and says nothing that this program knows.
    #[error("{remote} has a certificate that says nothing")]
    Certificate {
        /// From where.
        remote: SocketAddr,
        /// What is wrong with it.
        source: ParseCertificateError,
    },
    /// No Hello came in time.
    #[error("{remote} said no hello within {}s", after.as_secs_f32())]
    TimedOut {
        /// From where.
        remote: SocketAddr,
        /// The limit.
        after: Duration,
    },
    /// What came was no Hello, or the answer did not get through.
    #[error("failed to greet {remote}")]
    Greet {
        /// From where.
        remote: SocketAddr,
        /// What went wrong.
        source: StreamError,
    },
    /// The client is of another version. It has been told so.
    #[error("{remote} speaks protocol {theirs}, this program speaks protocol {ours}")]
    Version {
        /// From where.
        remote: SocketAddr,
        /// The client's.
        theirs: u32,
        /// This program's.
        ours: u32,
    },
}

impl Server {
    /// Listens on `listen`; port 0 means any that is free. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the address cannot be had or the credentials are damaged.
    pub fn bind(
        listen: SocketAddr,
        credentials: &Credentials,
        limits: ServerLimits,
    ) -> Result<Self, BindError> {
        let tls = tls_config(credentials, limits)?;
        let socket = |source| BindError::Socket { listen, source };
        let configure = |ids| endpoint_config(credentials, limits.datagrams, ids);
        let endpoints = Endpoints::bind(listen, limits.endpoints, configure, &tls);
        Ok(Self {
            endpoints: endpoints.map_err(socket)?,
            places: Arc::new(Semaphore::new(limits.connections)),
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            limits,
            role: credentials.identity.role,
        })
    }

    /// Where it listens, with the true port.
    pub const fn local_addr(&self) -> SocketAddr {
        self.endpoints.local_addr()
    }

    /// How many connections each of its endpoints has.
    #[cfg(test)]
    pub(crate) fn connections_by_endpoint(&self) -> Vec<usize> {
        self.endpoints.connections()
    }

    /// The next connection that arrives; `None` after [`close`](Self::close). Those over the limits are
    /// refused on the way.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost.
    pub async fn accept(&self) -> Option<Arriving> {
        loop {
            let incoming = self.endpoints.accept().await?;
            let place = Arc::clone(&self.places).try_acquire_owned();
            let stranger = Arc::clone(&self.strangers).try_acquire_owned();
            let (Ok(place), Ok(stranger)) = (place, stranger) else {
                debug!(remote = %incoming.remote_address(), "connection refused, no room");
                incoming.refuse();
                continue;
            };
            // With half the room for strangers gone, they have to prove that they are where they say.
            let crowded = self.strangers.available_permits() < self.limits.strangers / 2;
            if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
                let _sent = incoming.retry();
                continue;
            }
            return Some(Arriving {
                incoming,
                limits: self.limits,
                role: self.role,
                place,
                stranger,
            });
        }
    }

    /// Ends all connections at once and takes no more.
    pub fn close(&self) {
        let reason = format!("the {} stops", self.role);
        self.endpoints.close(CLOSE_DONE, reason.as_bytes());
    }

    /// Waits until all connections are over and the other sides know, as far as they answer. To be
    /// called after [`close`](Self::close), before the process ends.
    pub async fn idle(&self) {
        self.endpoints.wait_idle().await;
    }

    /// Uses a renewed certificate from the next connection on.
    ///
    /// # Errors
    ///
    /// If the credentials are damaged; the old ones stay in use.
    pub fn replace_credentials(&self, credentials: &Credentials) -> Result<(), BindError> {
        let config = tls_config(credentials, self.limits)?;
        self.endpoints.configure(&config);
        Ok(())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local", &self.local_addr())
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

fn tls_config(
    credentials: &Credentials,
    limits: ServerLimits,
) -> Result<quinn::ServerConfig, BindError> {
    let transport = config::server_transport(limits.datagrams, limits.congestion, limits.windows);
    let config = tls::server(credentials, transport);
    config.map_err(|source| BindError::Credentials {
        identity: Box::new(credentials.identity.clone()),
        source,
    })
}

/// Reset tokens follow from the private key, so that a server that was restarted can tell clients of
/// before at once that they have to connect again.
fn endpoint_config(credentials: &Credentials, datagrams: Datagrams, ids: Ids) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, credentials.key());
    let reset = hmac::sign(&secret, b"grange reset tokens");
    let reset = hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref());
    let config = EndpointConfig::new(Arc::new(reset));
    config::endpoint(config, datagrams, ids)
}

/// A connection that has arrived, before TLS.
pub struct Arriving {
    incoming: quinn::Incoming,
    limits: ServerLimits,
    role: Role,
    place: OwnedSemaphorePermit,
    stranger: OwnedSemaphorePermit,
}

impl Arriving {
    /// Where it comes from, as it says.
    pub fn remote(&self) -> SocketAddr {
        remote(self.incoming.remote_address())
    }

    /// Does TLS and reads the Hello. Clients of another version are refused here, and told both versions.
    ///
    /// # Errors
    ///
    /// If the client does not get through, within the time that it has. The connection is over then.
    pub async fn greet(self) -> Result<Greeting, HandshakeError> {
        let remote = self.remote();
        let after = self.limits.handshake;
        timeout(after, self.greet_in_time())
            .await
            .unwrap_or(Err(HandshakeError::TimedOut { remote, after }))
    }

    async fn greet_in_time(self) -> Result<Greeting, HandshakeError> {
        let remote = self.remote();
        let connect = |error: quinn::ConnectionError| HandshakeError::Connect {
            remote,
            source: error.into(),
        };
        let quic = self
            .incoming
            .accept()
            .map_err(connect)?
            .await
            .map_err(connect)?;
        let certificate = match peer_certificate(&quic) {
            Ok(certificate) => certificate,
            Err(source) => {
                quic.close(CLOSE_REFUSED, b"the certificate says nothing: enrol again");
                return Err(HandshakeError::Certificate { remote, source });
            }
        };
        let (send, receive) = quic.accept_bi().await.map_err(connect)?;
        let mut stream = Stream::new(&quic, send, receive);
        let heard = hear(&mut stream).await;
        let heard = heard.map_err(|source| HandshakeError::Greet { remote, source })?;
        let hello = match heard {
            Heard::Hello(hello) => hello,
            Heard::Version { theirs, program } => {
                let ours = version::PROTOCOL;
                refuse(&quic, stream, other_version(self.role, theirs, &program)).await;
                return Err(HandshakeError::Version {
                    remote,
                    theirs,
                    ours,
                });
            }
        };
        drop(self.stranger);
        Ok(Greeting {
            identity: certificate.as_ref().map(|known| known.identity.clone()),
            certificate,
            purpose: hello.purpose,
            program: hello.program,
            remote,
            quic,
            stream,
            streams: self.limits.streams,
            windows: self.limits.windows,
            place: self.place,
        })
    }
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving")
            .field("remote", &self.remote())
            .finish_non_exhaustive()
    }
}

enum Heard {
    Hello(Hello),
    /// A client of another version. `program` is empty if its Hello cannot be read otherwise.
    Version {
        theirs: u32,
        program: String,
    },
}

async fn hear(stream: &mut Stream) -> Result<Heard, StreamError> {
    let frame = stream.receive.frame(HELLO_BYTES_MAX).await?;
    let frame = frame.ok_or(StreamError::NoAnswer)?;
    // Every version's Hello starts with its number, whatever follows.
    let theirs: u32 = codec::decode_first(&frame)
        .map_err(|source| stream.receive.violation(StreamError::Decode { source }))?;
    let hello: Result<Hello, _> = codec::decode(&frame);
    if theirs != version::PROTOCOL {
        let program = hello.map_or_else(|_unreadable| String::new(), |hello| hello.program);
        return Ok(Heard::Version { theirs, program });
    }
    let hello = hello.map_err(|source| stream.receive.violation(StreamError::Decode { source }))?;
    stream.receive.end().await?;
    Ok(Heard::Hello(hello))
}

fn other_version(role: Role, theirs: u32, program: &str) -> Refusal {
    let program = if program.is_empty() {
        String::new()
    } else {
        format!(" (grange {program})")
    };
    let message = format!(
        "the client speaks protocol {theirs}{program}, the {role} speaks protocol {ours} (grange \
         {ours_program}): install the same version of grange on both",
        ours = version::PROTOCOL,
        ours_program = version::PROGRAM,
    );
    Refusal::new(RefusalCode::FailedPrecondition, message)
}

/// Says why, waits a little for it to arrive, and ends the connection.
async fn refuse(quic: &quinn::Connection, mut stream: Stream, refusal: Refusal) {
    let answer: Result<Welcome, Refusal> = Err(refusal);
    let said = async {
        stream.send.message(&answer).await?;
        stream.send.finish();
        stream.send.stopped().await;
        Ok::<_, StreamError>(())
    };
    let _said_or_not = timeout(DELIVERY_WAIT, said).await;
    if let Err(refusal) = answer {
        quic.close(CLOSE_REFUSED, refusal.message.as_bytes());
    }
}

/// A client that has said who it is and what it wants, and waits for an answer.
///
/// Dropped, it ends the connection without a word.
pub struct Greeting {
    /// Who it is, as its certificate says; `None`: it has none. Such a client may only
    /// [enrol](Purpose::Enrol); everything else is refused with a message.
    pub identity: Option<Identity>,
    /// What else its certificate says: when it was issued, which is what revocations go by.
    pub certificate: Option<Certificate>,
    /// What it wants. May hold the secret of a join token.
    pub purpose: Purpose,
    /// The client's version of grange, for messages.
    pub program: String,
    /// From where it comes.
    pub remote: SocketAddr,
    quic: quinn::Connection,
    stream: Stream,
    streams: u32,
    windows: Windows,
    place: OwnedSemaphorePermit,
}

impl Greeting {
    /// Lets this client have so many streams open at once, in place of what the server lets all have.
    #[must_use]
    pub const fn with_streams(mut self, streams: u32) -> Self {
        self.streams = streams;
        self
    }

    /// Lets the client in, with the certificate that it asked for, if it did. A client without a
    /// certificate gets the new one and nothing else: it comes back with it. When this returns a
    /// certificate has arrived, or is late; the connection may be dropped.
    ///
    /// # Errors
    ///
    /// If the client is gone.
    pub async fn welcome(
        mut self,
        certificate: Option<IssuedCertificate>,
    ) -> Result<Connection, HandshakeError> {
        let issues = certificate.is_some();
        let answer: Result<Welcome, Refusal> = Ok(Welcome {
            protocol: version::PROTOCOL,
            program: version::PROGRAM.to_owned(),
            certificate,
        });
        if self.identity.is_some() {
            config::admit(&self.quic, self.streams, self.windows);
        }
        let sent = self.stream.send.message(&answer).await;
        sent.map_err(|source| HandshakeError::Greet {
            remote: self.remote,
            source,
        })?;
        self.stream.send.finish();
        if issues {
            let _late = timeout(DELIVERY_WAIT, self.stream.send.stopped()).await;
        }
        Ok(Connection::new(
            self.quic,
            self.certificate,
            Some(self.place),
        ))
    }

    /// The stream of the Hello, for a test that answers otherwise.
    #[cfg(test)]
    pub(crate) const fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Turns the client away. It gets the refusal; this returns when it has, or after a little while.
    pub async fn refuse(self, refusal: Refusal) {
        debug!(remote = %self.remote, refusal = %refusal.message, "client refused");
        refuse(&self.quic, self.stream, refusal).await;
    }
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeting")
            .field("identity", &self.identity)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}
