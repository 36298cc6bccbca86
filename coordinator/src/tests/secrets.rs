//! Secrets over connections: who may set them, and to whom they are given.

use protocol::{
    access::Role,
    build::Outcome,
    lease::LeaseId,
    message::{
        Refusal, RefusalCode,
        client::{ClientReply, ClientRequest},
        work::WorkRequest,
    },
    secret::{SecretValue, SecretsReply},
};

use super::{
    farm::{TestClient, TestFarm},
    worker::TestWorker,
};

const VALUE: &str = "correct horse battery staple";
const NAMES_IT: &str = "version: 0.2\nenv:\n  secrets-manager: {TOKEN: prod/token}\nphases:\n  build:\n    \
                        commands: [make]\n";

async fn set(client: &TestClient) -> Result<ClientReply, Refusal> {
    let request = ClientRequest::SetSecret {
        project: None,
        id: "prod/token".parse().unwrap(),
        value: SecretValue::new(VALUE.as_bytes().to_vec()).unwrap(),
    };
    client.ask(request).await
}

/// What the coordinator answers to a worker that asks for the secrets of a lease.
async fn asked(worker: &TestWorker, lease: LeaseId) -> Result<SecretsReply, Refusal> {
    let mut stream = worker.connection.open().await.unwrap();
    stream.request(&WorkRequest::Secrets(lease)).await.unwrap()
}

/// The value that a worker is given, or why it is given none.
fn value(reply: Result<SecretsReply, Refusal>) -> Result<String, RefusalCode> {
    match reply.map_err(|refusal| refusal.code)? {
        SecretsReply::Delivered(delivery) => {
            assert_eq!(delivery.secrets[0].variable, "TOKEN");
            let value = delivery.secrets[0].value.expose().to_vec();
            Ok(String::from_utf8(value).unwrap())
        }
        SecretsReply::Unresolved(context) => Ok(context.message),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_given_to_whoever_holds_a_lease_of_its_build_and_while_it_does() {
    let farm = TestFarm::start().await;
    let [one, other] = [
        farm.enrol(Role::Worker, "w1").await,
        farm.enrol(Role::Worker, "w2").await,
    ];
    let developer = farm.enrol(Role::Developer, "anna").await;
    let client = developer.connect(farm.address()).await;
    let submitted = client.submit(NAMES_IT).await.unwrap();
    let mut worker = TestWorker::join(&one, farm.address()).await;
    let assignment = worker.assigned().await;
    assert!(assignment.has_secrets);
    let shown = format!("{assignment:?}");
    assert!(shown.contains("prod/token") && !shown.contains("horse"));
    let missing = value(asked(&worker, assignment.lease).await).unwrap();
    assert!(
        missing.contains("can't find the specified secret."),
        "{missing}"
    );

    assert!(matches!(set(&client).await, Ok(ClientReply::SecretSet(_))));
    let reply = asked(&worker, assignment.lease).await;
    assert!(!format!("{reply:?}").contains("horse"));
    assert_eq!(value(reply).as_deref(), Ok(VALUE));
    let stranger = TestWorker::join(&other, farm.address()).await;
    let denied = Err(RefusalCode::PermissionDenied);
    assert_eq!(value(asked(&stranger, assignment.lease).await), denied);
    assert_eq!(value(asked(&worker, LeaseId(999)).await), denied);
    worker.finish(&assignment, Outcome::Failed).await;
    assert_eq!(
        value(asked(&worker, assignment.lease).await),
        denied,
        "it is over"
    );

    // What is kept of the build says what it names, and no more.
    let build = ClientRequest::Build(submitted.build.to_string());
    let known = format!("{:?}", client.ask(build).await.unwrap());
    assert!(!known.contains("horse"), "{known}");
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_their_teams_and_for_its_people() {
    let farm = TestFarm::start().await;
    let [developer, ci, worker] = [
        farm.enrol(Role::Developer, "anna").await,
        farm.enrol(Role::Ci, "ci").await,
        farm.enrol(Role::Worker, "w1").await,
    ];
    let developer = developer.connect(farm.address()).await;
    let ci = ci.connect(farm.address()).await;
    set(&developer).await.unwrap();
    let refused = set(&ci).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::PermissionDenied);
    let list = || ClientRequest::Secrets { project: None };
    assert!(ci.ask(list()).await.is_err());
    let Ok(ClientReply::Secrets(listed)) = developer.ask(list()).await else {
        panic!("its own are listed");
    };
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].versions[0].by, "developer anna");
    let delete = || ClientRequest::DeleteSecret {
        project: None,
        id: "prod/token".parse().unwrap(),
    };
    // Another team neither sees nor deletes it, nor do its builds get it.
    let other = farm.enrol_in("blue", Role::Developer, "ben").await;
    let other = other.connect(farm.address()).await;
    assert_eq!(
        other.ask(list()).await,
        Ok(ClientReply::Secrets(Vec::new()))
    );
    let foreign = other.ask(delete()).await.unwrap_err();
    assert_eq!(foreign.code, RefusalCode::NotFound);
    other.submit(NAMES_IT).await.unwrap();
    let mut worker = TestWorker::join(&worker, farm.address()).await;
    let assignment = worker.assigned().await;
    let missing = value(asked(&worker, assignment.lease).await).unwrap();
    assert!(missing.contains("can't find"), "{missing}");
    assert_eq!(developer.ask(delete()).await, Ok(ClientReply::Done));
    let gone = developer.ask(delete()).await.unwrap_err();
    assert_eq!(gone.code, RefusalCode::NotFound);
    farm.stop().await;
}
