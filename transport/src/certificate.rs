//! What a certificate says: who holds it, its serial number, from when until when.
//!
//! The subject is the identity: O is the team, OU the role, CN the name. Nothing here verifies a
//! signature; TLS has done so before anybody asks.

use protocol::{
    access::{Identity, ParseRoleError},
    digest,
    name::NameError,
    time::WallTime,
};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time, x509::X509Name,
};

use crate::authority::CLOCK_SKEW;

/// What a certificate says about its holder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    /// Who holds it.
    pub identity: Identity,
    /// Its number, in lower-case hex; the authority gives none twice.
    pub serial: String,
    /// From when it counts: a little before it was issued.
    pub valid_from: WallTime,
    /// Until when it counts.
    pub valid_until: WallTime,
}

/// Why bytes are no certificate of a member of a farm. Who holds it enrols again.
#[derive(Debug, thiserror::Error)]
pub enum ParseCertificateError {
    /// They are no X.509 certificate.
    #[error("{bytes} bytes are no X.509 certificate")]
    Malformed {
        /// How many there are.
        bytes: usize,
    },
    /// The subject has no such attribute, or several.
    #[error("certificate has {found} {attribute} in its subject, expected one")]
    Attribute {
        /// Which: organization, organizational unit or common name.
        attribute: &'static str,
        /// How many there are.
        found: usize,
    },
    /// The organization is no team.
    #[error("certificate's organization is no team")]
    Team {
        /// What is wrong with it.
        source: NameError,
    },
    /// The organizational unit is no role.
    #[error("certificate's organizational unit is no role")]
    Role {
        /// What is wrong with it.
        source: ParseRoleError,
    },
}

impl Certificate {
    /// When it was issued, in whole seconds, by the authority's clock. What was issued up to some moment
    /// can be [revoked](protocol::access::Revocation).
    pub fn issued(&self) -> WallTime {
        self.valid_from + CLOCK_SKEW
    }

    /// Reads a certificate in DER.
    ///
    /// # Errors
    ///
    /// If it is none, or its subject is no [`Identity`].
    pub fn parse(der: &[u8]) -> Result<Self, ParseCertificateError> {
        let certificate = parse_x509(der)?;
        let validity = certificate.validity();
        Ok(Self {
            identity: identity(certificate.subject())?,
            serial: digest::hex(significant(certificate.raw_serial())),
            valid_from: wall_time(validity.not_before),
            valid_until: wall_time(validity.not_after),
        })
    }
}

/// What the other side's certificate says; `None`: it has none.
pub(crate) fn peer_certificate(
    quic: &quinn::Connection,
) -> Result<Option<Certificate>, ParseCertificateError> {
    let Some(chain) = quic.peer_identity() else {
        return Ok(None);
    };
    let chain: Box<Vec<rustls::pki_types::CertificateDer<'static>>> = chain
        .downcast()
        .expect("quinn's identities from rustls are chains of certificates");
    chain
        .first()
        .map(|certificate| Certificate::parse(certificate))
        .transpose()
}

/// The public key that a certificate is about, as its bit string.
pub(crate) fn public_key(der: &[u8]) -> Result<Vec<u8>, ParseCertificateError> {
    let certificate = parse_x509(der)?;
    Ok(certificate.public_key().subject_public_key.data.to_vec())
}

fn parse_x509(der: &[u8]) -> Result<X509Certificate<'_>, ParseCertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(ParseCertificateError::Malformed { bytes: der.len() }),
    }
}

fn identity(subject: &X509Name<'_>) -> Result<Identity, ParseCertificateError> {
    let team = one(
        "organization",
        subject.iter_organization().map(|value| value.as_str().ok()),
    )?;
    let role = one(
        "organizational unit",
        subject
            .iter_organizational_unit()
            .map(|value| value.as_str().ok()),
    )?;
    let name = one(
        "common name",
        subject.iter_common_name().map(|value| value.as_str().ok()),
    )?;
    Ok(Identity {
        team: team
            .parse()
            .map_err(|source| ParseCertificateError::Team { source })?,
        role: role
            .parse()
            .map_err(|source| ParseCertificateError::Role { source })?,
        name: name.to_owned(),
    })
}

/// The one value there may be: with two, two readers could believe two things.
fn one<'a>(
    attribute: &'static str,
    values: impl Iterator<Item = Option<&'a str>>,
) -> Result<&'a str, ParseCertificateError> {
    let values: Vec<_> = values.collect();
    match values[..] {
        [Some(value)] => Ok(value),
        _ => Err(ParseCertificateError::Attribute {
            attribute,
            found: values.len(),
        }),
    }
}

/// A number without the zero bytes that DER puts before it to keep it positive.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Moments before 1970 are none that this program gives out.
fn wall_time(time: ASN1Time) -> WallTime {
    WallTime(
        u64::try_from(time.timestamp())
            .unwrap_or(0)
            .saturating_mul(1000),
    )
}
