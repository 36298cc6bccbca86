//! What people type and what they are told.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use testkit::{
    farm::{Built, Farm, FarmPlan},
    program::grange,
    project,
};

/// Runs `grange` with no farm and a home of its own, in a source tree.
fn run(tree: &str, arguments: &[&str]) -> Built {
    let source = tempfile::tempdir().unwrap();
    project::write(source.path(), tree);
    run_in(source.path(), arguments)
}

/// The same in a directory that is there.
pub(super) fn run_in(directory: &std::path::Path, arguments: &[&str]) -> Built {
    let home = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(grange())
        .args(arguments)
        .current_dir(directory)
        .env("HOME", home.path())
        // Wherever the directory lies: what is above it is of no repository.
        .env("GIT_CEILING_DIRECTORIES", directory.parent().unwrap())
        .env_remove("XDG_DATA_HOME")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("GRANGE_FARM")
        .env_remove("GRANGE_LOG")
        .env_remove("GRANGE_TOKEN")
        .output()
        .unwrap();
    Built::from(output)
}

#[track_caller]
fn check_refused(tree: &str, arguments: &[&str], expected: &[&str]) {
    let built = run(tree, arguments);
    assert_eq!(built.code, 2, "{}\n{}", built.stdout, built.stderr);
    for text in expected {
        assert!(
            built.stderr.contains(text),
            "{text:?} is not in:\n{}",
            built.stderr
        );
    }
}

#[test]
fn every_mistake_of_a_buildspec_is_named_and_nothing_is_submitted() {
    check_refused(
        "=== buildspec.yml
version: 0.2
phases:
  biuld:
    commands: [make]
  build:
    commands: [make]
  post_build:
    commands:
      - echo a: b
artefacts:
  files: ['**/*']
",
        &["build"],
        &[
            "buildspec.yml:3:3",
            "did you mean `build`?",
            "buildspec.yml:9:9",
            "`- 'echo a: b'`",
            "buildspec.yml:10:1",
            "did you mean `artifacts`?",
            "nothing was submitted",
        ],
    );
}

#[test]
fn a_buildspec_that_is_none_is_refused_by_name() {
    check_refused(
        "=== other\n",
        &["build"],
        &["buildspec.yml", "No such file", "--buildspec"],
    );
    check_refused("=== buildspec.yml\n", &["build"], &["empty"]);
    check_refused(
        "=== buildspec.yml\nversion: 0.2\nphases: {build: [\n",
        &["build"],
        &["buildspec.yml:"],
    );
    let source = tempfile::tempdir().unwrap();
    fs::write(
        source.path().join("buildspec.yml"),
        [0xff, 0xfe, 0x00, 0x01],
    )
    .unwrap();
    let binary = run_in(source.path(), &["build"]);
    assert_eq!(binary.code, 2);
    assert!(binary.stderr.contains("UTF-8"), "{}", binary.stderr);
    fs::write(source.path().join("buildspec.yml"), "a".repeat(1 << 21)).unwrap();
    let huge = run_in(source.path(), &["build"]);
    assert_eq!(huge.code, 2);
    assert!(huge.stderr.contains("1048576"), "{}", huge.stderr);
}

#[test]
fn a_cycle_is_named_in_full() {
    check_refused(
        "=== buildspec.yml
version: 0.2
batch:
  build-graph:
    - identifier: a
      depend-on: [c]
    - identifier: b
      depend-on: [a]
    - identifier: c
      depend-on: [b]
phases:
  build:
    commands: [make]
",
        &["build", "--batch"],
        &["a -> c -> b -> a"],
    );
}

#[test]
fn wrong_settings_name_the_key_and_the_nearest_known_one() {
    check_refused(
        "=== grange.toml\n[worker]\nslot = 3\n",
        &["config"],
        &["grange.toml", "line 2", "`slot`", "did you mean `slots`?"],
    );
}

#[test]
fn settings_in_effect_are_printed_and_can_be_read_back() {
    let built = run("=== grange.toml\n[worker]\nslots = 3\n", &["config"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let settings: toml::Table = built.stdout.parse().unwrap();
    assert_eq!(settings["worker"]["slots"].as_integer(), Some(3));
    assert_eq!(
        settings["coordinator"]["build_minutes_max"].as_integer(),
        Some(60)
    );
}

#[test]
fn completions_are_there_for_the_common_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let built = run("", &["completions", shell]);
        assert_eq!(built.code, 0);
        assert!(built.stdout.contains("artifacts"), "{shell}");
    }
}

#[test]
fn a_farm_that_is_not_there_is_the_farms_fault() {
    let mut farm = Farm::start(FarmPlan {
        workers: 0,
        ..FarmPlan::default()
    });
    assert!(farm.client(&["builds"]).status().unwrap().success());
    farm.kill_coordinator();
    let output = farm.client(&["builds"]).output().unwrap();
    let built = Built::from(output);
    assert_eq!(built.code, 3, "{}", built.stderr);
    assert!(built.stderr.contains(&farm.address), "{}", built.stderr);
}

#[test]
fn a_token_that_is_none_is_refused() {
    let built = run(
        "",
        &["builds", "--farm", "127.0.0.1:1", "--token", "grange1-00"],
    );
    assert_eq!(built.code, 2, "{}", built.stderr);
}

#[test]
fn waiting_jobs_say_why() {
    let farm = Farm::start(FarmPlan {
        workers: 0,
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands: ['true']
",
    );
    let build = farm.submit(source.path(), &["--project", "sample"]);
    let output = farm.client(&["status", &build]).output().unwrap();
    let status = String::from_utf8(output.stdout).unwrap();
    assert!(status.contains("no worker"), "{status}");
    assert!(farm.client(&["stop", &build]).status().unwrap().success());
    let ended = farm.wait_for_end(&build);
    assert_eq!(ended["summary"]["status"]["ENDED"], "STOPPED");
}

#[test]
fn output_that_is_no_terminal_has_no_colour() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands: [exit 1]
",
    );
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 1);
    assert!(!built.stdout.contains('\x1b') && !built.stderr.contains('\x1b'));
}

#[test]
fn what_is_typed_wrong_is_refused_before_anything_happens() {
    let tree = "=== buildspec.yml\nversion: 0.2\nphases: {build: {commands: [make]}}\n=== taken\n";
    check_refused(
        tree,
        &["build", "--env", "BAD NAME=3"],
        &["BAD NAME", "letters"],
    );
    check_refused(tree, &["build", "--buildspec", "/dev/zero"], &["1048576"]);
    check_refused(
        tree,
        &["build", "--project", "a", "--artifacts", "taken"],
        &["`taken` is no directory"],
    );
    check_refused(
        tree,
        &["build", "--project", "a", "--artifacts", "taken/below"],
        &["`taken` is no directory"],
    );
    check_refused(tree, &["worker", "--slots", "0"], &["--slots"]);
    check_refused(
        "=== grange.toml\n[worker]\nslots = 0\n",
        &["config"],
        &["`slots`", "at least 1"],
    );
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_a_closed_pipe_is_none() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    let buildspec = "\nversion: 0.2\nphases: {build: {commands: ['seq 100000; exit 1']}}\n";
    project::write_buildspec(source.path(), buildspec);
    let path = source.path().to_str().unwrap();
    for (arguments, code) in [
        // The build's own end is what counts.
        (&["build", path, "--project", "sample"][..], 1),
        (&["logs", "sample#1"], 3),
        (&["builds"], 3),
        (&["status", "sample#1"], 3),
        (&["workers", "--json"], 3),
        (&["config"], 3),
        (&["completions", "bash"], 3),
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = farm.client(arguments).stdout(full).output().unwrap();
        let ended = Built::from(ended);
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.stderr);
        let told = "failed to write to standard output";
        assert!(
            ended.stderr.contains(told),
            "{arguments:?}: {}",
            ended.stderr
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = farm.client(arguments);
        let ended = Built::from(command.stdout(writer).output().unwrap());
        let expected = if arguments[0] == "build" { 1 } else { 0 };
        assert_eq!(ended.code, expected, "{arguments:?}: {}", ended.stderr);
        assert!(
            !ended.stderr.contains("error"),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_log_is_followed_across_a_restart_of_the_coordinator() {
    let mut farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases: {build: {commands: [echo first line, 'sleep 4', echo last line]}}
",
    );
    let build = farm.submit(source.path(), &["--project", "sample"]);
    let mut following = farm
        .client(&["logs", "-f", &build])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "first line"));
    farm.kill_coordinator();
    farm.start_coordinator();
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    let count = |text: &str| rest.iter().filter(|line| *line == text).count();
    assert_eq!(
        (count("first line"), count("last line")),
        (0, 1),
        "{rest:?}"
    );
    assert!(following.wait().unwrap().success());
}

#[test]
fn artifacts_that_cannot_be_fetched_do_not_hide_how_the_build_ended() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    let gone = tempfile::tempdir().unwrap();
    let target = gone.path().join("target");
    let buildspec = "
version: 0.2
phases: {build: {commands: [echo made > made, exit 1]}}
artifacts: {files: [made]}
";
    project::write_buildspec(source.path(), buildspec);
    // A directory to which nothing can be written, not even by root: it is the kernel's.
    std::os::unix::fs::symlink("/proc/self", &target).unwrap();
    let target = target.to_str().unwrap();
    let built = farm.build(
        source.path(),
        &["--project", "sample", "--artifacts", target],
    );
    assert_eq!(built.code, 1, "{}", built.stderr);
}

#[test]
fn services_write_no_colour_to_files() {
    let home = tempfile::tempdir().unwrap();
    project::write(
        home.path(),
        "=== buildspec.yml\nversion: 0.2\nphases: {build: {commands: ['true']}}\n",
    );
    let built = run_in(
        home.path(),
        &["build", "--project", "sample", "--log", "info"],
    );
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(
        built.stderr.contains("coordinator is ready"),
        "{}",
        built.stderr
    );
    assert!(!built.stderr.contains('\x1b'), "{}", built.stderr);
}
