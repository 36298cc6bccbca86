//! The network between the machines may go away for longer than a lease lives, and come back: no two
//! attempts of a job overlap, and the build ends as if nothing had been.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use testkit::{
    farm::{Farm, FarmPlan},
    network::Network,
    process, project, wait,
};

use crate::{levels::has_namespaces, survival::story::unique_mark};

const HOSTS: [&str; 7] = [
    "client",
    "coordinator",
    "cache",
    "worker-0",
    "worker-1",
    "worker-2",
    "worker-3",
];

/// Longer than a lease lives at the coordinator (20 s), and than connections are kept for dead.
const CUT: Duration = Duration::from_secs(30);

/// A farm on hosts of its own; `None`: this machine cannot, and it was said.
fn farm() -> Option<(Farm, Arc<Network>)> {
    if !has_namespaces() {
        return None;
    }
    let network = Arc::new(Network::of(&HOSTS)?);
    let farm = Farm::start(FarmPlan {
        workers: 4,
        isolation: Some("namespace"),
        network: Some(Arc::clone(&network)),
        ..FarmPlan::default()
    });
    Some((farm, network))
}

/// A build whose second command takes a second more than a link is down. `mark` is how many seconds, by
/// which the process is found.
fn submit(farm: &Farm, mark: &str) -> String {
    let source = tempfile::tempdir().unwrap();
    let buildspec = format!(
        "
version: 0.2
phases:
  install:
    commands: [echo installed]
  build:
    commands: [echo started, sleep {mark}, echo ended]
"
    );
    project::write_buildspec(source.path(), &buildspec);
    farm.submit(source.path(), &["--project", "sample"])
}

/// As many seconds as a link is down and one, and some thousandths that nobody else waits for.
fn mark() -> String {
    let unique = unique_mark();
    let digits: String = unique.chars().filter(char::is_ascii_digit).collect();
    format!("{}.{digits}", CUT.as_secs() + 1)
}

/// Looks, as often as it can, on which hosts a process runs.
struct Lookout {
    stop: Arc<AtomicBool>,
    seen: Option<JoinHandle<Vec<Sight>>>,
}

/// When, and on which hosts.
type Sight = (Instant, BTreeSet<String>);

impl Lookout {
    fn on(network: &Arc<Network>, mark: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (network, mark, stopped) = (Arc::clone(network), mark.to_owned(), Arc::clone(&stop));
        let seen = thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let running = process::with_argument(&mark);
                let hosts = running.iter().filter_map(|pid| network.host_of(*pid));
                seen.push((wait::now(), hosts.map(str::to_owned).collect()));
                wait::moment(Duration::from_millis(5));
            }
            seen
        });
        let seen = Some(seen);
        Self { stop, seen }
    }

    fn end(&mut self) -> Vec<Sight> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.seen.take();
        seen.map_or_else(Vec::new, |seen| seen.join().unwrap())
    }

    /// The hosts on which the process ran one after the other; two at once are a failure.
    fn hosts(mut self) -> Vec<String> {
        let mut hosts: Vec<String> = Vec::new();
        let mut last = None;
        for (at, running) in self.end() {
            assert!(running.len() <= 1, "two attempts at once: {running:?}");
            let Some(host) = running.into_iter().next() else {
                continue;
            };
            if hosts.last() != Some(&host) {
                if let Some(last) = last {
                    let gap = at.duration_since(last);
                    testkit::tell(&format!("gone for {gap:?} before it ran on {host}"));
                }
                hosts.push(host);
            }
            last = Some(at);
        }
        hosts
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        // Its thread holds on to the network.
        drop(self.end());
    }
}

fn build_phase(status: &Value) -> &Value {
    &status["units"][0]["phases"][3]
}

/// Waits until the build's long command runs, and gives where.
fn wait_for_start(farm: &Farm, build: &str) -> String {
    wait::until("the command runs", || {
        let started = farm.log(build).contains("\nstarted\n");
        let status = farm.status(build);
        let worker = build_phase(&status)["worker"].as_str()?.to_owned();
        started.then_some(worker)
    })
}

#[track_caller]
fn check_succeeded(ended: &Value, attempts: u64) {
    assert_eq!(
        ended["summary"]["status"]["ENDED"], "SUCCEEDED",
        "{ended:#}"
    );
    assert_eq!(build_phase(ended)["attempts"], attempts, "{ended:#}");
    assert_eq!(ended["units"][0]["phases"][1]["attempts"], 1, "{ended:#}");
}

#[test]
fn a_worker_that_is_cut_off_has_ended_its_attempt_before_another_one_starts() {
    let Some((farm, network)) = farm() else {
        return;
    };
    let mark = mark();
    let lookout = Lookout::on(&network, &mark);
    let build = submit(&farm, &mark);
    let cut_off = wait_for_start(&farm, &build);
    network.cut(&cut_off);
    wait::moment(CUT);
    network.mend(&cut_off);
    let ended = farm.wait_for_end(&build);
    check_succeeded(&ended, 2);
    let elsewhere = build_phase(&ended)["worker"].as_str().unwrap();
    assert_eq!(lookout.hosts(), [cut_off.as_str(), elsewhere]);
    assert_ne!(elsewhere, cut_off);
    farm.wait_for_workers(4);
    // The attempt was killed and has no result: one is said only when all of its log has come. Late ones are in
    // the coordinator's tests, and in the simulation.
    assert_eq!(farm.status(&build), ended, "nothing late changes it");
}

#[test]
fn a_coordinator_that_is_cut_off_gives_the_jobs_out_again_when_all_attempts_are_dead() {
    let Some((farm, network)) = farm() else {
        return;
    };
    let mark = mark();
    let lookout = Lookout::on(&network, &mark);
    let build = submit(&farm, &mark);
    wait_for_start(&farm, &build);
    network.cut("coordinator");
    wait::moment(CUT);
    network.mend("coordinator");
    let ended = farm.wait_for_end(&build);
    check_succeeded(&ended, 2);
    let hosts = lookout.hosts();
    assert!(hosts.len() <= 2, "{hosts:?}");
}

#[test]
fn a_client_that_is_cut_off_goes_on_following_its_build() {
    let Some((farm, network)) = farm() else {
        return;
    };
    let mark = mark();
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        &format!(
            "
version: 0.2
phases:
  build:
    commands: [echo started, sleep {mark}, echo ended]
"
        ),
    );
    let mut follow = farm.client(&["build", "--project", "sample"]);
    follow.current_dir(source.path());
    let follower = thread::spawn(move || follow.output().unwrap());
    wait::until_true("the command runs", || process::any_with_argument(&mark));
    network.cut("client");
    wait::moment(CUT);
    network.mend("client");
    let followed = follower.join().unwrap();
    let printed = String::from_utf8_lossy(&followed.stdout);
    assert_eq!(followed.status.code(), Some(0), "{printed}");
    let times = |word: &str| printed.lines().filter(|line| *line == word).count();
    assert_eq!((times("started"), times("ended")), (1, 1), "{printed}");
    check_succeeded(&farm.wait_for_end("sample#1"), 1);
}
