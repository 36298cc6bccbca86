//! Names, secondary artifacts and symbolic links.

use std::fs;

use super::building::{Done, build};

/// A build with these lines of `artifacts`, after a few files were made.
fn publishing(lines: &str) -> Done {
    let done = build(&format!(
        "\
env:
  variables: {{STAGE: beta}}
phases:
  build:
    commands:
      - mkdir -p out/deep other && echo a > out/a && echo b > out/deep/b && echo c > other/c
      - ln -s deep/b out/inside && ln -s ../other out/outside && ln -s nowhere out/dangling
      - ln -s . out/deep/circle
artifacts:
{lines}"
    ));
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    done
}

#[test]
fn a_name_is_evaluated_by_the_shell_and_may_have_slashes() {
    let done = publishing("  files: [out/a]\n  name: app/$STAGE-$(cat out/a)\n");
    assert_eq!(done.unit()["artifact"]["name"], "app/beta-a");
}

#[test]
fn secondary_artifacts_are_logged_and_published_below_their_identifiers() {
    let done = publishing(
        "  files: [out/a]
  secondary-artifacts:
    one:
      files: ['**/*']
      base-directory: other
      name: first-$STAGE
    two:
      files: ['out/deep/b']
      discard-paths: yes
",
    );
    done.at("Preparing to copy secondary artifacts one");
    done.at("Preparing to copy secondary artifacts two");
    assert_eq!(done.artifacts(), ["one/c", "out/a", "two/b"]);
    let of = &done.unit()["secondary_artifacts"];
    assert_eq!(of["one"]["name"], "first-beta");
    assert_eq!(of["two"]["name"], "sample");
    let listed = done.json(&["artifacts", "sample#1"]);
    let identifiers: Vec<_> = listed.iter().map(|of| of["identifier"].as_str()).collect();
    assert_eq!(identifiers, [None, Some("one"), Some("two")]);
    let without = publishing("  files: [out/a]\n");
    without.at("No secondary artifacts defined in buildspec");
}

#[test]
fn a_secondary_artifact_that_matches_nothing_fails_the_upload_and_keeps_no_other_back() {
    let done = build(
        "\
phases:
  build:
    commands: [echo a > a]
artifacts:
  files: [a]
  secondary-artifacts:
    gone:
      files: [missing]
    there:
      files: [a]
",
    );
    assert_eq!(done.built.code, 1, "{}", done.built.stdout);
    done.at("Phase context status code: CLIENT_ERROR Message: no matching artifact paths found");
    assert_eq!(done.artifacts(), ["a", "there/a"]);
}

#[test]
fn links_are_stored_as_links_only_if_enabled() {
    let lines = "  files: ['**/*']\n  base-directory: out\n";
    let followed = publishing(lines);
    let root = followed.fetched.path().join("artifacts");
    assert_eq!(fs::read_to_string(root.join("inside")).unwrap(), "b\n");
    assert!(!root.join("inside").is_symlink());
    assert!(!root.join("outside").is_symlink());
    assert_eq!(fs::read_to_string(root.join("outside/c")).unwrap(), "c\n");
    assert!(!root.join("deep/circle").exists(), "a circle ends");

    let enabled = publishing(&format!("{lines}  enable-symlinks: yes\n"));
    let root = enabled.fetched.path().join("artifacts");
    let target = |name: &str| fs::read_link(root.join(name)).unwrap();
    assert_eq!(target("inside").to_str(), Some("deep/b"));
    assert_eq!(target("dangling").to_str(), Some("nowhere"));
    assert!(
        !root.join("outside").is_symlink(),
        "it leads out of the artifact"
    );
    assert_eq!(fs::read_to_string(root.join("outside/c")).unwrap(), "c\n");
}

#[test]
fn absolute_paths_are_taken() {
    let done = build(
        "\
phases:
  build:
    commands: [mkdir -p /tmp/made && echo x > /tmp/made/file]
artifacts:
  files: [/tmp/made/file]
  discard-paths: yes
",
    );
    assert_eq!(done.built.code, 0, "{}", done.built.stdout);
    assert_eq!(done.artifacts(), ["file"]);
}
