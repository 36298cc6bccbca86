//! The side that connects.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use protocol::{
    access::{Identity, Role},
    message::handshake::Purpose,
};
use quinn::EndpointConfig;

use crate::{
    config::{self, Ids},
    congestion::Congestion,
    connection::{CLOSE_DONE, Connection},
    credentials::Credentials,
    datagrams::Datagrams,
    dial::{CONNECT_LIMIT, ConnectError, Dial},
    socket::Tokio,
    tls::{self, TlsError},
};

/// A member of a farm that connects to its services, each time from a UDP port of its own.
#[derive(Clone)]
pub struct Client {
    ports: Arc<Mutex<Ports>>,
    config: Arc<RwLock<quinn::ClientConfig>>,
    identity: Arc<Identity>,
    datagrams: Datagrams,
}

/// The ports of a client's connections.
#[derive(Debug, Default)]
struct Ports {
    /// Those of connections that were open, or about to be, when the last was made. Whoever connects has a token of
    /// it.
    all: Vec<(quinn::Endpoint, Arc<()>)>,
    /// Nobody connects any more.
    is_closed: bool,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The system gives no UDP socket.
    #[error("failed to open a UDP socket")]
    Socket {
        /// What it says.
        source: io::Error,
    },
    /// The credentials are damaged: enrol again.
    #[error("failed to use the credentials of {identity}")]
    Credentials {
        /// Whose they are.
        identity: Box<Identity>,
        /// What is wrong with them.
        source: TlsError,
    },
}

impl Client {
    /// A client with these credentials. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the credentials are damaged.
    pub fn new(credentials: &Credentials) -> Result<Self, ClientError> {
        Self::with_datagrams(credentials, Datagrams::default())
    }

    /// As [`new`](Self::new), with datagrams like these.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_datagrams(
        credentials: &Credentials,
        datagrams: Datagrams,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            config: Arc::new(RwLock::new(member(credentials, datagrams)?)),
            ports: Arc::default(),
            identity: Arc::new(credentials.identity.clone()),
            datagrams,
        })
    }

    /// Whose credentials these are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Connects to the coordinator or the cache at `addr`, and greets it. Takes ten seconds at most.
    ///
    /// # Errors
    ///
    /// If it is not there, is not of this farm, or does not want this client.
    ///
    /// # Cancel safety
    ///
    /// The connection ends.
    pub async fn connect(
        &self,
        addr: SocketAddr,
        service: Role,
    ) -> Result<Connection, ConnectError> {
        let config = self.current();
        let port = self.port();
        let (endpoint, _token) = port.map_err(|source| ConnectError::Socket { addr, source })?;
        let dial = Dial {
            endpoint: &endpoint,
            identity: Some(&self.identity),
            addr,
            service,
            limit: CONNECT_LIMIT,
        };
        let (connection, _welcome) = dial.connect(config, Purpose::Requests).await?;
        Ok(connection)
    }

    /// Uses a renewed certificate from the next connection on, in all clones. The identity stays.
    ///
    /// # Errors
    ///
    /// If the credentials are damaged; the old ones stay in use.
    pub fn replace_credentials(&self, credentials: &Credentials) -> Result<(), ClientError> {
        let config = member(credentials, self.datagrams)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn current(&self) -> quinn::ClientConfig {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        config.clone()
    }

    /// An endpoint for one connection, and what keeps it in mind; those of connections that are over go.
    fn port(&self) -> Result<(quinn::Endpoint, Arc<()>), ClientError> {
        let endpoint = endpoint(self.datagrams)?;
        let token = Arc::new(());
        let mut ports = self.ports();
        ports.all.retain(|(endpoint, token)| {
            endpoint.open_connections() != 0 || 1 < Arc::strong_count(token)
        });
        if ports.is_closed {
            endpoint.close(CLOSE_DONE, b"the client stops");
        }
        ports.all.push((endpoint.clone(), Arc::clone(&token)));
        Ok((endpoint, token))
    }

    /// Those of its connections.
    #[cfg(test)]
    pub(crate) fn endpoints(&self) -> Vec<quinn::Endpoint> {
        let ports = self.ports();
        ports.all.iter().map(|(one, _)| one.clone()).collect()
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        // Every change to them is one step.
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all connections of this client and its clones, for good.
    pub fn close(&self) {
        let mut ports = self.ports();
        ports.is_closed = true;
        for (endpoint, _) in &ports.all {
            endpoint.close(CLOSE_DONE, b"the client stops");
        }
    }

    /// Waits until all connections are over and the servers know, as far as they answer. To be called
    /// before the process ends.
    pub async fn idle(&self) {
        let endpoints: Vec<quinn::Endpoint> = {
            let ports = self.ports();
            ports.all.iter().map(|(one, _)| one.clone()).collect()
        };
        for endpoint in endpoints {
            endpoint.wait_idle().await;
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

fn member(
    credentials: &Credentials,
    datagrams: Datagrams,
) -> Result<quinn::ClientConfig, ClientError> {
    let config = tls::member(credentials).map_err(|source| ClientError::Credentials {
        identity: Box::new(credentials.identity.clone()),
        source,
    });
    let mut config = config?;
    let congestion = Congestion::default();
    config.transport_config(config::client_transport(datagrams, congestion));
    Ok(config)
}

/// A UDP port of a client.
pub(crate) fn endpoint(datagrams: Datagrams) -> Result<quinn::Endpoint, ClientError> {
    let config = config::endpoint(EndpointConfig::default(), datagrams, Ids::ALONE);
    config::socket_to_anywhere()
        .and_then(|socket| quinn::Endpoint::new(config, None, socket, Arc::new(Tokio)))
        .map_err(|source| ClientError::Socket { source })
}
