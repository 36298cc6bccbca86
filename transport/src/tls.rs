//! TLS 1.3 as the farm speaks it: one authority, one protocol name, no early data.
//!
//! Sessions are resumed, without early data: who comes back soon, or opens several connections for bulk,
//! exchanges no certificates. A resumed connection carries those that were shown first, so whoever admits
//! members looks at their dates and at what was revoked each time; a server that has a new certificate knows
//! no session of before, so a client does not look at a server's again.

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier},
    version::TLS13,
};

use crate::{
    authority::fingerprint, config, congestion::Congestion, credentials::Credentials,
    datagrams::Datagrams,
};

/// What both sides say in ALPN. It stays when [`PROTOCOL`](protocol::version::PROTOCOL) moves, so that
/// programs of two versions get as far as telling each other their versions.
pub(crate) const ALPN: &[u8] = b"grange/1";

/// How many sessions a server remembers, in about 3 KiB each: eight each for 256 members, which is what a client
/// with four connections has.
const SERVER_SESSIONS_MAX: usize = 2048;
/// How many sessions a client remembers: rustls keeps eight for each server, and a farm has two.
const CLIENT_SESSIONS_MAX: usize = 2 * 8;
/// How many tickets a server gives with each connection: a client that comes back from a lost network may open
/// one for control and one for bulk at once, and each ticket is good for one.
const TICKETS: usize = 2;

/// Why credentials cannot be used for TLS: they are damaged. Enrol again.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate and the key do not serve.
    #[error("TLS does not take the certificate or the key")]
    Certificate {
        /// What the library says.
        #[from]
        source: rustls::Error,
    },
    /// The authority's certificate does not serve.
    #[error("TLS does not take the authority's certificate")]
    Authority {
        /// What the library says.
        #[from]
        source: VerifierBuilderError,
    },
    /// The library lacks the cipher that QUIC starts with.
    #[error("TLS has no cipher to start with")]
    Cipher {
        /// What the library says.
        #[from]
        source: NoInitialCipherSuite,
    },
}

/// aws-lc-rs, with AES-128-GCM first: it is the fastest on processors with AES instructions, and the
/// keys of a connection do not outlive it.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn roots(authority: &[u8]) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.to_vec()))?;
    Ok(Arc::new(roots))
}

/// The server's side. Clients may come without a certificate; one that they bring has to be the farm's.
pub(crate) fn server(
    credentials: &Credentials,
    transport: Arc<quinn::TransportConfig>,
) -> Result<quinn::ServerConfig, TlsError> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(
        roots(credentials.authority())?,
        Arc::clone(&provider),
    )
    .allow_unauthenticated()
    .build()?;
    // The authority's own certificate goes along, so that a newcomer finds the one its token names.
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![
                CertificateDer::from(credentials.certificate().to_vec()),
                CertificateDer::from(credentials.authority().to_vec()),
            ],
            key(credentials),
        )?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.session_storage = ServerSessionMemoryCache::new(SERVER_SESSIONS_MAX);
    tls.send_tls13_tickets = TICKETS;
    tls.max_early_data_size = 0;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport);
    Ok(config)
}

/// A member's side: it shows its certificate, and trusts servers of its farm.
pub(crate) fn member(credentials: &Credentials) -> Result<quinn::ClientConfig, TlsError> {
    let roots = roots(credentials.authority())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?;
    member_trusting(credentials, verifier)
}

/// The same, trusting whom `verifier` trusts.
pub(crate) fn member_trusting(
    credentials: &Credentials,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<quinn::ClientConfig, TlsError> {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(
            vec![CertificateDer::from(credentials.certificate().to_vec())],
            key(credentials),
        )?;
    client(tls)
}

/// A newcomer's side: it has no certificate, and trusts the farm whose authority has this fingerprint.
pub(crate) fn newcomer(pinned: &Arc<Pinned>) -> Result<quinn::ClientConfig, TlsError> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&pinned.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(pinned) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    client(tls)
}

/// The part that members and newcomers have in common.
pub(crate) fn client(mut tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, TlsError> {
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = false;
    tls.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS_MAX);
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let congestion = Congestion::default();
    config.transport_config(config::client_transport(Datagrams::default(), congestion));
    Ok(config)
}

fn key(credentials: &Credentials) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(credentials.key().to_vec()).into()
}

/// Trusts the authority that a join token names by its fingerprint, and what it has issued; the server
/// sends the authority's certificate along.
#[derive(Debug)]
pub(crate) struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
    /// The server sent no such certificate: it is of another farm.
    foreign: OnceLock<()>,
}

impl Pinned {
    pub(crate) fn new(fingerprint: [u8; 32]) -> Arc<Self> {
        Arc::new(Self {
            fingerprint,
            provider: provider(),
            foreign: OnceLock::new(),
        })
    }

    /// Whether a server was refused because it is of another farm.
    pub(crate) fn met_another_farm(&self) -> bool {
        self.foreign.get().is_some()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.fingerprint);
        let Some(authority) = authority else {
            let _already = self.foreign.set(());
            return Err(CertificateError::UnknownIssuer.into());
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(
            roots(authority)?,
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|_| CertificateError::BadEncoding)?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
