//! Workers that leave, or are lost, while a phase runs that must not run twice.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{
    farm::{Farm, FarmPlan},
    project, wait,
};

use crate::levels::has_namespaces;

/// Prints `said 2` when it starts, in a way that the line which announces the command does not, and takes
/// its time.
const SLOW: &str = "echo said $((1 + 1)); sleep 3";

struct Running {
    farm: Farm,
    worker: u32,
}

/// Starts a farm of two workers and a build, and waits until its slow command has begun.
fn start(phases: &str, arguments: &[&str]) -> Running {
    let farm = Farm::start(FarmPlan {
        workers: 2,
        isolation: Some("namespace"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    let buildspec = format!("version: 0.2\nphases:\n{phases}");
    project::write_buildspec(source.path(), &buildspec);
    let arguments: Vec<&str> = ["--project", "sample"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    farm.submit(source.path(), &arguments);
    wait::until_true("the command has begun", || {
        let log = farm.client(&["logs", "sample#1"]).output();
        log.is_ok_and(|log| String::from_utf8_lossy(&log.stdout).contains("said 2\n"))
    });
    let worker = busy(&farm).expect("the command runs somewhere");
    Running { farm, worker }
}

fn busy(farm: &Farm) -> Option<u32> {
    let workers = farm.json(&["workers"]);
    let busy = workers.iter().find(|worker| {
        worker["runs"]
            .as_array()
            .is_some_and(|runs| !runs.is_empty())
    });
    let name = busy?["offer"]["name"].as_str().unwrap();
    name.strip_prefix("worker-").unwrap().parse().ok()
}

fn phase<'a>(build: &'a Value, name: &str) -> &'a Value {
    let phases = build["units"][0]["phases"].as_array().unwrap();
    phases.iter().find(|phase| phase["phase"] == name).unwrap()
}

#[test]
fn what_publishes_does_not_run_again_when_its_worker_is_lost() {
    if !has_namespaces() {
        return;
    }
    let mut running = start(&format!("  post_build: {{commands: ['{SLOW}']}}\n"), &[]);
    running.farm.kill_worker(running.worker);
    let ended = running.farm.wait_for_end("sample#1");
    assert_eq!(ended["summary"]["status"]["ENDED"], "FAULT", "{ended:#}");
    let phase = phase(&ended, "POST_BUILD");
    assert_eq!(phase["attempts"], 1, "{ended:#}");
    let message = phase["context"]["message"].as_str().unwrap();
    assert!(message.contains("was lost"), "{message}");
    assert!(message.contains("--rerun post_build=always"), "{message}");
}

#[test]
fn what_publishes_runs_again_if_it_may() {
    if !has_namespaces() {
        return;
    }
    let phases = format!("  post_build: {{commands: ['{SLOW}']}}\n");
    let mut running = start(&phases, &["--rerun", "post_build=always"]);
    running.farm.kill_worker(running.worker);
    let ended = running.farm.wait_for_end("sample#1");
    assert_eq!(
        ended["summary"]["status"]["ENDED"], "SUCCEEDED",
        "{ended:#}"
    );
    assert_eq!(phase(&ended, "POST_BUILD")["attempts"], 2, "{ended:#}");
}

#[test]
fn a_worker_that_is_told_to_leave_twice_hands_its_jobs_over_at_once() {
    if !has_namespaces() {
        return;
    }
    let phases = format!("  build: {{commands: ['{SLOW}']}}\n");
    let Running { farm, worker } = start(&phases, &[]);
    let terminate = || {
        let pid = i32::try_from(farm.worker_pid(worker)).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    };
    terminate();
    wait::until_true("the worker is about to leave", || {
        let workers = farm.json(&["workers"]);
        workers.iter().any(|worker| worker["draining"] == true)
    });
    terminate();
    let ended = farm.wait_for_end("sample#1");
    assert_eq!(
        ended["summary"]["status"]["ENDED"], "SUCCEEDED",
        "{ended:#}"
    );
    let build = phase(&ended, "BUILD");
    assert_eq!(build["attempts"], 2, "{ended:#}");
    assert_ne!(build["worker"], format!("worker-{worker}"), "{ended:#}");
    let moment = |name: &str| ended["summary"][name].as_u64().unwrap();
    let took = Duration::from_millis(moment("ended") - moment("submitted"));
    assert!(
        took < Duration::from_secs(20),
        "nobody waited for a lease to run out: {took:?}"
    );
    wait::until_true("the worker has left", || farm.json(&["workers"]).len() == 1);
}

#[test]
fn a_worker_that_is_told_to_leave_once_ends_its_phase_stores_it_and_leaves() {
    if !has_namespaces() {
        return;
    }
    let phases = format!(
        "  build: {{commands: ['{SLOW}; echo made > made']}}\n  post_build: {{commands: ['cat made']}}\n"
    );
    let Running { farm, worker } = start(&phases, &[]);
    let pid = i32::try_from(farm.worker_pid(worker)).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    let ended = farm.wait_for_end("sample#1");
    let how = &ended["summary"]["status"]["ENDED"];
    assert_eq!(how, "SUCCEEDED", "{ended:#}");
    let phases = ended["units"][0]["phases"].as_array().unwrap();
    assert!(
        phases.iter().all(|phase| phase["attempts"] == 1),
        "nothing ran twice: {ended:#}"
    );
    let own = format!("worker-{worker}");
    assert_eq!(phase(&ended, "BUILD")["worker"], own, "{ended:#}");
    assert_ne!(phase(&ended, "POST_BUILD")["worker"], own, "{ended:#}");
    wait::until_true("the worker has left", || farm.json(&["workers"]).len() == 1);
}
