//! Projects: what builds of a repository have in common is said once, and kept by the farm.

use serde_json::Value;
use testkit::{
    farm::{Built, Farm, FarmPlan},
    project,
};

use crate::levels::has_namespaces;

/// Runs `grange` with what it is to be told, and gives what it did.
fn run(farm: &Farm, arguments: &[&str]) -> Built {
    Built::from(farm.client(arguments).output().unwrap())
}

#[track_caller]
fn done(farm: &Farm, arguments: &[&str]) {
    let ran = run(farm, arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
}

fn show(farm: &Farm, name: &str) -> Value {
    farm.json(&["project", "show", name]).remove(0)
}

/// A source tree whose build prints what it finds in these variables.
fn printing(variables: &[&str]) -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    let said: Vec<_> = variables
        .iter()
        .map(|name| format!("{name}=${name}"))
        .collect();
    project::write_buildspec(
        source.path(),
        &format!(
            "version: 0.2\nenv:\n  variables: {{A: file, B: file, C: file}}\nphases:\n  build:\n    \
             commands:\n      - echo {}\n",
            said.join(" ")
        ),
    );
    source
}

#[test]
fn a_project_is_made_changed_listed_and_forgotten_and_outlives_the_coordinator() {
    let mut farm = Farm::start(FarmPlan {
        workers: 0,
        ..FarmPlan::default()
    });
    let make = [
        "project",
        "create",
        "shop",
        "--description",
        "the shop",
        "--env",
        "A=1",
    ];
    done(
        &farm,
        &[&make[..], &["--build-minutes", "30", "--badge", "yes"]].concat(),
    );
    let again = run(&farm, &make);
    assert_eq!(again.code, 2);
    assert!(
        again.stderr.contains("is there already"),
        "{}",
        again.stderr
    );
    done(
        &farm,
        &[
            "project",
            "update",
            "shop",
            "--env",
            "B=2",
            "--buildspec",
            "ci/b.yml",
        ],
    );
    farm.kill_coordinator();
    farm.start_coordinator();
    let shown = show(&farm, "shop");
    let of = &shown["project"];
    assert_eq!(of["description"], "the shop");
    assert_eq!(
        of["env"]["variables"],
        serde_json::json!({"A": "1", "B": "2"})
    );
    assert_eq!(
        (&of["build_minutes"], &of["buildspec"]),
        (&30.into(), &"ci/b.yml".into())
    );
    let listed = farm.json(&["project", "list"]);
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["builds"]),
        (&"shop".into(), &0.into())
    );
    let badge = run(&farm, &["project", "badge", "shop"]);
    assert!(badge.stdout.contains(">unknown</text>"), "{}", badge.stdout);
    done(&farm, &["project", "delete", "shop"]);
    assert_eq!(run(&farm, &["project", "show", "shop"]).code, 2);
    assert_eq!(
        run(&farm, &["project", "update", "shop", "--badge", "no"]).code,
        2
    );
}

#[test]
fn what_makes_no_project_is_refused_by_name() {
    let farm = Farm::start(FarmPlan {
        workers: 0,
        ..FarmPlan::default()
    });
    for (arguments, part) in [
        (&["x"][..], "cannot name a project"),
        (&["shop", "--build-minutes", "4"], "from 5 to 2160"),
        (&["shop", "--queue-minutes", "481"], "from 5 to 480"),
        (&["shop", "--env", "CODEBUILD_X=1"], "CODEBUILD_"),
        (&["shop", "--git", "ext::sh"], "is no protocol"),
        (&["shop", "--git", "https://a:b@example.org/c"], "password"),
    ] {
        let made = run(&farm, &[&["project", "create"], arguments].concat());
        assert_eq!(made.code, 2, "{arguments:?}");
        assert!(made.stderr.contains(part), "{}", made.stderr);
    }
}

#[test]
fn variables_of_the_start_win_over_the_projects_and_those_over_the_files() {
    let farm = Farm::start(FarmPlan::default());
    let source = printing(&["A", "B", "C", "D", "E"]);
    let make = [
        "project",
        "create",
        "shop",
        "--env",
        "A=project",
        "--env",
        "B=project",
    ];
    done(&farm, &[&make[..], &["--env", "D=project"]].concat());
    let start = ["--project", "shop", "--env", "A=start", "--env", "E=start"];
    let built = farm.build(source.path(), &start);
    assert_eq!(
        built.printed(),
        ["A=start B=project C=file D=project E=start"]
    );
    // Builds of a project that nobody has made go on as before.
    let built = farm.build(source.path(), &["--project", "other"]);
    assert_eq!(built.printed(), ["A=file B=file C=file D= E="]);
}

#[test]
fn the_buildspec_of_a_project_is_a_path_or_the_text_itself_and_one_that_is_named_goes_over_it() {
    let farm = Farm::start(FarmPlan::default());
    let source = printing(&["A"]);
    let says = |word: &str| {
        format!("version: 0.2\nphases:\n  build:\n    commands:\n      - echo {word}\n")
    };
    project::write(source.path(), &format!("=== ci/b.yml\n{}", says("path")));
    done(
        &farm,
        &["project", "create", "shop", "--buildspec", "ci/b.yml"],
    );
    let build = |arguments: &[&str]| {
        let built = farm.build(source.path(), &[&["--project", "shop"], arguments].concat());
        assert_eq!(built.code, 0, "{}", built.stderr);
        built.printed().join("\n")
    };
    assert_eq!(build(&[]), "path");
    done(
        &farm,
        &["project", "update", "shop", "--buildspec", &says("text")],
    );
    assert_eq!(build(&[]), "text");
    assert_eq!(build(&["--buildspec", "buildspec.yml"]), "A=file");
    let status = farm.json(&["builds", "--project", "shop"]);
    assert_eq!(status[0]["number"], 3, "builds are numbered by project");
}

#[test]
fn builds_over_the_limit_of_a_project_are_refused_until_one_has_ended() {
    let farm = Farm::start(FarmPlan {
        workers: 0,
        ..FarmPlan::default()
    });
    let source = printing(&["A"]);
    done(
        &farm,
        &["project", "create", "shop", "--concurrent-builds-max", "1"],
    );
    let first = farm.submit(source.path(), &["--project", "shop"]);
    let refused = farm.build(source.path(), &["--project", "shop", "--detach"]);
    assert_eq!(refused.code, 3);
    let message = "Cannot have more than 1 builds in queue for the project `shop`";
    assert!(refused.stderr.contains(message), "{}", refused.stderr);
    assert_eq!(run(&farm, &["retry", &first, "--detach"]).code, 3);
    farm.submit(source.path(), &["--project", "other"]);
    done(&farm, &["stop", &first]);
    farm.wait_for_end(&first);
    farm.submit(source.path(), &["--project", "shop"]);
}

const KEPT: &str = "
version: 0.2
cache:
  key: always
  paths: [kept/**/*]
phases:
  build:
    commands:
      - cat kept/made 2>/dev/null || { mkdir -p kept; date +%N > kept/made; echo none; }
";

#[test]
fn caches_that_were_made_invalid_are_not_restored_and_new_ones_are() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), KEPT);
    let build = |name: &str| {
        let built = farm.build(source.path(), &["--project", name]);
        assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
        built.printed().join("\n")
    };
    assert_eq!(build("shop"), "none");
    let made = build("shop");
    assert_ne!(made, "none");
    assert_eq!(build("shop"), made);
    done(&farm, &["cache", "invalidate", "shop"]);
    assert_eq!(build("shop"), "none");
    let anew = build("shop");
    assert!(anew != made && anew != "none");
    assert_eq!(run(&farm, &["cache", "invalidate", "nobody"]).code, 2);
    done(&farm, &["project", "create", "shop", "--cache", "no"]);
    assert_eq!(build("shop"), "none", "the project has none");
}

#[test]
fn projects_of_one_cache_namespace_share_what_has_a_key() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), KEPT);
    for name in ["one", "two"] {
        done(
            &farm,
            &["project", "create", name, "--cache-namespace", "all"],
        );
    }
    let build = |name: &str| {
        let built = farm.build(source.path(), &["--project", name]);
        assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
        built.printed().join("\n")
    };
    assert_eq!(build("one"), "none");
    assert_ne!(build("two"), "none");
    assert_eq!(build("three"), "none", "it is of no namespace");
    done(&farm, &["cache", "invalidate", "one"]);
    assert_eq!(build("two"), "none", "what is shared is invalid for all");
}

const BATCH: &str = "
=== buildspec.yml
version: 0.2
batch:
  build-list:
    - identifier: own
      buildspec: ci/own.yml
    - identifier: usual
      env: {compute-type: BUILD_GENERAL1_LARGE}
phases:
  build:
    commands:
      - echo usual $WHO
=== ci/own.yml
version: 0.2
env:
  variables: {WHO: file}
phases:
  build:
    commands:
      - echo own $WHO
";

#[test]
fn tasks_of_a_batch_run_buildspecs_of_their_own() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(source.path(), BATCH);
    done(
        &farm,
        &["project", "create", "shop", "--env", "WHO=project"],
    );
    let built = farm.build(source.path(), &["--project", "shop", "--batch"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    for line in ["[own] own project", "[usual] usual project"] {
        assert!(
            built.stdout.lines().any(|found| found == line),
            "{line}: {}",
            built.stdout
        );
    }
    std::fs::remove_file(source.path().join("ci/own.yml")).unwrap();
    let built = farm.build(source.path(), &["--project", "shop", "--batch"]);
    assert_eq!(built.code, 2);
    assert!(built.stderr.contains("ci/own.yml"), "{}", built.stderr);
}

#[test]
fn a_batch_keeps_to_the_restrictions_of_its_project() {
    let farm = Farm::start(FarmPlan {
        workers: 0,
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write(source.path(), BATCH);
    done(
        &farm,
        &["project", "create", "shop", "--batch-builds-max", "1"],
    );
    let refused = |part: &str| {
        let built = farm.build(source.path(), &["--project", "shop", "--batch", "--detach"]);
        assert_eq!(built.code, 2, "{}", built.stderr);
        assert!(built.stderr.contains(part), "{}", built.stderr);
    };
    refused("the batch has 2 builds, and the project allows 1");
    let small = [
        "--batch-builds-max",
        "0",
        "--batch-compute-type",
        "BUILD_GENERAL1_SMALL",
    ];
    done(
        &farm,
        &[&["project", "update", "shop"], &small[..]].concat(),
    );
    refused("`usual` asks for compute type `BUILD_GENERAL1_LARGE`");
}

#[test]
fn only_named_projects_find_docker_and_the_others_get_a_hint() {
    if !has_namespaces() {
        return;
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let socket = directory.path().join("docker.sock");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let farm = Farm::start(FarmPlan {
        settings: format!(
            "[worker]\ndocker_socket = '{}'\ndocker_projects = ['main/shop']\n",
            socket.display()
        ),
        isolation: Some("namespace"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "version: 0.2\nphases:\n  build:\n    commands:\n      - test -S /run/docker.sock || docker ps\n",
    );
    let built = farm.build(source.path(), &["--project", "shop"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let built = farm.build(source.path(), &["--project", "other"]);
    assert_eq!(built.code, 1, "{}", built.stdout);
    assert!(
        built.stdout.contains("[\"main/other\"]"),
        "{}",
        built.stdout
    );
}

/// Publishes two artifacts, both with a name.
const PUBLISHES: &str = "\
version: 0.2
phases:
  build:
    commands: [echo a > a]
artifacts:
  files: [a]
  name: of-the-file
  secondary-artifacts:
    docs: {files: [a], name: docs-of-the-file}
";

#[test]
fn the_name_of_an_artifact_counts_only_when_the_project_lets_the_buildspec_override_it() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), PUBLISHES);
    let names = |number: u32| {
        let built = farm.build(source.path(), &["--project", "shop"]);
        assert_eq!(built.code, 0, "{}", built.stderr);
        let status = farm.status(&format!("shop#{number}"));
        let unit = &status["units"][0];
        let name = |artifact: &Value| artifact["name"].as_str().unwrap().to_owned();
        let secondary = &unit["secondary_artifacts"]["docs"];
        [name(&unit["artifact"]), name(secondary)]
    };
    assert_eq!(names(1), ["of-the-file", "docs-of-the-file"]);
    let create = [
        "project",
        "create",
        "shop",
        "--override-artifact-name",
        "no",
    ];
    done(&farm, &create);
    assert_eq!(names(2), ["shop", "shop"]);
    done(
        &farm,
        &["project", "update", "shop", "--artifact-name", "rel/shop"],
    );
    assert_eq!(names(3), ["rel/shop", "rel/shop"]);
    let update = [
        "project",
        "update",
        "shop",
        "--override-artifact-name",
        "yes",
    ];
    done(&farm, &update);
    assert_eq!(names(4), ["of-the-file", "docs-of-the-file"]);
}

#[test]
fn the_identifier_of_a_secondary_artifact_must_exist_in_a_project_that_names_some() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), PUBLISHES);
    let build = || farm.build(source.path(), &["--project", "shop"]);
    let create = ["project", "create", "shop", "--secondary-artifact", "logs"];
    done(&farm, &create);
    let refused = build();
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let why = "secondary artifact `docs` is none of the project, which has logs";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    let update = ["project", "update", "shop", "--secondary-artifact", "logs"];
    done(
        &farm,
        &[&update[..], &["--secondary-artifact", "docs"]].concat(),
    );
    assert_eq!(build().code, 0);
    done(
        &farm,
        &["project", "update", "shop", "--secondary-artifact="],
    );
    assert_eq!(build().code, 0);
}
