//! Batches: several units, some after others.

use serde_json::Value;
use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

const GRAPH: &str = "
version: 0.2
batch:
  fast-fail: false
  build-graph:
    - identifier: base
      env: {variables: {WHO: base}}
    - identifier: fails
      ignore-failure: true
      env: {variables: {WHO: fails}}
    - identifier: after
      depend-on: [base, fails]
      env: {variables: {WHO: after}}
phases:
  build:
    commands:
      - echo I am $WHO in $CODEBUILD_BATCH_BUILD_IDENTIFIER
      - test $WHO != fails
";

fn phase<'a>(status: &'a Value, unit: &str, phase: &str) -> &'a Value {
    let unit = status["units"]
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["identifier"] == unit);
    let phases = unit.unwrap()["phases"].as_array().unwrap();
    phases.iter().find(|found| found["phase"] == phase).unwrap()
}

#[test]
fn a_task_runs_after_all_that_it_depends_on_and_a_failure_can_be_ignored() {
    let farm = Farm::start(FarmPlan {
        workers: 2,
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), GRAPH);
    let built = farm.build(source.path(), &["--project", "sample", "--batch"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    for unit in ["base", "fails", "after"] {
        let line = format!("[{unit}] I am {unit} in {unit}");
        assert!(
            built.stdout.lines().any(|found| found == line),
            "{line}:\n{}",
            built.stdout
        );
    }
    let status = farm.status("sample#1");
    let started = |unit| {
        phase(&status, unit, "DOWNLOAD_SOURCE")["started"]
            .as_u64()
            .unwrap()
    };
    let ended = |unit| {
        phase(&status, unit, "UPLOAD_ARTIFACTS")["ended"]
            .as_u64()
            .unwrap()
    };
    assert!(ended("base") <= started("after"));
    assert!(ended("fails") <= started("after"));
}

#[test]
fn a_failed_task_keeps_those_that_depend_on_it_from_running() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), &GRAPH.replace("ignore-failure: true", ""));
    let built = farm.build(source.path(), &["--project", "sample", "--batch"]);
    assert_eq!(built.code, 1, "{}\n{}", built.stdout, built.stderr);
    assert!(!built.stdout.contains("I am after"), "{}", built.stdout);
}

#[test]
fn a_file_with_only_a_batch_says_that_it_wants_one() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
batch:
  build-list:
    - identifier: one
",
    );
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 2, "{}", built.stderr);
    assert!(built.stderr.contains("--batch"), "{}", built.stderr);
}

#[test]
fn tasks_that_wait_share_the_workers() {
    let farm = Farm::start(FarmPlan {
        workers: 3,
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
batch:
  build-list:
    - identifier: a
    - identifier: b
    - identifier: c
phases:
  build:
    commands:
      - sleep 1
",
    );
    let built = farm.build(source.path(), &["--project", "sample", "--batch"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let status = farm.status("sample#1");
    let runs: Vec<(u64, u64)> = ["a", "b", "c"]
        .map(|unit| {
            let build = phase(&status, unit, "BUILD");
            (
                build["started"].as_u64().unwrap(),
                build["ended"].as_u64().unwrap(),
            )
        })
        .into();
    let last_start = runs.iter().map(|run| run.0).max().unwrap();
    let first_end = runs.iter().map(|run| run.1).min().unwrap();
    assert!(last_start < first_end, "all three ran at once: {runs:?}");
}

#[test]
fn a_matrix_and_a_fanout_run_as_the_tasks_that_they_stand_for() {
    let farm = Farm::start(FarmPlan {
        workers: 2,
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    let phases = "
version: 0.2
phases:
  build:
    commands:
      - echo I am $CODEBUILD_BATCH_BUILD_IDENTIFIER with $A
batch:
";
    let matrix = "  build-matrix: {dynamic: {env: {variables: {A: [3.9, 3.10]}}}}\n";
    project::write_buildspec(source.path(), &format!("{phases}{matrix}"));
    let built = farm.build(source.path(), &["--project", "sample", "--batch"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    for line in [
        "[build0] I am build0 with 3.9",
        "[build1] I am build1 with 3.10",
    ] {
        assert!(
            built.stdout.lines().any(|found| found == line),
            "{line}:\n{}",
            built.stdout
        );
    }
    let fanout = "  build-fanout: {parallelism: 2}\n";
    project::write_buildspec(source.path(), &format!("{phases}{fanout}"));
    let built = farm.build(source.path(), &["--project", "sample", "--batch"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    for shard in ["BuildFanoutShard0", "BuildFanoutShard1"] {
        let line = format!("[{shard}] I am {shard} with");
        assert!(
            built.stdout.lines().any(|found| found.trim_end() == line),
            "{}",
            built.stdout
        );
    }
}
