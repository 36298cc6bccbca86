//! Trees put back as they were, and nowhere else.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use protocol::{
    attributes::{Attributes, EntryAttributes},
    tree::{Entry, Tree},
};
use rustix::fs::{SeekFrom, seek};

use super::*;
use crate::{
    capture::{Captured, capture},
    fixture::{cache, cannot, grow_tree},
    selection::Selection,
    upload::{upload_blob, upload_tree},
};

fn plain() -> Materialize {
    Materialize {
        dialect: Dialect::Plain,
        owner: Owner::Keep,
        default_modified: None,
        root: RootMode::Usual,
        progress: Progress::default(),
    }
}

fn captured(root: &Path) -> Captured {
    capture(root, &Selection::All, Dialect::Plain).unwrap()
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: TreePath::new(path).unwrap(),
        kind,
    }
}

/// Whether the file system of `directory` has holes, and whether it has extended attributes.
fn has(directory: &Path) -> [bool; 2] {
    let path = directory.join("probe");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    let holes = seek(&file, SeekFrom::Hole(0)) == Ok(0);
    [
        holes,
        xattr::set(&path, "user.grange.test", b"value").is_ok(),
    ]
}

/// How many of both were captured.
fn count(captured: &Captured) -> [usize; 2] {
    let entries = captured.attributes.entries().iter();
    entries.fold([0, 0], |[holes, xattrs], (_, of)| {
        [holes + of.holes.len(), xattrs + of.xattrs.len()]
    })
}

/// What is in `directory` beside the names in `known`.
fn others(directory: &Path, known: &[&str]) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| !known.contains(&name.as_str()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_comes_back_as_it_was() {
    let cache = cache().await;
    let mut compared = [0; 2];
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        grow_tree(&from, seed, 120);
        let before = captured(&from);
        let [holes, xattrs] = count(&before);
        compared = [compared[0] + holes, compared[1] + xattrs];
        let (tree, attributes) = (before.tree.clone(), before.attributes.clone());
        let progress = Progress::default();
        let (reference, sent) = upload_tree(&cache.client, before, &progress).await.unwrap();
        let now = progress.now();
        assert_eq!(now.bytes_done, now.bytes_total, "all is counted");
        assert!(sent.chunks_moved >= 3, "{sent:?}");

        let options = plain();
        let progress = options.progress.clone();
        let moved = materialize(&cache.client, &reference, &to, options)
            .await
            .unwrap();
        let after = captured(&to);
        assert_eq!(after.tree, tree, "seed {seed}");
        assert_eq!(after.attributes, attributes, "seed {seed}");
        assert_eq!((moved.files, moved.bytes), (sent.files, sent.bytes));
        assert_eq!(progress.now().bytes_done, progress.now().bytes_total);
        assert_eq!(others(dir.path(), &["from", "to"]), [""; 0]);

        let (again, sent) = upload_tree(&cache.client, after, &Progress::default())
            .await
            .unwrap();
        assert_eq!(again, reference, "the same chunks, too");
        assert_eq!(sent.chunks_moved, 0, "nothing is sent twice");
    }
    // What no capture has would be equal, too.
    let has = has(tempfile::tempdir().unwrap().path());
    for (at, what) in ["holes", "extended attributes"].into_iter().enumerate() {
        if has[at] {
            assert_ne!(compared[at], 0, "there were no {what} to compare");
        } else {
            cannot(&format!("this file system has no {what}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_merged_into_another_without_following_links() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("sub/new/deep")).unwrap();
    fs::write(from.join("sub/new/deep/file"), "new").unwrap();
    fs::write(from.join("sub/old"), "replaced").unwrap();
    fs::hard_link(from.join("sub/old"), from.join("linked")).unwrap();
    let (reference, _) = upload_tree(&cache.client, captured(&from), &Progress::default())
        .await
        .unwrap();

    fs::create_dir_all(to.join("sub")).unwrap();
    fs::write(to.join("sub/old"), "old").unwrap();
    fs::write(to.join("sub/kept"), "kept").unwrap();
    materialize_into(&cache.client, &reference, &to, plain())
        .await
        .unwrap();
    let read = |path: &str| fs::read_to_string(to.join(path)).unwrap();
    assert_eq!(read("sub/old"), "replaced");
    assert_eq!(read("sub/kept"), "kept");
    assert_eq!(read("sub/new/deep/file"), "new");
    assert_eq!(fs::metadata(to.join("linked")).unwrap().nlink(), 2);
    assert_eq!(others(&to, &["sub", "linked"]), [""; 0]);

    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir_all(to.join("sub")).unwrap();
    symlink(&outside, to.join("sub")).unwrap();
    let refused = materialize_into(&cache.client, &reference, &to, plain())
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), "something else is in the way of `sub`");
    assert_eq!(
        others(&outside, &[]),
        [""; 0],
        "nothing went through the link"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_is_left_alone() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("a"), "a").unwrap();
    let (reference, _) = upload_tree(&cache.client, captured(&from), &Progress::default())
        .await
        .unwrap();
    fs::create_dir(&to).unwrap();
    materialize(&cache.client, &reference, &to, plain())
        .await
        .unwrap();
    let refused = materialize(&cache.client, &reference, &to, plain()).await;
    assert!(
        matches!(refused, Err(MaterializeError::Exists { .. })),
        "{refused:?}"
    );
    fs::write(dir.path().join("file"), "").unwrap();
    let refused = materialize(&cache.client, &reference, &dir.path().join("file"), plain()).await;
    assert!(
        matches!(refused, Err(MaterializeError::Exists { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_that_lies_leaves_nothing_behind() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("a"), "one").unwrap();
    fs::write(from.join("b"), "two").unwrap();
    let (reference, _) = upload_tree(&cache.client, captured(&from), &Progress::default())
        .await
        .unwrap();
    let mut contents: Contents = fetch_tree(&cache.client, &reference).await.unwrap().into();
    // Both files have three bytes of the same chunk; each gets the other's.
    contents.layout.files.swap(0, 1);
    let refused = materialize_contents(&cache.client, contents, &to, plain())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, MaterializeError::Corrupt { .. }),
        "{refused:?}"
    );
    // Removal is left to a thread.
    while others(dir.path(), &["from"])
        .iter()
        .any(|name| name.starts_with(PARTIAL_PREFIX))
    {
        tokio::task::yield_now().await;
    }
    assert!(!to.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_gone_is_named() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    let missing = Digest::of(b"never uploaded");
    let layout = protocol::layout::Layout {
        chunks: vec![missing],
        files: vec![vec![protocol::layout::Piece {
            chunk: 0,
            offset: 0,
            length: 14,
        }]],
    };
    let kind = EntryKind::File {
        digest: missing,
        executable: false,
    };
    let contents = Contents {
        tree: Tree::new(vec![entry("f", kind)]).unwrap(),
        attributes: Attributes::default(),
        layout,
    };
    let target = dir.path().join("to");
    let refused = materialize_contents(&cache.client, contents, &target, plain())
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("chunk {missing} is not in the cache")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_attributes_are_defaults_and_unlisted_directories_are_made() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    let empty = |executable| EntryKind::File {
        digest: Digest::of(b""),
        executable,
    };
    let tree = Tree::new(vec![
        entry("a/b/run", empty(true)),
        entry("a/b/read", empty(false)),
        entry("c", empty(false)),
    ])
    .unwrap();
    let of = EntryAttributes {
        mode: Some(0o6755),
        modified: Some(-1),
        ..Default::default()
    };
    let contents = Contents {
        tree,
        attributes: Attributes::new(vec![(2, of)]),
        ..Default::default()
    };
    let target = dir.path().join("to");
    let options = Materialize {
        owner: Owner::Own,
        default_modified: Some(1_000_000_007),
        ..plain()
    };
    materialize_contents(&cache.client, contents, &target, options)
        .await
        .unwrap();
    let look = |path: &str| {
        let metadata = fs::metadata(target.join(path)).unwrap();
        (
            metadata.mode() & 0o7777,
            metadata.mtime(),
            metadata.mtime_nsec(),
        )
    };
    assert_eq!(look("a/b/run"), (0o755, 1, 7));
    assert_eq!(look("a/b/read"), (0o644, 1, 7));
    assert_eq!(look("c"), (0o755, -1, 999_999_999), "no rights are lent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_that_gives_way_leaves_its_mode_to_one_that_is_masked() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    for (root, expected) in [(RootMode::Usual, 0o755), (RootMode::Masked, 0o710)] {
        let target = dir.path().join(format!("{root:?}"));
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o710)).unwrap();
        let options = Materialize { root, ..plain() };
        materialize_contents(&cache.client, Contents::default(), &target, options)
            .await
            .unwrap();
        let mode = fs::metadata(&target).unwrap().mode() & 0o777;
        assert_eq!(mode, expected, "{root:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_takes_away_in_an_overlay_and_is_refused_elsewhere() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::new(vec![
        entry("gone", EntryKind::Whiteout),
        entry("new", EntryKind::Directory { opaque: true }),
    ])
    .unwrap();
    let contents = Contents {
        tree: tree.clone(),
        ..Default::default()
    };
    let target = dir.path().join("to");
    let refused = materialize_contents(&cache.client, contents.clone(), &target, plain()).await;
    assert!(matches!(
        refused,
        Err(MaterializeError::Plan(PlanError::Layer { .. }))
    ));
    let options = Materialize {
        dialect: Dialect::Overlay,
        ..plain()
    };
    match materialize_contents(&cache.client, contents, &target, options).await {
        Ok(_) => {
            let after = capture(&target, &Selection::All, Dialect::Overlay).unwrap();
            assert_eq!(after.tree, tree);
        }
        // Only root may mark directories.
        Err(MaterializeError::Write { source, .. }) => {
            assert!(!rustix::process::geteuid().is_root(), "{source}");
        }
        Err(e) => panic!("{e}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_known_by_their_names_and_modes_and_that_nobody_locks_them() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, mode| {
        let path = dir.path().join(format!("{PARTIAL_PREFIX}{name}"));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    // The number of a process that is there says nothing: in a container it has another.
    let left = make(&format!("{}-2", std::process::id()), 0o700);
    let open = make("1-2", 0o755);
    fs::create_dir(left.join("a")).unwrap();
    fs::write(left.join("a/b"), "").unwrap();
    fs::set_permissions(left.join("a"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::write(dir.path().join("other"), "").unwrap();
    let held = make("1-3", 0o700);
    let lock = place::lock(&held).unwrap().unwrap();
    remove_partials(dir.path()).unwrap();
    assert!(!left.exists());
    assert!(open.exists(), "others may write to it or see into it");
    assert!(held.exists(), "it is locked");
    drop(lock);
    remove_partials(dir.path()).unwrap();
    assert!(!held.exists());
    fs::remove_dir(open).unwrap();
    assert_eq!(others(dir.path(), &[]), ["other"]);
    remove_partials(&dir.path().join("missing")).unwrap();

    let partial = Partial::create(dir.path()).unwrap();
    assert!(place::lock(&partial.path).unwrap().is_none());
    let root = partial.root().unwrap();
    let path = partial.path.clone();
    partial.keep();
    remove_partials(dir.path()).unwrap();
    assert!(path.exists(), "somebody may still write there");
    drop(root);
    remove_partials(dir.path()).unwrap();
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_any_length_come_back_and_are_limited() {
    let cache = cache().await;
    let mut noise = crate::fixture::Noise(7);
    for length in [0, 1, 2 * 1024 * 1024, 9_000_000] {
        let bytes = noise.bytes(length);
        let blob = upload_blob(&cache.client, bytes.clone()).await.unwrap();
        assert_eq!(blob.chunks.is_empty(), length == 0);
        let fetched = crate::download::fetch_blob(&cache.client, &blob, length as u64).await;
        assert!(fetched.unwrap() == bytes, "{length} bytes");
        if length > 0 {
            let refused =
                crate::download::fetch_blob(&cache.client, &blob, length as u64 - 1).await;
            assert!(matches!(refused, Err(FetchError::TooLarge { .. })));
        }
    }
    let zeros = upload_blob(&cache.client, vec![0; 9_000_000])
        .await
        .unwrap();
    let mut lie = zeros.clone();
    lie.digest = Digest::from_parts([1; 32], 9_000_000);
    assert!(matches!(
        crate::download::fetch_blob(&cache.client, &lie, u64::MAX).await,
        Err(FetchError::Mismatch { .. })
    ));
    let fetched = crate::download::fetch_blob(&cache.client, &zeros, u64::MAX).await;
    assert!(fetched.unwrap() == vec![0; 9_000_000]);
}
