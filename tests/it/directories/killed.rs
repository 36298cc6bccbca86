//! Getting a directory is killed in the middle.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use cache::materialize::PARTIAL_PREFIX;
use rustix::process::{Pid, Signal, kill_process};
use testkit::{farm::Farm, random::Random, wait};

use super::{farm, text};

/// A tree of so many files of so many bytes each takes a while to get, so that it can be seen half done.
const FILES: (u64, usize) = (32, 2 << 20);

/// A `grange cache get` that stands still in the middle; killed when dropped.
struct Half(Child);

impl Drop for Half {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Half {
    /// Starts to get `key` as `target`, and stops it when something is unpacked and nothing has that name.
    fn of(farm: &Farm, key: &str, target: &Path) -> Self {
        loop {
            let mut command = farm.client(&["cache", "get", key, text(target)]);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut half = Self(command.spawn().unwrap());
            let partial = target.with_file_name(half.partial());
            // Looked at without a pause: it takes a part of a second.
            while half.0.try_wait().unwrap().is_none() {
                if fs::read_dir(&partial).is_ok_and(|mut entries| entries.next().is_some()) {
                    half.stand_still();
                    if partial.exists() && !target.exists() {
                        return half;
                    }
                    break;
                }
            }
            // It was quicker than who looks.
            drop(half);
            fs::remove_dir_all(target).unwrap();
        }
    }

    fn stand_still(&self) {
        kill_process(Pid::from_child(&self.0), Signal::STOP).unwrap();
        let tasks = format!("/proc/{}/task", self.0.id());
        wait::until_true("no thread of it runs", || {
            let mut tasks = fs::read_dir(&tasks).unwrap().flatten();
            tasks.all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                // Behind the name, which may hold anything.
                stat.rsplit(") ")
                    .next()
                    .is_some_and(|rest| rest.starts_with('T'))
            })
        });
    }

    /// The name under which it unpacks.
    fn partial(&self) -> String {
        format!("{PARTIAL_PREFIX}{}-0", self.0.id())
    }
}

/// The names of what is in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_get_that_is_killed_leaves_nothing_under_the_name_and_the_next_one_clears_up() {
    let farm = farm();
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut random = Random::new(1);
    for number in 0..FILES.0 {
        let words = (0..FILES.1 / 8).flat_map(|_| random.below(u64::MAX).to_le_bytes());
        let bytes: Vec<u8> = words.collect();
        fs::write(root.join(number.to_string()), bytes).unwrap();
    }
    farm.json(&["cache", "put", text(&root), "--key", "large"]);

    let beside = scratch.path().join("beside");
    fs::create_dir(&beside).unwrap();
    let (first, second) = (beside.join("first"), beside.join("second"));
    let living = Half::of(&farm, "large", &first);
    let killed = Half::of(&farm, "large", &second);
    let (left, living_at) = (killed.partial(), living.partial());
    drop(killed);
    let mut both = vec![left, living_at.clone()];
    both.sort();
    assert_eq!(names(&beside), both);

    // It takes nothing away from the one that is still there.
    farm.json(&["cache", "get", "large", text(&second)]);
    assert_eq!(names(&beside), [living_at.as_str(), "second"]);
    drop(living);
    farm.json(&["cache", "get", "large", text(&first)]);
    assert_eq!(names(&beside), ["first", "second"]);
    for number in 0..FILES.0 {
        let read = |root: &Path| fs::read(root.join(number.to_string())).unwrap();
        let put = read(&root);
        assert!(read(&first) == put && read(&second) == put, "{number}");
    }
}
