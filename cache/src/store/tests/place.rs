//! A log with a place of its own.

use futures_util::future::join_all;

use super::*;

fn try_open(
    directory: &Path,
    log: Option<&Path>,
    salvage: bool,
) -> Result<Fixture, OpenStoreError> {
    let (store, writer) = Store::open(StoreOptions {
        directory: directory.to_owned(),
        log_directory: log.map(Path::to_owned),
        budget: UNLIMITED,
        free_low_water: 0,
        hold: HOLD,
        salvage,
    })?;
    // The directory of each of these is another's to remove.
    let directory = tempfile::tempdir().unwrap();
    Ok(Fixture {
        store,
        writer,
        directory,
    })
}

fn close(fixture: Fixture) {
    drop(fixture.store);
    fixture.writer.join();
}

fn logs(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap());
    let logs = files.filter(|file| file.path().extension().is_some_and(|found| found == "log"));
    logs.map(|log| log.metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn the_log_moves_to_a_directory_of_its_own_and_back_and_nothing_is_lost() {
    let data = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let log = elsewhere.path().join("log");
    let mut written = Vec::new();
    for (round, place) in [None, Some(&*log), Some(&*log), None]
        .into_iter()
        .enumerate()
    {
        let fixture = try_open(data.path(), place, false).unwrap();
        for (seed, digest) in &written {
            let bytes = noise(*seed, 100_000);
            assert_eq!(read(&fixture.store, "red", *digest), Some(bytes), "{round}");
        }
        let seed = round as u64;
        let (_, digest) = fixture.write("red", &noise(seed, 100_000)).await;
        written.push((seed, digest));
        let database = data.path().join("store");
        let (here, there) = match place {
            Some(log) => (log, &*database),
            None => (&*database, &*log),
        };
        assert!(100_000 <= logs(here), "{round}");
        assert!(!there.exists() || logs(there) == 0, "{round}");
        close(fixture);
    }
}

#[tokio::test]
async fn a_log_that_is_not_where_it_was_stops_the_start_and_is_salvaged_without() {
    let data = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let log = elsewhere.path().join("log");
    let fixture = try_open(data.path(), Some(&log), false).unwrap();
    let bytes = noise(1, 100_000);
    let (_, digest) = fixture.write("red", &bytes).await;
    close(fixture);
    let moved_away = elsewhere.path().join("away");
    fs::rename(&log, &moved_away).unwrap();
    // What a disk that is not mounted looks like: a directory, and nothing in it.
    fs::create_dir(&log).unwrap();
    for place in [Some(&*log), None] {
        let refused = try_open(data.path(), place, false).unwrap_err();
        assert!(
            matches!(refused, OpenStoreError::LogGone { .. }),
            "{refused}"
        );
        assert!(refused.is_damage());
    }
    fs::remove_dir(&log).unwrap();
    fs::rename(&moved_away, &log).unwrap();
    let fixture = try_open(data.path(), Some(&log), false).unwrap();
    assert_eq!(read(&fixture.store, "red", digest), Some(bytes));
    let (_, last) = fixture.write("red", &noise(2, 100_000)).await;
    close(fixture);

    fs::remove_dir_all(&log).unwrap();
    let fixture = try_open(data.path(), Some(&log), true).unwrap();
    assert!(has(&fixture.store, "red", digest), "it was in a table");
    assert!(!has(&fixture.store, "red", last), "it was in the log only");
    let (new, _) = fixture.write("red", &noise(2, 100_000)).await;
    assert!(new);
    close(fixture);
    let fixture = try_open(data.path(), Some(&log), false).unwrap();
    assert!(has(&fixture.store, "red", last));
    close(fixture);
}

#[tokio::test]
async fn a_log_whose_directory_has_another_name_now_is_found_and_one_that_was_given_up_is_not() {
    let data = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let [log, link, mounted, away] =
        ["log", "link", "mounted", "away"].map(|name| elsewhere.path().join(name));
    let fixture = try_open(data.path(), Some(&log), false).unwrap();
    let (_, digest) = fixture.write("red", &noise(1, 100_000)).await;
    close(fixture);
    std::os::unix::fs::symlink(&log, &link).unwrap();
    let fixture = try_open(data.path(), Some(&link), false).unwrap();
    assert!(has(&fixture.store, "red", digest), "another spelling");
    close(fixture);
    fs::rename(&log, &mounted).unwrap();
    let fixture = try_open(data.path(), Some(&mounted), false).unwrap();
    assert!(has(&fixture.store, "red", digest), "mounted elsewhere");
    close(fixture);

    fs::rename(&mounted, &away).unwrap();
    close(try_open(data.path(), Some(&mounted), true).unwrap());
    fs::remove_dir_all(&mounted).unwrap();
    fs::rename(&away, &mounted).unwrap();
    let refused = try_open(data.path(), Some(&mounted), false).unwrap_err();
    assert!(
        matches!(refused, OpenStoreError::LogGone { .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_log_that_goes_while_the_store_is_open_is_not_taken_for_an_empty_one() {
    let data = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (log, away) = (elsewhere.path().join("log"), elsewhere.path().join("away"));
    let fixture = try_open(data.path(), Some(&log), false).unwrap();
    let (_, digest) = fixture.write("red", &noise(1, 100_000)).await;
    fs::rename(&log, &away).unwrap();
    fixture.store.shared.set_stopped(Some("a test".to_owned()));
    let refused = fixture.store.change(Change::Probe).await.unwrap_err();
    assert!(matches!(refused, Trouble::LogGone { .. }), "{refused}");
    fs::rename(&away, &log).unwrap();
    while fixture.store.change(Change::Probe).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await; // the poll interval
    }
    assert!(has(&fixture.store, "red", digest));
    close(fixture);
}

#[tokio::test]
async fn no_two_stores_share_the_place_of_a_log() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = tempfile::tempdir().unwrap();
    let fixture = try_open(one.path(), Some(log.path()), false).unwrap();
    let refused = try_open(other.path(), Some(log.path()), false).unwrap_err();
    assert!(
        matches!(refused, OpenStoreError::LogTaken { .. }),
        "{refused}"
    );
    close(fixture);
    let alone = try_open(other.path(), None, false).unwrap();
    close(alone);
}

#[tokio::test]
async fn large_groups_of_a_store_whose_log_is_elsewhere_survive_a_power_cut() {
    let data = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let log = elsewhere.path().join("log");
    let fixture = try_open(data.path(), Some(&log), false).unwrap();
    let chunks = bulk::large(1, 30);
    let changes = chunks
        .iter()
        .map(|bytes| fixture.store.change(bulk::bring(bytes)));
    for applied in join_all(changes).await {
        applied.unwrap();
    }
    assert!(logs(&log) < 14 << 20, "they are in a file");
    // Nothing more is written, and a start finds what a power cut would leave.
    let image = Fixture {
        directory: data,
        ..fixture
    };
    let crashed = image.crash_image();
    let rows = elsewhere.path().join("copy");
    fs::create_dir(&rows).unwrap();
    for file in fs::read_dir(&log).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), rows.join(file.file_name())).unwrap();
    }
    close(image);
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&rows, &log).unwrap();
    let fixture = try_open(crashed.path(), Some(&log), false).unwrap();
    for (bytes, digest) in chunks.iter().zip(bulk::digests(&chunks)) {
        assert_eq!(read(&fixture.store, "red", digest).as_ref(), Some(bytes));
    }
    close(fixture);
}
