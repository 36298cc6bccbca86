//! How a connection starts: versions are compared, and who has no certificate yet gets one.
//!
//! The first stream of each connection carries one [`Hello`] and its answer. A connection without a
//! certificate may only enrol.

use serde::{Deserialize, Serialize};

use crate::access::Identity;

/// The first message of a client.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// [`version::PROTOCOL`](crate::version::PROTOCOL) of the client.
    pub protocol: u32,
    /// [`version::PROGRAM`](crate::version::PROGRAM) of the client, for messages.
    pub program: String,
    /// What the client wants.
    pub purpose: Purpose,
}

/// What a connection is for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Purpose {
    /// Requests, by whom the certificate says.
    Requests,
    /// A first certificate for a join token; the connection has none.
    Enrol {
        /// The secret part of the token, in its text form.
        token: String,
        /// A PKCS#10 certificate signing request in DER. Only its key is used.
        request: Vec<u8>,
        /// What the new member is to be called.
        name: String,
    },
    /// A new certificate for the identity that the connection's certificate says.
    Renew {
        /// As for [`Purpose::Enrol`].
        request: Vec<u8>,
    },
}

/// The answer to [`Hello`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Welcome {
    /// [`version::PROTOCOL`](crate::version::PROTOCOL) of the server.
    pub protocol: u32,
    /// [`version::PROGRAM`](crate::version::PROGRAM) of the server, for messages.
    pub program: String,
    /// The new certificate, if one was asked for.
    pub certificate: Option<IssuedCertificate>,
}

/// A certificate, fresh from the farm's authority.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct IssuedCertificate {
    /// Whom it names.
    pub identity: Identity,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The authority's own certificate, DER.
    pub authority: Vec<u8>,
    /// The key that checks the signatures of grants: an Ed25519 public key, 32 bytes.
    pub grant_key: Vec<u8>,
}
