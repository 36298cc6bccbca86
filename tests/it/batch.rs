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

/// Two tasks that publish a file and a report each.
const PUBLISHES: &str = "
version: 0.2
batch:
  build-list:
    - identifier: one
    - identifier: two
phases:
  build:
    commands:
      - echo $CODEBUILD_BATCH_BUILD_IDENTIFIER > out
      - echo \"<testsuite><testcase name='$CODEBUILD_BATCH_BUILD_IDENTIFIER'/></testsuite>\" > report.xml
artifacts:
  files: [out]
reports:
  unit: {files: [report.xml]}
";

/// A farm with a project, and a build of it as a batch.
fn of_project(flags: &[&str], buildspec: &str) -> (Farm, tempfile::TempDir) {
    let farm = Farm::start(FarmPlan {
        slots: 2,
        ..FarmPlan::default()
    });
    let make = [&["project", "create", "sample"], flags].concat();
    let made = farm.client(&make).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), buildspec);
    (farm, source)
}

fn batch_phases(status: &Value) -> Vec<String> {
    let entries = status["batch"]["timeline"].as_array().unwrap().iter();
    let shown = entries.map(|entry| {
        let status = entry["status"]["ENDED"].as_str();
        format!(
            "{} {}",
            entry["phase"].as_str().unwrap(),
            status.unwrap_or("-")
        )
    });
    shown.collect()
}

#[test]
fn a_batch_has_its_own_phases() {
    let (farm, source) = of_project(&["--batch-combine-artifacts", "yes"], PUBLISHES);
    let arguments = ["--project", "sample", "--batch"];
    let built = farm.build(source.path(), &arguments);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let status = farm.status("sample#1");
    let expected = [
        "SUBMITTED SUCCEEDED",
        "DOWNLOAD_BATCHSPEC SUCCEEDED",
        "IN_PROGRESS SUCCEEDED",
        "COMBINE_ARTIFACTS SUCCEEDED",
        "SUCCEEDED SUCCEEDED",
    ];
    assert_eq!(batch_phases(&status), expected);
    assert_eq!(status["batch"]["current_phase"], "SUCCEEDED");
    let shown = farm.client(&["status", "sample#1"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("DOWNLOAD_BATCHSPEC"), "{shown}");

    let fails = PUBLISHES.replace(
        "commands:",
        "commands:\n      - test one = $CODEBUILD_BATCH_BUILD_IDENTIFIER",
    );
    project::write_buildspec(source.path(), &fails);
    assert_eq!(farm.build(source.path(), &arguments).code, 1);
    let failed = batch_phases(&farm.status("sample#2"));
    assert_eq!(failed[2..], ["IN_PROGRESS FAILED", "FAILED FAILED"]);

    project::write_buildspec(
        source.path(),
        &PUBLISHES.replace("echo $", "sleep 600; echo $"),
    );
    let build = farm.submit(source.path(), &arguments);
    testkit::wait::until_true("the batch is in progress", || {
        let status = farm.status(&build);
        status["batch"]["current_phase"] == "IN_PROGRESS"
    });
    assert!(farm.client(&["stop", &build]).status().unwrap().success());
    let stopped = batch_phases(&farm.wait_for_end(&build));
    assert_eq!(stopped[2..], ["IN_PROGRESS STOPPED", "STOPPED STOPPED"]);

    let plain = "version: 0.2\nphases:\n  build:\n    commands: ['true']\n";
    project::write_buildspec(source.path(), plain);
    assert_eq!(farm.build(source.path(), &["--project", "sample"]).code, 0);
    assert!(farm.status("sample#4")["batch"].is_null());
}

#[test]
fn reports_are_merged_unless_the_project_says_otherwise() {
    let (farm, source) = of_project(&[], PUBLISHES);
    let arguments = ["--project", "sample", "--batch"];
    let built = farm.build(source.path(), &arguments);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let merged = farm.json(&["reports", "sample#1"]);
    assert_eq!(merged.len(), 1, "{merged:#?}");
    assert!(merged[0]["unit"].is_null());
    let update = [
        "project",
        "update",
        "sample",
        "--batch-reports",
        "individual",
    ];
    assert!(farm.client(&update).status().unwrap().success());
    assert_eq!(farm.build(source.path(), &arguments).code, 0);
    let each = farm.json(&["reports", "sample#2"]);
    let units: Vec<_> = each.iter().map(|report| report["unit"].as_str()).collect();
    assert_eq!(units, [Some("one"), Some("two")]);
    let before = farm.json(&["reports", "sample#1"]);
    assert_eq!(before.len(), 1, "it was built before");
}

#[test]
fn artifacts_are_combined_if_the_project_says_so() {
    let (farm, source) = of_project(&["--batch-combine-artifacts", "yes"], PUBLISHES);
    let fetched = tempfile::tempdir().unwrap();
    let to = fetched.path().join("all");
    let arguments = [
        "--project",
        "sample",
        "--batch",
        "--artifacts",
        to.to_str().unwrap(),
    ];
    let built = farm.build(source.path(), &arguments);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let listed = farm.json(&["artifacts", "sample#1"]);
    assert_eq!(listed.len(), 1, "{listed:#?}");
    assert_eq!(
        (&listed[0]["unit"], &listed[0]["name"], &listed[0]["files"]),
        (&Value::Null, &"sample".into(), &2.into())
    );
    for task in ["one", "two"] {
        let found = std::fs::read_to_string(to.join(task).join("out")).unwrap();
        assert_eq!(found.trim(), task);
        assert!(listed[0]["trees"][task].is_string());
    }
    let update = [
        "project",
        "update",
        "sample",
        "--batch-combine-artifacts",
        "no",
    ];
    assert!(farm.client(&update).status().unwrap().success());
    let arguments = ["--project", "sample", "--batch"];
    assert_eq!(farm.build(source.path(), &arguments).code, 0);
    assert_eq!(farm.json(&["artifacts", "sample#2"]).len(), 2);
    let update = [
        "project",
        "update",
        "sample",
        "--batch-combine-artifacts",
        "yes",
    ];
    assert!(farm.client(&update).status().unwrap().success());
    let fails = PUBLISHES.replace(
        "commands:",
        "commands:\n      - test one = $CODEBUILD_BATCH_BUILD_IDENTIFIER",
    );
    project::write_buildspec(source.path(), &fails);
    assert_eq!(farm.build(source.path(), &arguments).code, 1);
    // What of it there is is not the whole.
    let listed = farm.json(&["artifacts", "sample#3"]);
    assert_eq!(listed.len(), 1, "{listed:#?}");
    assert_eq!(listed[0]["unit"], "one");
}
