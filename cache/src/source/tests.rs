//! What of a checkout goes along.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::*;

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn names(root: &Path, with_git: bool) -> Vec<String> {
    let (captured, _) = capture_source(root, with_git).unwrap();
    let entries = captured.tree.entries().iter();
    entries.map(|entry| entry.path.to_string()).collect()
}

#[test]
fn ignored_files_stay_at_home_and_hidden_ones_go_along() {
    let root = tempfile::tempdir().unwrap();
    write(
        root.path(),
        &[
            (".gitignore", "*.o\n/target\n"),
            (".hidden", ""),
            ("a.o", ""),
            ("target/x", ""),
            ("sub/.gitignore", "!kept.o\nlocal\n"),
            ("sub/kept.o", ""),
            ("sub/local", ""),
        ],
    );
    fs::create_dir(root.path().join("empty")).unwrap();
    symlink("/etc/passwd", root.path().join("outside")).unwrap();
    symlink("circle", root.path().join("circle")).unwrap();
    let expected = [
        ".gitignore",
        ".hidden",
        "circle",
        "empty",
        "outside",
        "sub",
        "sub/.gitignore",
        "sub/kept.o",
    ];
    assert_eq!(names(root.path(), true), expected);
}

#[test]
fn git_goes_along_clean_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let commit = "a".repeat(40);
    write(
        root.path(),
        &[
            ("file", ""),
            (".git/HEAD", "ref: refs/heads/main\n"),
            (".git/refs/heads/main", &commit),
            (
                ".git/config",
                "[credential]\n\thelper = hunter2\n[core]\n\tbare = false\n",
            ),
            (
                ".git/modules/sub/config",
                "[http]\n\textraheader = hunter2\n",
            ),
        ],
    );
    let (captured, version) = capture_source(root.path(), true).unwrap();
    assert_eq!(version, Some(commit.clone()));
    let secret = |text: &str| protocol::digest::Digest::of(text.as_bytes());
    for entry in captured.tree.entries() {
        if let protocol::tree::EntryKind::File { digest, .. } = entry.kind {
            assert_ne!(
                digest,
                secret("[http]\n\textraheader = hunter2\n"),
                "{}",
                entry.path
            );
        }
    }
    assert!(names(root.path(), true).contains(&".git/config".to_owned()));
    assert_eq!(names(root.path(), false), ["file"]);
    assert_eq!(capture_source(root.path(), false).unwrap().1, Some(commit));
}

#[test]
fn a_packed_head_is_found() {
    let root = tempfile::tempdir().unwrap();
    let commit = "b".repeat(40);
    let packed = format!("# pack-refs with: peeled\n{commit} refs/heads/main\n^{commit}\n");
    write(
        root.path(),
        &[
            (".git/HEAD", "ref: refs/heads/main\n"),
            (".git/packed-refs", &packed),
        ],
    );
    assert_eq!(head::commit(&root.path().join(".git")), Some(commit));
}

#[test]
fn a_worktree_whose_repository_is_elsewhere_is_refused() {
    let root = tempfile::tempdir().unwrap();
    write(
        root.path(),
        &[(".git", "gitdir: /elsewhere\n"), ("file", "")],
    );
    let error = capture_source(root.path(), true).unwrap_err();
    assert!(error.to_string().contains("--no-git"), "{error}");
    assert_eq!(names(root.path(), false), ["file"]);
}
