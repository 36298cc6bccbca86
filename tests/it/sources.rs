//! Sources that the farm fetches.

mod archives;

use std::{path::Path, process::Command};

use testkit::{
    farm::{Built, Farm, FarmPlan},
    project,
};

/// A farm whose workers may fetch what is on this machine's disk.
fn farm() -> Farm {
    Farm::start(FarmPlan {
        settings: "[worker]\ngit_protocols = ['file']\n".to_owned(),
        ..FarmPlan::default()
    })
}

/// Runs git; gives what it prints.
pub(super) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=me", "-c", "user.email=me@example.org"])
        .args([
            "-c",
            "init.defaultBranch=main",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with a commit for each of `words`, in whose tree the word is in the file `word`.
fn repository(words: &[&str]) -> (tempfile::TempDir, Vec<String>) {
    // Not below `/tmp`, of which each phase has its own.
    let directory = tempfile::tempdir_in("/opt").unwrap();
    let path = directory.path();
    git(path, &["init", "--quiet"]);
    let mut commits = Vec::new();
    for word in words {
        project::write(
            path,
            &format!(
                "
=== word
{word}
=== buildspec.yml
version: 0.2
phases:
  build:
    commands:
      - cat word
      - echo $CODEBUILD_SOURCE_VERSION $CODEBUILD_RESOLVED_SOURCE_VERSION $CODEBUILD_SOURCE_REPO_URL
      - git -c safe.directory='*' rev-list --count HEAD
"
            ),
        );
        git(path, &["add", "."]);
        git(path, &["commit", "--quiet", "-m", word]);
        commits.push(git(path, &["rev-parse", "HEAD"]));
    }
    (directory, commits)
}

fn url(repository: &tempfile::TempDir) -> String {
    format!("file://{}", repository.path().display())
}

#[track_caller]
fn done(farm: &Farm, arguments: &[&str]) {
    let ran = Built::from(farm.client(arguments).output().unwrap());
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
}

/// Builds the project `shop` from its repository.
fn build(farm: &Farm, arguments: &[&str]) -> Built {
    let all = [&["build", "--project", "shop"], arguments].concat();
    Built::from(farm.client(&all).output().unwrap())
}

#[test]
fn a_version_is_a_branch_a_tag_a_commit_or_a_reference() {
    let farm = farm();
    let (repository, commits) = repository(&["first", "second", "third"]);
    let path = repository.path();
    git(path, &["branch", "old", &commits[0]]);
    git(path, &["tag", "-a", "-m", "v1", "v1", &commits[1]]);
    git(path, &["update-ref", "refs/pull/7/head", &commits[1]]);
    let url = url(&repository);
    done(&farm, &["project", "create", "shop", "--git", &url]);
    let of_reference = format!("main^{{{}}}", commits[1]);
    for (version, word) in [
        ("", 2),
        ("main", 2),
        ("old", 0),
        ("v1", 1),
        ("refs/heads/old", 0),
        ("refs/tags/v1", 1),
        ("pr/7", 1),
        (commits[0].as_str(), 0),
        (&commits[1][..10], 1),
        (&of_reference, 1),
    ] {
        let built = match version {
            "" => build(&farm, &[]),
            version => build(&farm, &["--source-version", version]),
        };
        assert_eq!(
            built.code, 0,
            "{version}: {}\n{}",
            built.stdout, built.stderr
        );
        let printed = built.printed();
        assert_eq!(printed[0], ["first", "second", "third"][word], "{version}");
        let asked = [version, &commits[word], &url];
        let asked = asked.join(" ");
        assert_eq!(printed[1], asked.trim_start(), "{version}");
        assert_eq!(printed[2], (word + 1).to_string(), "all of the history");
    }
}

#[test]
fn a_depth_cuts_the_history_and_what_changed_is_fetched_by_the_next_build() {
    let farm = farm();
    let (repository, _) = repository(&["first", "second"]);
    let url = url(&repository);
    done(
        &farm,
        &["project", "create", "shop", "--git", &url, "--depth", "1"],
    );
    let built = build(&farm, &[]);
    assert_eq!(
        built.printed()[2],
        "1",
        "{}\n{}",
        built.stdout,
        built.stderr
    );
    project::write(repository.path(), "=== word\nthird\n");
    git(repository.path(), &["commit", "--quiet", "-am", "third"]);
    assert_eq!(build(&farm, &[]).printed()[0], "third");
    // What was built is built again, whatever became of the branch.
    let retried = Built::from(farm.client(&["retry", "shop#1"]).output().unwrap());
    assert_eq!(retried.printed()[0], "second", "{}", retried.stderr);
}

/// The context of the first phase of a build that has ended.
fn context(farm: &Farm, build: &str) -> (String, String) {
    let status = farm.status(build);
    let phase = &status["units"][0]["phases"][0];
    assert_eq!(phase["phase"], "DOWNLOAD_SOURCE");
    let text = |key: &str| phase["context"][key].as_str().unwrap().to_owned();
    (text("status_code"), text("message"))
}

#[test]
fn what_cannot_be_fetched_fails_download_source_with_the_reason() {
    let farm = farm();
    let (repository, _) = repository(&["first"]);
    let there = url(&repository);
    done(&farm, &["project", "create", "shop", "--git", &there]);
    let built = build(&farm, &["--source-version", "nope"]);
    assert_eq!(built.code, 1, "{}", built.stderr);
    let (code, message) = context(&farm, "shop#1");
    assert_eq!(code, "CLIENT_ERROR");
    assert_eq!(
        message,
        "reference not found for primary source and source version nope"
    );
    let line = format!("Phase context status code: {code} Message: {message}");
    assert!(built.stdout.contains(&line), "{}", built.stdout);

    let unknown = "0123456789abcdef0123456789abcdef01234567";
    build(&farm, &["--source-version", unknown]);
    let (_, message) = context(&farm, "shop#2");
    assert!(
        message.starts_with("reference not found for primary source"),
        "{message}"
    );

    done(
        &farm,
        &[
            "project",
            "update",
            "shop",
            "--git",
            "file:///nowhere/at/all",
        ],
    );
    assert_eq!(build(&farm, &[]).code, 1);
    let (code, message) = context(&farm, "shop#3");
    assert_eq!(code, "CLIENT_ERROR");
    assert!(
        message.starts_with("Git clone failed: file:///nowhere/at/all"),
        "{message}"
    );

    done(
        &farm,
        &[
            "project",
            "update",
            "shop",
            "--git",
            "ssh://nobody@127.0.0.1/x",
        ],
    );
    build(&farm, &[]);
    let (_, message) = context(&farm, "shop#4");
    assert!(
        message.contains("does not let it fetch over `ssh`"),
        "{message}"
    );
}

#[test]
fn a_buildspec_that_is_not_in_the_source_or_has_mistakes_fails_download_source() {
    let farm = farm();
    let (repository, _) = repository(&["first"]);
    done(
        &farm,
        &["project", "create", "shop", "--git", &url(&repository)],
    );
    let built = build(&farm, &["--buildspec", "ci/none.yml"]);
    assert_eq!(built.code, 1, "{}", built.stderr);
    let (code, message) = context(&farm, "shop#1");
    assert_eq!(code, "YAML_FILE_ERROR");
    assert_eq!(message, "stat ci/none.yml: no such file or directory");
    // Tools look for these lines, whoever writes them.
    let ends = [
        "Phase complete: DOWNLOAD_SOURCE State: FAILED\n",
        "Phase context status code: YAML_FILE_ERROR Message: stat ci/none.yml: no such file or directory\n",
    ];
    for log in [&built.stdout, &farm.log("shop#1")] {
        let each = ends.map(|line| log.matches(line).count());
        assert_eq!(each, [1, 1], "{log}");
    }
    project::write_buildspec(repository.path(), "phases:\n  biuld: {}\n");
    git(repository.path(), &["commit", "--quiet", "-am", "broken"]);
    build(&farm, &[]);
    let (code, message) = context(&farm, "shop#2");
    assert_eq!(code, "YAML_FILE_ERROR");
    assert!(message.contains("biuld"), "{message}");
    let inline = "version: 0.2\nphases:\n  build:\n    commands:\n      - cat word\n";
    done(&farm, &["project", "update", "shop", "--buildspec", inline]);
    assert_eq!(build(&farm, &[]).printed(), ["first"]);
}

#[test]
fn each_secondary_source_has_a_directory_and_variables_of_its_own() {
    let farm = farm();
    let (primary, _) = repository(&["first"]);
    let (library, commits) = repository(&["one", "two"]);
    git(library.path(), &["branch", "old", &commits[0]]);
    project::write_buildspec(
        primary.path(),
        "
version: 0.2
phases:
  build:
    commands:
      - cat word $CODEBUILD_SRC_DIR_lib/word
      - echo $CODEBUILD_SOURCE_VERSION_lib $CODEBUILD_RESOLVED_SOURCE_VERSION_lib
      - test $CODEBUILD_SRC_DIR != $CODEBUILD_SRC_DIR_lib
      - touch $CODEBUILD_SRC_DIR_lib/mine
  post_build:
    commands:
      - test -e $CODEBUILD_SRC_DIR_lib/mine && echo kept
",
    );
    git(primary.path(), &["commit", "--quiet", "-am", "library"]);
    let of_library = format!("lib={}", url(&library));
    let make = ["project", "create", "shop", "--secondary", &of_library];
    done(
        &farm,
        &[&make[..], &["--secondary-version", "lib=old"]].concat(),
    );
    let expected = ["first", "one", &format!("old {}", commits[0]), "kept"];
    let uploaded = farm.build(primary.path(), &["--project", "shop"]);
    assert_eq!(uploaded.printed(), expected, "{}", uploaded.stderr);
    done(
        &farm,
        &["project", "update", "shop", "--git", &url(&primary)],
    );
    let fetched = build(&farm, &[]);
    assert_eq!(fetched.printed(), expected, "{}", fetched.stderr);
}

#[test]
fn submodules_come_along_if_the_project_says_so() {
    let farm = farm();
    let (inner, _) = repository(&["inner"]);
    let (outer, _) = repository(&["outer"]);
    git(
        outer.path(),
        &["submodule", "--quiet", "add", &url(&inner), "inner"],
    );
    let text =
        "version: 0.2\nphases:\n  build:\n    commands:\n      - cat inner/word || echo none\n";
    project::write_buildspec(outer.path(), text);
    git(outer.path(), &["commit", "--quiet", "-am", "inner"]);
    done(&farm, &["project", "create", "shop", "--git", &url(&outer)]);
    let without = build(&farm, &[]);
    assert_eq!(
        without.printed().last(),
        Some(&"none"),
        "{}",
        without.stderr
    );
    done(&farm, &["project", "update", "shop", "--submodules", "yes"]);
    assert_eq!(build(&farm, &[]).printed(), ["inner"]);
}

#[test]
fn a_batch_of_a_repository_is_fetched_once_and_planned_by_what_is_in_it() {
    let farm = farm();
    let (repository, _) = repository(&["first"]);
    project::write(
        repository.path(),
        "
=== buildspec.yml
version: 0.2
batch:
  build-list:
    - identifier: own
      buildspec: ci/own.yml
    - identifier: usual
phases:
  build:
    commands:
      - echo usual $(cat word)
=== ci/own.yml
version: 0.2
phases:
  build:
    commands:
      - echo own $(cat word)
",
    );
    git(repository.path(), &["add", "."]);
    git(repository.path(), &["commit", "--quiet", "-m", "batch"]);
    done(
        &farm,
        &["project", "create", "shop", "--git", &url(&repository)],
    );
    let built = build(&farm, &["--batch"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    for line in ["[own] own first", "[usual] usual first"] {
        assert!(
            built.stdout.lines().any(|found| found == line),
            "{line}: {}",
            built.stdout
        );
    }
    assert_eq!(
        built.stdout.matches("Fetched commit").count(),
        1,
        "{}",
        built.stdout
    );
}

#[test]
fn a_repository_on_the_workers_disk_is_not_read_unless_its_owner_says_so() {
    let farm = Farm::start(FarmPlan::default());
    let (repository, _) = repository(&["first"]);
    done(
        &farm,
        &["project", "create", "shop", "--git", &url(&repository)],
    );
    assert_eq!(build(&farm, &[]).code, 1);
    let (_, message) = context(&farm, "shop#1");
    assert!(message.contains("only over https, ssh"), "{message}");
}

#[test]
fn a_source_is_fetched_at_level_host_too() {
    let farm = Farm::start(FarmPlan {
        settings: "[worker]\ngit_protocols = ['file']\n".to_owned(),
        isolation: Some("host"),
        ..FarmPlan::default()
    });
    let (repository, _) = repository(&["first"]);
    done(
        &farm,
        &["project", "create", "shop", "--git", &url(&repository)],
    );
    let built = build(&farm, &[]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    assert_eq!(built.printed()[0], "first");
}
