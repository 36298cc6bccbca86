//! `env.exported-variables`.

use std::fs;

use serde_json::json;
use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

use super::building::build;

const EXPORTED: &str = "\
env:
  variables: {FROM_FILE: file, CHANGED: first}
  exported-variables: [FROM_FILE, CHANGED, MADE, NEVER, AWS_MADE]
phases:
  install:
    commands: [MADE=installed, CHANGED=second]
  build:
    commands: [AWS_MADE=x]
  post_build:
    commands:
      - CHANGED=third
";

#[test]
fn a_value_may_change_until_post_build_ends() {
    let done = build(EXPORTED);
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    let exported = &done.unit()["exported_variables"];
    let expected = json!({"FROM_FILE": "file", "CHANGED": "third", "MADE": "installed"});
    assert_eq!(*exported, expected);
    let shown = done.shown(&["status", "sample#1"]);
    assert!(shown.contains("exports CHANGED=third\n"), "{shown}");
}

#[test]
fn a_build_that_fails_exports_what_there_was() {
    let done = build(
        "\
env:
  variables: {A: file}
  exported-variables: [A, B]
phases:
  pre_build:
    commands: ['B=1', 'false']
  build:
    commands: [A=never]
",
    );
    assert_eq!(done.built.code, 1);
    let expected = json!({"A": "file", "B": "1"});
    assert_eq!(done.unit()["exported_variables"], expected);
}

#[test]
fn a_value_that_is_too_long_is_named_and_left_out() {
    let done = build(
        "\
env:
  exported-variables: [LONG, SHORT]
phases:
  build:
    commands:
      - LONG=$(head -c 40000 /dev/zero | tr '\\0' x)
      - SHORT=1
",
    );
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    assert_eq!(done.unit()["exported_variables"], json!({"SHORT": "1"}));
    let named = "Variable LONG is not exported";
    assert!(done.built.stdout.contains(named), "{}", done.built.stdout);
}

#[test]
fn a_secret_of_the_project_is_not_exported() {
    let farm = Farm::start(FarmPlan::default());
    let value = farm.directory().join("value");
    fs::write(&value, "hunter2-of-the-project").unwrap();
    let done = |arguments: &[&str]| assert!(farm.client(arguments).status().unwrap().success());
    done(&[
        "secret",
        "set",
        "/app/token",
        "--file",
        value.to_str().unwrap(),
    ]);
    done(&[
        "project",
        "create",
        "shop",
        "--env",
        "SHOWN=plain",
        "--parameter-store",
        "TOKEN=/app/token",
    ]);
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "\
version: 0.2
env: {exported-variables: [TOKEN, SHOWN]}
phases:
  build:
    commands: ['test ${#TOKEN} = 22']
",
    );
    let built = farm.build(source.path(), &["--project", "shop"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let status = farm.status("shop#1");
    assert_eq!(
        status["units"][0]["exported_variables"],
        json!({"SHOWN": "plain"})
    );
}
