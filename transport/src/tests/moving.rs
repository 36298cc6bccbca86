//! Several endpoints on one port, clients that move to another network, and clients that come again.

use std::{
    net::UdpSocket as Socket,
    sync::atomic::{AtomicUsize, Ordering},
};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::*;
use crate::{
    BindError,
    dial::{CONNECT_LIMIT, Dial},
    endpoints::ENDPOINTS_MAX,
    tls::Pinned,
};

/// As many as a server with some cores has.
const ENDPOINTS: u8 = 4;

fn several() -> ServerLimits {
    ServerLimits {
        endpoints: ENDPOINTS,
        ..ServerLimits::default()
    }
}

#[tokio::test]
async fn a_client_that_moves_finds_the_endpoint_that_knows_it() {
    let farm = Farm::new();
    let client = farm.client(Role::Worker);
    let server = farm.server_within(Role::Coordinator, several());
    let mut running = Running::start(farm, server);
    let connection = client.connect(running.addr, Role::Coordinator);
    let there = connection.await.unwrap();
    let here = running.joined().await;
    let mut ports = vec![here.remote().port()];
    // By the address alone one move in four would find it.
    for round in 0..12 {
        let elsewhere = Socket::bind("[::]:0").unwrap();
        ports.push(elsewhere.local_addr().unwrap().port());
        client.endpoints()[0].rebind(elsewhere).unwrap();
        let text = format!("here I am {round}");
        assert_eq!(ask(&there, &text).await.unwrap(), text);
        let last = *ports.last().unwrap();
        assert_eq!(here.remote().port(), last, "the server knows where it is");
    }
}

#[tokio::test]
async fn every_endpoint_has_some_of_many_connections() {
    let farm = Farm::new();
    let client = farm.client(Role::Worker);
    let server = farm.server_within(Role::Coordinator, several());
    let mut running = Running::start(farm, server);
    let mut connections = Vec::new();
    for _ in 0..64 {
        let connection = client.connect(running.addr, Role::Coordinator);
        connections.push(connection.await.unwrap());
        running.joined().await;
    }
    for connection in &connections {
        assert_eq!(ask(connection, "still there").await.unwrap(), "still there");
    }
    let counts = running.server.connections_by_endpoint();
    assert_eq!(counts.len(), usize::from(ENDPOINTS));
    assert_eq!(counts.iter().sum::<usize>(), 64, "{counts:?}");
    assert!(!counts.contains(&0), "{counts:?}");
}

#[tokio::test]
async fn a_port_is_not_shared_with_another_server() {
    let farm = Farm::new();
    let server = farm.server_within(Role::Coordinator, several());
    let taken = server.local_addr();
    for limits in [several(), ServerLimits::default()] {
        let another = Server::bind(taken, &farm.member(Role::Coordinator), limits);
        assert!(matches!(another, Err(BindError::Socket { .. })));
    }
}

#[tokio::test]
async fn as_many_endpoints_as_there_may_be_serve() {
    let limits = ServerLimits {
        endpoints: u8::MAX,
        ..ServerLimits::default()
    };
    let farm = Farm::new();
    let client = farm.client(Role::Worker);
    let server = farm.server_within(Role::Coordinator, limits);
    let counts = server.connections_by_endpoint();
    assert_eq!(counts.len(), usize::from(ENDPOINTS_MAX));
    let running = Running::start(farm, server);
    let connection = client.connect(running.addr, Role::Coordinator);
    assert_eq!(
        ask(&connection.await.unwrap(), "here").await.unwrap(),
        "here"
    );
}

/// Counts how often a server's certificate is looked at.
#[derive(Debug)]
struct Counting {
    pinned: Arc<Pinned>,
    looked: AtomicUsize,
}

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.looked.fetch_add(1, Ordering::SeqCst);
        let pinned = &self.pinned;
        pinned.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.pinned.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.pinned.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.pinned.supported_verify_schemes()
    }
}

impl Counting {
    fn trusting(farm: &Farm) -> Arc<Self> {
        Arc::new(Self {
            pinned: Pinned::new(farm.authority.fingerprint()),
            looked: AtomicUsize::new(0),
        })
    }
}

/// Connects, is served, and leaves.
async fn visit(running: &mut Running, worker: &Credentials, config: &quinn::ClientConfig) {
    let endpoint = client::endpoint(crate::Datagrams::default()).unwrap();
    let dial = Dial {
        endpoint: &endpoint,
        identity: Some(&worker.identity),
        addr: running.addr,
        service: Role::Coordinator,
        limit: CONNECT_LIMIT,
    };
    let (there, _welcome) = dial
        .connect(config.clone(), Purpose::Requests)
        .await
        .unwrap();
    let here = running.joined().await;
    assert_eq!(here.certificate().unwrap().serial, worker.serial());
    assert_eq!(
        there.peer(),
        Some(&identity(Role::Coordinator, "my-coordinator"))
    );
    assert_eq!(ask(&there, "done").await.unwrap(), "done");
    there.close("done");
}

#[tokio::test]
async fn who_comes_again_is_known_without_certificates() {
    let farm = Farm::new();
    let worker = farm.member(Role::Worker);
    let counting = Counting::trusting(&farm);
    let config = tls::member_trusting(&worker, Arc::clone(&counting) as _).unwrap();
    let server = farm.server_within(Role::Coordinator, several());
    let mut running = Running::start(farm, server);
    for _ in 0..3 {
        visit(&mut running, &worker, &config).await;
    }
    assert_eq!(counting.looked.load(Ordering::SeqCst), 1);
}

/// What TLS of another program would be made of.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A member who would send early data to a server that lets it.
fn eager(worker: &Credentials, verifier: Arc<Counting>) -> quinn::ClientConfig {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(
            vec![CertificateDer::from(worker.certificate().to_vec())],
            worker.key().to_vec().try_into().unwrap(),
        );
    let mut tls = tls.unwrap();
    tls.alpn_protocols = vec![tls::ALPN.to_vec()];
    tls.enable_early_data = true;
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// A server of the farm that would take early data from whoever sends it.
fn generous(coordinator: &Credentials) -> quinn::Endpoint {
    let chain = [coordinator.certificate(), coordinator.authority()];
    let chain = chain.map(|certificate| CertificateDer::from(certificate.to_vec()));
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain.to_vec(),
            coordinator.key().to_vec().try_into().unwrap(),
        );
    let mut tls = tls.unwrap();
    tls.alpn_protocols = vec![tls::ALPN.to_vec()];
    // What QUIC has for as much as there is.
    tls.max_early_data_size = u32::MAX;
    let tls = QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    quinn::Endpoint::server(config, localhost()).unwrap()
}

/// Begins to connect. Gives the attempt, or, if it may send something right away, nothing.
fn connecting(
    endpoint: &quinn::Endpoint,
    config: &quinn::ClientConfig,
    addr: SocketAddr,
) -> Option<quinn::Connecting> {
    let connecting = endpoint.connect_with(config.clone(), addr, "coordinator.grange");
    connecting.unwrap().into_0rtt().err()
}

#[tokio::test]
async fn a_server_takes_nothing_before_it_has_answered_from_who_comes_again() {
    let farm = Farm::new();
    let worker = farm.member(Role::Worker);
    let counting = Counting::trusting(&farm);
    let config = eager(&worker, Arc::clone(&counting));
    let server = farm.server(Role::Coordinator);
    let mut running = Running::start(farm, server);
    visit(&mut running, &worker, &config).await;
    let endpoint = client::endpoint(crate::Datagrams::default()).unwrap();
    let again = connecting(&endpoint, &config, running.addr);
    again.expect("there is no early data").await.unwrap();
    assert_eq!(counting.looked.load(Ordering::SeqCst), 1, "it is known");
}

#[tokio::test]
async fn a_client_sends_nothing_before_it_has_an_answer_where_it_comes_again() {
    let farm = Farm::new();
    let worker = farm.member(Role::Worker);
    let counting = Counting::trusting(&farm);
    let (ours, other) = (
        tls::member_trusting(&worker, Arc::clone(&counting) as _).unwrap(),
        eager(&worker, Counting::trusting(&farm)),
    );
    let server = generous(&farm.member(Role::Coordinator));
    let addr = server.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut answering = JoinSet::new();
        while let Some(incoming) = server.accept().await {
            answering.spawn(answer(incoming));
        }
    });
    for config in [&ours, &other] {
        let endpoint = client::endpoint(crate::Datagrams::default()).unwrap();
        let first = connecting(&endpoint, config, addr).expect("nobody is known yet");
        let first = first.await.unwrap();
        let (mut send, mut receive) = first.open_bi().await.unwrap();
        send.write_all(b"hello").await.unwrap();
        send.finish().unwrap();
        // What makes it known has come before this.
        assert_eq!(receive.read_to_end(10).await.unwrap(), b"hello");
    }
    let endpoint = client::endpoint(crate::Datagrams::default()).unwrap();
    let again = connecting(&endpoint, &ours, addr);
    let _again = again.expect("there is no early data").await.unwrap();
    assert_eq!(counting.looked.load(Ordering::SeqCst), 1, "it is known");
    let early = connecting(&endpoint, &other, addr);
    assert!(early.is_none(), "who wants to could send at once");
}

/// Sends what comes back, if anything comes.
async fn answer(incoming: quinn::Incoming) {
    let Ok(connection) = incoming.await else {
        return;
    };
    let Ok((mut send, mut receive)) = connection.accept_bi().await else {
        return;
    };
    let heard = receive.read_to_end(10).await.unwrap();
    send.write_all(&heard).await.unwrap();
    send.finish().unwrap();
    connection.closed().await;
}
