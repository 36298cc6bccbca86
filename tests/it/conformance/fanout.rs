//! `build-fanout`: shards that have the tests of a suite among them.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;
use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

/// How many test files the suite has.
const FILES: usize = 10;

/// A test tool of a few lines: runs the files that it is given and writes what came of them as `JUnit`.
const TOOL: &str = r#"#!/bin/sh
echo '<testsuite name="suite">' > report.xml
status=0
for file in "$@"; do
  echo "ran $file"
  if sh "$file"; then
    echo "<testcase classname=\"$file\" name=\"it\" time=\"0.5\"/>" >> report.xml
  else
    echo "<testcase classname=\"$file\" name=\"it\"><failure message=\"no\"/></testcase>" >> report.xml
    status=1
  fi
done
echo '</testsuite>' >> report.xml
test "$(printf %s "$CODEBUILD_CURRENT_SHARD_FILES" | tr '\n' ' ')" = "$*" || echo "other files"
exit $status
"#;

fn suite(run: &str, strategy: &str) -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    project::write(source.path(), &format!("=== tool *\n{TOOL}"));
    for number in 0..FILES {
        let path = source.path().join(format!("tests/test {number}.sh"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, if number == 7 { "exit 1\n" } else { "true\n" }).unwrap();
    }
    project::write_buildspec(
        source.path(),
        &format!(
            "\
version: 0.2
batch:
  build-fanout:
    parallelism: 4
    ignore-failure: true
phases:
  build:
    commands:
      - >-
        codebuild-tests-run --test-command '{run}'
        --files-search \"codebuild-glob-search 'tests/*'\"
        --sharding-strategy {strategy}
      - echo after ${{CODEBUILD_CURRENT_SHARD_FILES-unset}}
    on-failure: CONTINUE
reports:
  unit:
    files: [report.xml]
"
        ),
    );
    source
}

/// The lines `ran FILE` of all shards, without who printed them.
fn ran(log: &str) -> Vec<&str> {
    log.lines()
        .filter_map(|line| line.split_once("ran tests/"))
        .map(|(_, file)| file)
        .collect()
}

/// What `grange reports` says of a build's one group, but for times.
fn report(farm: &Farm, build: &str) -> Value {
    let mut reports = farm.json(&["reports", build]);
    assert_eq!(reports.len(), 1, "{reports:#?}");
    let mut report = reports.remove(0)["report"].take();
    drop_times(&mut report);
    report
}

fn drop_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.contains("nanoseconds"));
            fields.values_mut().for_each(drop_times);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_times),
        _ => {}
    }
}

#[test]
fn shards_run_all_tests_once_and_their_merged_report_is_that_of_the_whole() {
    for strategy in ["equal-distribution", "stability"] {
        let farm = Farm::start(FarmPlan {
            slots: 4,
            ..FarmPlan::default()
        });
        let source = suite("./tool", strategy);
        let whole = farm.build(source.path(), &["--project", "sample"]);
        let all: BTreeSet<_> = ran(&whole.stdout).into_iter().collect();
        assert_eq!(all.len(), FILES, "{}", whole.stdout);
        assert!(!whole.stdout.contains("other files"), "{}", whole.stdout);

        let shards = farm.build(source.path(), &["--project", "sample", "--batch"]);
        let each = ran(&shards.stdout);
        assert_eq!(each.len(), FILES, "each once: {}", shards.stdout);
        assert_eq!(each.into_iter().collect::<BTreeSet<_>>(), all);
        assert!(!shards.stdout.contains("other files"), "{}", shards.stdout);
        assert!(!shards.stdout.contains("after tests"), "{}", shards.stdout);

        let (of_whole, of_shards) = (report(&farm, "sample#1"), report(&farm, "sample#2"));
        assert_eq!(of_whole, of_shards);
        assert_eq!(of_shards["group"], "sample-unit");
        assert_eq!(of_shards["status"], "FAILED");
        let status = farm.status("sample#2");
        let units = status["units"].as_array().unwrap();
        let groups: Vec<_> = units
            .iter()
            .map(|unit| unit["reports"][0]["group"].as_str())
            .collect();
        if strategy == "equal-distribution" {
            let expected = [0, 1, 2, 3].map(|shard| format!("sample-unit-BuildFanoutShard{shard}"));
            let expected: Vec<_> = expected.iter().map(|name| Some(name.as_str())).collect();
            assert_eq!(groups, expected);
        }
    }
}

#[test]
fn a_pytest_suite_in_four_shards_reports_as_a_whole_one() {
    let has_pytest = Command::new("python3")
        .args(["-m", "pytest", "--version"])
        .output();
    if !has_pytest.is_ok_and(|output| output.status.success()) {
        testkit::tell("no pytest: a suite of it is not tried");
        return;
    }
    let farm = Farm::start(FarmPlan {
        slots: 4,
        ..FarmPlan::default()
    });
    let source = suite(
        "python3 -m pytest -q --junitxml=report.xml",
        "equal-distribution",
    );
    fs::remove_dir_all(source.path().join("tests")).unwrap();
    fs::create_dir(source.path().join("tests")).unwrap();
    for number in 0..FILES {
        let path = source.path().join(format!("tests/test_{number}.py"));
        let text = format!(
            "import pytest\n\n@pytest.mark.parametrize('n', range(3))\ndef test_it(n):\n    assert ({number}, \
             n) != (7, 1)\n\n@pytest.mark.skip\ndef test_skipped():\n    pass\n"
        );
        fs::write(path, text).unwrap();
    }
    let whole = farm.build(source.path(), &["--project", "sample"]);
    let shards = farm.build(source.path(), &["--project", "sample", "--batch"]);
    let (of_whole, of_shards) = (report(&farm, "sample#1"), report(&farm, "sample#2"));
    assert_eq!(of_whole, of_shards, "{}\n{}", whole.stdout, shards.stdout);
    let totals = &of_shards["report"]["totals"];
    assert_eq!(
        (&totals["failed"], &totals["skipped"]),
        (&1.into(), &FILES.into())
    );
}
