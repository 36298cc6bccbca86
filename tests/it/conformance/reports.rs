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

#[test]
fn reports_and_groups_have_arns() {
    let done = build(&format!(
        "\
phases:
  build:
    commands: [echo '{GOOD}' > a.xml]
reports:
  unit: {{files: [a.xml]}}
"
    ));
    let shown = &done.json(&["reports", "sample#1"])[0];
    let group = "arn:aws:codebuild:us-east-1:000000000000:report-group/sample-unit";
    assert_eq!(shown["group_arn"], group);
    let arn = shown["arn"].as_str().unwrap();
    let uuid = arn.strip_prefix("arn:aws:codebuild:us-east-1:000000000000:report/sample-unit:");
    assert_eq!(
        uuid.unwrap().split('-').map(str::len).collect::<Vec<_>>(),
        [8, 4, 4, 4, 12]
    );
}

#[test]
fn a_report_has_the_status_of_its_cases() {
    let done = build(&format!(
        "\
phases:
  build:
    commands:
      - echo '{GOOD}' > good.xml
      - echo '<testsuite><testcase name=\"b\"><failure/></testcase></testsuite>' > bad.xml
reports:
  all-good: {{files: [good.xml]}}
  not-all: {{files: [good.xml, bad.xml]}}
  not-there: {{files: [none.xml]}}
"
    ));
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    let reports = done.json(&["reports", "sample#1"]);
    let status = |group: &str| {
        let mut found = reports.iter().map(|shown| &shown["report"]);
        found.find(|report| report["group"] == group).unwrap()["status"].clone()
    };
    assert_eq!(status("sample-all-good"), "SUCCEEDED");
    assert_eq!(status("sample-not-all"), "FAILED");
    assert_eq!(status("sample-not-there"), "INCOMPLETE");
}

#[test]
fn a_case_has_one_of_five_statuses() {
    let done = build(
        "\
phases:
  build:
    commands:
      - |
        cat > a.xml <<'EOF'
        <test-run>
        <test-case name='a' result='Passed'/><test-case name='b' result='Failed'/>
        <test-case name='c' result='Failed' label='Error'/>
        <test-case name='d' result='Skipped'/><test-case name='e' result='Inconclusive'/>
        </test-run>
        EOF
reports:
  unit: {files: [a.xml], file-format: NUnit3Xml}
",
    );
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    let shown = &done.json(&["reports", "sample#1"])[0];
    let cases = shown["report"]["report"]["cases"].as_array().unwrap();
    let mut statuses: Vec<_> = cases
        .iter()
        .map(|case| {
            (
                case["name"].as_str().unwrap(),
                case["status"].as_str().unwrap(),
            )
        })
        .collect();
    statuses.sort_unstable();
    let expected = [
        ("a", "SUCCEEDED"),
        ("b", "FAILED"),
        ("c", "ERROR"),
        ("d", "SKIPPED"),
        ("e", "UNKNOWN"),
    ];
    assert_eq!(statuses, expected);
}
