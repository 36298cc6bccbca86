//! Who gets through, and what those read who do not.

use protocol::message::handshake::{Hello, Welcome};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::*;
use crate::{ConnectError, ConnectionLost, connection::CLOSE_REFUSED, tls::Pinned};

fn connect_error(result: Result<Connection, ConnectError>) -> ConnectError {
    result.expect_err("nobody gets through here")
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let farm = Farm::new();
    let worker = farm.member(Role::Worker);
    let server = farm.server(Role::Coordinator);
    let mut running = Running::start(farm, server);
    let client = Client::new(&worker).unwrap();
    let there = client
        .connect(running.addr, Role::Coordinator)
        .await
        .unwrap();
    let here = running.joined().await;
    assert_eq!(
        there.peer(),
        Some(&identity(Role::Coordinator, "my-coordinator"))
    );
    assert_eq!(here.peer(), Some(&identity(Role::Worker, "my-worker")));
    assert_eq!(here.certificate().unwrap().serial, worker.serial());
    assert_eq!(there.remote(), running.addr);
    assert!(here.remote().ip().is_loopback());

    there.close("all done");
    assert_eq!(
        here.closed().await,
        "the other side closed the connection: all done"
    );
    assert!(here.accept().await.is_none());
}

#[tokio::test]
async fn nobody_poses_as_another_service() {
    for (role, service) in [
        (Role::Worker, Role::Coordinator),
        (Role::Admin, Role::Cache),
        (Role::Cache, Role::Coordinator),
        (Role::Coordinator, Role::Cache),
    ] {
        let farm = Farm::new();
        let client = farm.client(Role::Worker);
        let server = farm.server(role);
        let mut running = Running::start(farm, server);
        let error = connect_error(client.connect(running.addr, service).await);
        assert!(
            matches!(error, ConnectError::OtherService { .. }),
            "{}",
            chain(&error)
        );
        let text = chain(&error);
        let expected = format!("{} is not the {service} of this farm", running.addr);
        assert!(text.contains(&expected), "{text}");
        assert!(matches!(
            running.failed().await,
            HandshakeError::Connect { .. }
        ));
    }
}

#[tokio::test]
async fn farms_do_not_mix() {
    let farm = Farm::new();
    let server = farm.server(Role::Coordinator);
    let mut running = Running::start(farm, server);
    let stranger = Farm::new();
    let client = stranger.client(Role::Worker);
    let error = connect_error(client.connect(running.addr, Role::Coordinator).await);
    assert!(
        matches!(error, ConnectError::OtherFarm { .. }),
        "{}",
        chain(&error)
    );
    assert!(
        error
            .to_string()
            .contains("another farm than worker my-worker of team red")
    );
    running.failed().await;

    // One that trusts this farm, with a certificate of its own.
    let admin = stranger.member(Role::Admin);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Pinned::new(running.token.fingerprint))
        .with_client_auth_cert(
            vec![CertificateDer::from(admin.certificate().to_vec())],
            admin.key().to_vec().try_into().unwrap(),
        );
    let error = dial(
        running.addr,
        tls::client(tls.unwrap()).unwrap(),
        Some(&admin.identity),
    )
    .await;
    assert!(
        matches!(error, ConnectError::NotTaken { .. }),
        "{}",
        chain(&error)
    );
    let text = error.to_string();
    assert!(
        text.contains("does not take the certificate of admin my-admin"),
        "{text}"
    );
    assert!(text.contains("join again"), "{text}");
    let error = running.failed().await;
    assert!(
        matches!(error, HandshakeError::Connect { .. }),
        "{}",
        chain(&error)
    );
}

async fn dial(
    addr: SocketAddr,
    config: quinn::ClientConfig,
    identity: Option<&Identity>,
) -> ConnectError {
    let endpoint = client::endpoint(crate::Datagrams::default()).unwrap();
    let dial = dial::Dial {
        endpoint: &endpoint,
        identity,
        addr,
        service: Role::Coordinator,
        limit: Duration::from_secs(3),
    };
    dial.connect(config, Purpose::Requests).await.unwrap_err()
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_what_to_do() {
    let farm = Farm::new();
    let expired = farm.member_for(Role::Worker, Duration::from_secs(1));
    let server = farm.server(Role::Coordinator);
    let mut running = Running::start(farm, server);
    let client = Client::new(&expired).unwrap();
    let error = connect_error(client.connect(running.addr, Role::Coordinator).await);
    assert!(
        matches!(error, ConnectError::Expired { .. }),
        "{}",
        chain(&error)
    );
    assert!(
        error.to_string().contains("join again with a new token"),
        "{error}"
    );
    running.failed().await;
}

#[tokio::test]
async fn an_expired_server_is_refused() {
    let farm = Farm::new();
    let expired = farm.member_for(Role::Coordinator, Duration::from_secs(1));
    let client = farm.client(Role::Worker);
    let server = Server::bind(localhost(), &expired, ServerLimits::default()).unwrap();
    let running = Running::start(farm, server);
    let error = connect_error(client.connect(running.addr, Role::Coordinator).await);
    assert!(
        matches!(error, ConnectError::ServerExpired { .. }),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_client_reads_why_it_was_refused() {
    let farm = Farm::new();
    let developer = farm.client(Role::Developer);
    let server = farm.server(Role::Coordinator);
    let running = Running::start(farm, server);
    let error = connect_error(developer.connect(running.addr, Role::Coordinator).await);
    assert_eq!(
        chain(&error),
        format!(
            "the coordinator at {} refused: developer my-developer of team red is no worker",
            running.addr
        )
    );

    let newcomer = tls::newcomer(&Pinned::new(running.token.fingerprint)).unwrap();
    let error = dial(running.addr, newcomer, None).await;
    let ConnectError::Refused { source, .. } = error else {
        panic!("{}", chain(&error));
    };
    assert_eq!(source.code, RefusalCode::PermissionDenied);
    assert_eq!(
        source.message,
        "there is no certificate: join with a token first"
    );
}

/// Says Hello as another program might, and gives the answer.
async fn say(quic: &quinn::Connection, hello: &[u8]) -> Result<Welcome, Refusal> {
    let (send, receive) = quic.open_bi().await.unwrap();
    let mut stream = Stream::new(quic, send, receive);
    let length = u32::try_from(hello.len()).unwrap().to_le_bytes();
    let frame = [&length[..], hello].concat();
    stream.send.bytes(frame.into()).await.unwrap();
    stream.answer().await.unwrap()
}

#[tokio::test]
async fn a_client_of_another_version_is_told_both() {
    let hello = Hello {
        protocol: 99,
        program: "9.9.9".to_owned(),
        purpose: Purpose::Requests,
    };
    let readable = protocol::codec::encode(&hello).unwrap();
    let unreadable = [&readable[..1], &[255; 40]].concat();
    for (hello, program) in [(readable, " (grange 9.9.9)"), (unreadable, "")] {
        let farm = Farm::new();
        let worker = farm.member(Role::Worker);
        let server = farm.server(Role::Coordinator);
        let mut running = Running::start(farm, server);
        let quic = silent(&worker, running.addr).await;
        let refusal = say(&quic, &hello).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::FailedPrecondition);
        let expected = format!(
            "the client speaks protocol 99{program}, the coordinator speaks protocol {}",
            protocol::version::PROTOCOL
        );
        assert!(refusal.message.starts_with(&expected), "{refusal}");
        let error = running.failed().await;
        let ours = protocol::version::PROTOCOL;
        assert!(
            matches!(error, HandshakeError::Version { theirs: 99, ours: o, .. } if o == ours),
            "{}",
            chain(&error)
        );
        let quinn::ConnectionError::ApplicationClosed(close) = quic.closed().await else {
            panic!("the server closes");
        };
        assert_eq!(close.error_code, CLOSE_REFUSED);
    }
}

#[tokio::test]
async fn a_server_of_another_version_is_named_with_both() {
    let farm = Farm::new();
    let client = farm.client(Role::Worker);
    let server = farm.server(Role::Coordinator);
    let addr = server.local_addr();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut greeting = server.accept().await.unwrap().greet().await.unwrap();
        let welcome: Result<Welcome, Refusal> = Ok(Welcome {
            protocol: 99,
            program: "9.9.9".to_owned(),
            certificate: None,
        });
        greeting.stream().send.message(&welcome).await.unwrap();
        greeting.stream().send.stopped().await;
    });
    let error = connect_error(client.connect(addr, Role::Coordinator).await);
    assert!(
        matches!(error, ConnectError::Version { theirs: 99, .. }),
        "{}",
        chain(&error)
    );
    assert!(
        error
            .to_string()
            .contains("speaks protocol 99 (grange 9.9.9)"),
        "{error}"
    );
    let ours = format!("speaks protocol {} ", protocol::version::PROTOCOL);
    assert!(error.to_string().contains(&ours), "{error}");
}

#[tokio::test]
async fn who_says_no_hello_goes_and_others_are_served() {
    let farm = Farm::new();
    let worker = farm.member(Role::Worker);
    let limits = ServerLimits {
        handshake: Duration::from_millis(300),
        ..ServerLimits::default()
    };
    let server = farm.server_within(Role::Coordinator, limits);
    let mut running = Running::start(farm, server);
    let quic = silent(&worker, running.addr).await;
    let client = Client::new(&worker).unwrap();
    let connection = client
        .connect(running.addr, Role::Coordinator)
        .await
        .unwrap();
    assert_eq!(ask(&connection, "hello").await.unwrap(), "hello");
    let error = running.failed().await;
    assert!(
        matches!(error, HandshakeError::TimedOut { .. }),
        "{}",
        chain(&error)
    );
    quic.closed().await;
    assert_eq!(
        ask(&connection, "still there").await.unwrap(),
        "still there"
    );
}

#[tokio::test]
async fn a_place_where_nobody_listens_is_named() {
    let worker = Farm::new().member(Role::Worker);
    let socket = UdpSocket::bind(localhost()).await.unwrap();
    let addr = socket.local_addr().unwrap();
    let config = tls::member(&worker).unwrap();
    let error = dial(addr, config, Some(&worker.identity)).await;
    assert!(
        matches!(error, ConnectError::NoAnswer { .. }),
        "{}",
        chain(&error)
    );
    let expected =
        format!("no answer from the coordinator at {addr} within 3s; is it running there");
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[tokio::test]
async fn workers_serve_nobody() {
    let client = Farm::new().client(Role::Worker);
    let error = connect_error(client.connect(localhost(), Role::Worker).await);
    assert!(matches!(
        error,
        ConnectError::NoService { role: Role::Worker }
    ));
}

#[tokio::test]
async fn a_full_server_refuses_until_somebody_leaves() {
    let farm = Farm::new();
    let client = farm.client(Role::Worker);
    let limits = ServerLimits {
        connections: 1,
        ..ServerLimits::default()
    };
    let server = farm.server_within(Role::Coordinator, limits);
    let mut running = Running::start(farm, server);
    let first = client
        .connect(running.addr, Role::Coordinator)
        .await
        .unwrap();
    let here = running.joined().await;
    let error = connect_error(client.connect(running.addr, Role::Coordinator).await);
    assert!(
        matches!(
            error,
            ConnectError::Lost {
                source: ConnectionLost::Full,
                ..
            }
        ),
        "{}",
        chain(&error)
    );
    first.close("room for others");
    here.closed().await;
    drop(here);
    // The desk's clones of the connection go when its task has noticed.
    let connected = async {
        loop {
            if let Ok(connection) = client.connect(running.addr, Role::Coordinator).await {
                return connection;
            }
        }
    };
    let second = timeout(Duration::from_secs(30), connected).await.unwrap();
    assert_eq!(ask(&second, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn strangers_have_to_prove_their_address_when_it_is_crowded() {
    let farm = Farm::new();
    let worker = farm.member(Role::Worker);
    let limits = ServerLimits {
        strangers: 3,
        ..ServerLimits::default()
    };
    let server = farm.server_within(Role::Coordinator, limits);
    let running = Running::start(farm, server);
    let _first = silent(&worker, running.addr).await;
    let _second = silent(&worker, running.addr).await;
    // The third one gets through all the same: the proof takes a round trip.
    let client = Client::new(&worker).unwrap();
    let third = client
        .connect(running.addr, Role::Coordinator)
        .await
        .unwrap();
    assert_eq!(ask(&third, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_renewed_certificate_is_used_from_the_next_connection_on() {
    let farm = Farm::new();
    let (old, new) = (
        farm.member(Role::Coordinator),
        farm.member(Role::Coordinator),
    );
    let (worker, renewed) = (farm.member(Role::Worker), farm.member(Role::Worker));
    let server = Server::bind(localhost(), &old, ServerLimits::default()).unwrap();
    let mut running = Running::start(farm, server);
    let client = Client::new(&worker).unwrap();
    let before = client
        .connect(running.addr, Role::Coordinator)
        .await
        .unwrap();
    running.server.replace_credentials(&new).unwrap();
    client.replace_credentials(&renewed).unwrap();
    let after = client
        .connect(running.addr, Role::Coordinator)
        .await
        .unwrap();
    let serial = |connection: &Connection| connection.certificate().unwrap().serial.clone();
    assert_eq!(serial(&before), old.serial());
    assert_eq!(serial(&after), new.serial());
    assert_eq!(serial(&running.joined().await), worker.serial());
    assert_eq!(serial(&running.joined().await), renewed.serial());
    assert_eq!(ask(&before, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let farm = Farm::new();
    let client = farm.client(Role::Worker);
    let server = farm.server(Role::Coordinator);
    let running = Running::start(farm, server);
    let connection = client
        .connect(running.addr, Role::Coordinator)
        .await
        .unwrap();
    running.server.close();
    running.server.idle().await;
    let expected = "the other side closed the connection: the coordinator stops";
    assert_eq!(connection.closed().await, expected);
}

#[tokio::test]
async fn clients_of_a_server_that_was_restarted_know_at_once() {
    let farm = Farm::new();
    let client = farm.client(Role::Worker);
    let coordinator = farm.member(Role::Coordinator);
    let bind = || Server::bind(localhost(), &coordinator, ServerLimits::default()).unwrap();
    let (killed, restarted) = (bind(), bind());
    let running = Running::start(farm, killed);
    let relay = Relay::to(running.addr).await;
    let connection = client.connect(relay.addr, Role::Coordinator).await.unwrap();
    assert_eq!(ask(&connection, "hello").await.unwrap(), "hello");
    relay.redirect(restarted.local_addr());
    // The next datagram meets a server that knows nothing of the connection.
    let mut stream = connection.open().await.unwrap();
    stream.send.message(&"anybody?").await.unwrap();
    let closed = timeout(Duration::from_secs(10), connection.closed());
    assert_eq!(closed.await.unwrap(), "the other side was restarted");
}
