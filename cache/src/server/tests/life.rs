//! A cache in bad days: its disk, its store, its certificate.

use transport::ConnectError;

use super::*;

#[tokio::test]
async fn a_disk_below_the_mark_refuses_writes_by_name_and_reads_go_on() {
    let mut farm = Farm::start().await;
    let bytes = content(1, 10_000);
    let client = farm.client("red", Role::Developer).await;
    write(&client, std::slice::from_ref(&bytes)).await.unwrap();
    farm.end().await;
    let options = Options {
        free_low_water: u64::MAX / 4,
        ..farm.options()
    };
    farm.run_with(options).await;

    let client = farm.client("red", Role::Developer).await;
    let refused = refusal(write(&client, &[content(2, 100)]).await);
    assert_eq!(refused.code, RefusalCode::ResourceExhausted);
    assert!(refused.retry_after.is_some());
    let directory = farm.directory.path().to_str().unwrap().to_owned();
    assert!(refused.message.contains(&directory), "{refused}");
    assert!(refused.message.contains("bytes left"), "{refused}");
    let back = read(&client, &[Digest::of(&bytes)]).await.unwrap();
    assert!(back[0].bytes == bytes);
}

#[tokio::test]
async fn a_writer_that_panics_is_unhealthy_and_ends_the_cache() {
    let mut farm = Farm::start().await;
    farm.end().await;
    let (store, _) = farm.run_seen(farm.options()).await;
    assert_eq!(store.stopped(), None);
    let broken = store.change(Change::Break).await;
    assert!(broken.is_err(), "{broken:?}");
    store.writer_ended().await;
    let unhealthy = store
        .stopped()
        .expect("a cache that cannot write is not well");
    assert!(unhealthy.contains("writer"), "{unhealthy}");
    drop(store);
    let ended = farm.running.join_next().await.unwrap().unwrap();
    assert!(matches!(ended, Err(RunError::Writer)), "{ended:?}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_who_connects_next() {
    let farm = Farm::start().await;
    let renewed = farm.credentials("farm", Role::Cache);
    let shown = || async {
        let connection = farm.connect("red", Role::Developer).await;
        connection.certificate().unwrap().serial.clone()
    };
    assert_ne!(shown().await, renewed.serial());
    farm.renew.send_replace(renewed.clone());
    while shown().await != renewed.serial() {}
}

#[tokio::test]
async fn a_certificate_that_ends_while_its_session_is_kept_counts_no_more() {
    let farm = Farm::start().await;
    let identity = Identity {
        team: team("red"),
        role: Role::Developer,
        name: "anna".to_owned(),
    };
    let grant_key = farm.signer.public_key();
    let times = (Clock::wall(), Duration::from_secs(4));
    let issued = Credentials::self_issued(&farm.authority, identity, &grant_key, times.0, times.1);
    let credentials = issued.unwrap();
    let client = Client::new(&credentials).unwrap();
    let connection = client.connect(farm.address, Role::Cache).await.unwrap();
    let member = CacheClient::new(connection.clone(), team("red"));
    assert!(missing(&member, b"x").await);
    while Clock::wall() < credentials.valid_until() {
        tokio::time::sleep(Duration::from_millis(10)).await; // the poll interval
    }
    let refused = client.connect(farm.address, Role::Cache).await.unwrap_err();
    let ConnectError::Refused { source, .. } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(source.code, RefusalCode::PermissionDenied);
    assert!(source.message.contains("has expired"), "{source}");
    // Without a session TLS itself finds it, in other words, from the next second on.
    let stranger = Client::new(&credentials).unwrap();
    let refused = stranger.connect(farm.address, Role::Cache).await;
    assert!(
        matches!(
            refused,
            Err(ConnectError::Expired { .. } | ConnectError::Refused { .. })
        ),
        "{refused:?}"
    );
    // What was open ends with the next request.
    let asked = member.find_missing(&[Digest::of(b"x")]).await;
    assert!(asked.is_err());
    let reason = connection.closed().await;
    assert!(reason.contains("has expired"), "{reason}");
}

#[tokio::test]
async fn a_chunk_that_is_damaged_in_the_store_is_reported_set_aside_and_taken_again() {
    let mut farm = Farm::start().await;
    farm.end().await;
    // The scrub meets it only when it is there from the start.
    let (store, _) = farm.run_seen(farm.options()).await;
    let good = content(1, 10_000);
    let digest = Digest::of(&good);
    let client = farm.client("red", Role::Developer).await;
    let other = content(2, 100);
    write(&client, std::slice::from_ref(&other)).await.unwrap();
    let mut value = [&[0], &good[..]].concat();
    value[1] ^= 1;
    let change = Change::PutChunk {
        team: team("red"),
        chunk: ChunkKey::of(&digest).unwrap(),
        value: value.into(),
    };
    store.change(change).await.unwrap();
    drop(store);
    let result = read(&client, &[Digest::of(&other), digest]).await;
    let reported = match &result {
        Err(CacheError::Corrupt { digest, .. } | CacheError::MissingChunk { digest }) => *digest,
        other => panic!("{other:?}"),
    };
    assert_eq!(reported, digest);
    assert!(missing(&client, &good).await, "the cache knows");
    assert!(!missing(&client, &other).await);
    assert_eq!(
        write(&client, std::slice::from_ref(&good))
            .await
            .unwrap()
            .new,
        1
    );
    let back = read(&client, &[digest]).await.unwrap();
    assert!(back[0].bytes == good);
    farm.end().await;
}
