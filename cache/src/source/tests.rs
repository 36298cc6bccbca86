//! What of a checkout goes along.

use std::{fs, os::unix::fs::symlink, process::Command};

use protocol::tree::EntryKind;

use super::*;

/// Writes files; their directories are made.
fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn paths(captured: &Captured) -> Vec<String> {
    let entries = captured.tree.entries().iter();
    entries.map(|entry| entry.path.to_string()).collect()
}

/// A git directory as git makes it, as far as it matters.
fn make_git(at: &Path) {
    write(
        at,
        &[
            ("HEAD", "ref: refs/heads/main\n"),
            ("objects/pack/x.pack", ""),
            (
                "config",
                "[credential]\n\thelper = store\n[user]\n\tname = me\n",
            ),
            ("credentials", "https://me:pw@host"),
        ],
    );
    fs::create_dir_all(at.join("refs/tags")).unwrap();
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn ignored_files_stay_behind_and_git_goes_along() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    make_git(&root.join(".git"));
    write(
        root,
        &[
            (".gitignore", "target/\n*.log\nobjects\nconfig\n"),
            (".git/info/exclude", "private\n"),
            (".hidden", ""),
            ("private", ""),
            ("src/main.rs", ""),
            ("src/.gitignore", "generated.rs\n"),
            ("src/generated.rs", ""),
            ("target/debug/x", ""),
            ("build.log", ""),
        ],
    );
    fs::create_dir(root.join("empty")).unwrap();
    let (captured, commit) = capture_source(root, true).unwrap();
    assert_eq!(commit, None, "there is no commit yet");
    let expected = [
        ".git",
        ".git/HEAD",
        ".git/config",
        ".git/credentials",
        ".git/info",
        ".git/info/exclude",
        ".git/objects",
        ".git/objects/pack",
        ".git/objects/pack/x.pack",
        ".git/refs",
        ".git/refs/tags",
        ".gitignore",
        ".hidden",
        "src",
        "src/.gitignore",
        "src/main.rs",
    ];
    assert_eq!(paths(&captured), expected);
    let digest = |path: &str| {
        let (_, entry) = captured.tree.find(&TreePath::new(path).unwrap()).unwrap();
        match &entry.kind {
            EntryKind::File { digest, .. } => *digest,
            kind => panic!("{kind:?}"),
        }
    };
    let sanitized = b"[user]\n\tname = \"me\"\n";
    assert_eq!(
        digest(".git/config"),
        protocol::digest::Digest::of(sanitized)
    );
    assert_eq!(digest(".git/credentials").size(), 0);
    let (captured, _) = capture_source(root, false).unwrap();
    assert_eq!(paths(&captured), expected[11..]);
    assert!(
        captured.attributes.entries().is_empty(),
        "times and modes are nobody's business"
    );
}

#[test]
fn the_commit_is_found_wherever_git_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    make_git(&root.join(".git"));
    let commit = || capture_source(root, true).unwrap().1;
    let expected = Some(COMMIT.to_owned());
    let packed = format!("# pack-refs with: peeled\n{COMMIT} refs/heads/main\n^{COMMIT}\n");
    write(root, &[(".git/packed-refs", &packed)]);
    assert_eq!(commit(), expected, "packed");
    write(
        root,
        &[(".git/packed-refs", ""), (".git/refs/heads/main", COMMIT)],
    );
    assert_eq!(commit(), expected, "loose");
    write(root, &[(".git/HEAD", COMMIT), (".git/refs/heads/main", "")]);
    assert_eq!(commit(), expected, "detached");
    write(root, &[(".git/HEAD", "ref: ../../secret")]);
    assert_eq!(commit(), None, "no reference leads outside");

    // An additional worktree has its own HEAD, and shares the references.
    write(
        root,
        &[
            (".git/refs/heads/side", COMMIT),
            (".git/worktrees/w/HEAD", "ref: refs/heads/side\n"),
            (".git/worktrees/w/commondir", "../..\n"),
        ],
    );
    let other = tempfile::tempdir().unwrap();
    let place = format!("gitdir: {}/.git/worktrees/w\n", root.display());
    write(other.path(), &[(".git", &place), ("file", "")]);
    let refused = capture_source(other.path(), true).unwrap_err();
    assert!(
        matches!(refused, SourceError::GitElsewhere { .. }),
        "{refused}"
    );
    let (captured, commit) = capture_source(other.path(), false).unwrap();
    assert_eq!(
        (paths(&captured), commit),
        (vec!["file".to_owned()], expected)
    );
}

#[test]
fn configurations_of_submodules_and_worktrees_are_sanitized_too() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    make_git(&root.join(".git"));
    make_git(&root.join(".git/modules/group/sub"));
    make_git(&root.join(".git/worktrees/w"));
    make_git(&root.join("vendor/clone/.git"));
    write(
        root,
        &[
            (
                ".git/worktrees/w/config.worktree",
                "[credential]\n\thelper = x\n",
            ),
            (".git/refs/heads/config", COMMIT),
            ("group/sub/.git", "gitdir: ../../.git/modules/group/sub\n"),
            ("config", "[credential]\n\thelper = x\n"),
        ],
    );
    let (captured, _) = capture_source(root, true).unwrap();
    let size = |path: &str| {
        let (_, entry) = captured.tree.find(&TreePath::new(path).unwrap()).unwrap();
        match &entry.kind {
            EntryKind::File { digest, .. } => digest.size(),
            kind => panic!("{kind:?}"),
        }
    };
    let config = "[user]\n\tname = \"me\"\n".len() as u64;
    assert_eq!(size(".git/modules/group/sub/config"), config);
    assert_eq!(size(".git/worktrees/w/config"), config);
    assert_eq!(size(".git/worktrees/w/config.worktree"), 0);
    assert_eq!(size("vendor/clone/.git/config"), config);
    assert_eq!(
        size(".git/refs/heads/config"),
        40,
        "a branch may be called so"
    );
    assert_eq!(size("config"), 25, "what is not git's is as it is");
    write(root, &[(".git/config", "[broken\n")]);
    let refused = capture_source(root, true).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "failed to take credentials out of `.git/config`"
    );
    assert!(capture_source(root, false).is_ok());
}

#[test]
fn what_is_no_checkout_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir(root.join("empty")).unwrap();
    write(root, &[(".gitignore", "*.o\n"), ("a.o", ""), ("b", "")]);
    symlink("/outside", root.join("link")).unwrap();
    symlink(".", root.join("loop")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(root.join(odd), "").unwrap();
    let (captured, commit) = capture_source(root, true).unwrap();
    let names = [".gitignore", "b", "caf\u{fffd}", "empty", "link", "loop"];
    assert_eq!(paths(&captured), names);
    assert_eq!(commit, None);
}

#[test]
fn a_tracked_file_goes_along_even_if_it_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(
        root,
        &[
            (".gitignore", "dist/\n*.log\n"),
            ("dist/tracked.js", "x"),
            ("dist/other.js", ""),
            ("sub/a", ""),
            ("sub/b", ""),
            ("sub/b.log", ""),
            ("sub/c.log", ""),
        ],
    );
    let git = |arguments: &[&str]| {
        let status = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(arguments)
            .output();
        status.is_ok_and(|output| output.status.success())
    };
    if !git(&["init", "-q"]) {
        return; // There is no git here to make an index; the reader has tests of its own.
    }
    assert!(git(&["add", "-f", "dist/tracked.js", "sub/a", "sub/b.log"]));
    let (captured, _) = capture_source(root, false).unwrap();
    let expected = [
        ".gitignore",
        "dist",
        "dist/tracked.js",
        "sub",
        "sub/a",
        "sub/b",
        "sub/b.log",
    ];
    assert_eq!(paths(&captured), expected);
    let (captured, _) = capture_source(&root.join("sub"), false).unwrap();
    assert_eq!(
        paths(&captured),
        ["a", "b", "b.log"],
        "a part of a checkout"
    );
}
