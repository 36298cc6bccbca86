//! The lines of the farm's own in a log.

use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

use super::building::build;

const BUILD: &str = "\
phases:
  install:
    runtime-versions: {}
    finally: ['true']
  pre_build:
    commands: [echo one]
  build:
    commands: [echo one, echo two]
";

#[test]
fn download_source_has_its_lines_in_order() {
    let done = build(BUILD);
    assert_eq!(done.built.code, 0, "{}", done.built.stderr);
    let lines = [
        "Waiting for agent ping",
        "Waiting for DOWNLOAD_SOURCE",
        "Phase is DOWNLOAD_SOURCE",
        "YAML location is /codebuild/output/src/src/buildspec.yml",
        "Processing environment variables",
        "No runtime version selected in buildspec.",
        "Cache is not defined in the buildspec",
        "Skip cache due to: no paths specified to be cached",
        "Registering with agent",
        "Phases found in YAML: 3",
        " INSTALL: 0 commands",
        " PRE_BUILD: 1 commands",
        " BUILD: 2 commands",
        "Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED",
    ];
    let found = done.lines();
    let place = |line: &str| {
        let same = |found: &&str| match line.strip_prefix("YAML location is /") {
            // At level `host` it is below the unit's own directory.
            Some(rest) => found.starts_with("YAML location is /") && found.ends_with(rest),
            None => *found == line,
        };
        let place = found.iter().position(same);
        place.unwrap_or_else(|| panic!("`{line}` is missing:\n{}", done.built.stdout))
    };
    let places = lines.map(place);
    assert!(places.is_sorted(), "{places:?}\n{}", done.built.stdout);
}

#[test]
fn a_phase_without_commands_says_so() {
    let done = build(BUILD);
    let line = done.at("No commands found for phase name: install");
    assert!(done.at("Entering phase INSTALL") < line);
    assert!(line < done.at("Phase complete: INSTALL State: SUCCEEDED"));
    assert!(
        !done.built.stdout.contains("phase name: post_build"),
        "it is not in the file"
    );
}

#[test]
fn restoring_and_saving_a_cache_are_logged() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "\
version: 0.2
phases:
  post_build:
    commands: [mkdir -p kept && touch kept/x, echo made]
cache:
  paths: ['kept/**/*']
",
    );
    let run = || farm.build(source.path(), &["--project", "sample"]).stdout;
    let (first, second) = (run(), run());
    let in_order = |log: &str, parts: &[&str]| {
        let at = |part: &&str| log.find(part).unwrap_or_else(|| panic!("`{part}`: {log}"));
        let places: Vec<_> = parts.iter().map(at).collect();
        assert!(places.is_sorted(), "{parts:?}: {log}");
    };
    let restoring = ["Expanded cache path kept/**/*", "Downloading cache..."];
    in_order(&first, &restoring);
    assert!(!first.contains("Unarchiving cache..."), "there is none yet");
    assert!(!first.contains("Cache is not defined"));
    in_order(
        &second,
        &[
            &restoring[..],
            &["Unarchiving cache...", "Registering with agent"],
        ]
        .concat(),
    );
    in_order(
        &first,
        &[
            "Running command echo made\n",
            "Uploading cache...",
            "Phase complete: POST_BUILD",
        ],
    );
}

#[test]
fn the_upload_of_artifacts_and_the_discovery_of_reports_are_logged() {
    let done = build(
        "\
phases:
  build:
    commands: [touch out]
artifacts:
  files: [out]
",
    );
    let lines = [
        "Entering phase UPLOAD_ARTIFACTS",
        "Set report auto-discover timeout to 5 seconds",
        "Expanding base directory path: .",
        "Assembling file list",
        "Expanding .",
        "Expanding file paths for base directory .",
        "Expanding out",
        "Found 1 file(s)",
        "No matching auto-discover report paths found",
        "Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED",
    ];
    let places = lines.map(|line| done.at(line));
    assert!(places.is_sorted(), "{places:?}\n{}", done.built.stdout);
}

#[test]
fn ids_of_aws_access_keys_are_three_asterisks() {
    // Put together here, so that no tool takes it for a key that somebody has lost.
    let id = ["AKIA", "IOSFODNN7EXAMPLE"].concat();
    let done = build(&format!(
        "\
phases:
  build:
    commands:
      - echo id={id}.; printf 'AKIAIOSF'; sleep 0.2; echo ODNN7EXAMPLE
      - test {id} = AKIAIOSF\"\"ODNN7EXAMPLE && echo it is what it was; false {id}
"
    ));
    assert_eq!(done.built.code, 1);
    assert_eq!(done.printed(), ["id=***.", "***", "it is what it was"]);
    let message = done.unit()["phases"].to_string();
    assert!(message.contains("false ***"), "{message}");
    let (log, shown) = (&done.built.stdout, done.shown(&["status", "sample#1"]));
    assert!(!log.contains(&id) && !shown.contains(&id), "{log}\n{shown}");
}
