//! How members get certificates: the first for a join token, further ones for the one before.

use std::net::SocketAddr;

use protocol::{
    access::{Identity, Role},
    digest::hex,
    message::handshake::Purpose,
};

use crate::{
    client::{ClientError, endpoint},
    credentials::{Credentials, CredentialsError, Request},
    datagrams::Datagrams,
    dial::{CONNECT_LIMIT, ConnectError, Dial},
    tls::{self, Pinned, TlsError},
    token::JoinToken,
};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No key could be made; the system is short of something.
    #[error("failed to make a key")]
    Key {
        /// What the library says.
        source: rcgen::Error,
    },
    /// There is no socket, or the credentials to renew are damaged.
    #[error("failed to make a client")]
    Client {
        /// Why.
        #[from]
        source: ClientError,
    },
    /// TLS cannot be set up.
    #[error("failed to set up TLS")]
    Tls {
        /// Why.
        #[from]
        source: TlsError,
    },
    /// The token is for another farm than the one at the address: take the token and the address from
    /// the same farm.
    #[error(
        "the join token is for the farm with the authority {fingerprint}…, and {addr} belongs to another \
         farm; take the token and the address from the same farm"
    )]
    OtherFarm {
        /// Where.
        addr: SocketAddr,
        /// The first digits of the fingerprint in the token.
        fingerprint: String,
    },
    /// The coordinator was not reached, or refused: the token is unknown, over or revoked, the name is taken,
    /// or the member was revoked.
    #[error("failed to get a certificate for `{name}`")]
    Connect {
        /// For whom.
        name: String,
        /// Why.
        source: Box<ConnectError>,
    },
    /// The coordinator welcomed without a certificate: it is broken.
    #[error("the coordinator at {addr} gave `{name}` no certificate")]
    NotIssued {
        /// For whom.
        name: String,
        /// Where it is.
        addr: SocketAddr,
    },
    /// The coordinator gave what is no certificate for this member: it is broken.
    #[error("the coordinator at {addr} gave `{name}` a certificate that does not serve")]
    Issued {
        /// For whom.
        name: String,
        /// Where it is.
        addr: SocketAddr,
        /// What is wrong with it.
        source: Box<CredentialsError>,
    },
    /// The coordinator gave a certificate of another farm: it is broken.
    #[error("the coordinator at {addr} gave `{name}` a certificate of another farm")]
    OtherAuthority {
        /// For whom.
        name: String,
        /// Where it is.
        addr: SocketAddr,
    },
}

/// Joins the farm whose coordinator is at `addr`: buys a certificate with a token. The token says which
/// farm it has to be, so that nobody else can take the newcomer in; the private key stays here. `name`
/// is what the member is to be called; team and role are what the token buys.
///
/// # Errors
///
/// If the coordinator is not reached, is of another farm, or refuses the token.
///
/// # Cancel safety
///
/// The name may be taken for this team; it can be asked for again until its certificate is used.
pub async fn enrol(
    addr: SocketAddr,
    token: &JoinToken,
    name: &str,
) -> Result<Credentials, EnrolError> {
    let pinned = Pinned::new(token.fingerprint);
    let config = tls::newcomer(&pinned)?;
    let request = Request::new().map_err(|source| EnrolError::Key { source })?;
    let purpose = Purpose::Enrol {
        token: token.secret_text(),
        request: request.der.clone(),
        name: name.to_owned(),
    };
    let order = Order {
        addr,
        name,
        identity: None,
        fingerprint: token.fingerprint,
    };
    let outcome = order.place(config, purpose, request).await;
    if pinned.met_another_farm() {
        return Err(EnrolError::OtherFarm {
            addr,
            fingerprint: hex(&token.fingerprint[..4]),
        });
    }
    outcome
}

/// Gets a new certificate, for a new key, for the same identity; from [`Credentials::renew_at`] on, and
/// before [`Credentials::valid_until`].
///
/// # Errors
///
/// If the coordinator is not reached or refuses.
///
/// # Cancel safety
///
/// The old credentials go on counting.
pub async fn renew(addr: SocketAddr, credentials: &Credentials) -> Result<Credentials, EnrolError> {
    let config = tls::member(credentials)?;
    let request = Request::new().map_err(|source| EnrolError::Key { source })?;
    let purpose = Purpose::Renew {
        request: request.der.clone(),
    };
    let order = Order {
        addr,
        name: &credentials.identity.name,
        identity: Some(&credentials.identity),
        fingerprint: credentials.fingerprint(),
    };
    order.place(config, purpose, request).await
}

/// What is asked of which coordinator.
struct Order<'a> {
    addr: SocketAddr,
    name: &'a str,
    /// Who asks; `None`: somebody whom the farm does not know yet.
    identity: Option<&'a Identity>,
    fingerprint: [u8; 32],
}

impl Order<'_> {
    async fn place(
        &self,
        config: quinn::ClientConfig,
        purpose: Purpose,
        request: Request,
    ) -> Result<Credentials, EnrolError> {
        let (addr, name) = (self.addr, self.name.to_owned());
        let endpoint = endpoint(Datagrams::default())?;
        let dial = Dial {
            endpoint: &endpoint,
            identity: self.identity,
            addr,
            service: Role::Coordinator,
            limit: CONNECT_LIMIT,
        };
        let dialled = dial.connect(config, purpose).await;
        let (connection, welcome) = dialled.map_err(|source| EnrolError::Connect {
            name: name.clone(),
            source: Box::new(source),
        })?;
        connection.close("the certificate has arrived");
        // The coordinator learns of the end before this process does something else, or ends.
        endpoint.wait_idle().await;
        let Some(issued) = welcome.certificate else {
            return Err(EnrolError::NotIssued { name, addr });
        };
        let credentials = request
            .complete(issued)
            .map_err(|source| EnrolError::Issued {
                name: name.clone(),
                addr,
                source: Box::new(source),
            })?;
        if credentials.fingerprint() != self.fingerprint {
            return Err(EnrolError::OtherAuthority { name, addr });
        }
        Ok(credentials)
    }
}
