//! Certificates that end while TLS keeps their sessions.

use transport::{Client, ConnectError};

use super::*;
use crate::clock;

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_while_its_session_is_kept_counts_no_more() {
    let farm = TestFarm::start().await;
    let credentials = farm.issue(Role::Developer, "anna", Duration::from_secs(4));
    let connect = async |client: &Client| {
        let connection = client.connect(farm.address(), Role::Coordinator);
        connection.await.map(drop)
    };
    let member = Client::new(&credentials).unwrap();
    connect(&member).await.unwrap();
    clock::until(credentials.valid_until()).await;
    let refused = connect(&member).await.unwrap_err();
    let ConnectError::Refused { source, .. } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(source.code, RefusalCode::PermissionDenied);
    assert!(source.message.contains("has expired"), "{source}");
    // Without a session TLS itself finds it, in other words, from the next second on.
    let stranger = Client::new(&credentials).unwrap();
    let refused = connect(&stranger).await;
    assert!(
        matches!(
            refused,
            Err(ConnectError::Expired { .. } | ConnectError::Refused { .. })
        ),
        "{refused:?}"
    );
    farm.stop().await;
}
