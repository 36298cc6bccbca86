//! What survives: the farm's processes may be started again at any moment.

use std::time::Duration;

use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

use crate::levels::has_namespaces;

const HELLO: &str = "
version: 0.2
phases:
  build:
    commands: [echo hello > out.txt; echo said]
artifacts:
  files: [out.txt]
";

#[test]
fn builds_logs_and_artifacts_survive_a_new_start_of_coordinator_and_cache() {
    let mut farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), HELLO);
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let before = farm.status("sample#1");
    farm.kill_coordinator();
    farm.kill_cache();
    farm.start_coordinator();
    farm.start_cache();
    assert_eq!(farm.status("sample#1"), before);
    assert!(farm.log("sample#1").contains("\nsaid\n"));
    let to = source.path().join("fetched");
    testkit::wait::until_true("the cache is announced", || {
        let arguments = ["artifacts", "sample#1", "--to", to.to_str().unwrap()];
        farm.client(&arguments).output().unwrap().status.success()
    });
    assert_eq!(
        std::fs::read_to_string(to.join("out.txt")).unwrap(),
        "hello\n"
    );
    farm.wait_for_workers(1);
    let again = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(again.code, 0, "{}\n{}", again.stdout, again.stderr);
    assert!(
        again.stderr.contains("sample#2"),
        "numbers go on: {}",
        again.stderr
    );
}

#[test]
fn a_build_goes_on_when_the_coordinator_comes_back() {
    let mut farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  install:
    commands: [echo installed]
  build:
    commands: [echo started, sleep 3, echo ended]
",
    );
    let build = farm.submit(source.path(), &["--project", "sample"]);
    testkit::wait::until_true("the build runs", || {
        farm.log(&build).contains("\nstarted\n")
    });
    farm.kill_coordinator();
    farm.start_coordinator();
    let ended = farm.wait_for_end(&build);
    let log = farm.log(&build);
    assert_eq!(
        ended["summary"]["status"]["ENDED"], "SUCCEEDED",
        "{ended}\n{log}"
    );
    let said = |word: &str| log.lines().filter(|line| *line == word).count();
    assert_eq!(
        (said("installed"), said("started"), said("ended")),
        (1, 1, 1),
        "{log}"
    );
}

#[test]
fn a_build_that_says_nothing_any_more_is_not_lost_after_a_new_start_of_the_coordinator() {
    if !testkit::slow_tests() {
        testkit::skip("it says nothing for longer than a minute: GRANGE_SLOW_TESTS=1");
        return;
    }
    let mut farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    // Longer than an attempt has to be heard of, and than a lease that is not renewed then.
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands: [echo started, sleep 95, echo ended]
",
    );
    let build = farm.submit(source.path(), &["--project", "sample"]);
    testkit::wait::until_true("the build runs", || {
        farm.log(&build).contains("\nstarted\n")
    });
    farm.kill_coordinator();
    farm.start_coordinator();
    let ended = farm.wait_for_end(&build);
    assert_eq!(
        ended["summary"]["status"]["ENDED"], "SUCCEEDED",
        "{ended:#}"
    );
    let phases = ended["units"][0]["phases"].as_array().unwrap();
    let again = phases
        .iter()
        .filter(|phase| phase["attempts"].as_u64() > Some(1));
    assert_eq!(again.count(), 0, "{ended:#}");
}

#[test]
fn a_unit_whose_worker_is_lost_goes_on_elsewhere() {
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
    commands: [echo installed, VALUE=kept]
  build:
    commands: [echo started, sleep 4, echo ended $VALUE]
",
    );
    let build = farm.submit(source.path(), &["--project", "sample"]);
    testkit::wait::until_true("the build runs", || {
        farm.log(&build).contains("\nstarted\n")
    });
    let status = farm.status(&build);
    let worker = status["units"][0]["phases"][3]["worker"].as_str().unwrap();
    let index = worker.strip_prefix("worker-").unwrap().parse().unwrap();
    farm.kill_worker(index);
    let ended = farm.wait_for_end(&build);
    let log = farm.log(&build);
    assert_eq!(
        ended["summary"]["status"]["ENDED"], "SUCCEEDED",
        "{ended}\n{log}"
    );
    assert_eq!(
        ended["units"][0]["phases"][1]["attempts"], 1,
        "install was stored, and ran once"
    );
    assert_eq!(ended["units"][0]["phases"][3]["attempts"], 2);
    assert!(log.contains("\nended kept\n"), "{log}");
}

#[test]
fn a_worker_that_starts_again_does_not_wait_for_what_died_with_it() {
    let mut farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands: [echo started, sleep 3, echo ended]
",
    );
    let build = farm.submit(source.path(), &["--project", "sample"]);
    testkit::wait::until_true("the build runs", || {
        farm.log(&build).contains("\nstarted\n")
    });
    farm.kill_worker(0);
    let killed = testkit::wait::now();
    farm.start_worker(0);
    testkit::wait::until_true("the phase is tried again", || {
        farm.status(&build)["units"][0]["phases"][3]["attempts"] == 2
    });
    let waited = killed.elapsed();
    // As long as the coordinator waits for a worker of which nobody knows.
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    let ended = farm.wait_for_end(&build);
    assert_eq!(ended["summary"]["status"]["ENDED"], "SUCCEEDED", "{ended}");
}
