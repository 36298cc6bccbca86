//! A disk that is full at the coordinator: what runs is waited for, and nothing of it is lost.

use std::{path::Path, process::Command, time::Duration};

use testkit::{
    farm::{Farm, FarmPlan},
    project, wait,
};

use crate::power::disk::Disk;

/// For how long the disk is full: longer than leases that are not renewed.
const FULL: Duration = Duration::from_secs(25);

/// Takes all that is free on a disk, without writing it, and gives the files that have it.
fn fill(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut fillers = Vec::new();
    let mut bytes = 1_u64 << 30;
    while 4096 <= bytes {
        let filler = directory.join(format!("filler-{}", fillers.len()));
        let mut fallocate = Command::new("fallocate");
        fallocate.args(["-l", &bytes.to_string()]).arg(&filler);
        if fallocate.output().unwrap().status.success() {
            fillers.push(filler);
        } else {
            let _half = std::fs::remove_file(&filler);
            bytes /= 2;
        }
    }
    fillers
}

#[test]
fn a_full_disk_at_the_coordinator_costs_no_attempt() {
    let Some(disk) = Disk::new() else {
        return;
    };
    let farm = Farm::start(FarmPlan {
        slots: 2,
        coordinator_directory: Some(disk.path().join("farm")),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    let seconds = FULL.as_secs() + 5;
    project::write_buildspec(
        source.path(),
        &format!(
            "
version: 0.2
phases:
  install:
    commands: [echo installed]
  build:
    commands: [echo started, sleep {seconds}, echo ended]
"
        ),
    );
    let submit = || farm.submit(source.path(), &["--project", "sample"]);
    let (build, other) = (submit(), submit());
    wait::until_true("both run", || {
        let runs = |build| farm.log(build).contains("\nstarted\n");
        runs(&build) && runs(&other)
    });
    let fillers = fill(&disk.path());
    // It has to be written down before anybody is told.
    assert!(farm.client(&["stop", &other]).status().unwrap().success());
    wait::moment(FULL);
    for filler in fillers {
        std::fs::remove_file(filler).unwrap();
    }
    for (build, outcome) in [(build, "SUCCEEDED"), (other, "STOPPED")] {
        let ended = farm.wait_for_end(&build);
        assert_eq!(ended["summary"]["status"]["ENDED"], outcome, "{ended:#}");
        let phases = ended["units"][0]["phases"].as_array().unwrap();
        let again = phases
            .iter()
            .filter(|phase| phase["attempts"].as_u64() > Some(1));
        assert_eq!(again.count(), 0, "{ended:#}");
    }
}
