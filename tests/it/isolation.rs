//! What phases share and what they cannot touch; phases that travel.

use std::{fs, path::Path};

use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

use crate::levels::has_namespaces;

#[test]
fn a_build_changes_its_own_root_and_not_the_hosts() {
    if !has_namespaces() {
        return;
    }
    let farm = Farm::start(FarmPlan {
        isolation: Some("namespace"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    let mark = format!("grange-{}", std::process::id());
    project::write_buildspec(
        source.path(),
        &format!(
            "
version: 0.2
phases:
  install:
    commands:
      - echo opt > /opt/{mark}
      - echo home > /root/{mark}
      - echo tmp > /tmp/{mark}
      - rm -r /etc/apt
      - ls {farm} && echo the farm is seen || true
      - ls /tmp
      - test $HOME = /root && test $PWD = /codebuild/output/src/src
  build:
    commands:
      - cat /opt/{mark} /root/{mark} /tmp/{mark}
      - test ! -e /etc/apt
      - hostname
",
            farm = farm.worker_directory(0).join("layers").display(),
        ),
    );
    let outside = Path::new("/tmp").join(format!("{mark}-outside"));
    fs::write(&outside, "").unwrap();
    let built = farm.build(source.path(), &["--project", "sample"]);
    fs::remove_file(&outside).unwrap();
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let lines = built.printed();
    let seen: Vec<_> = lines
        .into_iter()
        .filter(|line| !line.starts_with("ls: "))
        .collect();
    assert_eq!(seen, [&mark, "opt", "home", "tmp", "grange"]);
    for directory in ["/opt", "/root", "/tmp"] {
        assert!(
            !Path::new(directory).join(&mark).exists(),
            "{directory} of the host was written"
        );
    }
    assert!(Path::new("/etc/apt").exists(), "the host lost /etc/apt");
}

#[test]
fn a_phase_goes_on_where_another_worker_stopped() {
    if !has_namespaces() {
        return;
    }
    let farm = Farm::start(FarmPlan {
        workers: 2,
        isolation: Some("namespace"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  install:
    commands:
      - mkdir -p /opt/tool && printf '#!/bin/sh\\necho the tool runs\\n' > /opt/tool/run
      - chown 1234:5678 /opt/tool/run && chmod 4755 /opt/tool/run
      - ln /opt/tool/run /opt/tool/again && ln -s run /opt/tool/link
      - touch -d @1000000000.123456789 /opt/tool/run
      - mv /usr/share/doc /usr/share/moved && mkdir /usr/share/doc && echo new > /usr/share/doc/only
      - rm /etc/hostname; mkdir /etc/hostname
      - truncate -s 100M /opt/sparse
      - VALUE='carried over'
      - mkdir -p deep/er && cd deep/er
      - echo ready
      - sleep 2
  build:
    commands:
      - pwd && echo $VALUE
      - /opt/tool/link
      - stat -c '%a %u %g %h %Y' /opt/tool/again
      - stat -c '%y' /opt/tool/run | grep -o '123456789'
      - cat /usr/share/doc/*
      - test $(ls /usr/share/moved | wc -l) -gt 10
      - test -d /etc/hostname
      - du -k /opt/sparse | cut -f1
",
    );
    let build = farm.submit(source.path(), &["--project", "sample"]);
    let first = testkit::wait::until("install runs", || {
        let status = farm.status(&build);
        let worker = status["units"][0]["phases"][1]["worker"]
            .as_str()?
            .to_owned();
        Some(worker)
    });
    assert!(farm.client(&["drain", &first]).status().unwrap().success());
    let ended = farm.wait_for_end(&build);
    let log = farm.log(&build);
    assert_eq!(
        ended["summary"]["status"]["ENDED"], "SUCCEEDED",
        "{ended}\n{log}"
    );
    let worker = |phase: usize| {
        ended["units"][0]["phases"][phase]["worker"]
            .as_str()
            .unwrap()
    };
    assert_eq!(worker(1), first);
    assert_ne!(worker(3), first, "the build phase ran on the other worker");
    let seen: Vec<_> = log
        .lines()
        .filter(|line| !line.starts_with("[Container] "))
        .collect();
    assert_eq!(
        seen,
        [
            "ready",
            "/codebuild/output/src/src/deep/er",
            "carried over",
            "the tool runs",
            "4755 1234 5678 2 1000000000",
            "123456789",
            "new",
            "0",
        ]
    );
}

#[test]
fn at_host_level_a_build_has_a_home_of_its_own() {
    let farm = Farm::start(FarmPlan {
        isolation: Some("host"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  install:
    commands:
      - echo mine > ~/file
      - VALUE=carried
      - mkdir inner && cd inner
  build:
    commands:
      - cat $HOME/file && echo $VALUE && basename $PWD
      - test $HOME != /root
      - echo made > ../out.txt
artifacts:
  files: [out.txt]
",
    );
    let to = source.path().join("fetched");
    let built = farm.build(
        source.path(),
        &["--project", "sample", "--artifacts", to.to_str().unwrap()],
    );
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    assert_eq!(built.printed(), ["mine", "carried", "inner"]);
    assert_eq!(fs::read_to_string(to.join("out.txt")).unwrap(), "made\n");
    assert!(!Path::new("/root/file").exists());
}

#[test]
fn processes_left_in_the_background_end_with_their_phase() {
    for isolation in ["namespace", "host"] {
        if isolation == "namespace" && !has_namespaces() {
            continue;
        }
        let farm = Farm::start(FarmPlan {
            isolation: Some(isolation),
            ..FarmPlan::default()
        });
        let source = tempfile::tempdir().unwrap();
        let mark = format!("{}", 200_000 + std::process::id());
        project::write_buildspec(
            source.path(),
            &format!(
                "
version: 0.2
phases:
  build:
    commands:
      - nohup sleep {mark} &
      - (setsid sh -c 'sleep {mark} & sleep {mark}' &) 
      - echo left
"
            ),
        );
        let built = farm.build(source.path(), &["--project", "sample"]);
        assert_eq!(
            built.code, 0,
            "{isolation}: {}\n{}",
            built.stdout, built.stderr
        );
        assert!(!testkit::process::any_with_argument(&mark), "{isolation}");
    }
}

#[test]
fn everything_dies_with_its_worker() {
    for isolation in ["namespace", "host"] {
        if isolation == "namespace" && !has_namespaces() {
            continue;
        }
        let mut farm = Farm::start(FarmPlan {
            isolation: Some(isolation),
            ..FarmPlan::default()
        });
        let source = tempfile::tempdir().unwrap();
        let mark = format!("{}", 300_000 + std::process::id());
        project::write_buildspec(
            source.path(),
            &format!(
                "
version: 0.2
phases:
  build:
    commands:
      - setsid nohup sleep {mark} > /dev/null 2>&1 &
      - sleep {mark}
"
            ),
        );
        let build = farm.submit(source.path(), &["--project", "sample"]);
        testkit::wait::until_true("the commands run", || {
            testkit::process::any_with_argument(&mark)
        });
        farm.kill_worker(0);
        testkit::wait::until_true("its processes are gone", || {
            !testkit::process::any_with_argument(&mark)
        });
        assert!(farm.client(&["stop", &build]).status().unwrap().success());
    }
}

#[test]
fn a_file_of_two_names_that_an_earlier_phase_made_changes_under_both() {
    if !has_namespaces() {
        return;
    }
    let farm = Farm::start(FarmPlan {
        isolation: Some("namespace"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  install:
    commands:
      - mkdir -p /opt/far/away
      - for n in 1 2 3; do echo old > /opt/a$n; ln /opt/a$n /opt/far/away/b$n; done
  pre_build:
    commands:
      - echo new >> /opt/a1
      - chmod 600 /opt/a2
      - echo gone >> /opt/a3; rm /opt/a3
  build:
    commands:
      - echo $(cat /opt/far/away/b1) $(stat -c %h /opt/far/away/b1)
      - stat -c %a /opt/far/away/b2
      - echo $(cat /opt/far/away/b3)
      - echo more >> /opt/far/away/b1; echo $(cat /opt/a1)
",
    );
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let printed = built.stdout.lines();
    let printed: Vec<_> = printed
        .filter(|line| !line.starts_with("[Container]"))
        .collect();
    assert_eq!(printed, ["old new 2", "600", "old gone", "old new more"]);
}
