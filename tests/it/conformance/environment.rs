//! The variables that the farm sets, in and out of batches.

use testkit::farm::FarmPlan;

use super::building::{build, build_of};

#[test]
fn a_builds_own_variables_say_who_started_it_and_where_its_log_is() {
    let done = build(
        "\
phases:
  build:
    commands:
      - echo $CODEBUILD_INITIATOR $CODEBUILD_LOG_PATH
      - test $CODEBUILD_SRC_DIR = $PWD && echo here
",
    );
    let summary = &done.status["summary"];
    let said = format!(
        "{} {}",
        summary["initiator"].as_str().unwrap(),
        summary["build"].as_str().unwrap()
    );
    assert_eq!(
        done.printed(),
        [said.as_str(), "here"],
        "{}",
        done.built.stdout
    );
}

#[test]
fn builds_and_projects_have_names_that_tools_can_take_apart() {
    let done = build(
        "\
phases:
  build:
    commands:
      - echo $CODEBUILD_BUILD_ARN
      - echo $CODEBUILD_PROJECT_ARN
      - echo $CODEBUILD_PROJECT_UUID | wc -c
      - test ${CODEBUILD_BUILD_ARN#*:build/} = $CODEBUILD_BUILD_ID && echo same
",
    );
    let id = done.status["summary"]["build"].as_str().unwrap();
    let printed = done.printed();
    let project = printed[1].strip_prefix("arn:aws:codebuild:us-east-1:000000000000:project/");
    let project = project.unwrap_or_else(|| panic!("{printed:?}"));
    let arn = format!("arn:aws:codebuild:us-east-1:000000000000:build/{project}:{id}");
    assert_eq!(printed, [&arn, printed[1], "37", "same"]);
}

#[test]
fn the_url_of_a_build_is_set_where_the_farm_says_what_shows_it() {
    let lines = "\
phases:
  build:
    commands:
      - echo ${CODEBUILD_BUILD_URL-unset}
      - test \"$CODEBUILD_BUILD_URL\" = https://ci.example.org/${CODEBUILD_BUILD_ID#*:}/1 && echo same
";
    assert_eq!(
        build("phases:\n  build:\n    commands:\n      - echo ${CODEBUILD_BUILD_URL-unset}\n")
            .printed(),
        ["unset"]
    );
    let plan = FarmPlan {
        settings: "[coordinator]\nbuild_url = 'https://ci.example.org/{id}/{number}'\n".to_owned(),
        ..FarmPlan::default()
    };
    let done = build_of(lines, &[], plan);
    let id = done.status["summary"]["build"].as_str().unwrap();
    let url = format!("https://ci.example.org/{id}/1");
    assert_eq!(
        done.printed(),
        [url.as_str(), "same"],
        "{}",
        done.built.stdout
    );
}

#[test]
fn the_region_is_in_both_variables_and_a_build_may_set_its_own() {
    let lines = "\
env:
  variables: {AWS_REGION: eu-west-1}
phases:
  build:
    commands:
      - echo $AWS_REGION $AWS_DEFAULT_REGION
";
    assert_eq!(build(lines).printed(), ["eu-west-1 us-east-1"]);
}

#[test]
fn the_image_and_the_paths_of_go_and_of_programs_are_set() {
    let done = build(
        "\
phases:
  build:
    commands:
      - case $CODEBUILD_BUILD_IMAGE in grange/*:*) echo image ;; esac
      - test $GOPATH = $HOME/go:$CODEBUILD_GOPATH && echo gopath
      - case $CODEBUILD_SRC_DIR in $CODEBUILD_GOPATH/*) echo source ;; esac
      - case $PATH in */codebuild/bin) echo programs ;; esac
",
    );
    assert_eq!(
        done.printed(),
        ["image", "gopath", "source", "programs"],
        "{}",
        done.built.stdout
    );
}

#[test]
fn the_batch_identifier_is_set_in_batches_only() {
    let lines = "\
batch:
  build-list:
    - identifier: one
phases:
  build:
    commands:
      - echo ${CODEBUILD_BATCH_BUILD_IDENTIFIER-unset}
";
    assert_eq!(build(lines).printed(), ["unset"]);
    let batch = build_of(lines, &["--batch"], FarmPlan::default());
    assert!(
        batch.built.stdout.contains("[one] one\n"),
        "{}",
        batch.built.stdout
    );
}

#[test]
fn commands_may_switch_the_discovery_of_reports_and_say_where_to_look() {
    let files = "mkdir -p a b && for d in a b; do echo '<testsuite><testcase name=\"x\"/></testsuite>' > \
                 $d/r.xml; done";
    let reports = |command: &str| {
        let done = build(&format!(
            "phases:\n  build:\n    commands:\n      - {files}\n      - {command}\n"
        ));
        assert_eq!(done.built.code, 0, "{}", done.built.stdout);
        let reports = done.unit()["reports"].as_array().unwrap();
        let shown = reports.iter().map(|report| {
            format!(
                "{} {}",
                report["group"].as_str().unwrap(),
                report["summary"].as_str().unwrap()
            )
        });
        shown.collect::<Vec<_>>().join("; ")
    };
    let both = "sample-JUNITXML-AutoDiscovered 2 tests: 2 succeeded";
    assert_eq!(reports("'true'"), both);
    assert_eq!(reports("CODEBUILD_CONFIG_AUTO_DISCOVER=false"), "");
    let one = "sample-JUNITXML-AutoDiscovered 1 tests: 1 succeeded";
    let found = reports("CODEBUILD_CONFIG_AUTO_DISCOVER_DIR='a/*.xml'");
    assert!(
        found == one || found == one.replace("1 tests", "1 test"),
        "{found}"
    );
}
