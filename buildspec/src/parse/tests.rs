//! Tests of reading: what a file becomes, and what is said about it.

use protocol::{artifact::ArtifactsSpec, cache_spec::CacheSpec, job::Shell};

use super::*;
use crate::spec::{BatchTask, CacheAction, OnFailure, PhaseSpec, SecretStore, Tasks};

mod language;
mod mistakes;
mod robustness;

/// The buildspec of a text that has no error.
#[track_caller]
fn spec_of(text: &str) -> BuildSpec {
    let parsed = parse(text);
    parsed
        .spec
        .unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
}

/// The buildspec of a text about which nothing at all is to be said.
#[track_caller]
fn clean_spec_of(text: &str) -> BuildSpec {
    let parsed = parse(text);
    assert_eq!(parsed.diagnostics, [], "{text}");
    parsed.spec.unwrap()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn commands_of(text: &str) -> Vec<String> {
    spec_of(text).phases.unwrap().build.commands
}

/// A file with these lines as the commands of `build`.
fn with_commands(lines: &str) -> String {
    format!("version: 0.2\nphases:\n  build:\n    commands:\n{lines}")
}

/// A phase that the file has, with nothing in it.
const EMPTY: fn() -> PhaseSpec = || PhaseSpec {
    is_named: true,
    ..PhaseSpec::default()
};

#[test]
fn a_file_with_everything_that_is_acted_on_is_read_without_a_word() {
    let spec = clean_spec_of(
        "
version: 0.2
env:
  shell: bash
  variables:
    NAME: value
    EMPTY:
phases:
  install:
    on-failure: CONTINUE
    commands: [one]
  pre_build:
    commands:
      - two
  build:
    on-failure: ABORT
    commands:
      - three
      - four
    finally:
      - five
  post_build:
    commands:
artifacts:
  files: ['**/*', out.txt]
  name: n-$(date +%Y)
  base-directory: dist
  discard-paths: yes
  exclude-paths:
    - '*.tmp'
cache:
  key: k-$X
  paths: [/root/.m2/**/*]
batch:
  fast-fail: true
  build-graph:
    - identifier: a
      ignore-failure: true
      env:
        variables: {X: 1}
    - identifier: b
      depend-on: [a]
",
    );
    assert_eq!((spec.version, spec.shell), (Version::V0_2, Shell::Bash));
    let variables: Vec<_> = spec
        .variables
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(variables, [("EMPTY", ""), ("NAME", "value")]);
    let phases = spec.phases.unwrap();
    assert_eq!(phases.install.on_failure, OnFailure::Continue);
    assert_eq!(phases.install.commands, ["one"]);
    assert_eq!(phases.pre_build.commands, ["two"]);
    assert_eq!(phases.build.commands, ["three", "four"]);
    assert_eq!(phases.build.finally, ["five"]);
    assert_eq!(phases.build.on_failure, OnFailure::Abort);
    assert_eq!(phases.post_build, EMPTY());
    let artifacts = ArtifactsSpec {
        name: Some("n-$(date +%Y)".to_owned()),
        files: strings(&["**/*", "out.txt"]),
        exclude_paths: strings(&["*.tmp"]),
        base_directory: Some("dist".to_owned()),
        discard_paths: true,
        enable_symlinks: false,
    };
    assert_eq!(spec.artifacts.unwrap().primary.spec, artifacts);
    let cache = spec.cache.unwrap();
    let of_cache = CacheSpec {
        fallback_keys: Vec::new(),
        key: Some("k-$X".to_owned()),
        paths: strings(&["/root/.m2/**/*"]),
    };
    assert_eq!((cache.spec, cache.action), (of_cache, CacheAction::Both));
    let batch = spec.batch.unwrap();
    assert!(batch.fast_fail);
    let Tasks::Graph(tasks) = batch.tasks else {
        panic!("it is a graph")
    };
    let [a, b] = <[BatchTask; 2]>::try_from(tasks).unwrap();
    assert_eq!((a.identifier.as_str(), a.ignore_failure), ("a", true));
    assert_eq!(a.variables["X"], "1");
    let depend_on: Vec<&str> = b.depend_on.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((depend_on, b.ignore_failure), (vec!["a"], false));
}

#[test]
fn scalars_keep_the_text_that_was_written() {
    let spec = clean_spec_of(
        "
version: 0.2
env:
  variables: {PYTHON: 3.10, FLAG: yes, OCTAL: 010, NULLED: ~, TEXT: 'null', HEX: 0x1F, DATE: 2024-01-01}
phases:
  build:
    commands:
      - true
      - 12
      - 1.50
      - |
        a
          b
      - >-
        c
        d
      - 'it''s'
      - \"tab\\tend\"
      - plain over
        two lines
",
    );
    let values: Vec<&str> = spec.variables.values().map(String::as_str).collect();
    assert_eq!(
        values,
        ["2024-01-01", "yes", "0x1F", "", "010", "3.10", "null"]
    );
    assert_eq!(
        spec.phases.unwrap().build.commands,
        [
            "true",
            "12",
            "1.50",
            "a\n  b\n",
            "c d",
            "it's",
            "tab\tend",
            "plain over two lines"
        ]
    );
}

#[test]
fn line_ends_marks_and_json_make_no_difference() {
    let plain = "version: 0.2\nphases:\n  build:\n    commands:\n      - a\n      - |\n        b\n        c\n";
    let expected = clean_spec_of(plain);
    for text in [
        plain.replace('\n', "\r\n"),
        format!("\u{feff}{plain}"),
        format!("---\n{plain}...\n"),
        format!("# a comment\n\n{plain}"),
        plain.trim_end().to_owned() + "\n",
        "version: 0.2\nphases:\n  build:\n    commands:\n    - a\n    - |\n      b\n      c\n".to_owned(),
        r#"{"version": 0.2, "phases": {"build": {"commands": ["a", "b\nc\n"]}}}"#.to_owned(),
        "{\n\t\"version\": \"0.2\",\n\t\"phases\": {\"build\": {\"commands\": [\"a\", \"b\\nc\\n\"]}}\n}".to_owned(),
    ] {
        assert_eq!(clean_spec_of(&text), expected, "{text}");
    }
}

#[test]
fn anchors_aliases_and_merges_are_followed() {
    let text = "
version: 0.2
env:
  variables: &shared {A: 1, B: 2}
phases:
  build: &phase
    commands: [one]
  post_build: *phase
batch:
  build-list:
    - identifier: x
      env:
        variables:
          <<: *shared
          B: 3
";
    let spec = clean_spec_of(text);
    assert_eq!(spec.phases.unwrap().post_build.commands, ["one"]);
    let Tasks::List(tasks) = spec.batch.unwrap().tasks else {
        panic!("it is a list")
    };
    assert_eq!(
        (
            tasks[0].variables["A"].as_str(),
            tasks[0].variables["B"].as_str()
        ),
        ("1", "3")
    );
}

#[test]
fn version_0_1_has_names_of_its_own() {
    let text = "
version: 0.1
environment_variables:
  plaintext: {A: 1}
  variables: {B: 2}
phases:
  build:
    commands: [x]
artifacts:
  type: zip
  files: out
";
    let spec = clean_spec_of(text);
    assert_eq!(spec.version, Version::V0_1);
    assert_eq!(
        (spec.variables["A"].as_str(), spec.variables["B"].as_str()),
        ("1", "2")
    );
    assert_eq!(spec.artifacts.unwrap().primary.spec.files, ["out"]);
}

#[test]
fn what_codebuild_takes_beyond_its_reference_is_taken() {
    // `files` as a text, `commands:` and list items with nothing, a whole phase with nothing.
    let text = "
version: '0.2'
env:
phases:
  install:
  pre_build:
    commands:
  build:
    commands:
      - a
      - # nothing
      -
      - b
artifacts:
  base-directory: ''
  files: '**/*'
";
    let spec = clean_spec_of(text);
    let phases = spec.phases.unwrap();
    assert_eq!(phases.build.commands, ["a", "b"]);
    assert_eq!(phases.pre_build.commands, [""; 0]);
    let artifacts = spec.artifacts.unwrap().primary.spec;
    assert_eq!(
        (artifacts.files, artifacts.base_directory),
        (strings(&["**/*"]), None)
    );
}

#[test]
fn flags_are_read_in_every_spelling_of_yes_and_no() {
    let flag = |written: &str| {
        let text = with_commands("      - a\n")
            + &format!("artifacts:\n  files: a\n  discard-paths: {written}\n");
        let artifacts = clean_spec_of(&text).artifacts.unwrap();
        artifacts.primary.spec.discard_paths
    };
    for written in ["yes", "true", "Yes", "TRUE", "on", "'yes'", "\"true\""] {
        assert!(flag(written), "{written}");
    }
    for written in ["no", "false", "No", "off", "'no'", ""] {
        assert!(!flag(written), "{written}");
    }
}

#[test]
fn every_name_of_a_shell_that_is_there_is_known() {
    let shell = |name: &str| {
        spec_of(&format!(
            "version: 0.2\nenv:\n  shell: {name}\nphases:\n  build:\n    commands: [a]\n"
        ))
        .shell
    };
    assert_eq!(shell("bash"), Shell::Bash);
    assert_eq!(shell("/bin/bash"), Shell::Bash);
    assert_eq!(shell("/bin/sh"), Shell::Sh);
    assert_eq!(shell(""), Shell::Sh);
}

#[test]
fn secrets_are_kept_with_their_stores_and_places() {
    let text = "
version: 0.2
env:
  parameter-store: {LOGIN: /a/b}
  secrets-manager: {TOKEN: 'prod:key'}
phases:
  build:
    commands: [a]
";
    let secrets = clean_spec_of(text).secrets;
    assert_eq!(secrets["LOGIN"].store, SecretStore::ParameterStore);
    assert_eq!(secrets["TOKEN"].reference, "prod:key");
    assert_eq!(
        (secrets["LOGIN"].place.line, secrets["LOGIN"].place.column),
        (4, 21)
    );
}

#[test]
fn a_cache_can_be_for_one_direction_only() {
    let action = |written: &str| {
        let text =
            with_commands("      - a\n") + &format!("cache:\n  paths: [a]\n  action: {written}\n");
        clean_spec_of(&text).cache.unwrap().action
    };
    assert_eq!(action("restore"), CacheAction::Restore);
    assert_eq!(action("save"), CacheAction::Save);
    assert_eq!(action(""), CacheAction::Both);
}

#[test]
fn of_two_equal_keys_the_last_counts() {
    let text = with_commands("      - a\n") + "phases:\n  build:\n    commands: [b]\n";
    assert_eq!(commands_of(&text), ["b"]);
}

#[test]
fn a_batch_may_stand_without_phases() {
    let spec = clean_spec_of(
        "version: 0.2\nbatch:\n  build-list:\n    - identifier: a\n      buildspec: a.yml\n",
    );
    assert_eq!(spec.phases, None);
}
