//! The farm's certificate authority: who holds its key says who is who.
//!
//! Private keys never travel: a member makes its own, and asks for a certificate with a signing request.
//! Of the request only the key counts; the identity is what the coordinator decides.

use std::{fmt, path::Path, time::Duration};

use aws_lc_rs::{digest, rand};
use protocol::{
    access::{Identity, Role},
    digest::hex,
    name::NAME_BYTES_MAX,
    time::WallTime,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};

use crate::files::{self, Existing, KeepError};

/// The file in an authority's directory.
const FILE: &str = "authority.pem";
const CERTIFICATE_TAG: &str = "CERTIFICATE";
const KEY_TAG: &str = "PRIVATE KEY";
/// A point of P-256, not compressed: a byte and two coordinates.
const KEY_POINT_BYTES: usize = 65;
/// RFC 5280 allows 20 bytes; 16 random ones never meet.
const SERIAL_BYTES: usize = 16;
/// How long before its issue a certificate counts: a machine whose clock is late by as much can use it.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(10 * 60);
/// The last second that X.509 can say, 9999-12-31 23:59:59, in seconds since 1970.
const LAST_SECOND: u64 = 253_402_300_799;

/// The farm's certificate authority. Its certificate does not expire; those it issues do.
pub struct Authority {
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key or the certificate could not be made; the system is short of something.
    #[error("failed to make a certificate authority")]
    Make {
        /// What the library says.
        source: rcgen::Error,
    },
    /// The file could not be read or written, or is damaged: restore it from a backup. A new authority
    /// means that every member has to enrol again.
    #[error("failed to keep the certificate authority")]
    Keep {
        /// What happened to which file.
        #[from]
        source: KeepError,
    },
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is no signing request, or not signed by the key that it names. Refuse it.
    #[error("request of {bytes} bytes is no certificate signing request")]
    Request {
        /// How long it is.
        bytes: usize,
        /// What the library says.
        source: rcgen::Error,
    },
    /// The request's key is of another kind. Refuse it.
    #[error("request has no ECDSA key over P-256")]
    KeyKind,
    /// Nobody may be called so. Refuse it with this message.
    #[error(
        "name of {bytes} bytes is empty, over {NAME_BYTES_MAX} bytes or holds control characters"
    )]
    Name {
        /// How long it is.
        bytes: usize,
    },
    /// Signing failed.
    #[error("failed to sign the certificate of {identity}")]
    Sign {
        /// Whose.
        identity: Box<Identity>,
        /// What the library says.
        source: rcgen::Error,
    },
}

impl Authority {
    /// A new authority, kept nowhere.
    ///
    /// # Errors
    ///
    /// If the library fails.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    pub fn create() -> Result<Self, AuthorityError> {
        let make = |source| AuthorityError::Make { source };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // A name of its own, so that another farm's certificates are told from forged ones.
        let name = format!("Grange authority {}", hex(&random::<8>()));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params.serial_number = Some(serial());
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(9999, 12, 31);
        let certificate = params.self_signed(&key).map_err(make)?.der().to_vec();
        Ok(Self {
            issuer: issuer(&certificate, key).map_err(make)?,
            certificate,
        })
    }

    /// The authority that is kept in `dir`; a new one the first time.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, or is damaged.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    pub fn load_or_create(dir: &Path) -> Result<Self, AuthorityError> {
        let path = dir.join(FILE);
        if let Some(authority) = Self::load(&path)? {
            return Ok(authority);
        }
        let authority = Self::create()?;
        let parts = [
            (CERTIFICATE_TAG, authority.certificate.clone()),
            (KEY_TAG, authority.issuer.key().serialize_der()),
        ];
        files::write(&path, &parts, Existing::Keep)?;
        // Whoever was first wins, so that two starts at once do not make two farms.
        Ok(Self::load(&path)?.unwrap_or(authority))
    }

    fn load(path: &Path) -> Result<Option<Self>, KeepError> {
        let Some([certificate, key]) = files::read(path, [CERTIFICATE_TAG, KEY_TAG])? else {
            return Ok(None);
        };
        let damaged = |error: rcgen::Error| KeepError::damaged(path, error.to_string());
        let key = PrivatePkcs8KeyDer::from(key);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(damaged)?;
        let issuer = issuer(&certificate, key).map_err(damaged)?;
        Ok(Some(Self {
            certificate,
            issuer,
        }))
    }

    /// The authority's own certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// What join tokens name: the SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256`
    /// prints it.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// Checks a request, without issuing anything for it.
    ///
    /// # Errors
    ///
    /// If it is none, or for a key of another kind.
    pub fn check_request(&self, request_der: &[u8]) -> Result<(), IssueError> {
        request_key(request_der).map(drop)
    }

    /// A certificate for the key of a PKCS#10 request in DER, saying `identity`, DER. It counts from ten
    /// minutes before `now` (clocks differ) until `lifetime` after it.
    ///
    /// Only certificates of the coordinator and of the cache are for servers, and carry the name that
    /// clients ask for: nobody else can pose as them. Whoever calls this decides that `identity` is
    /// right; nothing else of the request counts.
    ///
    /// # Errors
    ///
    /// If the request or the name is not acceptable, or signing fails.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    pub fn issue(
        &self,
        request_der: &[u8],
        identity: &Identity,
        now: WallTime,
        lifetime: Duration,
    ) -> Result<Vec<u8>, IssueError> {
        let key = request_key(request_der)?;
        let name = &identity.name;
        if name.is_empty() || NAME_BYTES_MAX < name.len() || name.chars().any(char::is_control) {
            return Err(IssueError::Name { bytes: name.len() });
        }
        let mut params = subject(identity);
        params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now, Lean::Before(CLOCK_SKEW));
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970(now, Lean::After(lifetime));
        let sign = |source| IssueError::Sign {
            identity: Box::new(identity.clone()),
            source,
        };
        if let Some(name) = server_name(identity.role) {
            let name = name.try_into().map_err(sign)?;
            params.subject_alt_names = vec![SanType::DnsName(name)];
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(sign)?;
        Ok(certificate.der().to_vec())
    }
}

/// The key that a certificate is asked for.
fn request_key(request_der: &[u8]) -> Result<rcgen::PublicKey, IssueError> {
    let der = CertificateSigningRequestDer::from(request_der);
    let request =
        CertificateSigningRequestParams::from_der(&der).map_err(|source| IssueError::Request {
            bytes: request_der.len(),
            source,
        })?;
    let key = request.public_key;
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != KEY_POINT_BYTES {
        return Err(IssueError::KeyKind);
    }
    Ok(key)
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("fingerprint", &hex(&self.fingerprint()))
            .finish_non_exhaustive()
    }
}

/// The name under which clients look for a service; `None` for roles that do not serve.
pub(crate) const fn server_name(role: Role) -> Option<&'static str> {
    match role {
        Role::Coordinator => Some("coordinator.grange"),
        Role::Cache => Some("cache.grange"),
        Role::Worker | Role::Admin | Role::Ci | Role::Developer => None,
    }
}

/// SHA-256 of a certificate's DER.
pub(crate) fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, certificate);
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The parameters of a member's certificate that follow from who it is.
fn subject(identity: &Identity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let subject = &mut params.distinguished_name;
    subject.push(DnType::OrganizationName, identity.team.as_str());
    subject.push(DnType::OrganizationalUnitName, identity.role.as_str());
    subject.push(DnType::CommonName, identity.name.as_str());
    params.serial_number = Some(serial());
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn issuer(certificate: &[u8], key: KeyPair) -> Result<Issuer<'static, KeyPair>, rcgen::Error> {
    Issuer::from_ca_cert_der(&CertificateDer::from(certificate), key)
}

enum Lean {
    Before(Duration),
    After(Duration),
}

/// A moment near `now`, within what X.509 can say.
fn since_1970(now: WallTime, lean: Lean) -> Duration {
    let now = Duration::from_millis(now.0);
    let moment = match lean {
        Lean::Before(skew) => now.saturating_sub(skew),
        Lean::After(lifetime) => now.saturating_add(lifetime),
    };
    Duration::from_secs(moment.as_secs().min(LAST_SECOND))
}

/// A serial number that no other certificate has. The top bit stays clear: numbers are positive.
fn serial() -> SerialNumber {
    let mut bytes = random::<SERIAL_BYTES>();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests;
