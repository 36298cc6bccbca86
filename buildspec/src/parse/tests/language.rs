//! Every section of the language that the farm does not act on yet: read and checked all the same.

use protocol::job::Retry;

use super::*;
use crate::spec::{Matrix, ReportFormat};

/// The buildspec of a text about which nothing is to be said but that parts of it are not carried out.
#[track_caller]
fn quiet_spec_of(text: &str) -> BuildSpec {
    let parsed = parse(text);
    for diagnostic in &parsed.diagnostics {
        let message = &diagnostic.message;
        assert!(message.contains("is not acted on"), "{diagnostic}");
    }
    parsed.spec.unwrap()
}

/// What is said about a text: `error 3:5 message`, one line each.
#[track_caller]
fn said(text: &str) -> String {
    let parsed = parse(text);
    let lines = parsed.diagnostics.iter().map(|d| {
        let severity = d.severity.as_str();
        let place = d.place;
        format!("{severity} {}:{} {}\n", place.line, place.column, d.message)
    });
    lines.collect()
}

/// `text` below a file that is complete.
fn file(text: &str) -> String {
    with_commands("      - a\n") + text
}

#[test]
fn the_rest_of_the_language_is_read_in_typed_form() {
    let spec = quiet_spec_of(
        "
version: 0.2
run-as: builder
env:
  exported-variables: [VERSION, IMAGE]
  git-credential-helper: yes
proxy: {upload-artifacts: yes, logs: no}
phases:
  install:
    run-as: root
    runtime-versions: {python: 3.10, java: corretto17, nodejs: $NODE}
  build:
    commands: [b]
reports:
  unit:
    files: ['**/*.xml']
    base-directory: target
    discard-paths: yes
  $COVERAGE_GROUP:
    files: c.xml
    file-format: CoberturaXml
artifacts:
  files: ['**/*']
  enable-symlinks: yes
  s3-prefix: p
  secondary-artifacts:
    docs: {files: [d], base-directory: doc, name: docs-$X, discard-paths: yes, exclude-paths: ['*.tmp']}
cache:
  key: k
  fallback-keys: [k-, j-]
  paths: [p]
",
    );
    assert_eq!(spec.run_as.as_deref(), Some("builder"));
    assert_eq!(spec.exported_variables, ["VERSION", "IMAGE"]);
    assert!(spec.git_credential_helper && spec.proxy.upload_artifacts && !spec.proxy.logs);
    let install = spec.phases.unwrap().install;
    assert_eq!(install.run_as.as_deref(), Some("root"));
    let versions: Vec<_> = install.runtime_versions.into_iter().collect();
    let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    assert_eq!(
        versions,
        [
            pair("java", "corretto17"),
            pair("nodejs", "$NODE"),
            pair("python", "3.10")
        ]
    );
    let unit = &spec.reports["unit"];
    assert_eq!(
        (unit.files.as_slice(), unit.discard_paths),
        (&strings(&["**/*.xml"])[..], true)
    );
    assert_eq!(unit.base_directory.as_deref(), Some("target"));
    assert_eq!(unit.format, Some(ReportFormat::JunitXml));
    let coverage = spec.reports["$COVERAGE_GROUP"].format.unwrap();
    assert!(coverage == ReportFormat::CoberturaXml && coverage.is_coverage());
    let artifacts = spec.artifacts.unwrap();
    assert!(artifacts.primary.enable_symlinks);
    assert_eq!(artifacts.primary.s3_prefix.as_deref(), Some("p"));
    let docs = &artifacts.secondary["docs"].spec;
    assert_eq!(
        (docs.name.as_deref(), docs.discard_paths),
        (Some("docs-$X"), true)
    );
    assert_eq!(docs.exclude_paths, ["*.tmp"]);
    assert_eq!(spec.cache.unwrap().spec.fallback_keys, ["k-", "j-"]);
}

#[test]
fn retries_have_counts_and_patterns() {
    let read = |written: &str| {
        let text = format!(
            "version: 0.2\nphases:\n  build:\n    on-failure: {written}\n    commands: [a]\n"
        );
        quiet_spec_of(&text).phases.unwrap().build.on_failure
    };
    let retry = |count, pattern: &str| {
        let pattern = pattern.to_owned();
        OnFailure::Retry(Retry { count, pattern })
    };
    assert_eq!(read("RETRY"), retry(3, ".*"));
    assert_eq!(read("RETRY-0"), retry(0, ".*"));
    assert_eq!(read("RETRY-100"), retry(100, ".*"));
    assert_eq!(read("'RETRY-.*timed: out-.*'"), retry(3, ".*timed: out-.*"));
    assert_eq!(read("RETRY-2-exit-status 1"), retry(2, "exit-status 1"));
    assert_eq!(read("RETRY-2nd"), retry(3, "2nd"));
    assert_eq!(read("CONTINUE"), OnFailure::Continue);
}

#[test]
fn retries_that_are_none_are_refused() {
    let said = |written: &str| {
        said(&format!(
            "version: 0.2\nphases:\n  build:\n    on-failure: {written}\n    commands: [a]\n"
        ))
    };
    let what = "error 4:17 `phases.build.on-failure`";
    assert_eq!(
        said("RETRY-101"),
        format!("{what}: a phase can be run again at most 100 times, not `RETRY-101`\n")
    );
    assert_eq!(
        said("RETRY-99999999999-x"),
        format!("{what}: a phase can be run again at most 100 times, not `RETRY-99999999999-x`\n")
    );
    assert_eq!(
        said("RETRY-"),
        format!("{what}: a count or a pattern has to follow `RETRY-`, not `RETRY-`\n")
    );
    let choice = "has to be `ABORT`, `CONTINUE` or `RETRY`, not";
    assert_eq!(
        said("ABORT | CONTINUE"),
        format!("{what} {choice} `ABORT | CONTINUE`\n")
    );
    assert_eq!(said("RETRY3"), format!("{what} {choice} `RETRY3`\n"));
}

#[test]
fn references_to_secrets_are_taken_apart_and_checked() {
    let spec = quiet_spec_of(&file(
        "env:
  parameter-store: {P: /app/p}
  secrets-manager: {S: 'prod:key:AWSPREVIOUS', T: prod}
",
    ));
    assert_eq!(spec.secrets["P"].name.id, "/app/p");
    assert_eq!(spec.secrets["S"].name.json_key.as_deref(), Some("key"));
    assert_eq!(
        spec.secrets["S"].name.version_stage.as_deref(),
        Some("AWSPREVIOUS")
    );
    assert_eq!(spec.secrets["T"].name.json_key, None);
    assert_eq!(
        said(&file(
            "env:
  variables: {A: a}
  parameter-store: {P: ''}
  secrets-manager: {A: s, S: ':key', T: 's:k:stage:id', A: s}
  exported-variables: [AWS_X, X]
"
        )),
        "\
error 8:24 the value of `P` names no secret: there is no name of a parameter in it
error 9:30 the value of `S` names no secret: there is no id of a secret in it
error 9:41 the value of `T` names no secret: it has both a stage and a version
warning 9:57 key `A` is there twice; this one counts, the one on line 9 does not
warning 9:57 variable `A` has its value in two places; the one in `secrets-manager` counts
warning 10:24 variable `AWS_X` cannot be exported: its name starts with AWS_
"
    );
}

#[test]
fn reports_are_checked() {
    assert_eq!(
        said(&file(
            "reports:
  files: [a]
  empty: {file-format: JUNITXML}
  odd: {files: a, file-format: JUnit, base_directory: x}
"
        )),
        "\
error 7:10 report group `files` has to be a mapping, not a list
error 8:3 report group `empty` has no `files`
warning 9:32 `JUnit` is no format of reports that CodeBuild has
warning 9:39 unknown key `base_directory` in a report group
"
    );
    let groups: String = (0..6)
        .map(|group| format!("  g{group}: {{files: a}}\n"))
        .collect();
    assert_eq!(
        said(&file(&format!("reports:\n{groups}"))),
        "error 7:3 `reports` has 6 groups, at most 5 are possible\n"
    );
}

#[test]
fn artifacts_and_caches_have_codebuilds_limits() {
    let many: String = (0..13)
        .map(|at| format!("    a{at}: {{files: a}}\n"))
        .collect();
    assert_eq!(
        said(&file(&format!(
            "artifacts:\n  files: a\n  secondary-artifacts:\n{many}"
        ))),
        "error 9:5 `artifacts.secondary-artifacts` has 13 artifacts, at most 12 are possible\n"
    );
    assert_eq!(
        said(&file(
            "artifacts:\n  secondary-artifacts:\n    a: {name: x}\n"
        )),
        "\
error 7:3 `artifacts` has no `files`, so there is nothing to publish
error 8:8 `secondary-artifacts.a` has no `files`, so there is nothing to publish
"
    );
    assert_eq!(
        said(&file(
            "cache:\n  paths: a\n  fallback-keys: [a, b, c, d, e, f]\n"
        )),
        "\
error 8:18 `cache.fallback-keys` has 6 keys, at most 5 are possible
warning 8:18 `cache.fallback-keys` count only where there is a `key`
"
    );
}

#[test]
fn runtimes_are_checked() {
    assert_eq!(
        said(
            "version: 0.2\nphases:\n  install:\n    runtime-versions: {node: 18, python: }\n  build:\n    runtime-versions: {}\n    commands: [a]\n"
        ),
        "\
warning 4:24 `node` is no runtime that CodeBuild has
warning 4:34 the version of `python` is not given
warning 6:5 `runtime-versions` counts only in phase `install`
warning 6:5 `phases.build.runtime-versions` names no runtime, and has to name one at least
"
    );
}

#[test]
fn a_phase_that_is_a_list_needs_commands_above_it() {
    let parsed = parse("version: 0.2\nphases:\n  build:\n    - make\n");
    assert_eq!(parsed.diagnostics.len(), 1, "{:?}", parsed.diagnostics);
    let hint = parsed.diagnostics[0].hint.as_deref();
    assert_eq!(
        hint,
        Some("write `commands:` above the list, and indent the list")
    );
}

#[test]
fn tasks_of_a_batch_say_what_they_run_on() {
    let spec = quiet_spec_of(&file(
        "batch:
  build-list:
    - identifier: a
      debug-session: true
      buildspec: a.yml
      env:
        compute-type: BUILD_GENERAL1_LARGE
        image: aws/codebuild/standard:7.0
        type: LINUX_CONTAINER
        privileged-mode: true
        variables: {V: 3.10}
    - {identifier: b, env: {fleet: f}}
",
    ));
    let tasks = spec.batch.unwrap().tasks;
    let [a, b] = <[BatchTask; 2]>::try_from(tasks.expanded().into_owned()).unwrap();
    assert!(a.debug_session && a.environment.privileged_mode);
    let environment = &a.environment;
    assert_eq!(
        environment.compute_type.as_deref(),
        Some("BUILD_GENERAL1_LARGE")
    );
    assert_eq!(
        environment.image.as_deref(),
        Some("aws/codebuild/standard:7.0")
    );
    assert_eq!(environment.system.as_deref(), Some("LINUX_CONTAINER"));
    assert_eq!(
        (a.variables["V"].as_str(), a.buildspec.unwrap().0.as_str()),
        ("3.10", "a.yml")
    );
    assert_eq!(b.environment.fleet.as_deref(), Some("f"));
    assert_eq!(
        said(&file(
            "batch:
  build-graph:
    - {identifier: a, env: {compute-type: BUILD_GENERAL1_SMAL, fleet: f, type: LINUX}}
"
        )),
        "\
warning 8:43 `BUILD_GENERAL1_SMAL` is no compute type that CodeBuild has
error 8:64 a task has either a `fleet` or a `compute-type`, not both
warning 8:80 `LINUX` is no type of environment that CodeBuild has
"
    );
}

fn matrix_of(spec: BuildSpec) -> Matrix {
    let Tasks::Matrix(matrix) = spec.batch.unwrap().tasks else {
        panic!("it is a matrix")
    };
    *matrix
}

#[test]
fn a_matrix_is_read_in_the_order_of_the_file() {
    let spec = quiet_spec_of(&file(
        "batch:
  build-matrix:
    static:
      env: {type: LINUX_CONTAINER, privileged-mode: yes, variables: {F: 1}}
    dynamic:
      buildspec: [a.yml, b.yml]
      env:
        image: [x, y]
        compute-type: [BUILD_GENERAL1_SMALL]
        variables: {Z: [3.9, 3.10], A: one}
",
    ));
    let matrix = matrix_of(spec);
    assert_eq!(matrix.count(), 8);
    assert!(matrix.fixed.environment.privileged_mode);
    let variables: Vec<_> = matrix
        .variables
        .iter()
        .map(|(n, v)| (n.as_str(), v.join(" ")))
        .collect();
    assert_eq!(
        variables,
        [("Z", "3.9 3.10".to_owned()), ("A", "one".to_owned())]
    );
}

#[test]
fn matrices_and_fanouts_that_stand_for_too_much_are_refused_by_name() {
    let of = |counts: &[usize]| {
        let variables = counts.iter().enumerate().map(|(at, &count)| {
            let values: Vec<String> = (0..count).map(|value| value.to_string()).collect();
            format!("V{at}: [{}]", values.join(", "))
        });
        let variables: Vec<String> = variables.collect();
        let variables = variables.join(", ");
        said(&file(&format!(
            "batch:\n  build-matrix:\n    dynamic: {{env: {{variables: {{{variables}}}}}}}\n"
        )))
    };
    assert_eq!(of(&[10, 10, 10]), "");
    assert_eq!(
        of(&[100, 100]),
        "error 7:3 `batch.build-matrix` stands for 10000 builds, at most 1000 are possible\n"
    );
    assert_eq!(
        of(&[100; 20]),
        "error 7:3 `batch.build-matrix` stands for more builds than can be counted, at most 1000 are possible\n"
    );
    assert_eq!(
        said(&file("batch: {build-fanout: {parallelism: 1001}}\n")),
        "error 6:9 `batch.build-fanout` stands for 1001 builds, at most 1000 are possible\n"
    );
}

#[test]
fn matrices_and_fanouts_that_stand_for_nothing_are_named() {
    assert_eq!(
        said(&file(
            "batch:\n  build-matrix:\n    dynamic:\n      env: {image: [], variables: {A: [x, x]}}\n"
        )),
        "\
warning 9:13 `image` of `build-matrix` has no values, so it does not count
warning 9:43 `A` of `build-matrix` has `x` twice
"
    );
    assert_eq!(
        said(&file("batch: {build-matrix: {static: {env: {}}}}\n")),
        "warning 6:9 `build-matrix` stands for one build only\n"
    );
    for (written, expected) in [
        ("{}", "error 6:9 `build-fanout` has no `parallelism`\n"),
        (
            "{parallelism: 0}",
            "error 6:37 `build-fanout.parallelism` has to be a whole number from 1 on, not `0`\n",
        ),
        (
            "{parallelism: many}",
            "error 6:37 `build-fanout.parallelism` has to be a whole number from 1 on, not `many`\n",
        ),
        (
            "4",
            "error 6:23 `batch.build-fanout` has to be a mapping, not a text\n",
        ),
    ] {
        assert_eq!(
            said(&file(&format!("batch: {{build-fanout: {written}}}\n"))),
            expected
        );
    }
}

#[test]
fn a_value_that_names_its_own_variable_is_pointed_out() {
    assert_eq!(
        said(&file("env:\n  variables: {PATH: '$PATH:/x', A: '${A}', B: $BB, C: $A}\n")),
        "\
warning 7:21 variable `PATH` names itself, and values are taken as they are: nothing in it is expanded
warning 7:36 variable `A` names itself, and values are taken as they are: nothing in it is expanded
"
    );
}

#[test]
fn keys_that_lost_their_colon_are_shown_with_it() {
    let hint = |text: &str| {
        let parsed = parse(&file(text));
        assert_eq!(parsed.diagnostics.len(), 1, "{:?}", parsed.diagnostics);
        parsed.diagnostics[0].hint.clone().unwrap_or_default()
    };
    assert_eq!(
        hint("artifacts:\n  exclude_path\n"),
        "write `exclude-paths:`, with the colon, and its value after it"
    );
    assert_eq!(
        hint("artifacts:\n  files:.\n\n  - a\n"),
        "write a space after the colon: `files: .`"
    );
}
