//! Dependency caches that no buildspec asks for, and older ones that do as well.

use testkit::{
    farm::{Built, Farm, FarmPlan},
    project,
};

/// What the commands say of `deps`, which they make if it is not there.
fn said(built: &Built) -> &str {
    built.printed().first().copied().unwrap_or_default()
}

fn build<'a>(farm: &'a Farm, source: &'a tempfile::TempDir) -> impl Fn(&[&str]) -> Built + 'a {
    |arguments| {
        let arguments = [&["--project", "sample"], arguments].concat();
        let built = farm.build(source.path(), &arguments);
        assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
        built
    }
}

#[test]
fn what_a_lock_file_selects_is_there_for_the_next_build() {
    let farm = Farm::start(FarmPlan {
        workers: 2,
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    let locked = |version: &str| format!("=== app/package-lock.json\n{version}\n");
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  install:
    commands:
      - cd app; cat node_modules/made 2>/dev/null || { mkdir node_modules; date +%N > node_modules/made; echo none; }
=== app/package.json
{}
",
    );
    project::write(source.path(), &locked("1"));
    let build = build(&farm, &source);
    let first = build(&[]);
    assert_eq!(said(&first), "none", "{}", first.stdout);
    let selects = "Cached unasked, by lock file app/package-lock.json (npm): app/node_modules/**/*";
    assert!(first.stdout.contains(selects), "{}", first.stdout);

    let second = build(&[]);
    let made = said(&second).to_owned();
    assert_ne!(made, "none", "{}", second.stdout);
    assert_eq!(said(&build(&["--no-cache"])), "none");
    assert_eq!(said(&build(&[])), made, "that one kept nothing");

    // Another lock file is another key; what the last one gave is better than nothing.
    project::write(source.path(), &locked("2"));
    let other = build(&[]);
    assert_eq!(said(&other), made);
    assert!(
        other.stdout.contains("as there is none `lock-files/"),
        "{}",
        other.stdout
    );
    assert!(
        other.stdout.contains("Saved cache `lock-files/"),
        "{}",
        other.stdout
    );
    let again = build(&[]);
    assert!(
        !again.stdout.contains("as there is none"),
        "{}",
        again.stdout
    );
    assert!(again.stdout.contains("needs no saving"), "{}", again.stdout);
}

#[test]
fn a_source_without_lock_files_has_no_cache() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands: ['test -e node_modules && echo there || { mkdir node_modules; touch node_modules/x; echo none; }']
=== package.json
{}
",
    );
    let build = build(&farm, &source);
    for _ in 0..2 {
        let built = build(&[]);
        assert_eq!(said(&built), "none");
        assert!(!built.stdout.contains("unasked"), "{}", built.stdout);
    }
    let stats = farm.json(&["cache", "stats"]).remove(0);
    assert_eq!(stats["uses"].as_array().map(Vec::len), Some(0), "{stats}");
}

#[test]
fn where_there_is_no_entry_under_the_key_the_newest_that_a_fallback_key_begins_is_restored() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands:
      - cat deps/made 2>/dev/null || echo none
      - mkdir -p deps; echo $KEY > deps/made
cache:
  key: $KEY
  fallback-keys: [other-, $(echo lib)-]
  paths: ['deps/**/*']
",
    );
    let build = build(&farm, &source);
    let with = |key: &str| said(&build(&["--env", &format!("KEY={key}")])).to_owned();
    assert_eq!(with("lib-1"), "none");
    assert_eq!(with("library-1"), "lib-1", "`lib-` begins its key");
    assert_eq!(with("lib-2"), "lib-1", "`lib-` does not begin `library-1`");
    assert_eq!(with("app-1"), "lib-2", "the newest");
    assert_eq!(with("other-1"), "lib-2");
    assert_eq!(
        with("app-2"),
        "other-1",
        "the first fallback key comes first"
    );
    assert_eq!(
        with("lib-1"),
        "lib-1",
        "an entry under the key comes before all"
    );
}
