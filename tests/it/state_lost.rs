//! What the farm loses costs time: the state of a unit is made again, an upload and a submission are
//! repeated.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    thread,
    time::Duration,
};

use testkit::{
    farm::{Farm, FarmPlan},
    project, wait,
};

use crate::{levels::has_namespaces, survival::story::tries};

#[test]
fn a_unit_whose_snapshot_is_lost_starts_again_and_the_build_succeeds() {
    if !has_namespaces() {
        return;
    }
    let mut farm = Farm::start(FarmPlan {
        workers: 2,
        isolation: Some("namespace"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  install:
    commands: [head -c 100000 /dev/urandom > ~/state]
  build:
    commands:
      - test -s ~/state
      - echo begun here; sleep 3; echo made
",
    );
    farm.submit(source.path(), &["--project", "sample"]);
    wait::until_true("the phase runs that needs the state", || {
        farm.log("sample#1").contains("\nbegun here\n")
    });
    // Whoever has the layers unpacked dies, and the cache loses all that it holds.
    let status = farm.status("sample#1");
    let ran = status["units"][0]["phases"][3]["worker"].as_str().unwrap();
    let ran: u32 = ran.strip_prefix("worker-").unwrap().parse().unwrap();
    farm.kill_worker(ran);
    farm.kill_cache();
    fs::remove_dir_all(farm.cache_store()).unwrap();
    farm.start_cache();
    // Nobody can make a source again but who has it: the same one comes with another build.
    let other = ["--project", "other", "--priority", "10"];
    farm.submit(source.path(), &other);
    let ended = farm.wait_for_end("sample#1");
    let how = &ended["summary"]["status"]["ENDED"];
    assert_eq!(how, "SUCCEEDED", "{ended:#}");
    let tries = tries(&ended);
    assert_eq!(
        (tries[0], tries[1]),
        (2, 2),
        "it started again from its first phase: {ended:#}"
    );
    let log = fs::read_to_string(farm.directory().join("coordinator.log")).unwrap_or_default();
    assert!(!log.contains("panicked"), "{log}");
}

/// How large the source is whose upload is broken off: a second's work, or more.
const SOURCE_BYTES: u64 = 128 * 1024 * 1024;

#[test]
fn a_build_is_uploaded_and_submitted_once_although_the_farm_dies_meanwhile() {
    let mut farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "version: 0.2\nphases:\n  build:\n    commands: [echo said, test -s large]\n",
    );
    let mut random = fs::File::open("/dev/urandom").unwrap().take(SOURCE_BYTES);
    let mut large = fs::File::create(source.path().join("large")).unwrap();
    io::copy(&mut random, &mut large).unwrap();
    let mut follow = farm.client(&["build", "--project", "sample"]);
    follow.current_dir(source.path());
    let follower = thread::spawn(move || follow.output().unwrap());
    let store = farm.cache_store();
    wait::until_true("the upload goes on", || {
        bytes_below(&store) > SOURCE_BYTES / 16
    });
    farm.kill_cache();
    farm.kill_coordinator();
    wait::moment(Duration::from_secs(2));
    farm.start_coordinator();
    farm.start_cache();
    let followed = follower.join().unwrap();
    let said = String::from_utf8_lossy(&followed.stderr);
    assert_eq!(followed.status.code(), Some(0), "{said}");
    assert!(said.contains("lost the farm"), "it was not there: {said}");
    let builds = farm.json(&["builds"]);
    assert_eq!(builds.len(), 1, "{builds:#?}");
}

fn bytes_below(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
    bytes.sum()
}
