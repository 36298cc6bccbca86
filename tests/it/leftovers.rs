//! Many builds in a row leave nothing behind: no process, mount, directory or open file, and the
//! services' memory is as after the first ones.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use testkit::{
    farm::{Farm, FarmPlan},
    process, project, wait,
};

use crate::{levels::has_namespaces, survival::story::unique_mark};

/// How many builds a round has.
const BUILDS: usize = 10;
/// How much more memory a service may have than after the first round, in KiB: what allocators keep.
const MEMORY_SLACK_KIB: u64 = 16 * 1024;
/// The same of the cache, whose store keeps what was read and written last.
const CACHE_MEMORY_SLACK_KIB: u64 = 48 * 1024;
/// How many more files of a kind may be open than after the first round: less than one for each build, but
/// connections of clients that just left.
const FILES_SLACK: usize = 8;

/// What a service has.
#[derive(Debug)]
struct Holdings {
    resident_kib: u64,
    /// Open files by kind. The store's own come and go, and are not counted.
    files: BTreeMap<&'static str, usize>,
    children: usize,
}

impl Holdings {
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let children = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let children = children
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .map(|children| children.split_whitespace().count());
        Self {
            resident_kib: line
                .unwrap()
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse()
                .unwrap(),
            files: files(pid),
            children: children.sum(),
        }
    }
}

/// How many files of which kind a process has open.
fn files(pid: u32) -> BTreeMap<&'static str, usize> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let kind = match target.split(':').next() {
            Some("socket") => "sockets",
            Some("pipe") => "pipes",
            Some("anon_inode") => "others",
            _ if target.contains("/store/") => continue,
            _ if target.ends_with(" (deleted)") => "deleted files",
            _ => "files",
        };
        *files.entry(kind).or_default() += 1;
    }
    files
}

/// The mounts below a directory in the namespace of any process: those of sandboxes are in their own.
fn mounts(below: &str) -> Vec<String> {
    let mut mounts = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let table = fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        let its = table.lines().filter(|line| line.contains(below));
        mounts.extend(its.map(str::to_owned));
    }
    mounts
}

fn holdings(farm: &Farm) -> BTreeMap<&'static str, Holdings> {
    BTreeMap::from([
        ("coordinator", Holdings::of(farm.coordinator_pid())),
        ("cache", Holdings::of(farm.cache_pid())),
        ("worker-1", Holdings::of(farm.worker_pid(1))),
    ])
}

/// What is below a directory, if it is there.
fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[track_caller]
fn check_nothing_left(farm: &Farm, mark: &str) {
    assert!(!process::any_with_argument(mark), "processes are left");
    let below = farm.directory().to_str().unwrap().to_owned();
    wait::until_true("no mount is left in any namespace", || {
        mounts(&below).is_empty()
    });
    let journal = entries(&farm.directory().join("farm/coordinator/journal"));
    assert!(!journal.is_empty(), "this is where the journal is");
    assert!(
        !journal.iter().any(|name| name.ends_with(".new")),
        "{journal:?}"
    );
    // Each log that is kept is of a build that is known.
    let logs = entries(&logs(farm));
    assert!(!logs.is_empty(), "this is where logs are");
    for build in logs {
        farm.status(&build);
    }
    for index in 0..2 {
        let keepers = farm.worker_directory(index).join("keepers");
        wait::until_true("no keeper is left", || is_unlocked(&keepers));
        let layers = farm.worker_directory(index).join("layers");
        wait::until_true("no layer is half there", || {
            let half = |name: &String| name.ends_with(".new") || name.ends_with(".deleted");
            !entries(&layers).iter().any(half)
        });
        for name in ["attempts", "units"] {
            let directory = farm.worker_directory(index).join(name);
            wait::until_true("the worker has cleaned up", || {
                entries(&directory).is_empty()
            });
        }
    }
}

/// Where the coordinator keeps logs.
fn logs(farm: &Farm) -> PathBuf {
    farm.directory().join("farm/coordinator/logs")
}

/// Whether nobody holds the lock that keepers hold as long as they live.
fn is_unlocked(lock: &Path) -> bool {
    File::open(lock).is_ok_and(|lock| lock.try_lock().is_ok())
}

/// A round of builds: most end by themselves, some are stopped, one loses its worker, and, if it is to,
/// one is over its time limit.
fn round(farm: &mut Farm, source: &Path, mark: &str, with_time_out: bool) {
    let submit = |farm: &Farm, how: &str| {
        let variable = format!("HOW={how}");
        farm.submit(source, &["--project", "sample", "--env", &variable])
    };
    let ended = |farm: &Farm, build: &str, outcome: &str| {
        let status = farm.wait_for_end(build);
        assert_eq!(status["summary"]["status"]["ENDED"], outcome, "{status:#}");
    };
    let late = with_time_out.then(|| submit(farm, "waits"));
    let stopped = [submit(farm, "waits"), submit(farm, "waits")];
    let others = BUILDS - 3 - usize::from(with_time_out);
    let ending: Vec<_> = (0..others).map(|_| submit(farm, "ends")).collect();
    for build in &stopped {
        wait::until_true("it runs", || farm.log(build).contains("\nbegun\n"));
        assert!(farm.client(&["stop", build]).status().unwrap().success());
        ended(farm, build, "STOPPED");
    }
    let lost = submit(farm, "ends later");
    wait::until_true("it runs", || farm.log(&lost).contains("\nbegun\n"));
    farm.kill_worker(0);
    farm.start_worker(0);
    for build in ending.iter().chain([&lost]) {
        ended(farm, build, "SUCCEEDED");
    }
    if let Some(build) = &late {
        ended(farm, build, "TIMED_OUT");
    }
    farm.wait_for_workers(2);
    check_nothing_left(farm, mark);
}

#[test]
fn many_builds_leave_nothing_behind() {
    if !has_namespaces() {
        return;
    }
    let mut farm = Farm::start(FarmPlan {
        workers: 2,
        slots: 4,
        isolation: Some("namespace"),
        settings: "[coordinator]\nbuild_minutes_max = 1\n".to_owned(),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    let mark = unique_mark();
    project::write_buildspec(
        source.path(),
        &format!(
            "
version: 0.2
phases:
  build:
    commands:
      - echo begun; nohup sleep {mark} > /dev/null 2>&1 &
      - case $HOW in waits) sleep {mark};; 'ends later') sleep 3;; esac
      - mkdir -p deps && date +%N > deps/file
cache:
  paths: ['deps/**/*']
artifacts:
  files: ['deps/**/*']
"
        ),
    );
    let slow = testkit::slow_tests();
    round(&mut farm, source.path(), &mark, slow);
    let before = holdings(&farm);
    for number in 2..=(if slow { 10 } else { 2 }) {
        round(&mut farm, source.path(), &mark, slow && number % 3 == 0);
    }
    let after = holdings(&farm);
    testkit::tell(&format!("before {before:#?}\nafter {after:#?}"));
    for (name, holdings) in after {
        let first = &before[name];
        let grown = holdings.resident_kib.saturating_sub(first.resident_kib);
        let slack = match name {
            "cache" => CACHE_MEMORY_SLACK_KIB,
            _ => MEMORY_SLACK_KIB,
        };
        assert!(grown < slack, "{name} grew by {grown} KiB");
        for (kind, count) in holdings.files {
            let then = first.files.get(kind).copied().unwrap_or(0);
            assert!(
                count <= then + FILES_SLACK,
                "{name} has {count} {kind} open, and had {then}"
            );
        }
        assert!(
            holdings.children <= first.children,
            "{name} has children left"
        );
    }
    for build in entries(&logs(&farm)) {
        assert!(
            farm.client(&["builds", "delete", &build])
                .status()
                .unwrap()
                .success()
        );
    }
    wait::until_true("logs go with their builds", || {
        entries(&logs(&farm)).is_empty()
    });
}
