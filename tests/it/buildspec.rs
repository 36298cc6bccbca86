//! `grange buildspec`: what people learn of a buildspec without a farm.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use testkit::{farm::Built, program::grange, project};

/// Runs `grange buildspec` in a directory, with a home of its own.
fn run_in(directory: &Path, arguments: &[&str]) -> Built {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(grange())
        .arg("buildspec")
        .args(arguments)
        .current_dir(directory)
        .env("HOME", home.path())
        .env_remove("XDG_DATA_HOME")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("GRANGE_LOG")
        .output()
        .unwrap();
    Built::from(output)
}

fn run(tree: &str, arguments: &[&str]) -> Built {
    let directory = tempfile::tempdir().unwrap();
    project::write(directory.path(), tree);
    run_in(directory.path(), arguments)
}

const GOOD: &str = "=== good.yml
version: 0.2
phases: {build: {commands: [make]}}
";

#[test]
fn every_mistake_of_a_checked_file_is_underlined_in_its_line() {
    let built = run(
        "=== a.yml
version: 0.2
phases:
  biuld:
    commands: [make]
  build:
    commands:
      - echo Status: done
    runas: me
",
        &["check", "a.yml"],
    );
    assert_eq!(built.code, 2, "{}", built.stderr);
    assert_eq!(
        built.stdout,
        "\
error: unknown key `biuld` in `phases`, so its commands do not run
 --> a.yml:3:3
  |
3 |   biuld:
  |   ^^^^^
  = hint: did you mean `build`?

error: command 1 of `phases.build.commands` is read as a mapping, because of the `: ` in it
 --> a.yml:7:9
  |
7 |       - echo Status: done
  |         ^
  = hint: put it in quotes: `- 'echo Status: done'`
  = CodeBuild says: YAML_FILE_ERROR: Expected Commands[0] to be of string type: found subkeys instead at line 7, \
value of the key tag on line 6 might be empty

warning: unknown key `runas` in a phase
 --> a.yml:8:5
  |
8 |     runas: me
  |     ^^^^^
  = hint: write it `run-as`

"
    );
}

#[test]
fn several_files_are_checked_and_one_mistake_is_enough() {
    let tree = format!(
        "{GOOD}=== warned.yml\nversion: 0.2\nsteps: []\nphases: {{build: {{commands: [a]}}}}\n"
    );
    let built = run(&tree, &["check", "good.yml", "warned.yml"]);
    assert_eq!(built.code, 0, "{}", built.stdout);
    assert!(
        built
            .stdout
            .starts_with("good.yml: nothing is wrong with it\n"),
        "{}",
        built.stdout
    );
    assert!(
        built.stdout.contains("warning: unknown key `steps`"),
        "{}",
        built.stdout
    );
    let built = run(&tree, &["check", "good.yml", "missing.yml", "warned.yml"]);
    assert_eq!(built.code, 2);
    let says = "CodeBuild says: YAML_FILE_ERROR: stat missing.yml: no such file or directory";
    assert!(built.stdout.contains(says), "{}", built.stdout);
}

#[test]
fn a_check_as_json_is_an_object_for_each_file() {
    let built = run(
        &format!("{GOOD}=== bad.yml\nversion: 0.2\nphases:\n\tbuild: a\n"),
        &["check", "--json", "good.yml", "bad.yml"],
    );
    assert_eq!(built.code, 2);
    let files: Vec<Value> = built
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(files.len(), 2);
    assert_eq!(
        (&files[0]["file"], &files[0]["ok"]),
        (&"good.yml".into(), &true.into())
    );
    assert_eq!(files[1]["ok"], false);
    let remark = &files[1]["diagnostics"][0];
    assert_eq!(
        (&remark["severity"], &remark["line"]),
        (&"error".into(), &3.into())
    );
    assert_eq!(
        remark["codebuild"],
        "YAML_FILE_ERROR: found character that cannot start any token at line 3"
    );
}

const MATRIX: &str = "=== buildspec.yml
version: 0.2
env:
  parameter-store: {PASSWORD: /p}
phases: {install: {commands: [i]}, build: {commands: [b]}}
batch:
  build-matrix:
    dynamic: {env: {variables: {V: [1, 2, 3]}}}
";

#[test]
fn a_plan_shows_the_jobs_of_a_matrix_and_needs_no_secrets() {
    let built = run(MATRIX, &["plan", "buildspec.yml"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(built.stdout.lines().count(), 1 + 3 * 6, "{}", built.stdout);
    for unit in ["build0", "build1", "build2"] {
        assert!(built.stdout.contains(unit), "{}", built.stdout);
    }
    let single = run(MATRIX, &["plan", "buildspec.yml", "--no-batch"]);
    assert_eq!(single.stdout.lines().count(), 1 + 6, "{}", single.stdout);
}

#[test]
fn a_plan_has_four_formats() {
    let plan = |format: &str| {
        let built = run(MATRIX, &["plan", "buildspec.yml", "--format", format]);
        assert_eq!(built.code, 0, "{}", built.stderr);
        built.stdout
    };
    assert!(plan("mermaid").starts_with("flowchart LR\n"));
    assert!(plan("dot").starts_with("digraph build {\n"));
    assert!(plan("text").starts_with("JOB"));
    let object: Value = serde_json::from_str(&plan("json")).unwrap();
    assert_eq!(object["units"].as_array().unwrap().len(), 3);
    assert_eq!(object["jobs"].as_array().unwrap().len(), 18);
    let json = run(MATRIX, &["plan", "buildspec.yml", "--json"]);
    assert_eq!((json.code, json.stdout), (0, plan("json")));
    let both = ["plan", "buildspec.yml", "--json", "--format", "dot"];
    assert_eq!(run(MATRIX, &both).code, 2);
}

#[test]
fn tasks_with_buildspecs_of_their_own_are_planned_with_those_that_are_there() {
    let tree = "=== buildspec.yml
version: 0.2
batch:
  build-graph:
    - {identifier: a, buildspec: ci/a.yml}
    - {identifier: b, buildspec: ci/b.yml, depend-on: [a]}
=== ci/a.yml
version: 0.2
phases: {build: {commands: [one, two]}}
";
    let built = run(tree, &["plan", "buildspec.yml"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(
        built.stderr.contains("`ci/b.yml` is not in `.`"),
        "{}",
        built.stderr
    );
    let line = |job: &str| {
        let mut lines = built.stdout.lines();
        lines
            .find(|line| line.split_whitespace().next() == Some(job))
            .unwrap()
            .to_owned()
    };
    assert!(line("3").contains("2 commands"), "{}", built.stdout);
    assert!(!line("9").contains("commands"), "{}", built.stdout);
    assert!(line("6").contains("0-5 succeeded"), "{}", built.stdout);
}

#[test]
fn a_plan_of_what_cannot_be_planned_is_refused_with_the_reason() {
    let built = run(
        "=== x.yml\nversion: 0.2\nphases: {build: {}}\n",
        &["plan", "x.yml"],
    );
    assert_eq!(built.code, 2);
    assert!(
        built.stderr.contains("has no `commands`"),
        "{}",
        built.stderr
    );
    let values: Vec<String> = (0..100).map(|value| value.to_string()).collect();
    let values = values.join(", ");
    let tree = format!(
        "=== x.yml\nversion: 0.2\nphases: {{build: {{commands: [a]}}}}\nbatch:\n  build-matrix:\n    \
         dynamic: {{env: {{variables: {{A: [{values}], B: [{values}]}}}}}}\n"
    );
    let built = run(&tree, &["plan", "x.yml"]);
    assert_eq!(built.code, 2);
    let told = "`batch.build-matrix` stands for 10000 builds, at most 1000 are possible";
    assert!(built.stderr.contains(told), "{}", built.stderr);
}

#[test]
fn a_buildspec_is_written_for_what_lies_in_the_tree_and_never_over_another() {
    let directory = tempfile::tempdir().unwrap();
    let tree =
        "=== package.json\n{\"scripts\": {\"build\": \"true\"}}\n=== package-lock.json\n{}\n";
    project::write(directory.path(), tree);
    let built = run_in(directory.path(), &["init"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(built.stdout.contains("npm"), "{}", built.stdout);
    let path = directory.path().join("buildspec.yml");
    let text = fs::read_to_string(&path).unwrap();
    for line in [
        "npm ci",
        "npm run build",
        "$(codebuild-hash-files package-lock.json)",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let checked = run_in(directory.path(), &["check", "buildspec.yml"]);
    assert_eq!(checked.stdout, "buildspec.yml: nothing is wrong with it\n");
    let planned = run_in(directory.path(), &["plan", "buildspec.yml"]);
    assert!(
        planned.stdout.contains("source, cache"),
        "{}",
        planned.stdout
    );

    fs::write(&path, "mine").unwrap();
    let again = run_in(directory.path(), &["init"]);
    assert_eq!(again.code, 2);
    assert!(
        again.stderr.contains("never overwritten"),
        "{}",
        again.stderr
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    assert_eq!(run_in(directory.path(), &["init"]).code, 2);
    assert!(!directory.path().join("elsewhere").exists());
}
