//! Directories that are put into the cache and got out of it by hand.

mod killed;
mod refused;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    fs::{XattrFlags, getxattr, setxattr},
    process::geteuid,
};
use serde_json::{Value, json};
use testkit::{
    farm::{Built, Farm, FarmPlan},
    wait,
};

fn farm() -> Farm {
    Farm::start(FarmPlan {
        workers: 0,
        ..FarmPlan::default()
    })
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_directory_that_was_put_comes_back_by_digest_by_its_beginning_and_by_key() {
    let farm = farm();
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir_all(root.join("a/empty")).unwrap();
    fs::write(root.join("a/script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("a/script"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::hard_link(root.join("a/script"), root.join("b")).unwrap();
    symlink("a/script", root.join("link")).unwrap();
    let put = farm
        .json(&["cache", "put", text(&root), "--key", "mine/main"])
        .remove(0);
    let digest = put["digest"].as_str().unwrap().to_owned();
    assert_eq!(put["files"], 2, "{put}");

    for (number, name) in [&*digest, &digest[..12], "mine/main"]
        .into_iter()
        .enumerate()
    {
        let target = scratch.path().join(format!("got-{number}"));
        farm.json(&["cache", "get", name, text(&target)]);
        assert_eq!(fs::read_to_string(target.join("b")).unwrap(), "#!/bin/sh\n");
        assert_eq!(
            fs::read_link(target.join("link")).unwrap(),
            Path::new("a/script")
        );
        assert!(target.join("a/empty").is_dir());
        let metadata = fs::metadata(target.join("a/script")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o700);
    }
    let listed = farm.json(&["cache", "ls"]);
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(farm.json(&["cache", "ls", "mine/main"]).len(), 5);
    let stat = farm.json(&["cache", "stat", "mine/main"]).remove(0);
    assert_eq!(
        (&stat["files"], &stat["hard_links"]),
        (&2.into(), &1.into())
    );
    let verified = farm.json(&["cache", "verify"]);
    assert!(
        verified.iter().all(|one| one["whole"] == true),
        "{verified:?}"
    );

    let again = farm.json(&["cache", "put", text(&root)]).remove(0);
    assert_eq!(
        (&again["digest"], &again["chunks_sent"]),
        (&digest.into(), &0.into())
    );
    let gone = farm
        .client(&["cache", "gc", "--unused", "0s"])
        .output()
        .unwrap();
    assert!(gone.status.success(), "{gone:?}");
    assert!(farm.json(&["cache", "ls"]).is_empty());
}

#[test]
fn a_directory_is_read_again_if_that_is_asked_for() {
    let farm = farm();
    let root = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(root.path().join(name), name).unwrap();
    }
    let put = |more: &[&str]| {
        let arguments = [&["cache", "put", text(root.path())], more].concat();
        farm.json(&arguments).remove(0)
    };
    let first = put(&["--reread"]);
    wait::until_true("the files are old enough to be known", || {
        put(&[])["files_known"] == 3
    });
    let again = put(&["--reread"]);
    assert_eq!(again["files_known"], 0, "{again}");
    assert_eq!(again["chunks_sent"], 0, "{again}");
    assert_eq!(again["digest"], first["digest"]);
    assert_eq!(put(&[])["files_known"], 3, "the index is as it was");
}

/// Of a path: owner, group, mode, what it may besides, and what its user has noted on it.
type Known = (u32, u32, u32, Option<Vec<u8>>, Option<Vec<u8>>);

fn known(path: &Path) -> Known {
    let of = path.symlink_metadata().unwrap();
    let value = |name: &str| {
        let mut value = [0; 64];
        // Links have no attributes of their own here.
        let length = match of.is_symlink() {
            true => None,
            false => getxattr(path, name, &mut value).ok(),
        };
        length.map(|length| value[..length].to_vec())
    };
    let (may, noted) = (value("security.capability"), value("user.test"));
    (of.uid(), of.gid(), of.mode() & 0o7777, may, noted)
}

#[test]
fn owners_and_what_they_lend_come_back_if_that_is_asked_for() {
    if !geteuid().is_root() {
        testkit::skip("only root gives files to others");
        return;
    }
    let farm = farm();
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir(&root).unwrap();
    let names = ["directory", "directory/file", "directory/link"];
    let [directory, file, link] = names.map(|name| root.join(name));
    fs::create_dir(&directory).unwrap();
    fs::write(&file, "text").unwrap();
    symlink("file", &link).unwrap();
    for (path, (user, group)) in [(&directory, (12, 34)), (&file, (56, 78)), (&link, (9, 9))] {
        lchown(path, Some(user), Some(group)).unwrap();
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o2750)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    // To listen at low ports.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = |path: &Path, name: &str, value: &[u8]| {
        let refused = setxattr(path, name, value, XattrFlags::empty()).err();
        if let Some(why) = refused {
            testkit::cannot(&format!("`{name}` cannot be set here: {why}"));
        }
        refused.is_none()
    };
    let are_set = set(&file, "security.capability", &capability)
        && set(&directory, "user.test", b"kept")
        && set(&file, "user.test", b"kept");
    if !are_set {
        return;
    }
    farm.json(&["cache", "put", text(&root), "--key", "owned"]);

    let (with, without) = (scratch.path().join("with"), scratch.path().join("without"));
    farm.json(&["cache", "get", "owned", text(&with), "--owners"]);
    farm.json(&["cache", "get", "owned", text(&without)]);
    let group = fs::metadata(&without).unwrap().gid();
    for name in names {
        let (put, own) = (known(&root.join(name)), known(&without.join(name)));
        assert_eq!(known(&with.join(name)), put, "{name}");
        let (_, _, mode, _, noted) = put;
        let mode = if name == "directory/link" {
            mode
        } else {
            mode & 0o777
        };
        assert_eq!(own, (0, group, mode, None, noted), "{name}");
    }
}

/// Runs a command with another mask.
fn masked(mask: &str, command: &Command) -> Built {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("umask {mask}; exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    Built::from(shell.output().unwrap())
}

/// Puts a directory with one file under the key `k`; gives the directory that it is in.
fn put_one(farm: &Farm) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "one").unwrap();
    farm.json(&["cache", "put", text(&root), "--key", "k"]);
    scratch
}

#[test]
fn a_directory_that_comes_back_is_as_open_as_any_that_is_made_or_as_the_one_that_gives_way() {
    let farm = farm();
    let scratch = put_one(&farm);
    let get = |mask: &str, target: &Path| {
        let got = masked(mask, &farm.client(&["cache", "get", "k", text(target)]));
        assert_eq!(got.code, 0, "{}", got.stderr);
        assert!(target.join("file").exists());
        fs::metadata(target).unwrap().permissions().mode() & 0o777
    };
    for (mask, expected) in [("077", 0o700), ("022", 0o755), ("002", 0o775)] {
        assert_eq!(get(mask, &scratch.path().join(mask)), expected, "{mask}");
    }
    let private = scratch.path().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(get("022", &private), 0o700);
}

#[test]
fn what_is_in_the_way_stays_as_it_is_and_what_is_not_there_is_said() {
    let farm = farm();
    let scratch = put_one(&farm);
    let target = scratch.path().join("full");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("mine"), "mine").unwrap();
    let refused = farm
        .client(&["cache", "get", "k", text(&target)])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let left: Vec<_> = fs::read_dir(&target).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    for name in ["nothing", "0123456789"] {
        let refused = farm.client(&["cache", "stat", name]).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(
            said.contains(&format!("the cache has no `{name}`")),
            "{said}"
        );
        assert_eq!(refused.status.code(), Some(2));
    }
}

/// A build whose key hashes one of its files.
const KEYED: &str = "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands: ['mkdir -p deps', 'echo kept > deps/file']
cache:
  key: deps-$(codebuild-hash-files lock)
  fallback-keys: [deps-]
  paths: ['deps/**/*']
=== lock
one
";

/// A farm that has built it.
fn built(source: &Path) -> Farm {
    let farm = Farm::start(FarmPlan::default());
    testkit::project::write(source, KEYED);
    build(&farm, source);
    farm
}

fn build(farm: &Farm, source: &Path) {
    let built = farm.build(source, &["--project", "sample"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
}

/// What `explain` says of one key, with the source as it is now.
fn explained(farm: &Farm, source: &Path, arguments: &[&str]) -> Value {
    let explain = ["cache", "explain", "--source", text(source)];
    let mut said = farm.json(&[&explain[..], arguments].concat());
    assert_eq!(said.len(), 1, "{said:?}");
    said.remove(0)
}

#[test]
fn a_missed_key_is_explained_by_what_is_near_it() {
    let source = tempfile::tempdir().unwrap();
    let farm = built(source.path());
    testkit::project::write(source.path(), "=== lock\ntwo\n");
    let said = explained(&farm, source.path(), &["deps-other"]);
    assert!(said["found"].as_array().unwrap().is_empty(), "{said}");
    assert!(said["looked"].is_null(), "{said}");
    let near = &said["nearest"][0];
    assert_eq!(
        (&near["project"], &near["shared"]),
        (&"sample".into(), &5.into())
    );
    let changes = json!({"inputs": ["changed lock"], "others": []});
    assert_eq!(near["changes"], changes, "{said}");

    // By its key: what is there, and what it did.
    let key = near["key"].as_str().unwrap();
    let said = explained(&farm, source.path(), &[key]);
    let [found] = &said["found"].as_array().unwrap()[..] else {
        panic!("{said}");
    };
    assert_eq!(
        (&found["key"], &found["changes"]),
        (&key.into(), &changes),
        "{said}"
    );
    let [uses] = &said["uses"].as_array().unwrap()[..] else {
        panic!("{said}");
    };
    assert_eq!(
        (&uses["missed"], &uses["saved"], &uses["restored"]),
        (&1.into(), &1.into(), &0.into()),
        "{said}"
    );
}

#[test]
fn what_a_build_has_looked_for_is_explained_without_its_key() {
    let source = tempfile::tempdir().unwrap();
    let farm = built(source.path());
    let first = explained(&farm, source.path(), &["--project", "sample"]);
    let looked = &first["looked"];
    assert_eq!(
        (&looked["number"], &looked["what"], &looked["saved"]),
        (&"sample#1".into(), &"MISSED".into(), &true.into()),
        "{first}"
    );
    assert_eq!(looked["fallbacks"], json!(["deps-"]));
    let found = &first["found"][0];
    assert_eq!(found["key"], first["key"], "{first}");
    assert_eq!(found["changes"], json!({"inputs": [], "others": []}));

    testkit::project::write(source.path(), "=== lock\ntwo\n=== new\n");
    build(&farm, source.path());
    let second = explained(&farm, source.path(), &["--build", "sample#2"]);
    assert_eq!(second["looked"]["what"], "RESTORED_BY_FALLBACK", "{second}");
    let near = &second["nearest"][0];
    assert_eq!(near["key"], first["key"], "{second}");
    assert_eq!(
        near["changes"],
        json!({"inputs": ["changed lock"], "others": ["added new"]})
    );

    let told = farm
        .client(&["cache", "explain", "--source", text(source.path())])
        .output()
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let key = second["key"].as_str().unwrap();
    for part in [
        &*format!("(sample#2) looked for `{key}`, then for one that begins with `deps-`: restored"),
        "by fallback; it saved one when it was done\n",
        &*format!("`{key}` is there now\n"),
        "TIME SAVED",
        "\n  changed lock (the key is made from it)\n  added new\n",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
