//! Files that are cut while they are read.

use std::{fs, path::Path, sync::Arc, thread};

use super::*;
use crate::{
    capture::{Captured, Subject},
    fixture::{Noise, grow_tree},
    packing::{distinct_files, pack},
};

/// More chunks than anything here makes.
const ALL: usize = 4096;

/// Captures all of `root`, with the chunks that were handed on.
fn captured(root: &Path) -> (Captured, BTreeMap<Digest, Bytes>) {
    let subject = Subject::all(root.to_owned());
    let (out, mut chunks) = mpsc::channel(ALL);
    let capture = subject.capture().unwrap();
    let found = capture.look().unwrap();
    let captured = capture.read(found, None, Some(out)).unwrap();
    let mut all = BTreeMap::new();
    while let Some(chunk) = chunks.blocking_recv() {
        all.insert(chunk.digest, chunk.bytes);
    }
    (captured, all)
}

#[test]
fn all_units_of_a_tree_are_handed_on_while_its_files_are_read_once() {
    for seed in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        grow_tree(dir.path(), seed, 200);
        let (captured, chunks) = captured(dir.path());
        let files = distinct_files(&captured.tree);
        for unit in pack(&files) {
            let of = unit.members().iter().map(|&file| &files[file]);
            let cut = &captured.units[&unit_name(of.clone())];
            // One after another they are the unit's files, one after another.
            let mut bytes = cut.iter().flat_map(|chunk| chunks[chunk].iter().copied());
            for file in of {
                let length = usize::try_from(file.size()).unwrap();
                let of: Vec<u8> = bytes.by_ref().take(length).collect();
                assert!(file.matches(&of), "seed {seed}");
            }
            assert_eq!(bytes.next(), None);
        }
        // The same as without.
        let plain = Subject::all(dir.path().to_owned()).run().unwrap();
        assert_eq!(captured.tree, plain.tree);
        assert_eq!(captured.attributes, plain.attributes);
        assert!(plain.units.is_empty());
    }
}

#[test]
fn reading_waits_for_whoever_takes_the_chunks_and_ends_without_them() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..40 {
        let bytes = Noise(number).bytes(150_000);
        fs::write(dir.path().join(number.to_string()), bytes).unwrap();
    }
    let subject = Subject::all(dir.path().to_owned());
    let (out, mut chunks) = mpsc::channel(1);
    let reading = thread::spawn(move || {
        let capture = subject.capture().unwrap();
        let found = capture.look().unwrap();
        capture.read(found, None, Some(out))
    });
    assert!(chunks.blocking_recv().is_some());
    assert!(!reading.is_finished(), "38 chunks are still to be taken");
    drop(chunks);
    assert!(reading.join().unwrap().is_err());
}

#[test]
fn nothing_is_read_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("small"), "less than a chunk").unwrap();
    let subject = Subject::all(dir.path().to_owned());
    let (out, chunks) = mpsc::channel(ALL);
    drop(chunks);
    let capture = subject.capture().unwrap();
    let found = capture.look().unwrap();
    let refused = capture.read(found, None, Some(out)).unwrap_err();
    assert_eq!(refused.to_string(), "failed to read `small`");
}

#[test]
fn a_chunk_takes_no_more_memory_than_its_length() {
    let size = 5 * WINDOW_BYTES;
    let (out, mut read) = mpsc::channel(ALL);
    let bytes = Noise(1).bytes(size);
    let (digest, chunks) = cut_file(&bytes[..], size as u64, &out).unwrap();
    drop(out);
    assert!(digest.matches(&bytes));
    let (mut all, mut digests) = (Vec::new(), Vec::new());
    while let Some(chunk) = read.blocking_recv() {
        all.extend_from_slice(&chunk.bytes);
        digests.push(chunk.digest);
        let (length, own) = (chunk.bytes.len(), Vec::from(chunk.bytes));
        assert_eq!(own.capacity(), length);
    }
    assert!(all == bytes && digests == chunks && 5 < chunks.len());
}

/// How many small files of how many bytes: much more than may be early.
const SMALL: (usize, usize) = (200, 100_000);

/// Adds files to a cutter in a thread, all but the first one, and waits until there is no room for more. Gives the
/// digest of each.
fn without_the_first(cutter: &Arc<Cutter>) -> (Vec<Digest>, Bytes, thread::JoinHandle<()>) {
    let (count, length) = SMALL;
    let bodies: Vec<Bytes> = (0..count as u64)
        .map(|number| Noise(number).bytes(length).into())
        .collect();
    let digests = bodies.iter().map(|bytes| Digest::of(bytes)).collect();
    let first = bodies[0].clone();
    let adding = {
        let cutter = Arc::clone(cutter);
        thread::spawn(move || {
            for (at, bytes) in bodies.into_iter().enumerate().skip(1) {
                let digest = Digest::of(&bytes);
                cutter.add(at, digest, Body::Whole(bytes)).unwrap();
            }
        })
    };
    while cutter.lock().early_bytes < EARLY_BYTES_MAX {
        thread::yield_now();
    }
    assert!(cutter.lock().early_bytes < EARLY_BYTES_MAX + length);
    assert!(!adding.is_finished());
    (digests, first, adding)
}

#[test]
fn small_files_that_are_early_wait_within_limits_for_those_before_them() {
    let (out, chunks) = mpsc::channel(ALL);
    let cutter = Arc::new(Cutter::new((0..SMALL.0).collect(), out));
    let (digests, first, adding) = without_the_first(&cutter);
    assert!(chunks.is_empty(), "no pack begins before the first file");
    cutter.add(0, digests[0], Body::Whole(first)).unwrap();
    adding.join().unwrap();
    let units = Arc::into_inner(cutter).unwrap().finish();
    let expected = pack(&digests);
    assert_eq!(units.len(), expected.len());
    for unit in expected {
        let of = unit.members().iter().map(|&file| &digests[file]);
        assert!(units.contains_key(&unit_name(of)));
    }
}

#[test]
fn nobody_waits_for_a_file_that_cannot_be_read() {
    let (out, _chunks) = mpsc::channel(ALL);
    let cutter = Arc::new(Cutter::new((0..SMALL.0).collect(), out));
    let (_, _, adding) = without_the_first(&cutter);
    cutter.give_up();
    adding.join().unwrap();
    assert!(Arc::into_inner(cutter).unwrap().finish().is_empty());
}

#[test]
fn a_pack_with_a_file_that_was_not_read_is_not_handed_on() {
    let (out, chunks) = mpsc::channel(ALL);
    let cutter = Cutter::new(vec![3, 5], out);
    let digest = Digest::of(b"known");
    cutter.add(3, digest, Body::Left).unwrap();
    let read = Bytes::from_static(b"read");
    let digest = Digest::of(&read);
    cutter.add(5, digest, Body::Whole(read)).unwrap();
    assert!(cutter.finish().is_empty() && chunks.is_empty());
}
