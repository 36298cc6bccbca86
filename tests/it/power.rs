//! The power goes: what coordinator and cache had acknowledged is on their disk, and builds go on.
//!
//! Their data is on a file system of its own, in a file; it is shut down without flushing anything, as a
//! power cut does, and mounted again. Only root may do that.

pub(crate) mod disk;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    farm::{Built, Farm, FarmPlan},
    project,
    random::Random,
    wait,
};

use self::disk::Disk;
use crate::{
    levels::has_namespaces,
    survival::story::{self, Story},
};

/// How often the power goes.
fn cuts() -> u32 {
    if testkit::slow_tests() { 50 } else { 3 }
}

/// How many quick builds are submitted around each cut.
const QUICK_BUILDS: usize = 4;

/// A build that has ended, as it was told then.
struct Ended {
    build: String,
    status: Value,
    log: String,
    artifact: Option<String>,
}

impl Ended {
    /// Asks the farm for all that there is of a build that has ended.
    fn ask(farm: &Farm, build: &str, to: &Path) -> Self {
        let status = farm.wait_for_end(build);
        assert_eq!(
            status["summary"]["status"]["ENDED"], "SUCCEEDED",
            "{build}: {status:#}"
        );
        let artifact = fetch(farm, build, to);
        Self {
            build: build.to_owned(),
            status,
            log: log(farm, build),
            artifact,
        }
    }

    /// Checks that nothing of it has changed.
    fn check(&self, farm: &Farm, to: &Path) {
        let build = &self.build;
        assert_eq!(farm.status(build), self.status, "{build}");
        assert_eq!(log(farm, build), self.log, "{build}");
        assert_eq!(fetch(farm, build, to), self.artifact, "{build}");
    }
}

/// The log of a build with the place of each byte.
fn log(farm: &Farm, build: &str) -> String {
    let output = farm.client(&["logs", build, "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The artifact of a build, if it has one.
fn fetch(farm: &Farm, build: &str, to: &Path) -> Option<String> {
    let to = to.join(build);
    let _absent = fs::remove_dir_all(&to);
    wait::until_true("the artifacts are fetched", || {
        let arguments = ["artifacts", build, "--to", to.to_str().unwrap()];
        farm.client(&arguments).output().unwrap().status.success()
    });
    fs::read_to_string(to.join("out.txt")).ok()
}

/// What the attempts at phases that are over have printed so far.
fn printed(farm: &Farm, build: &str) -> BTreeMap<(u64, u64), String> {
    let status = farm.status(build);
    let phases = status["units"][0]["phases"].as_array().unwrap();
    let over = phases.iter().filter(|phase| !phase["ended"].is_null());
    let over: Vec<_> = over
        .map(|phase| {
            let number = |name: &str| phase[name].as_u64().unwrap();
            (number("job"), number("attempts"))
        })
        .collect();
    let mut printed = Story::read(&log(farm, build)).into_printed();
    printed.retain(|attempt, _| over.contains(attempt));
    printed
}

/// Whether the power has gone, and which builds were acknowledged before.
#[derive(Clone, Default)]
struct Dark {
    is_dark: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<String>>>,
}

impl Dark {
    /// The power goes; gives what was acknowledged until now.
    fn falls(&self) -> Vec<String> {
        let mut acknowledged = self.acknowledged.lock().unwrap();
        self.is_dark.store(true, Ordering::SeqCst);
        std::mem::take(&mut *acknowledged)
    }
}

/// Everything around the cuts.
struct Site {
    disk: Disk,
    farm: Farm,
    /// Where sources are and artifacts go.
    work: TempDir,
    ended: Vec<Ended>,
}

impl Site {
    /// `None` where this machine cannot.
    fn new() -> Option<Self> {
        if !has_namespaces() {
            return None;
        }
        let disk = Disk::new()?;
        let farm = Farm::start(FarmPlan {
            slots: 3,
            isolation: Some("namespace"),
            coordinator_directory: Some(disk.path().join("farm")),
            cache_directory: Some(disk.path().join("cache")),
            ..FarmPlan::default()
        });
        Some(Self {
            disk,
            farm,
            work: tempfile::tempdir().unwrap(),
            ended: Vec::new(),
        })
    }

    /// A source tree whose build prints `word` and publishes it.
    fn quick(&self, word: &str) -> PathBuf {
        let source = self.work.path().join(word);
        fs::create_dir(&source).unwrap();
        let text = format!(
            "version: 0.2\nphases:\n  build:\n    commands: [echo {word} | tee out.txt]\n\
             artifacts:\n  files: [out.txt]\n"
        );
        project::write_buildspec(&source, &text);
        source
    }

    /// Submits a build that takes some seconds.
    fn submit_long(&self, number: u32) -> String {
        let source = self.work.path().join(format!("long-{number}"));
        fs::create_dir(&source).unwrap();
        project::write_buildspec(&source, &story::buildspec(&story::unique_mark()));
        self.farm.submit(&source, &["--project", "long"])
    }

    /// Submits quick builds one after another until the power goes.
    fn submit_quick(&self, number: u32, dark: &Dark) -> JoinHandle<()> {
        let submissions = (0..QUICK_BUILDS).map(|at| {
            let source = self.quick(&format!("quick-{number}-{at}"));
            let mut command = self.farm.client(&["build", "--detach"]);
            command.args(["--project", "quick"]).arg(source);
            command
        });
        let submissions: Vec<Command> = submissions.collect();
        let dark = dark.clone();
        thread::spawn(move || {
            for mut submission in submissions {
                let built = Built::from(submission.output().unwrap());
                let mut acknowledged = dark.acknowledged.lock().unwrap();
                if dark.is_dark.load(Ordering::SeqCst) {
                    break;
                }
                if built.code == 0 {
                    acknowledged.push(built.stdout.trim().to_owned());
                }
            }
        })
    }

    /// Lets the power go once while builds are submitted and run, and checks that nothing is lost.
    fn lose_power(&mut self, number: u32, random: &mut Random) {
        let long = self.submit_long(number);
        let dark = Dark::default();
        let submitting = self.submit_quick(number, &dark);
        let later = Duration::from_millis(random.below(5_000));
        wait::moment(later);
        let before = printed(&self.farm, &long);
        // Linux answers some syncs that are under way when the file system is shut down with success, though
        // they were not done; a disk without power answers none. So only what came before counts.
        let quick = dark.falls();
        self.disk.cut();
        wait::moment(Duration::from_millis(random.below(300)));
        self.farm.kill_coordinator();
        self.farm.kill_cache();
        self.disk.restore();
        self.farm.start_coordinator();
        self.farm.start_cache();
        submitting.join().unwrap();
        let (taken, phases) = (quick.len(), before.len());
        let what = format!("cut {number} after {later:?}, {taken} taken, {phases} phases over");
        testkit::tell(&what);
        self.check(&long, &quick, &before, &what);
    }

    fn check(
        &mut self,
        long: &str,
        quick: &[String],
        before: &BTreeMap<(u64, u64), String>,
        what: &str,
    ) {
        for ended in &self.ended {
            ended.check(&self.farm, self.work.path());
        }
        let submitted = quick.iter().map(String::as_str).chain([long]);
        for build in submitted {
            let ended = Ended::ask(&self.farm, build, self.work.path());
            self.ended.push(ended);
        }
        let ended = self.ended.last().unwrap();
        let story = Story::read(&ended.log);
        story.check(&ended.status, what);
        let after = story.into_printed();
        for (attempt, text) in before {
            assert_eq!(after.get(attempt), Some(text), "{attempt:?}: {what}");
        }
        // Enough to be looked at again after the next cut.
        let kept = self.ended.len().saturating_sub(2 * QUICK_BUILDS);
        self.ended.drain(..kept);
    }
}

#[test]
fn the_power_may_go_at_any_moment() {
    let Some(mut site) = Site::new() else { return };
    let mut random = Random::new(11);
    for number in 0..cuts() {
        site.lose_power(number, &mut random);
    }
}
