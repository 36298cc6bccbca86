//! Several endpoints on one port, clients that move to another network, and clients that come again.

use std::{
    net::UdpSocket as Socket,
    sync::atomic::{AtomicUsize, Ordering},
};

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

#[tokio::test]
async fn who_comes_again_is_known_without_certificates() {
    let farm = Farm::new();
    let worker = farm.member(Role::Worker);
    let counting = Arc::new(Counting {
        pinned: Pinned::new(farm.authority.fingerprint()),
        looked: AtomicUsize::new(0),
    });
    let config = tls::member_trusting(&worker, Arc::clone(&counting) as _).unwrap();
    let server = farm.server_within(Role::Coordinator, several());
    let mut running = Running::start(farm, server);
    for _ in 0..3 {
        let endpoint = client::endpoint(crate::DATAGRAM_BYTES_MAX).unwrap();
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
    assert_eq!(counting.looked.load(Ordering::SeqCst), 1);
}
