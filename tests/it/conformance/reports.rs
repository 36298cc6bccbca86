//! Groups of reports.

use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

use super::building::build;

const GOOD: &str = "<testsuite><testcase name=\"a\"/></testsuite>";

#[test]
fn a_group_is_named_after_its_project_and_may_be_a_variable() {
    let done = build(&format!(
        "\
env:
  variables: {{GROUP: unit}}
phases:
  build:
    commands:
      - mkdir -p out/deep && echo '{GOOD}' > out/deep/a.xml && echo '{GOOD}' > b.xml
reports:
  $GROUP:
    files: ['**/*.xml']
    base-directory: out
    discard-paths: yes
"
    ));
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    let reports = done.unit()["reports"].as_array().unwrap();
    let groups: Vec<_> = reports
        .iter()
        .map(|of| of["group"].as_str().unwrap())
        .collect();
    // What is outside of the base directory nobody asked for.
    assert_eq!(groups, ["sample-unit", "sample-JUNITXML-AutoDiscovered"]);
}

#[test]
fn a_file_that_cannot_be_parsed_fails_the_upload() {
    let done = build(
        "\
phases:
  build:
    commands: [echo '<coverage/>' > a.xml]
reports:
  unit:
    files: [a.xml]
",
    );
    assert_eq!(done.built.code, 1, "{}", done.built.stdout);
    done.at("Phase complete: UPLOAD_ARTIFACTS State: FAILED");
    done.at(
        "Phase context status code: CLIENT_ERROR Message: Error in UPLOAD_ARTIFACTS phase: [unit: [error \
         processing report: [a.xml: expected element type <testsuite> but have <coverage>]]]",
    );
}

#[test]
fn a_group_that_exists_is_used_again() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        project::write_buildspec(
            source.path(),
            &format!(
                "\
version: 0.2
phases:
  build:
    commands:
      - echo '<testsuite><testcase name=\"{name}\"/></testsuite>' > r.xml
reports:
  unit:
    files: [r.xml]
"
            ),
        );
        assert_eq!(farm.build(source.path(), &["--project", "sample"]).code, 0);
    }
    let reports = farm.json(&["reports", "sample#2"]);
    assert_eq!(reports.len(), 1, "one group: {reports:#?}");
    assert_eq!(reports[0]["before"], "sample#1");
    let changes = reports[0]["changes"].to_string();
    assert!(
        changes.contains("\"b\"") && changes.contains("\"a\""),
        "{changes}"
    );
}
