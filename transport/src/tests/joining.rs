//! How newcomers get certificates, and members new ones.

use tokio::sync::watch;

use super::*;
use crate::{ConnectError, EnrolError, certificate, enrol, keep_renewed, renew, use_renewed};

#[tokio::test]
async fn a_token_buys_a_certificate_that_opens_the_farm() {
    let farm = Farm::new();
    let grant_key = farm.grants.public_key();
    let server = farm.server(Role::Coordinator);
    let mut running = Running::start(farm, server);
    let credentials = enrol(running.addr, &running.token, "new-1").await.unwrap();
    assert_eq!(credentials.identity, identity(Role::Worker, "new-1"));
    assert_eq!(credentials.grant_key(), grant_key);
    assert_eq!(credentials.fingerprint(), running.token.fingerprint);
    // The newcomer's own connection has nobody's name.
    assert_eq!(running.joined().await.peer(), None);

    let client = Client::new(&credentials).unwrap();
    let connection = client
        .connect(running.addr, Role::Coordinator)
        .await
        .unwrap();
    assert_eq!(ask(&connection, "hello").await.unwrap(), "hello");
    assert_eq!(running.joined().await.peer(), Some(&credentials.identity));
}

#[tokio::test]
async fn a_certificate_arrives_though_the_connection_is_dropped_at_once() {
    let farm = Farm::new();
    let token = JoinToken::new(farm.authority.fingerprint());
    let server = farm.server(Role::Coordinator);
    let addr = server.local_addr();
    let (events, _unread) = mpsc::channel(EVENTS_MAX);
    let desk = Desk {
        farm,
        token: token.clone(),
        events,
    };
    let serve = async {
        let greeting = server.accept().await.unwrap().greet().await.unwrap();
        let certificate = desk.decide(&greeting.purpose, None).unwrap();
        drop(greeting.welcome(certificate).await.unwrap());
    };
    let (credentials, ()) = tokio::join!(enrol(addr, &token, "new-1"), serve);
    assert_eq!(
        credentials.unwrap().identity,
        identity(Role::Worker, "new-1")
    );
}

#[tokio::test]
async fn a_token_for_another_farm_is_not_shown_to_this_one() {
    let farm = Farm::new();
    let server = farm.server(Role::Coordinator);
    let mut running = Running::start(farm, server);
    let token = JoinToken::new(Farm::new().authority.fingerprint());
    let error = enrol(running.addr, &token, "new-1").await.unwrap_err();
    assert!(
        matches!(error, EnrolError::OtherFarm { .. }),
        "{}",
        chain(&error)
    );
    let text = error.to_string();
    assert!(text.contains(&running.addr.to_string()), "{text}");
    assert!(text.contains("belongs to another farm"), "{text}");
    // The connection ended before anything was said on it.
    assert!(matches!(
        running.failed().await,
        HandshakeError::Connect { .. }
    ));
}

#[tokio::test]
async fn knowing_the_authority_is_not_enough_to_take_newcomers_in() {
    let farm = Farm::new();
    let fingerprint = farm.authority.fingerprint();
    // A worker of the farm listens; it sends the true authority along.
    let server = farm.server(Role::Worker);
    let mut running = Running::start(farm, server);
    let error = enrol(running.addr, &JoinToken::new(fingerprint), "new-1")
        .await
        .unwrap_err();
    let EnrolError::Connect { source, .. } = &error else {
        panic!("{}", chain(&error));
    };
    assert!(
        matches!(**source, ConnectError::OtherService { .. }),
        "{}",
        chain(&error)
    );
    running.failed().await;
}

#[tokio::test]
async fn an_impostor_that_sends_the_true_authority_along_is_not_believed() {
    let farm = Farm::new();
    let impostor = Farm::new().member(Role::Coordinator);
    let impostor = impostor.with_authority(farm.authority.certificate());
    let server = Server::bind(localhost(), &impostor, ServerLimits::default()).unwrap();
    let token = JoinToken::new(farm.authority.fingerprint());
    let mut running = Running::start(farm, server);
    let error = enrol(running.addr, &token, "new-1").await.unwrap_err();
    let EnrolError::Connect { source, .. } = &error else {
        panic!("{}", chain(&error));
    };
    assert!(
        matches!(**source, ConnectError::OtherFarm { .. }),
        "{}",
        chain(&error)
    );
    assert!(matches!(
        running.failed().await,
        HandshakeError::Connect { .. }
    ));
}

#[tokio::test]
async fn a_token_that_the_coordinator_does_not_know_buys_nothing() {
    let farm = Farm::new();
    let server = farm.server(Role::Coordinator);
    let running = Running::start(farm, server);
    let token = JoinToken::new(running.token.fingerprint);
    let error = enrol(running.addr, &token, "new-1").await.unwrap_err();
    assert_eq!(
        chain(&error),
        format!(
            "failed to get a certificate for `new-1`: the coordinator at {} refused: the join token is \
             unknown",
            running.addr
        )
    );
}

#[tokio::test]
async fn a_member_gets_a_new_certificate_for_a_new_key() {
    let farm = Farm::new();
    let worker = farm.member(Role::Worker);
    let server = farm.server(Role::Coordinator);
    let running = Running::start(farm, server);
    let renewed = renew(running.addr, &worker).await.unwrap();
    assert_eq!(renewed.identity, worker.identity);
    assert_ne!(renewed.serial(), worker.serial());
    let key =
        |credentials: &Credentials| certificate::public_key(credentials.certificate()).unwrap();
    assert_ne!(key(&renewed), key(&worker));
    let client = Client::new(&renewed).unwrap();
    let connection = client
        .connect(running.addr, Role::Coordinator)
        .await
        .unwrap();
    assert_eq!(ask(&connection, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_certificate_that_is_half_over_is_renewed_kept_and_shown() {
    let farm = Farm::new();
    let worker = farm.member(Role::Worker);
    // From 1970 on for 80 years: half over since 2010.
    let aged = farm.member_for(Role::Worker, CENTURIES * 2 / 5);
    let server = farm.server(Role::Coordinator);
    let mut running = Running::start(farm, server);
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(&worker).unwrap();
    let (current, mut shown) = watch::channel(aged.clone());
    let renewed = async {
        shown.changed().await.unwrap();
        shown.borrow().clone()
    };
    let renewed = tokio::select! {
        renewed = renewed => renewed,
        never = keep_renewed(running.addr, directory.path(), &current) => match never {},
    };
    assert_ne!(renewed.serial(), aged.serial());
    assert_eq!(renewed.identity, aged.identity);
    let kept = Credentials::load(directory.path()).unwrap().unwrap();
    assert_eq!(kept.serial(), renewed.serial());

    // A client that follows shows it from the next connection on; the sender's end ends the following.
    let follower = current.subscribe();
    current.send_replace(renewed.clone());
    drop(current);
    use_renewed(client.clone(), follower).await;
    let connected = client.connect(running.addr, Role::Coordinator).await;
    let _connection = connected.unwrap();
    for expected in [&aged, &renewed] {
        let joined = running.joined().await;
        let shown = joined.certificate().map(|shown| shown.serial.clone());
        assert_eq!(shown.as_deref(), Some(expected.serial()));
    }
}
