//! `on-failure: RETRY…`, and the phases as a build tells them.

use std::{collections::BTreeSet, process::Command};

use protocol::build::{Outcome, Status};
use serde_json::Value;
use testkit::{
    farm::{Farm, FarmPlan},
    program, project, wait,
};

use super::building::{Done, build};

/// A build whose phase `build` has these lines.
fn phase(lines: &str) -> Done {
    build(&format!("phases:\n  build:\n{lines}"))
}

#[test]
fn retry_runs_again_up_to_three_times() {
    let done = phase(
        "    on-failure: RETRY
    commands: [echo tried, exit 5]
    finally: [echo finally]
",
    );
    assert_eq!(done.built.code, 1);
    let expected = ["tried", "finally"].repeat(4);
    assert_eq!(done.printed(), expected, "{}", done.built.stdout);
    for attempt in 2..=4 {
        done.at(&format!("Retrying phase BUILD: attempt {attempt} of 4"));
    }
    let ends = done.lines();
    let ends = ends
        .iter()
        .filter(|line| **line == "Phase complete: BUILD State: FAILED");
    assert_eq!(ends.count(), 1, "one phase, however often it was tried");
    done.at(
        "Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing command: exit 5. \
         Reason: exit status 5",
    );
    done.at("Entering phase POST_BUILD");
}

#[test]
fn a_phase_that_runs_again_starts_as_it_did_and_finds_the_files_that_it_left() {
    let done = phase(
        "    on-failure: RETRY-5
    commands:
      - cd sub && echo ${LEFT:-unset} && LEFT=set
      - test -e once || { touch once; exit 1; }
      - echo done
",
    );
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    assert_eq!(done.printed(), ["unset", "unset", "done"]);
    done.at("Phase complete: BUILD State: SUCCEEDED");
    assert!(!done.built.stdout.contains("attempt 3"));
}

#[test]
fn retry_with_a_pattern_runs_again_if_the_message_matches() {
    let done = phase(
        "    on-failure: RETRY-exit status (7|8)$
    commands:
      - N=$(cat n 2> /dev/null || echo 7); echo $N; echo $((N + 1)) > n; exit $N
",
    );
    assert_eq!(done.built.code, 1);
    assert_eq!(done.printed(), ["7", "8", "9"], "9 does not match");
}

#[test]
fn retry_with_count_and_pattern_honours_both() {
    let done = phase("    on-failure: RETRY-1-status 3\n    commands: [echo tried, exit 3]\n");
    assert_eq!(done.printed(), ["tried", "tried"]);
    let done = phase("    on-failure: RETRY-2-status 4\n    commands: [echo tried, exit 3]\n");
    assert_eq!(done.printed(), ["tried"]);
    let done = phase("    on-failure: RETRY-0\n    commands: [echo tried, exit 3]\n");
    assert_eq!(done.printed(), ["tried"]);
}

#[test]
fn a_phase_that_was_retried_in_vain_is_followed_as_without_retry() {
    let done = build(
        "\
phases:
  pre_build:
    on-failure: RETRY-1
    commands: [echo tried, 'false']
  build:
    commands: [echo built]
",
    );
    assert_eq!(done.printed(), ["tried", "tried"]);
    assert_eq!(
        done.timeline()[5..],
        ["PRE_BUILD FAILED", "FINALIZING SUCCEEDED", "COMPLETED -"]
    );
}

#[test]
fn a_pattern_that_is_none_is_refused() {
    let done = phase("    on-failure: RETRY-2-(\n    commands: [a]\n");
    assert_eq!(done.built.code, 2);
    let said = "`(` is no regular expression: unclosed group";
    assert!(done.built.stderr.contains(said), "{}", done.built.stderr);
}

#[test]
fn a_build_has_eleven_phases_that_follow_each_other() {
    let done = phase("    commands: ['true']\n");
    let names = [
        "SUBMITTED",
        "QUEUED",
        "PROVISIONING",
        "DOWNLOAD_SOURCE",
        "INSTALL",
        "PRE_BUILD",
        "BUILD",
        "POST_BUILD",
        "UPLOAD_ARTIFACTS",
        "FINALIZING",
    ];
    let mut expected: Vec<_> = names
        .iter()
        .map(|name| format!("{name} SUCCEEDED"))
        .collect();
    expected.push("COMPLETED -".to_owned());
    assert_eq!(done.timeline(), expected);
    assert_eq!(done.unit()["current_phase"], "COMPLETED");
    let entries = done.unit()["timeline"].as_array().unwrap();
    for pair in entries.windows(2) {
        assert_eq!(pair[0]["ended"], pair[1]["started"]);
        assert_eq!(pair[0]["contexts"][0]["status_code"], "");
    }
    let last = entries.last().unwrap();
    assert_eq!(
        (&last["status"], &last["ended"]),
        (&Value::Null, &Value::Null)
    );
    let shown = done.shown(&["status", "sample#1"]);
    let at = |name: &str| {
        shown
            .find(name)
            .unwrap_or_else(|| panic!("{name}: {shown}"))
    };
    let places = names.map(at);
    assert!(places.is_sorted(), "{shown}");
}

#[test]
fn the_queue_limit_is_480_minutes_by_default() {
    let output = Command::new(program::grange())
        .args(["config", "--json"])
        .output()
        .unwrap();
    let settings: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(settings["coordinator"]["queue_minutes_max"], 480);
    assert_eq!(settings["coordinator"]["build_minutes_max"], 60);
}

#[test]
fn a_build_has_one_of_six_statuses() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    let submit = |command: &str| {
        let lines = format!("version: 0.2\nphases: {{build: {{commands: ['{command}']}}}}\n");
        project::write_buildspec(source.path(), &lines);
        farm.submit(source.path(), &["--project", "sample"])
    };
    let status = |build: &str| farm.status(build)["build_status"].clone();
    let [good, bad] = ["true", "false"].map(submit);
    farm.wait_for_end(&good);
    farm.wait_for_end(&bad);
    assert_eq!([status(&good), status(&bad)], ["SUCCEEDED", "FAILED"]);
    let stopped = submit("echo begun; sleep 1000");
    assert_eq!(status(&stopped), "IN_PROGRESS", "also while it waits");
    wait::until_true("it runs", || farm.log(&stopped).contains("\nbegun\n"));
    assert_eq!(status(&stopped), "IN_PROGRESS");
    assert!(farm.client(&["stop", &stopped]).status().unwrap().success());
    farm.wait_for_end(&stopped);
    assert_eq!(status(&stopped), "STOPPED");
    // The other two take a worker that dies, and a minute.
    let outcomes = Outcome::ALL.map(Status::Ended).into_iter();
    let all = outcomes.chain([Status::Queued, Status::InProgress]);
    let all: BTreeSet<_> = all.map(Status::of_build).collect();
    let six = [
        "FAILED",
        "FAULT",
        "IN_PROGRESS",
        "STOPPED",
        "SUCCEEDED",
        "TIMED_OUT",
    ];
    assert_eq!(all, BTreeSet::from(six));
}

#[test]
fn after_a_failed_download_source_comes_finalizing() {
    let done = build("env: {parameter-store: {A: /none}}\nphases: {build: {commands: ['true']}}\n");
    assert_eq!(done.built.code, 1, "{}", done.built.stdout);
    let expected = [
        "SUBMITTED SUCCEEDED",
        "QUEUED SUCCEEDED",
        "PROVISIONING SUCCEEDED",
        "DOWNLOAD_SOURCE FAILED",
        "FINALIZING SUCCEEDED",
        "COMPLETED -",
    ];
    assert_eq!(done.timeline(), expected);
}
