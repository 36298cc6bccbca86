//! `run-as`: whose commands are whose, and what they may.

use std::fs;

use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

use super::building::build;

/// Whether commands can run as another user at all: only root gives itself up.
fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
    if !root {
        testkit::tell("not root: what run-as does is not tried");
    }
    root
}

#[test]
fn run_as_names_the_user_of_commands_and_a_phase_goes_over_the_file() {
    if !is_root() {
        return;
    }
    let done = build(
        "\
run-as: nobody
phases:
  install:
    commands:
      - id -un; A=kept; cd sub
      - touch /tmp/mine && echo out > /dev/stdout
  pre_build:
    run-as: root
    commands: [id -un]
  build:
    commands:
      - echo $(id -un) $A $(basename $PWD) $(stat -c %U /tmp/mine)
",
    );
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    assert_eq!(
        done.printed(),
        ["nobody", "out", "root", "nobody kept sub nobody"]
    );
}

#[test]
fn without_run_as_commands_run_as_root() {
    if !is_root() {
        return;
    }
    let done = build("phases:\n  build:\n    commands: ['id -un']\n");
    assert_eq!(done.printed(), ["root"], "{}", done.built.stdout);
}

#[test]
fn run_as_grants_read_and_execute_on_the_source_and_no_more() {
    if !is_root() {
        return;
    }
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "=== tool *\n#!/bin/sh\necho ran\n=== text\nread\n",
    );
    project::write_buildspec(
        source.path(),
        "\
version: 0.2
phases:
  install:
    commands: [chmod 700 tool, chmod 600 text, mkdir -m 700 locked, mv text locked]
  build:
    run-as: nobody
    commands:
      - ./tool; cat locked/text
      - touch new 2> /dev/null || echo not written
",
    );
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(
        built.printed(),
        ["ran", "read", "not written"],
        "{}",
        built.stdout
    );
}

#[test]
fn a_user_that_does_not_exist_fails_the_first_command() {
    if !is_root() {
        return;
    }
    let done = build(
        "phases:\n  build:\n    run-as: nowhere-man\n    commands: [echo never]\n    finally: [echo never]\n",
    );
    assert_eq!(
        (done.built.code, done.printed()),
        (1, vec![]),
        "{}",
        done.built.stdout
    );
    done.at("Phase complete: BUILD State: FAILED");
    done.at(
        "Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing command: echo \
         never. Reason: user: unknown user nowhere-man",
    );
}
