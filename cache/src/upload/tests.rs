//! Trees there and back over a real server.

use std::{fs, path::Path};

use super::*;
use crate::{
    capture::{Dialect, Subject, capture},
    download::fetch_tree,
    fixture::{Noise, cache, grow_tree},
    selection::Selection,
};

fn captured(root: &Path) -> Captured {
    capture(root, &Selection::All, Dialect::Plain).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_since_it_was_captured_is_refused_by_name() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    // Packed, in a chunk of its own, and cut.
    for length in [10, 300_000, 5_000_000] {
        let before = Noise(1).bytes(length);
        let mut same_length = before.clone();
        same_length[length / 2] ^= 1;
        let longer = [before.clone(), vec![0]].concat();
        for after in [Some(same_length), Some(longer), Some(Vec::new()), None] {
            fs::write(&path, &before).unwrap();
            let captured = captured(dir.path());
            match after {
                Some(after) => fs::write(&path, after).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let refused = upload_tree(&cache.client, captured, &Progress::default()).await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.to_string(), "`file` changed while it was uploaded");
        }
    }
}

#[test]
fn what_nobody_would_fetch_is_refused_by_name() {
    assert_eq!(within(3, ("tree", vec![7; 3])).unwrap(), [7; 3]);
    let refused = within(3, ("attributes", vec![7; 4])).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "directory takes 4 bytes of attributes, at most 3 are allowed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_others_than_the_walk_saw_are_sent_as_they_were_read() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    grow_tree(dir.path(), 3, 100);
    // Below and above what is packed, and what is cut.
    let lengths = [0, 10, 100_000, 200_000, 3_000_000];
    let pairs = lengths
        .iter()
        .flat_map(|before| lengths.map(|after| (*before, after)));
    let pairs: Vec<(usize, usize)> = pairs.collect();
    let write = |length: fn(&(usize, usize)) -> usize| {
        for (number, pair) in (0..).zip(&pairs) {
            let bytes = Noise(number).bytes(length(pair));
            fs::write(dir.path().join(format!("file-{number:02}")), bytes).unwrap();
        }
    };
    write(|(before, _)| *before);
    let subject = Subject::all(dir.path().to_owned());
    let found = subject.capture().unwrap().look().unwrap();
    write(|(_, after)| *after);
    let progress = Progress::default();
    let (out, chunks) = mpsc::channel(WAITING_CHUNKS_MAX);
    let reading =
        tokio::task::spawn_blocking(move || subject.capture()?.read(found, None, Some(out)));
    let (read, sent) = tokio::join!(reading, send_missing(&cache.client, chunks, &progress));
    let read = read.unwrap().unwrap();
    assert!(0 < sent.unwrap().chunks && !read.units.is_empty());
    let none = IndexedFiles::default();
    let uploaded = upload_known(&cache.client, read, &none, &progress)
        .await
        .unwrap();
    let now = progress.now();
    assert_eq!(now.bytes_done, now.bytes_total, "all is counted");

    let (plain, again) = upload_tree(&cache.client, captured(dir.path()), &progress)
        .await
        .unwrap();
    assert_eq!((uploaded.tree, again.chunks_moved), (plain, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_file_among_many_sends_few_bytes() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    let mut noise = Noise(2);
    for number in 0..3_000 {
        let length = noise.index(8_000);
        fs::write(dir.path().join(format!("{number:05}")), noise.bytes(length)).unwrap();
    }
    let progress = Progress::default();
    let (_, first) = upload_tree(&cache.client, captured(dir.path()), &progress)
        .await
        .unwrap();
    assert!(first.chunks < 60, "{first:?}");
    fs::write(dir.path().join("01500"), "changed").unwrap();
    let (reference, second) = upload_tree(&cache.client, captured(dir.path()), &progress)
        .await
        .unwrap();
    // A pack or two, and the tree's own bytes.
    assert!(
        second.bytes_moved * 5 < first.bytes_moved,
        "{first:?} {second:?}"
    );

    let (tree, attributes, layout) = fetch_tree(&cache.client, &reference).await.unwrap();
    let distinct = distinct_files(&tree);
    assert_eq!(layout.files.len(), distinct.len());
    for (file, pieces) in distinct.iter().zip(&layout.files) {
        let bytes: u64 = pieces.iter().map(|piece| u64::from(piece.length)).sum();
        assert_eq!(bytes, file.size());
    }
    let other = upload_attributes(&cache.client, &reference, &Attributes::default())
        .await
        .unwrap();
    assert_eq!(
        (&other.tree, &other.layout),
        (&reference.tree, &reference.layout)
    );
    let (_, none, _) = fetch_tree(&cache.client, &other).await.unwrap();
    assert!(none.entries().is_empty() && !attributes.entries().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_another_tree_are_refused() {
    let cache = cache().await;
    let dir = tempfile::tempdir().unwrap();
    let progress = Progress::default();
    let (empty, _) = upload_tree(&cache.client, captured(dir.path()), &progress)
        .await
        .unwrap();
    fs::write(dir.path().join("a"), "a").unwrap();
    let (other, _) = upload_tree(&cache.client, captured(dir.path()), &progress)
        .await
        .unwrap();
    let mixed = TreeRef {
        attributes: empty.attributes,
        ..other.clone()
    };
    let refused = fetch_tree(&cache.client, &mixed).await.unwrap_err();
    assert!(
        refused.to_string().ends_with("is of another tree"),
        "{refused}"
    );
    let mixed = TreeRef {
        layout: empty.layout,
        ..other
    };
    let refused = fetch_tree(&cache.client, &mixed).await.unwrap_err();
    assert!(
        refused.to_string().ends_with("is of another tree"),
        "{refused}"
    );
}
