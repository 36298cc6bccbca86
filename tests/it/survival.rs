//! Any process may die, at any moment: `kill -9` costs time and nothing else.

pub(crate) mod story;

use std::{collections::BTreeMap, sync::Mutex, thread, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{
    farm::{Farm, FarmPlan},
    project,
    random::Random,
    wait,
};

use crate::{
    levels::has_namespaces,
    survival::story::{LINES, PHASES, Story},
};

/// How many moments of each death are tried.
fn moments() -> u64 {
    if testkit::slow_tests() { 20 } else { 2 }
}

/// How many farms run at once: they wait more than they compute.
const FARMS_AT_ONCE: usize = 5;

/// Who dies.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The worker that runs the phase; it stays away.
    Worker,
    /// The coordinator; it is started again.
    Coordinator,
    /// The cache; it is started again.
    Cache,
    /// All of them, started again ten seconds later.
    All,
}

/// When somebody dies: after a line of a phase was seen, and a little more.
#[derive(Clone, Copy, Debug)]
struct Moment {
    phase: usize,
    line: u32,
    later: Duration,
}

impl Moment {
    /// A moment of the first three phases.
    fn draw(random: &mut Random) -> Self {
        Self {
            phase: usize::try_from(random.below(3)).unwrap(),
            line: 1 + u32::try_from(random.below(u64::from(LINES))).unwrap(),
            // Longer than the last line takes, so that phases are hit while they are stored, too.
            later: Duration::from_millis(random.below(400)),
        }
    }
}

/// Kills `victim` at as many moments as are to be tried.
fn kill_at_random_moments(victim: Victim, seed: u64) {
    if !has_namespaces() {
        return;
    }
    let mut random = Random::new(seed);
    let drawn = (0..moments()).map(|_| Moment::draw(&mut random));
    let left = Mutex::new(drawn.collect::<Vec<_>>());
    thread::scope(|scope| {
        for _ in 0..FARMS_AT_ONCE {
            scope.spawn(|| {
                loop {
                    // Not held while the moment is tried.
                    let moment = left.lock().unwrap().pop();
                    let Some(moment) = moment else { break };
                    testkit::tell(&format!("{victim:?} dies at {moment:?}"));
                    kill_once(victim, moment);
                }
            });
        }
    });
}

fn kill_once(victim: Victim, moment: Moment) {
    let mut farm = Farm::start(FarmPlan {
        workers: 2,
        isolation: Some("namespace"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    let mark = story::unique_mark();
    project::write_buildspec(source.path(), &story::buildspec(&mark));
    let mut follow = farm.client(&["build", "--project", "sample", "--json"]);
    follow.current_dir(source.path());
    let follower = thread::spawn(move || follow.output().unwrap());
    let seen = format!("{} line {}\n", PHASES[moment.phase], moment.line);
    wait::until_true("the moment has come", || {
        farm.client(&["logs", "sample#1"])
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&seen))
    });
    wait::moment(moment.later);
    let before = farm.status("sample#1");
    kill(&mut farm, victim, &mark);
    let ended = farm.wait_for_end("sample#1");
    let followed = follower.join().unwrap();
    let what = format!("{victim:?} at {moment:?}: {ended:#}");
    assert_eq!(ended["summary"]["status"]["ENDED"], "SUCCEEDED", "{what}");
    assert_eq!(followed.status.code(), Some(0), "{what}");
    check_marks(&farm, &ended, &what);
    let log = farm
        .client(&["logs", "sample#1", "--json"])
        .output()
        .unwrap();
    for text in [&log.stdout, &followed.stdout] {
        Story::read(&String::from_utf8_lossy(text)).check(&ended, &what);
    }
    check_tries(&before, &ended, &what);
    check_told_once(&String::from_utf8_lossy(&followed.stdout), &what);
    assert!(!testkit::process::any_with_argument(&mark), "{what}");
}

/// Only the phase that was hit ran again, and once more; what was stored before did not.
fn check_tries(before: &Value, ended: &Value, what: &str) {
    let phases = before["units"][0]["phases"].as_array().unwrap();
    let tries = (story::tries(before), story::tries(ended));
    let mut again = 0;
    for (index, phase) in phases.iter().enumerate() {
        let (then, now) = (tries.0[index], tries.1[index]);
        if phase["ended"].is_null() {
            again += now.saturating_sub(1);
        } else {
            assert_eq!(now, then, "phase {index} was stored, and ran again: {what}");
        }
    }
    assert!(again <= 1, "only the phase that was hit ran again: {what}");
}

/// Programs that follow a build are told each change once, over however many connections.
fn check_told_once(printed: &str, what: &str) {
    let mut last = BTreeMap::new();
    let mut ends = 0;
    for line in printed.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["event"] == "phase" {
            let detail = event["detail"].clone();
            let job = detail["job"].as_u64().unwrap();
            let before = last.insert(job, detail.clone());
            assert_ne!(before, Some(detail), "told twice: {what}");
        }
        ends += u32::from(event["event"] == "ended");
    }
    assert_eq!(ends, 1, "{what}");
}

/// What a lost attempt printed is kept, and marked as what does not count.
fn check_marks(farm: &Farm, ended: &Value, what: &str) {
    let log = farm.log("sample#1");
    let marks = log
        .lines()
        .filter(|line| line.contains(" was lost, and what it printed"));
    let lost = story::tries(ended)
        .iter()
        .filter(|tries| **tries > 1)
        .count();
    // An attempt may be lost before it printed anything.
    assert!(marks.count() <= lost, "{what}\n{log}");
    for (job, phase) in (1..).zip(PHASES) {
        let first = format!("{phase} line 1");
        let printed = log.lines().filter(|line| *line == first).count();
        if printed > 1 {
            let mark = format!("attempt 1 of {} was lost", phase.to_uppercase());
            assert!(log.contains(&mark), "job {job}: {what}\n{log}");
        }
    }
}

/// Kills, checks that what it started is gone before anything is started again, and starts what comes
/// back.
fn kill(farm: &mut Farm, victim: Victim, mark: &str) {
    let gone = || {
        wait::until_true("the processes of the lost attempt are gone", || {
            !testkit::process::any_with_argument(mark)
        });
    };
    match victim {
        Victim::Worker => {
            // Between two phases nothing runs; whoever ran the last one will run the next.
            let worker = running_on(farm).unwrap_or_else(|| ran_last_on(farm));
            farm.kill_worker(worker);
            gone();
        }
        Victim::Coordinator => {
            farm.kill_coordinator();
            farm.start_coordinator();
        }
        Victim::Cache => {
            farm.kill_cache();
            farm.start_cache();
        }
        Victim::All => {
            farm.kill_coordinator();
            farm.kill_cache();
            farm.kill_worker(0);
            farm.kill_worker(1);
            gone();
            wait::moment(Duration::from_secs(10));
            farm.start_coordinator();
            farm.start_cache();
            farm.start_worker(0);
            farm.start_worker(1);
        }
    }
}

/// The worker that runs a phase of the build now.
fn running_on(farm: &Farm) -> Option<u32> {
    let workers = farm.json(&["workers"]);
    let busy = workers.iter().find(|worker| {
        worker["runs"]
            .as_array()
            .is_some_and(|runs| !runs.is_empty())
    })?;
    let name = busy["offer"]["name"].as_str().unwrap();
    name.strip_prefix("worker-").unwrap().parse().ok()
}

/// The worker that ran the last phase that was tried.
fn ran_last_on(farm: &Farm) -> u32 {
    let status = farm.status("sample#1");
    let phases = status["units"][0]["phases"].as_array().unwrap();
    let mut workers = phases
        .iter()
        .rev()
        .filter_map(|phase| phase["worker"].as_str());
    let name = workers.next().expect("a phase has run");
    name.strip_prefix("worker-").unwrap().parse().unwrap()
}

#[test]
fn a_worker_may_die_at_any_moment() {
    kill_at_random_moments(Victim::Worker, 1);
}

#[test]
fn the_coordinator_may_die_at_any_moment() {
    kill_at_random_moments(Victim::Coordinator, 2);
}

#[test]
fn the_cache_may_die_at_any_moment() {
    kill_at_random_moments(Victim::Cache, 3);
}

#[test]
fn all_of_them_may_die_at_any_moment() {
    kill_at_random_moments(Victim::All, 4);
}

/// A build whose worker dies after the first line of `post_build`.
fn lose_the_worker_in_post_build(arguments: &[&str]) -> (Value, String) {
    let mut farm = Farm::start(FarmPlan {
        workers: 2,
        isolation: Some("namespace"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), &story::buildspec(&story::unique_mark()));
    let build = farm.submit(
        source.path(),
        &[&["--project", "sample"], arguments].concat(),
    );
    wait::until_true("post_build publishes", || {
        farm.log(&build).contains("post_build line 1\n")
    });
    farm.kill_worker(running_on(&farm).expect("post_build runs"));
    let ended = farm.wait_for_end(&build);
    let status = farm.client(&["status", &build]).output().unwrap();
    (ended, String::from_utf8_lossy(&status.stdout).into_owned())
}

#[test]
fn a_phase_that_publishes_does_not_run_twice_by_accident() {
    if !has_namespaces() {
        return;
    }
    let (ended, status) = lose_the_worker_in_post_build(&[]);
    assert_eq!(ended["summary"]["status"]["ENDED"], "FAULT", "{ended:#}");
    assert_eq!(story::tries(&ended)[4], 1, "{ended:#}");
    assert!(
        status.contains("grange retry") && status.contains("--rerun post_build=always"),
        "it says why and how to go on: {status}"
    );
}

#[test]
fn a_phase_that_publishes_runs_again_if_its_project_says_so() {
    if !has_namespaces() {
        return;
    }
    let (ended, _) = lose_the_worker_in_post_build(&["--rerun", "post_build=always"]);
    assert_eq!(
        ended["summary"]["status"]["ENDED"], "SUCCEEDED",
        "{ended:#}"
    );
    assert_eq!(story::tries(&ended)[4], 2, "{ended:#}");
}

/// A farm on which a build is in the middle of a phase that lasts `seconds`, with a process that `mark`
/// names in the background.
fn in_mid_build(workers: u32, seconds: u32, mark: &str) -> Farm {
    let farm = Farm::start(FarmPlan {
        workers,
        isolation: Some("namespace"),
        ..FarmPlan::default()
    });
    let buildspec = format!(
        "
version: 0.2
phases:
  build:
    commands:
      - sleep {mark} &
      - echo it runs; sleep {seconds}; echo made > made
artifacts:
  files: [made]
"
    );
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), &buildspec);
    farm.submit(source.path(), &["--project", "sample"]);
    wait::until_true("the phase runs", || {
        farm.log("sample#1").contains("it runs\n")
    });
    farm
}

#[test]
fn a_cache_that_is_away_costs_time_and_the_log_says_so_once() {
    if !has_namespaces() {
        return;
    }
    let mut farm = in_mid_build(1, 2, &story::unique_mark());
    farm.kill_cache();
    let waiting = "Waiting for the cache, which is away";
    wait::until_true("the attempt waits for the cache", || {
        farm.log("sample#1").contains(waiting)
    });
    wait::moment(Duration::from_secs(10));
    farm.start_cache();
    let ended = farm.wait_for_end("sample#1");
    let status = &ended["summary"]["status"]["ENDED"];
    assert_eq!(status, "SUCCEEDED", "{ended:#}");
    let log = farm.log("sample#1");
    assert_eq!(log.matches(waiting).count(), 1, "{log}");
}

#[test]
fn what_a_stopped_worker_started_is_gone_before_its_job_runs_elsewhere() {
    if !has_namespaces() {
        return;
    }
    let mark = story::unique_mark();
    // Longer than a lease.
    let farm = in_mid_build(2, 17, &mark);
    let number = running_on(&farm).expect("the phase runs");
    let pid = i32::try_from(farm.worker_pid(number)).unwrap();
    let worker = Pid::from_raw(pid).unwrap();
    kill_process(worker, Signal::STOP).unwrap();
    wait::until_true("its commands are gone while it stands still", || {
        !testkit::process::any_with_argument(&mark)
    });
    assert_eq!(
        running_on(&farm),
        Some(number),
        "nobody else has the job yet"
    );
    wait::until_true("the job runs elsewhere", || {
        running_on(&farm).is_some_and(|now| now != number)
    });
    kill_process(worker, Signal::CONT).unwrap();
    let ended = farm.wait_for_end("sample#1");
    let status = &ended["summary"]["status"]["ENDED"];
    assert_eq!(status, "SUCCEEDED", "{ended:#}");
    let again = story::tries(&ended)
        .iter()
        .filter(|tries| **tries > 1)
        .count();
    assert_eq!(again, 1, "{ended:#}");
}

#[test]
fn a_unit_at_level_host_starts_again_elsewhere_when_its_worker_dies() {
    let mut farm = Farm::start(FarmPlan {
        workers: 2,
        isolation: Some("host"),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    let mark = story::unique_mark();
    project::write_buildspec(source.path(), &story::buildspec(&mark));
    farm.submit(source.path(), &["--project", "sample"]);
    wait::until_true("the second phase runs", || {
        farm.log("sample#1").contains("pre_build line 2\n")
    });
    let worker = running_on(&farm).expect("the phase runs");
    farm.kill_worker(worker);
    wait::until_true("the processes of the lost attempt are gone", || {
        !testkit::process::any_with_argument(&mark)
    });
    let ended = farm.wait_for_end("sample#1");
    let status = &ended["summary"]["status"]["ENDED"];
    assert_eq!(status, "SUCCEEDED", "{ended:#}");
    // The source, install and pre_build ran on both; what came later on one.
    assert_eq!(story::tries(&ended)[..5], [2, 2, 2, 1, 1], "{ended:#}");
    let phases = ended["units"][0]["phases"].as_array().unwrap();
    let elsewhere = phases
        .iter()
        .all(|phase| phase["worker"] != format!("worker-{worker}"));
    assert!(elsewhere, "{ended:#}");
}
