//! What a member of a farm holds: its key, its certificate, and what it knows of the farm.

use std::{fmt, path::Path, time::Duration};

use protocol::{
    access::Identity, digest::hex, message::handshake::IssuedCertificate, time::WallTime,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::{
    authority::{Authority, IssueError, fingerprint},
    certificate::{self, Certificate, ParseCertificateError},
    files::{self, Existing, KeepError},
    grant::{GrantKeyError, GrantVerifier},
};

/// The file in a member's directory.
const FILE: &str = "identity.pem";
const TAGS: [&str; 4] = ["CERTIFICATE", "PRIVATE KEY", "CERTIFICATE", "GRANT KEY"];

/// A member's key and certificate, the authority that it trusts, and the key that checks grants.
#[derive(Clone)]
pub struct Credentials {
    /// Who holds them, as the certificate says.
    pub identity: Identity,
    facts: Certificate,
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Vec<u8>,
    grant_key: Vec<u8>,
}

/// Why parts do not make credentials. Enrol again.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The certificate is none.
    #[error("certificate cannot be read")]
    Certificate {
        /// What is wrong with it.
        #[from]
        source: ParseCertificateError,
    },
    /// The key is none.
    #[error("private key cannot be read")]
    Key {
        /// What the library says.
        source: rcgen::Error,
    },
    /// The certificate is for another key.
    #[error("certificate of {identity} is for another key")]
    OtherKey {
        /// Whom it names.
        identity: Box<Identity>,
    },
    /// The certificate names somebody else than the message that it came in.
    #[error("certificate names {found}, expected {expected}")]
    OtherIdentity {
        /// Whom the message names.
        expected: Box<Identity>,
        /// Whom the certificate names.
        found: Box<Identity>,
    },
    /// The key that checks grants is none.
    #[error("key that checks grants cannot be read")]
    GrantKey {
        /// What is wrong with it.
        #[from]
        source: GrantKeyError,
    },
}

/// Why an authority's holder could not make credentials.
#[derive(Debug, thiserror::Error)]
pub enum SelfIssueError {
    /// No key could be made; the system is short of something.
    #[error("failed to make a key")]
    Key {
        /// What the library says.
        source: rcgen::Error,
    },
    /// The authority did not issue.
    #[error("failed to issue a certificate")]
    Issue {
        /// Why.
        #[from]
        source: IssueError,
    },
    /// The parts do not fit.
    #[error("failed to put credentials together")]
    Credentials {
        /// How.
        #[from]
        source: CredentialsError,
    },
}

impl Credentials {
    /// The credentials that are kept in `dir`; `None` if there are none.
    ///
    /// They may have expired; see [`valid_until`](Self::valid_until).
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is damaged.
    pub fn load(dir: &Path) -> Result<Option<Self>, KeepError> {
        let path = dir.join(FILE);
        let Some([certificate, key, authority, grant_key]) = files::read(&path, TAGS)? else {
            return Ok(None);
        };
        let credentials = Self::assemble(certificate, key, authority, grant_key)
            .map_err(|error| KeepError::damaged(&path, error.to_string()))?;
        Ok(Some(credentials))
    }

    /// Keeps them in `dir`, in place of what is there. When this returns they are on the disk.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), KeepError> {
        let [certificate, key, authority, grant_key] = TAGS;
        let parts = [
            (certificate, self.certificate.clone()),
            (key, self.key.clone()),
            (authority, self.authority.clone()),
            (grant_key, self.grant_key.clone()),
        ];
        files::write(&dir.join(FILE), &parts, Existing::Replace)
    }

    /// Credentials straight from the authority, for whoever holds it: the coordinator itself, and the
    /// members of a farm in one process. `grant_key` is the [`GrantSigner`](crate::GrantSigner)'s public
    /// key.
    ///
    /// # Errors
    ///
    /// If the name is not acceptable or the library fails.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    pub fn self_issued(
        authority: &Authority,
        identity: Identity,
        grant_key: &[u8],
        now: WallTime,
        lifetime: Duration,
    ) -> Result<Self, SelfIssueError> {
        let request = Request::new().map_err(|source| SelfIssueError::Key { source })?;
        let certificate = authority.issue(&request.der, &identity, now, lifetime)?;
        let issued = IssuedCertificate {
            identity,
            certificate,
            authority: authority.certificate().to_vec(),
            grant_key: grant_key.to_vec(),
        };
        Ok(request.complete(issued)?)
    }

    /// When to get a new certificate: at half of this one's life.
    pub fn renew_at(&self) -> WallTime {
        let life = self.facts.valid_until.since(self.facts.valid_from);
        self.facts.valid_from + life / 2
    }

    /// From when the certificate counts.
    pub const fn valid_from(&self) -> WallTime {
        self.facts.valid_from
    }

    /// Until when the certificate counts.
    pub const fn valid_until(&self) -> WallTime {
        self.facts.valid_until
    }

    /// The certificate's number, in lower-case hex.
    pub fn serial(&self) -> &str {
        &self.facts.serial
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The authority's certificate, DER.
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// The [`fingerprint`](Authority::fingerprint) of the authority: which farm this is.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.authority)
    }

    /// The key that checks grants, 32 bytes; for [`GrantVerifier::new`].
    pub fn grant_key(&self) -> &[u8] {
        &self.grant_key
    }

    /// The same, saying that another authority issued them: an impostor's.
    #[cfg(test)]
    pub(crate) fn with_authority(mut self, authority: &[u8]) -> Self {
        self.authority = authority.to_vec();
        self
    }

    /// The private key, PKCS#8 DER.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Puts credentials together from parts that fit.
    fn assemble(
        certificate: Vec<u8>,
        key: Vec<u8>,
        authority: Vec<u8>,
        grant_key: Vec<u8>,
    ) -> Result<Self, CredentialsError> {
        let facts = Certificate::parse(&certificate)?;
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(key.as_slice()),
            &PKCS_ECDSA_P256_SHA256,
        )
        .map_err(|source| CredentialsError::Key { source })?;
        if certificate::public_key(&certificate)? != pair.public_key_raw() {
            return Err(CredentialsError::OtherKey {
                identity: Box::new(facts.identity),
            });
        }
        GrantVerifier::new(&grant_key)?;
        Ok(Self {
            identity: facts.identity.clone(),
            facts,
            certificate,
            key,
            authority,
            grant_key,
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("certificate", &self.facts)
            .field("key", &format_args!("[redacted]"))
            .field("fingerprint", &hex(&self.fingerprint()))
            .finish_non_exhaustive()
    }
}

/// A new key and the request for a certificate for it. The key stays here.
pub(crate) struct Request {
    /// PKCS#10, DER.
    pub(crate) der: Vec<u8>,
    key: Vec<u8>,
}

impl Request {
    pub(crate) fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?;
        Ok(Self {
            der: request.der().to_vec(),
            key: key.serialize_der(),
        })
    }

    /// The credentials, now that the certificate is there.
    pub(crate) fn complete(
        self,
        issued: IssuedCertificate,
    ) -> Result<Credentials, CredentialsError> {
        let credentials = Credentials::assemble(
            issued.certificate,
            self.key,
            issued.authority,
            issued.grant_key,
        )?;
        if credentials.identity != issued.identity {
            return Err(CredentialsError::OtherIdentity {
                expected: Box::new(issued.identity),
                found: Box::new(credentials.identity),
            });
        }
        Ok(credentials)
    }
}
