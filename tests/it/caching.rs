//! Dependency caches: what one build keeps for the next.

use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

#[test]
fn what_a_build_keeps_the_next_one_finds() {
    let farm = Farm::start(FarmPlan {
        workers: 2,
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands:
      - cat deps/file ~/.store/file 2>/dev/null || echo nothing
      - mkdir -p deps ~/.store
      - echo kept > deps/file
      - echo at home > ~/.store/file
cache:
  key: deps-$(codebuild-hash-files lock)
  paths: ['deps/**/*', '/root/.store/**/*']
=== lock
one
",
    );
    let build = || farm.build(source.path(), &["--project", "sample"]);
    let first = build();
    assert_eq!(first.code, 0, "{}\n{}", first.stdout, first.stderr);
    assert_eq!(first.printed(), ["nothing"]);
    let second = build();
    assert_eq!(second.printed(), ["kept", "at home"], "{}", second.stdout);
    project::write(source.path(), "=== lock\ntwo\n");
    let other_key = build();
    assert_eq!(
        other_key.printed(),
        ["nothing"],
        "another lock file is another key"
    );
    let stats = farm.json(&["cache", "stats"]).remove(0);
    let uses = stats["uses"].as_array().unwrap();
    let restored: u64 = uses
        .iter()
        .map(|used| used["restored"].as_u64().unwrap())
        .sum();
    assert_eq!(restored, 1, "{stats}");
}

#[test]
fn the_time_saved_is_what_the_first_build_took_to_make_what_the_next_one_finds() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  install:
    commands:
      - test -e deps/file || { sleep 3; mkdir deps; echo made > deps/file; }
cache:
  key: deps
  paths: ['deps/**/*']
",
    );
    let build = || {
        let id = farm.submit(source.path(), &["--project", "sample"]);
        let ended = farm.wait_for_end(&id);
        assert_eq!(ended["build_status"], "SUCCEEDED", "{ended}");
        let at = |name: &str| ended["summary"][name].as_u64().unwrap();
        at("ended") - at("submitted")
    };
    let took_millis = build();
    build();
    let stats = farm.json(&["cache", "stats"]).remove(0);
    let uses = &stats["uses"][0];
    let count = |name: &str| uses[name].as_u64().unwrap();
    assert_eq!((count("restored"), count("estimated")), (1, 0), "{stats}");
    // By the bytes alone it would be a millisecond, which is less than the restore takes.
    let saved_millis = count("saved_millis") + count("restore_millis");
    assert!(
        (3_000..=took_millis).contains(&saved_millis),
        "{saved_millis} of {took_millis} ms: {stats}"
    );
    let told = farm.client(&["cache", "stats"]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(!told.contains("about"), "{told}");
}

#[test]
fn an_entry_under_a_key_is_never_replaced_and_one_without_is() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    let buildspec = |key: &str, value: &str| {
        format!(
            "
version: 0.2
phases:
  build:
    commands:
      - cat deps/file 2>/dev/null || echo nothing
      - mkdir -p deps; echo {value} > deps/file
cache:
{key}
  paths: ['deps/**/*']
"
        )
    };
    let run = |key: &str, value: &str| {
        project::write_buildspec(source.path(), &buildspec(key, value));
        let built = farm.build(source.path(), &["--project", "sample"]);
        assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
        built.printed()[0].to_owned()
    };
    let keyed = ["1", "2", "3"].map(|value| run("  key: fixed", value));
    assert_eq!(keyed, ["nothing", "1", "1"]);
    let keyless = ["1", "2", "3"].map(|value| run("", value));
    assert_eq!(keyless, ["nothing", "1", "2"]);
}

#[test]
fn a_failed_build_keeps_nothing() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands:
      - test -e deps/file && echo found || echo nothing
      - mkdir -p deps; echo half > deps/file
      - exit 1
cache:
  paths: ['deps/**/*']
",
    );
    for _ in 0..2 {
        let built = farm.build(source.path(), &["--project", "sample"]);
        assert_eq!((built.code, built.printed()), (1, vec!["nothing"]));
    }
}

/// A makefile that says what it made again.
const MADE: &str = "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands:
      - make -s
cache:
  paths: ['obj/**/*']
=== Makefile
all: obj/a obj/b
obj/%: src/%
\t@mkdir -p obj; echo made $@; cp $< $@
=== src/a
=== src/b
";

#[test]
fn what_did_not_change_is_not_made_again_and_what_did_is() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(source.path(), MADE);
    let build = || {
        let built = farm.build(source.path(), &["--project", "sample"]);
        assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
        built
            .printed()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(build(), ["made obj/a", "made obj/b"]);
    // A fresh checkout: the same content, other times.
    project::write(source.path(), MADE);
    assert_eq!(build(), Vec::<String>::new());
    project::write(source.path(), "=== src/b\nchanged\n");
    assert_eq!(build(), ["made obj/b"]);
    // Back to content that an older cache was made from: the newest cache was made from another.
    project::write(source.path(), "=== src/b\n");
    assert_eq!(build(), ["made obj/b"]);
}

/// Slow: it takes a cache of a gigabyte for its restore to take a while on any machine.
#[test]
fn who_follows_a_build_hears_how_far_a_long_restore_is() {
    if !testkit::slow_tests() {
        return;
    }
    let mut farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands: ['test -e big/file || { mkdir big; head -c 1G /dev/urandom > big/file; }']
cache:
  paths: ['big/**/*']
",
    );
    let first = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    // One that has unpacked nothing yet.
    farm.kill_worker(0);
    std::fs::remove_dir_all(farm.worker_directory(0).join("layers")).unwrap();
    farm.start_worker(0);
    let second = farm.build(source.path(), &["--project", "sample", "--json"]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    let events = second.stdout.lines().map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event
    });
    let told: Vec<(u64, u64)> = events
        .filter(|event| event["event"] == "restoring")
        .map(|event| {
            let bytes = |name: &str| event["progress"][name].as_u64().unwrap();
            (bytes("bytes_done"), bytes("bytes_total"))
        })
        .collect();
    assert!(2 <= told.len(), "{told:?}");
    assert!(told.is_sorted(), "{told:?}");
    assert!(told.iter().all(|&(_, total)| total == 1 << 30), "{told:?}");
    assert_eq!(told.last(), Some(&(1 << 30, 1 << 30)));
}
