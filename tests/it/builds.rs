//! Builds as things to list, read, retry and delete; and those of an embedded farm.

use std::fs;

use testkit::{
    farm::{Built, Farm, FarmPlan},
    project,
};

#[test]
fn a_build_can_be_listed_read_retried_and_deleted() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands: [echo hello]
",
    );
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let retried = farm.client(&["retry", "sample#1"]).output().unwrap();
    assert!(
        retried.status.success(),
        "{}",
        String::from_utf8_lossy(&retried.stderr)
    );
    let builds = farm.json(&["builds"]);
    let numbers: Vec<_> = builds
        .iter()
        .map(|build| build["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [2, 1], "newest first");
    assert!(farm.log("sample#2").contains("\nhello\n"));
    assert!(
        farm.client(&["builds", "delete", "sample#1"])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(farm.json(&["builds"]).len(), 1);
    let gone = farm.client(&["status", "sample#1"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(2));
}

#[test]
fn without_a_farm_a_build_runs_on_an_embedded_one() {
    let home = tempfile::tempdir().unwrap();
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands: [echo alone > out.txt]
artifacts:
  files: [out.txt]
",
    );
    for number in 1..=2 {
        let output = std::process::Command::new(testkit::program::grange())
            .args(["build", "--project", "sample", "--artifacts", "fetched"])
            .current_dir(source.path())
            .env("HOME", home.path())
            .env_remove("GRANGE_FARM")
            .env_remove("GRANGE_LOG")
            .env_remove("GRANGE_TOKEN")
            .env_remove("XDG_DATA_HOME")
            .output()
            .unwrap();
        let built = Built::from(output);
        assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
        assert!(
            built.stderr.contains(&format!("sample#{number}")),
            "{}",
            built.stderr
        );
        fs::remove_dir_all(source.path().join("fetched")).unwrap();
    }
}
