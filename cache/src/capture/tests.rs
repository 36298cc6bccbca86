//! What a capture keeps, and what it refuses.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
};

use rustix::fs::{Mode, OFlags};

use super::*;
use crate::fixture::{cannot, grow_tree};

fn all(root: &Path) -> Captured {
    capture(root, &Selection::All, Dialect::Plain).unwrap()
}

fn paths(captured: &Captured) -> Vec<String> {
    let entries = captured.tree.entries().iter();
    entries.map(|entry| entry.path.to_string()).collect()
}

#[test]
fn what_is_captured_twice_is_equal() {
    let dir = tempfile::tempdir().unwrap();
    grow_tree(dir.path(), 1, 200);
    let (first, second) = (all(dir.path()), all(dir.path()));
    assert_eq!(first.tree, second.tree);
    assert_eq!(first.attributes, second.attributes);
    assert!(
        first
            .attributes
            .entries()
            .iter()
            .any(|(_, of)| of.hard_link_to.is_some())
    );
    assert!(
        first
            .attributes
            .entries()
            .iter()
            .any(|(_, of)| !of.holes.is_empty())
    );
}

#[test]
fn links_are_kept_and_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink("..", root.join("sub/loop")).unwrap();
    let captured = all(&root);
    assert_eq!(paths(&captured), ["out", "sub", "sub/loop"]);
    assert_eq!(
        captured.tree.entries()[0].kind,
        EntryKind::Symlink {
            target: b"../secret".to_vec()
        }
    );
}

#[test]
fn sockets_are_left_out_and_pipes_do_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert_eq!(paths(&all(dir.path())), ["pipe"]);
}

#[test]
fn only_what_is_selected_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::create_dir_all(dir.path().join("z/y")).unwrap();
    fs::write(dir.path().join("a/b/c"), "c").unwrap();
    fs::write(dir.path().join("a/d"), "d").unwrap();
    let path = |text: &str| TreePath::new(text).unwrap();
    let selection = Selection::paths([path("a/b/c")].into());
    let captured = capture(dir.path(), &selection, Dialect::Plain).unwrap();
    assert_eq!(paths(&captured), ["a", "a/b", "a/b/c"]);
    let selection = Selection::Except([path("a/b"), path("z")].into());
    let captured = capture(dir.path(), &selection, Dialect::Plain).unwrap();
    assert_eq!(paths(&captured), ["a", "a/d"]);
}

#[test]
fn a_missing_directory_and_a_long_path_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let refused = capture(&missing, &Selection::All, Dialect::Plain).unwrap_err();
    assert!(refused.to_string().ends_with("missing`"), "{refused}");

    // Deeper than a path may be long: made step by step, since no single call takes such a path.
    let mut at = rustix::fs::open(dir.path(), OFlags::DIRECTORY, 0.into()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..21 {
        rustix::fs::mkdirat(&at, name.as_str(), 0o755.into()).unwrap();
        at = rustix::fs::openat(&at, name.as_str(), OFlags::DIRECTORY, 0.into()).unwrap();
    }
    let refused = capture(dir.path(), &Selection::All, Dialect::Plain).unwrap_err();
    assert!(matches!(refused, CaptureError::Name { .. }), "{refused}");
}

#[test]
fn a_file_that_keeps_changing_is_refused_by_name() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    // Long enough to read that somebody writes to it meanwhile.
    fs::write(dir.path().join("busy"), vec![0; 64 << 20]).unwrap();
    let stop = AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write;
            let mut file = fs::OpenOptions::new()
                .write(true)
                .open(dir.path().join("busy"))
                .unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"x").unwrap();
            }
        });
        let refused = capture(dir.path(), &Selection::All, Dialect::Plain);
        stop.store(true, Ordering::Relaxed);
        refused
    });
    let refused = refused.unwrap_err();
    assert_eq!(refused.to_string(), "`busy` changes while it is read");
}

#[test]
fn an_overlays_upper_directory_is_a_layer() {
    if !rustix::process::geteuid().is_root() {
        return cannot("only root makes what an overlay does");
    }
    let dir = tempfile::tempdir().unwrap();
    let (upper, merged) = (dir.path().join("upper"), dir.path().join("merged"));
    fs::create_dir_all(upper.join("opaque")).unwrap();
    fs::create_dir_all(upper.join("moved")).unwrap();
    fs::create_dir_all(merged.join("moved/sub")).unwrap();
    fs::write(merged.join("moved/sub/file"), "from below").unwrap();
    let device = rustix::fs::makedev(0, 0);
    let node = |path: &str, device| {
        let of = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, upper.join(path), of, 0o600.into(), device)
    };
    node("gone", device).unwrap();
    fs::hard_link(upper.join("gone"), upper.join("gone-too")).unwrap();
    node("null", rustix::fs::makedev(1, 3)).unwrap();
    let mark = |path: &str, name: &str, value: &str| {
        xattr::set(upper.join(path), name, value.as_bytes()).unwrap();
    };
    mark("opaque", "trusted.overlay.opaque", "y");
    mark("opaque", "trusted.overlay.origin", "x");
    mark("moved", "trusted.overlay.redirect", "/elsewhere");

    let refused = capture(&upper, &Selection::All, Dialect::Overlay).unwrap_err();
    assert!(
        matches!(refused, CaptureError::Redirected { .. }),
        "{refused}"
    );
    let captured = capture_layer(&upper, &merged, &[]).unwrap();
    let kinds: Vec<_> = captured
        .tree
        .entries()
        .iter()
        .map(|entry| (entry.path.to_string(), entry.kind.clone()))
        .collect();
    let file = EntryKind::File {
        digest: Digest::of(b"from below"),
        executable: false,
    };
    let null = EntryKind::Device {
        block: false,
        major: 1,
        minor: 3,
    };
    let expected = [
        ("gone", EntryKind::Whiteout),
        ("gone-too", EntryKind::Whiteout),
        ("moved", EntryKind::Directory { opaque: true }),
        ("moved/sub", EntryKind::Directory { opaque: false }),
        ("moved/sub/file", file),
        ("null", null),
        ("opaque", EntryKind::Directory { opaque: true }),
    ];
    assert_eq!(kinds, expected.map(|(path, kind)| (path.to_owned(), kind)));
    assert!(
        captured
            .attributes
            .entries()
            .iter()
            .all(|(_, of)| of.xattrs.is_empty())
    );
    assert!(
        captured.attributes.get(0).is_none(),
        "whiteouts have no attributes"
    );
}

#[test]
fn the_names_of_a_changed_file_that_the_upper_directory_lacks_are_in_the_layer() {
    let folder = tempfile::tempdir().unwrap();
    let (upper, merged) = (folder.path().join("upper"), folder.path().join("merged"));
    fs::create_dir_all(upper.join("opt")).unwrap();
    fs::write(upper.join("opt/b"), "new").unwrap();
    fs::create_dir_all(merged.join("opt")).unwrap();
    fs::create_dir_all(merged.join("far/away")).unwrap();
    fs::write(merged.join("opt/b"), "new").unwrap();
    fs::hard_link(merged.join("opt/b"), merged.join("opt/a")).unwrap();
    fs::hard_link(merged.join("opt/b"), merged.join("far/away/c")).unwrap();
    fs::write(merged.join("far/other"), "not changed").unwrap();
    let names = ["far/away/c", "opt/a", "opt/b"];
    let names = names.map(|name| TreePath::new(name).unwrap());
    let captured = capture_layer(&upper, &merged, &[names.into()]).unwrap();
    let entries = captured.tree.entries().iter();
    let shown: Vec<_> = entries.map(|entry| entry.path.to_string()).collect();
    assert_eq!(
        shown,
        ["far", "far/away", "far/away/c", "opt", "opt/a", "opt/b"]
    );
    let link_to = |at| captured.attributes.get(at).unwrap().hard_link_to;
    assert_eq!([2, 4, 5].map(link_to), [None, Some(2), Some(2)]);
    assert!(captured.tree.entries()[1].kind == EntryKind::Directory { opaque: false });
}

#[test]
fn a_socket_of_an_upper_directory_hides_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    drop(UnixListener::bind(&socket).unwrap());
    let captured = capture(folder.path(), &Selection::All, Dialect::Overlay).unwrap();
    assert_eq!(captured.tree.entries()[0].kind, EntryKind::Whiteout);
    let captured = capture(folder.path(), &Selection::All, Dialect::Plain).unwrap();
    assert!(captured.tree.entries().is_empty());
}

#[test]
fn access_lists_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    // Version 2: owner rw, user 7 r, group r, mask r, others nothing.
    let entry = |tag: u16, rights: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &rights.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let list = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 6, u32::MAX),
        entry(2, 4, 7),
        entry(4, 4, u32::MAX),
        entry(16, 4, u32::MAX),
        entry(32, 0, u32::MAX),
    ]
    .concat();
    if xattr::set(&file, "system.posix_acl_access", &list).is_err() {
        return cannot("this file system has no access lists");
    }
    let captured = capture(folder.path(), &Selection::All, Dialect::Plain).unwrap();
    let kept = &captured.attributes.get(0).unwrap().xattrs;
    assert_eq!(kept[..], [(b"system.posix_acl_access".to_vec(), list)]);
}

#[tokio::test]
async fn a_capture_that_nobody_wants_any_more_ends() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "text").unwrap();
    let ongoing = crate::ongoing::Ongoing::default();
    let look = async || capture(folder.path(), &Selection::All, Dialect::Plain);
    assert!(ongoing.scope(look()).await.is_ok());
    ongoing.give_up();
    assert!(ongoing.scope(look()).await.is_err());
}
