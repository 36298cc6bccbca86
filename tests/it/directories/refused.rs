//! Directories that cannot be put or got, or not by everybody: who asks is told why, and by the exit code whose doing
//! it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use testkit::farm::{Built, Farm};

use super::{farm, text};

/// Somebody who is less trusted than the administrator of a farm.
struct Developer<'a> {
    farm: &'a Farm,
    token: String,
    home: TempDir,
}

impl<'a> Developer<'a> {
    fn of(farm: &'a Farm) -> Self {
        Self {
            farm,
            token: farm.token("developer"),
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Built {
        let mut command = self.farm.client(&[&["cache"], arguments].concat());
        command.env("GRANGE_TOKEN", &self.token);
        for name in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("XDG_{name}_HOME"), self.home.path().join(name));
        }
        Built::from(command.output().unwrap())
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) {
        let built = self.run(arguments);
        assert_eq!(built.code, 0, "{arguments:?}: {}", built.stderr);
    }
}

/// A directory with a file that holds its name.
fn directory(scratch: &Path, name: &str) -> PathBuf {
    let path = scratch.join(name);
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), name).unwrap();
    path
}

#[test]
fn a_key_that_is_trusted_further_stays_and_who_wanted_it_is_told() {
    let farm = farm();
    let developer = Developer::of(&farm);
    let scratch = tempfile::tempdir().unwrap();
    let [protected, other] = ["protected", "other"].map(|name| directory(scratch.path(), name));
    farm.json(&["cache", "put", text(&protected), "--key", "main"]);

    let refused = developer.run(&["put", text(&other), "--key", "main"]);
    let said = &refused.stderr;
    assert_eq!(refused.code, 2, "{}{said}", refused.stdout);
    for part in [
        text(&other),
        "the key `main`",
        "trusted further",
        "under another key",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (_, digest) = said.split_once("its digest, ").unwrap();
    let digest = digest.lines().next().unwrap();
    for (name, expected) in [("main", "protected"), (digest, "other")] {
        let target = scratch.path().join(format!("got-{expected}"));
        developer.succeed(&["get", name, text(&target)]);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), expected);
    }
    // Nothing would be another then.
    developer.succeed(&["put", text(&protected), "--key", "main"]);
    developer.succeed(&["put", text(&other), "--key", "mine"]);
    // Who is trusted as far takes a key over, and one of somebody who is not, too.
    for key in ["main", "mine"] {
        farm.json(&["cache", "put", text(&other), "--key", key]);
        developer.succeed(&["put", text(&other), "--key", key]);
    }
}

#[test]
fn what_was_typed_wrong_or_is_not_allowed_is_no_failure_of_the_farm() {
    let farm = farm();
    let developer = Developer::of(&farm);
    let scratch = tempfile::tempdir().unwrap();
    let [mine, never] = ["mine", "never"].map(|name| directory(scratch.path(), name));
    developer.succeed(&["put", text(&mine), "--key", "mine"]);
    let (file, never) = (mine.join("file"), text(&never));
    let nowhere = scratch.path().join("nowhere/target");
    let long = "k".repeat(1_020);
    let wrong: [(&[&str], &str); 7] = [
        (&["put", text(&file)], "failed to open directory"),
        (&["put", never, "--key", "a/../b"], "cannot be a key"),
        (&["put", never, "--key", &long], "at most 1024 are allowed"),
        (
            &["get", "mine", text(&nowhere)],
            "failed to make a directory",
        ),
        (&["stat", "../x"], "the cache has no `../x`"),
        (&["gc"], "may not have the cache make room"),
        (&["gc", "--unused", "0s"], "may not delete"),
    ];
    for (arguments, part) in wrong {
        let built = developer.run(arguments);
        assert_eq!(built.code, 2, "{arguments:?}: {}", built.stderr);
        assert!(built.stderr.contains(part), "{part}: {}", built.stderr);
    }
    let listed = farm.json(&["cache", "ls"]);
    assert_eq!(listed.len(), 2, "its key and its digest: {listed:?}");
}

#[test]
fn a_directory_that_is_not_there_is_named_and_the_others_are_verified() {
    let farm = farm();
    let developer = Developer::of(&farm);
    let scratch = tempfile::tempdir().unwrap();
    let mine = directory(scratch.path(), "mine");
    developer.succeed(&["put", text(&mine), "--key", "mine"]);
    let verified = developer.run(&["verify", "nothing", "mine"]);
    assert_eq!(verified.code, 3, "{}", verified.stderr);
    let said: Vec<_> = verified.stdout.lines().collect();
    assert!(said[0].starts_with("damaged  nothing: "), "{said:?}");
    assert!(said[1].starts_with("whole    mine: "), "{said:?}");
}
