//! What sections of the file become in the jobs of a unit.

use protocol::{build::Phase, job::Task};

use super::*;

#[test]
fn runtimes_exports_users_and_secondary_artifacts_reach_their_jobs() {
    let text = "
version: 0.2
run-as: ci
env:
  variables: {WANTED: '3.10'}
  parameter-store: {SECRET: /a}
  exported-variables: [A, AWS_B, SECRET]
phases:
  install:
    runtime-versions: {python: $WANTED, nodejs: 20}
  build: {commands: [b], run-as: root}
artifacts:
  files: [out]
  enable-symlinks: yes
  secondary-artifacts:
    one: {files: [a]}
";
    let variables = BTreeMap::from([("SECRET".to_owned(), "given".to_owned())]);
    let request = PlanRequest {
        variables,
        path: "ci/buildspec.yml".to_owned(),
        ..PlanRequest::default()
    };
    let graph = plan(&spec(text), &request).unwrap();
    let Task::DownloadSource { preface, .. } = &graph.jobs[0].task else {
        panic!()
    };
    let runtimes: Vec<_> = preface
        .runtimes
        .iter()
        .map(|(a, b)| format!("{a} {b}"))
        .collect();
    assert_eq!(runtimes, ["nodejs 20", "python 3.10"]);
    assert_eq!(preface.buildspec, "ci/buildspec.yml");
    assert_eq!(preface.phases, [(Phase::Install, 0), (Phase::Build, 1)]);
    let commands = |job: usize| match &graph.jobs[job].task {
        Task::Commands(phase) => phase,
        _ => panic!(),
    };
    let users = [1, 3].map(|job| commands(job).run_as.as_deref());
    assert_eq!(users, [Some("ci"), Some("root")]);
    assert_eq!(commands(4).exported, ["A"], "neither secrets nor AWS_");
    let named: Vec<_> = (1..5).map(|job| commands(job).is_named).collect();
    assert_eq!(named, [true, false, true, false]);
    let Task::UploadArtifacts {
        artifacts,
        secondary,
        ..
    } = &graph.jobs[5].task
    else {
        panic!()
    };
    assert!(artifacts.as_ref().unwrap().enable_symlinks);
    assert_eq!(secondary["one"].files, ["a"]);
    assert!(!secondary["one"].enable_symlinks);
}
