//! What survives: restarts, power cuts, damage.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::Semaphore;

use super::*;

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_after_a_power_cut() {
    let fixture = Fixture::new();
    let bytes = noise(1, 300_000);
    let (_, digest) = fixture.write("red", &bytes).await;
    fixture
        .put("source/1", entry(vec![blob(&[digest], &bytes)]))
        .await;
    let image = fixture.crash_image();
    let (after_crash, crash_writer) = open(image.path());
    let fixture = fixture.restart();
    for store in [&after_crash, &fixture.store] {
        assert_eq!(read(store, "red", digest).unwrap(), bytes);
        let found = store.entry(&entry_key("source/1"), Trust::Team).unwrap();
        assert_eq!(found.unwrap().entry.blobs[0].digest, digest);
        assert_eq!(store.stats(None, &[]).unwrap().bytes, 300_000);
    }
    drop(after_crash);
    crash_writer.join();
}

fn log_of(image: &TempDir) -> std::path::PathBuf {
    let files = fs::read_dir(image.path().join("store")).unwrap();
    let mut logs: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .collect();
    logs.sort();
    logs.pop().unwrap()
}

#[tokio::test]
async fn a_torn_tail_of_the_log_is_cut_and_other_damage_stops_the_start() {
    let fixture = Fixture::new();
    let bytes = noise(1, 100_000);
    let (_, digest) = fixture.write("red", &bytes).await;

    let torn = fixture.crash_image();
    let path = log_of(&torn);
    let mut log = fs::read(&path).unwrap();
    // A record that says that it has 1,000 bytes, and ends after 10.
    log.extend_from_slice(&[1, 2, 3, 4, 0xe8, 0x03, 1]);
    log.extend_from_slice(&[7; 10]);
    fs::write(&path, &log).unwrap();
    let (store, writer) = open(torn.path());
    assert_eq!(read(&store, "red", digest).unwrap(), bytes);
    drop(store);
    writer.join();

    let damaged = fixture.crash_image();
    let path = log_of(&damaged);
    let mut log = fs::read(&path).unwrap();
    let middle = log.len() / 2;
    log[middle] ^= 1;
    fs::write(&path, &log).unwrap();
    let opened = Store::open(StoreOptions {
        directory: damaged.path().to_owned(),
        budget: u64::MAX,
        free_low_water: 0,
        hold: HOLD,
        log_directory: None,
        salvage: false,
    });
    assert!(matches!(opened, Err(OpenStoreError::Database { .. })));
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_and_both_versions_are_named() {
    let fixture = Fixture::new();
    let image = fixture.crash_image();
    fs::write(image.path().join("version"), "7\n").unwrap();
    let opened = Store::open(StoreOptions {
        directory: image.path().to_owned(),
        budget: u64::MAX,
        free_low_water: 0,
        hold: HOLD,
        log_directory: None,
        salvage: false,
    });
    let message = opened.unwrap_err().to_string();
    assert!(message.contains("version 7"), "{message}");
    assert!(message.contains("knows 2"), "{message}");
}

#[tokio::test]
async fn a_damaged_chunk_is_set_aside_and_taken_again() {
    let fixture = Fixture::new();
    let bytes = noise(1, 100_000);
    let (_, digest) = fixture.write("red", &bytes).await;
    fixture
        .put("source/1", entry(vec![blob(&[digest], &bytes)]))
        .await;
    fixture.store.shared.rocks().unwrap().flush().unwrap();
    let fixture = fixture.restart();
    for file in fs::read_dir(fixture.directory.path().join("store")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "blob") {
            let mut content = fs::read(&path).unwrap();
            let middle = content.len() / 2;
            content[middle] ^= 1;
            fs::write(&path, content).unwrap();
        }
    }
    assert_eq!(read(&fixture.store, "red", digest), None);
    // The change waits in front of this one.
    fixture.store.change(Change::Probe).await.unwrap();
    assert!(!has(&fixture.store, "red", digest));
    let there = || {
        let found = fixture.store.entry(&entry_key("source/1"), Trust::Team);
        found.unwrap().is_some()
    };
    assert!(!there(), "an entry that is not whole is not given");

    let (new, _) = fixture.write("red", &bytes).await;
    assert!(new);
    assert!(there());
    assert_eq!(read(&fixture.store, "red", digest).unwrap(), bytes);
    assert_eq!(fixture.collect().await, 0, "the entry still names it");
}

#[tokio::test]
async fn a_read_that_goes_on_outlives_the_store() {
    let fixture = Fixture::new();
    let bytes = noise(1, 100_000);
    let (_, digest) = fixture.write("red", &bytes).await;
    fixture.store.shared.rocks().unwrap().flush().unwrap();
    let ReadAnswer::Found { body, .. } = fixture.store.read_one(&team("red"), &digest).unwrap()
    else {
        panic!("the chunk is there");
    };
    drop(fixture.store);
    drop(fixture.directory);
    assert_eq!(&body[..], &bytes[..]);
}

#[tokio::test]
async fn a_store_that_stopped_opens_itself_again_though_reads_keep_coming() {
    let fixture = Fixture::new();
    let bytes = noise(1, 100_000);
    let (_, digest) = fixture.write("red", &bytes).await;
    let read_now = || fixture.store.read_one(&team("red"), &digest);
    let stalled = read_now().unwrap();
    let retired = fixture.store.retired().unwrap();
    fixture.store.shared.set_stopped(Some("a test".to_owned()));

    let clock = &fixture.store.shared.clock;
    assert!(!fixture.store.shared.slot.close(Duration::ZERO, clock));
    assert!(retired.is_cancelled(), "who still holds a body is told");
    // The next read would hold the closing up again.
    let refused = read_now();
    assert!(matches!(refused, Err(Trouble::Closed)), "{refused:?}");
    let again = fixture.store.shared.slot.close(Duration::ZERO, clock);
    assert!(!again, "the old one is still in use");
    assert!(matches!(fixture.store.retired(), Err(Trouble::Closed)));

    drop(stalled);
    fixture.store.change(Change::Probe).await.unwrap();
    assert_eq!(fixture.store.stopped(), None);
    assert_eq!(read(&fixture.store, "red", digest).unwrap(), bytes);
    assert!(!fixture.store.retired().unwrap().is_cancelled());
}

#[tokio::test]
async fn what_a_start_after_a_crash_holds_is_held_over_an_orderly_end_too() {
    let fixture = Fixture::new();
    let (_, digest) = fixture.write("red", b"promised before the crash").await;
    // The holds of the process that crashes are not left.
    let image = fixture.crash_image();
    let (store, writer) = open(image.path());
    drop(store);
    writer.join();
    let (store, _writer) = open(image.path());
    assert_eq!(store.sweep(UNLIMITED).await.unwrap().chunks, 0);
    assert!(has(&store, "red", digest));
}

#[tokio::test]
async fn room_in_memory_is_taken_until_a_change_is_written_though_nobody_waits_for_it() {
    let fixture = Fixture::new();
    let shared = &fixture.store.shared;
    let room = Arc::new(Semaphore::new(1));
    let taken = Arc::clone(&room).acquire_owned().await.unwrap();
    // The writer opens the database again first, and waits for who reads.
    let reading = shared.rocks().unwrap();
    shared.set_stopped(Some("a test".to_owned()));
    let mut writing = Box::pin(fixture.store.change_in(vec![taken], Change::Probe));
    assert!(writing.as_mut().now_or_never().is_none());
    drop(writing);
    assert_eq!(room.available_permits(), 0);
    drop(reading);
    let _back = room.acquire().await.unwrap();
}
