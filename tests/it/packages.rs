//! A build that installs system packages, as one in seven does: they are there in its later phases, on
//! whatever worker those run, and never on the host.

use std::path::Path;

use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

use crate::levels::has_namespaces;

/// A Debian package and a Python package that hardly any machine has.
const BUILDSPEC: &str = "
version: 0.2
phases:
  install:
    commands:
      - export DEBIAN_FRONTEND=noninteractive
      - apt-get update -qq
      - apt-get install -qq -y --no-install-recommends figlet python3-pip > /dev/null
      - SYSTEM_PYTHON=/usr/bin/python3
      - $SYSTEM_PYTHON -m pip install --quiet --break-system-packages --root-user-action=ignore isodate==0.7.2
      - echo at-home > /root/grange-travels
      - mkdir -p /opt/grange-travels/deep && cd /opt/grange-travels/deep && echo in-opt > ../file
      - echo installed
      - sleep 3
  build:
    commands:
      - figlet -f term figlet runs
      - $SYSTEM_PYTHON -c 'import isodate; print(isodate.__name__, isodate.parse_duration(\"PT90S\"))'
      - cat /root/grange-travels ../file
      - pwd
      - figlet -f term built > built.txt && cp built.txt $CODEBUILD_SRC_DIR
artifacts:
  files: [built.txt]
";

#[test]
fn what_install_put_into_the_system_is_there_on_another_worker_and_not_on_the_host() {
    if !testkit::slow_tests() {
        testkit::skip("it needs the package registries and GRANGE_SLOW_TESTS=1");
        return;
    }
    if !has_namespaces() {
        return;
    }
    let host = || {
        [
            "/usr/bin/figlet",
            "/root/grange-travels",
            "/opt/grange-travels",
        ]
        .map(|path| Path::new(path).exists())
    };
    let status = || std::fs::read("/var/lib/dpkg/status").unwrap();
    let packages = status();
    assert_eq!(
        host(),
        [false; 3],
        "the host must lack what the build makes"
    );
    let farm = Farm::start(FarmPlan {
        workers: 2,
        isolation: Some("namespace"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), BUILDSPEC);
    let build = farm.submit(source.path(), &["--project", "sample"]);
    testkit::wait::until_true("install is nearly done", || {
        let ended = !farm.status(&build)["summary"]["ended"].is_null();
        assert!(!ended, "it failed: {}", farm.log(&build));
        farm.log(&build).contains("\ninstalled\n")
    });
    let worker = |status: &serde_json::Value, phase: usize| {
        let worker = status["units"][0]["phases"][phase]["worker"].as_str();
        worker.expect("the phase has a worker").to_owned()
    };
    let first = worker(&farm.status(&build), 1);
    assert!(farm.client(&["drain", &first]).status().unwrap().success());
    let ended = farm.wait_for_end(&build);
    let log = farm.log(&build);
    assert_eq!(
        ended["summary"]["status"]["ENDED"], "SUCCEEDED",
        "{ended}\n{log}"
    );
    assert_eq!(worker(&ended, 1), first);
    assert_ne!(worker(&ended, 3), first, "build ran on the other worker");
    for line in [
        "figlet runs",
        "isodate 0:01:30",
        "at-home",
        "in-opt",
        "/opt/grange-travels/deep",
    ] {
        assert!(log.lines().any(|found| found == line), "{line}:\n{log}");
    }
    assert_eq!(host(), [false; 3], "the host was changed");
    assert_eq!(
        status(),
        packages,
        "the host's package database was changed"
    );
}
