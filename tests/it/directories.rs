//! Directories that are put into the cache and got out of it by hand.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use testkit::farm::{Farm, FarmPlan};

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
fn what_is_in_the_way_stays_as_it_is_and_what_is_not_there_is_said() {
    let farm = farm();
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "one").unwrap();
    farm.json(&["cache", "put", text(&root), "--key", "k"]);
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

#[test]
fn a_missed_key_is_explained_by_what_is_near_it() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    testkit::project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands: ['mkdir -p deps', 'echo kept > deps/file']
cache:
  key: deps-$(codebuild-hash-files lock)
  paths: ['deps/**/*']
=== lock
one
",
    );
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    testkit::project::write(source.path(), "=== lock\ntwo\n");
    let path = text(source.path());
    let said = farm
        .json(&["cache", "explain", "deps-other", "--source", path])
        .remove(0);
    assert!(said["found"].as_array().unwrap().is_empty(), "{said}");
    let near = &said["nearest"][0];
    assert_eq!(
        (&near["project"], &near["shared"]),
        (&"sample".into(), &5.into())
    );
    assert_eq!(
        near["changes"],
        serde_json::json!(["changed lock"]),
        "{said}"
    );
}
