//! What a build does, from its variables to its artifacts.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    farm::{Built, Farm, FarmPlan},
    project,
};

/// A build that ended, how it stands, and where its artifacts are.
pub(super) struct Done {
    pub(super) built: Built,
    pub(super) status: Value,
    pub(super) fetched: TempDir,
    farm: Farm,
}

impl Done {
    /// The lines that commands printed.
    pub(super) fn printed(&self) -> Vec<&str> {
        self.built.printed()
    }

    /// The farm's own lines, without their times.
    pub(super) fn lines(&self) -> Vec<&str> {
        let lines = self.built.stdout.lines();
        let own = lines.filter_map(|line| line.strip_prefix("[Container] "));
        own.filter_map(|line| line.splitn(3, ' ').nth(2)).collect()
    }

    /// Where a line of the farm's is among them.
    #[track_caller]
    pub(super) fn at(&self, line: &str) -> usize {
        let at = self.lines().iter().position(|found| *found == line);
        at.unwrap_or_else(|| panic!("`{line}` is missing:\n{}", self.built.stdout))
    }

    /// What `grange` prints for people.
    pub(super) fn shown(&self, arguments: &[&str]) -> String {
        let output = self.farm.client(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What is on each line that `grange` prints for programs.
    pub(super) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        self.farm.json(arguments)
    }

    /// The unit of a build that is no batch.
    pub(super) fn unit(&self) -> &Value {
        &self.status["units"][0]
    }

    /// The phases that it has entered, each with its status.
    pub(super) fn timeline(&self) -> Vec<String> {
        let entries = self.unit()["timeline"].as_array().unwrap().iter();
        let shown = entries.map(|entry| {
            let status = entry["status"]["ENDED"].as_str();
            let status = status.unwrap_or("-");
            format!("{} {status}", entry["phase"].as_str().unwrap())
        });
        shown.collect()
    }

    /// The paths of the artifacts, sorted.
    pub(super) fn artifacts(&self) -> Vec<String> {
        let mut paths = Vec::new();
        let root = self.fetched.path().join("artifacts");
        if root.is_dir() {
            collect(&root, &root, &mut paths);
        }
        paths.sort();
        paths
    }
}

fn collect(root: &Path, directory: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, paths);
        } else {
            paths.push(
                path.strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
}

/// Builds what these lines say after `version: 0.2`.
pub(super) fn build(lines: &str) -> Done {
    build_of(lines, &[], FarmPlan::default())
}

/// The same, with more arguments, on a farm of a plan. The source has a directory `sub`.
pub(super) fn build_of(lines: &str, more: &[&str], plan: FarmPlan) -> Done {
    let farm = Farm::start(plan);
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("sub")).unwrap();
    fs::write(source.path().join("sub/keep"), "").unwrap();
    project::write_buildspec(source.path(), &format!("version: 0.2\n{lines}"));
    let fetched = tempfile::tempdir().unwrap();
    let to = fetched.path().join("artifacts");
    let mut arguments = vec!["--project", "sample"];
    if lines.contains("\nartifacts:") {
        arguments.extend(["--artifacts", to.to_str().unwrap()]);
    }
    arguments.extend(more);
    let built = farm.build(source.path(), &arguments);
    let status = match built.code {
        // Nothing was submitted.
        2 => Value::Null,
        _ => farm.status("sample#1"),
    };
    Done {
        built,
        status,
        fetched,
        farm,
    }
}

/// What a build whose artifacts have these lines publishes of a tree with files of many kinds.
fn selected(lines: &str) -> Vec<String> {
    let done = build(&format!(
        "\
phases:
  build:
    commands:
      - mkdir -p out/deep/er out-2 .hidden && cd out
      - touch a.txt deep/b.txt deep/er/c.txt .dot deep/.dot ../out-2/d.txt ../.hidden/e.txt ../f.txt
artifacts:
{lines}"
    ));
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    done.artifacts()
}

#[test]
fn values_of_variables_are_literal() {
    let done = build(
        "\
env:
  variables:
    A: first
    B: '$A $(echo made) `echo made`'
phases:
  build:
    commands:
      - printf '%s\\n' \"$B\"
      - sh -c 'printf \"%s\\n\" \"$B\"'
",
    );
    let literal = "$A $(echo made) `echo made`";
    assert_eq!(done.printed(), [literal, literal], "{}", done.built.stdout);
}

#[test]
fn a_variable_of_the_file_replaces_one_of_the_image() {
    let done = build(
        "\
env:
  variables:
    PATH: /usr/bin:/bin
phases:
  build:
    commands:
      - echo $PATH
",
    );
    assert_eq!(done.printed(), ["/usr/bin:/bin"], "{}", done.built.stdout);
}

#[test]
fn variables_of_webhooks_runners_and_batches_are_absent() {
    let done = build(
        "\
phases:
  build:
    commands:
      - env | grep -cE '^CODEBUILD_(WEBHOOK|RUNNER|BATCH)' || true
",
    );
    assert_eq!(done.printed(), ["0"], "{}", done.built.stdout);
}

#[test]
fn a_log_has_the_lines_of_the_agent_in_order() {
    let done = build(
        "\
phases:
  build:
    commands:
      - echo one
      - echo two
",
    );
    let lines = [
        "Phase is DOWNLOAD_SOURCE",
        "Processing environment variables",
        "Cache is not defined in the buildspec",
        "Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED",
        "Entering phase INSTALL",
        "Phase complete: INSTALL State: SUCCEEDED",
        "Entering phase PRE_BUILD",
        "Phase complete: PRE_BUILD State: SUCCEEDED",
        "Entering phase BUILD",
        "Running command echo one",
        "Running command echo two",
        "Phase complete: BUILD State: SUCCEEDED",
        "Entering phase POST_BUILD",
        "Phase complete: POST_BUILD State: SUCCEEDED",
        "Entering phase UPLOAD_ARTIFACTS",
        "Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED",
    ];
    let places = lines.map(|line| done.at(line));
    assert!(places.is_sorted(), "{places:?}\n{}", done.built.stdout);
    let starts_with = |start: &str| done.lines().iter().any(|line| line.starts_with(start));
    assert!(starts_with("CODEBUILD_SRC_DIR=/"), "{}", done.built.stdout);
    assert!(
        starts_with("Moving to directory /"),
        "{}",
        done.built.stdout
    );
}

#[test]
fn a_failing_command_is_logged_with_its_status_and_ends_its_phase() {
    let done = build("phases:\n  build:\n    commands: ['exit 4', 'echo never']\n");
    assert_eq!(done.built.code, 1);
    let failed = done.at("Command did not exit successfully exit 4 exit status 4");
    assert!(failed < done.at("Phase complete: BUILD State: FAILED"));
    done.at(
        "Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing command: \
         exit 4. Reason: exit status 4",
    );
    assert!(!done.built.stdout.contains("Running command echo never"));
}

#[test]
fn a_failed_pre_build_and_a_failed_post_build_are_followed_as_documented() {
    let done = build(
        "\
phases:
  pre_build:
    commands: ['false']
  build:
    commands: [echo built]
  post_build:
    commands: [echo posted]
",
    );
    assert_eq!((done.built.code, done.printed()), (1, vec![]));
    assert!(!done.built.stdout.contains("phase BUILD"));
    assert!(!done.built.stdout.contains("phase UPLOAD_ARTIFACTS"));
    let done = build(
        "\
phases:
  post_build:
    commands: ['echo kept > out', 'false']
artifacts:
  files: [out]
",
    );
    assert_eq!(done.built.code, 1, "{}", done.built.stdout);
    done.at("Phase complete: POST_BUILD State: FAILED");
    done.at("Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED");
    assert_eq!(done.artifacts(), ["out"]);
}

#[test]
fn a_failed_build_uploads_its_artifacts() {
    let done = build(
        "\
phases:
  build:
    commands: ['echo kept > out', 'false']
artifacts:
  files: [out]
",
    );
    assert_eq!(done.built.code, 1, "{}", done.built.stdout);
    assert!(
        done.at("Phase complete: POST_BUILD State: SUCCEEDED")
            < done.at("Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED")
    );
    assert_eq!(done.artifacts(), ["out"]);
}

#[test]
fn abort_in_build_skips_post_build() {
    let done = build(
        "\
phases:
  build:
    on-failure: ABORT
    commands: ['false']
    finally: [echo finally]
  post_build:
    commands: [echo posted]
",
    );
    assert_eq!((done.built.code, done.printed()), (1, vec!["finally"]));
}

#[test]
fn patterns_are_relative_to_the_source_directory_and_have_five_forms() {
    assert_eq!(selected("  files: [f.txt]\n"), ["f.txt"]);
    assert_eq!(selected("  files: [out/a.txt]\n"), ["out/a.txt"]);
    assert_eq!(selected("  files: [out/*]\n"), ["out/.dot", "out/a.txt"]);
    assert_eq!(
        selected("  files: [out/deep/**/*]\n"),
        ["out/deep/.dot", "out/deep/b.txt", "out/deep/er/c.txt"]
    );
    let all = selected("  files: ['**/*']\n  exclude-paths: [buildspec.yml, 'sub/**/*']\n");
    let expected = [
        ".hidden/e.txt",
        "f.txt",
        "out-2/d.txt",
        "out/.dot",
        "out/a.txt",
        "out/deep/.dot",
        "out/deep/b.txt",
        "out/deep/er/c.txt",
    ];
    assert_eq!(all, expected);
}

#[test]
fn a_base_directory_may_be_a_pattern_and_is_no_part_of_the_path() {
    assert_eq!(
        selected("  files: ['*.txt']\n  base-directory: 'out*'\n"),
        ["a.txt", "d.txt"]
    );
}

#[test]
fn a_pattern_without_a_match_is_only_logged() {
    let done = build(
        "\
phases:
  build:
    commands: [touch out]
artifacts:
  files: [missing, out]
",
    );
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    done.at("Skipping invalid file path missing");
    assert_eq!(done.artifacts(), ["out"]);
}

#[test]
fn a_base_directory_without_a_match_fails_the_upload_and_is_named() {
    let done = build(
        "\
phases:
  build:
    commands: ['true']
artifacts:
  files: ['**/*']
  base-directory: dist
",
    );
    assert_eq!(done.built.code, 1, "{}", done.built.stdout);
    done.at("Phase complete: POST_BUILD State: SUCCEEDED");
    done.at("Phase complete: UPLOAD_ARTIFACTS State: FAILED");
    done.at(
        "Phase context status code: CLIENT_ERROR Message: no matching base directory path found for dist",
    );
}

#[test]
fn nothing_matched_is_a_client_error() {
    let done = build(
        "\
phases:
  build:
    commands: ['true']
artifacts:
  files: [missing, gone/**/*]
",
    );
    assert_eq!(done.built.code, 1, "{}", done.built.stdout);
    done.at("Phase complete: UPLOAD_ARTIFACTS State: FAILED");
    done.at("Phase context status code: CLIENT_ERROR Message: no matching artifact paths found");
}
