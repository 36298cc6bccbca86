//! What builds ask of their machines, and where they go for it.

use testkit::{
    farm::{Built, Farm, FarmPlan},
    project,
};

/// A batch that says which worker and which image each task has.
const BATCH: &str = "\
version: 0.2
batch:
  build-list:
    - identifier: small
      env: {compute-type: BUILD_GENERAL1_SMALL}
    - identifier: large
      env: {compute-type: BUILD_GENERAL1_LARGE, image: 'tools:2'}
phases:
  install:
    commands: [echo one]
  build:
    commands: [echo has $CODEBUILD_BUILD_IMAGE]
";

fn run(farm: &Farm, arguments: &[&str]) -> Built {
    Built::from(farm.client(arguments).output().unwrap())
}

#[track_caller]
fn done(farm: &Farm, arguments: &[&str]) {
    let ran = run(farm, arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
}

/// Two workers, of which one serves small machines and the other large ones with an image.
fn farm() -> Farm {
    let mut farm = Farm::start(FarmPlan {
        workers: 0,
        ..FarmPlan::default()
    });
    farm.start_worker_with(0, &["--label", "compute-type=BUILD_GENERAL1_SMALL"]);
    let large = [
        "--label",
        "compute-type=BUILD_GENERAL1_MEDIUM,BUILD_GENERAL1_LARGE",
        "--label",
        "image=tools:1,tools:2",
    ];
    farm.start_worker_with(1, &large);
    farm.wait_for_workers(2);
    farm
}

/// The workers that the phases of each unit ran on, by its identifier.
fn workers(farm: &Farm, build: &str) -> Vec<(String, Vec<String>)> {
    let status = farm.status(build);
    let units = status["units"].as_array().unwrap().iter();
    let of = |unit: &serde_json::Value| {
        let phases = unit["phases"].as_array().unwrap().iter();
        let workers = phases.filter_map(|phase| phase["worker"].as_str());
        let mut workers: Vec<_> = workers.map(str::to_owned).collect();
        workers.dedup();
        let identifier = unit["identifier"].as_str().unwrap_or_default();
        (identifier.to_owned(), workers)
    };
    units.map(of).collect()
}

#[test]
fn tasks_run_where_their_compute_type_and_image_are_served_in_all_phases() {
    let farm = farm();
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), BATCH);
    let built = farm.build(source.path(), &["--project", "shop", "--batch"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let of = |identifier: &str, worker: &str| (identifier.to_owned(), vec![worker.to_owned()]);
    let expected = [of("small", "worker-0"), of("large", "worker-1")];
    assert_eq!(workers(&farm, "shop#1"), expected);
    assert!(
        built.stdout.contains("[large] has tools:2"),
        "{}",
        built.stdout
    );
    assert!(
        built.stdout.contains("[small] has grange/"),
        "{}",
        built.stdout
    );
}

#[test]
fn a_project_asks_for_its_machine_and_what_nobody_serves_is_refused_at_once() {
    let farm = farm();
    let source = tempfile::tempdir().unwrap();
    let text = "version: 0.2\nphases:\n  build:\n    commands: [echo has $CODEBUILD_BUILD_IMAGE]\n";
    project::write_buildspec(source.path(), text);
    let build = || farm.build(source.path(), &["--project", "shop"]);
    done(
        &farm,
        &[
            "project",
            "create",
            "shop",
            "--environment-image",
            "tools:1",
        ],
    );
    assert_eq!(build().printed(), ["has tools:1"]);
    done(
        &farm,
        &[
            "project",
            "update",
            "shop",
            "--environment-image",
            "tools:3",
        ],
    );
    let refused = build();
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let why = "No worker serves image `tools:3`. There are: tools:1, tools:2.";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    // What no worker says anything about is not looked for, and the log says so.
    let of_fleet = [
        "--environment-image=",
        "--fleet",
        "reserved",
        "--privileged",
        "yes",
    ];
    done(
        &farm,
        &[&["project", "update", "shop"], &of_fleet[..]].concat(),
    );
    let built = build();
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    for line in [
        "No worker says which fleet it serves, so `reserved` was not looked for",
        "No worker says which privileged-mode it serves, so `true` was not looked for",
    ] {
        assert!(built.stdout.contains(line), "{line}: {}", built.stdout);
    }
    let shown = run(&farm, &["project", "show", "shop"]).stdout;
    assert!(shown.contains("fleet reserved"), "{shown}");
}
