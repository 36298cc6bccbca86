//! The fuzzer's corpus, and what is near it, is given to what parses bytes of strangers.

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::{fs, path::Path};

use testkit::random::Random;

/// How often each file of the corpus is changed and tried again.
fn changes() -> u64 {
    if testkit::slow_tests() { 20_000 } else { 300 }
}

/// The files of one target's corpus, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let directory = root.join("fuzz/corpus").join(target);
    let files = fs::read_dir(&directory).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = files
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, fs::read(file.path()).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "`{target}` has no corpus");
    files
}

/// A place in something of this length, or behind it.
fn place(random: &mut Random, length: usize) -> usize {
    usize::try_from(random.below(length as u64 + 1)).unwrap()
}

/// Changes a few bytes, as a disk, a network or somebody hostile might.
fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = place(random, bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, u8::try_from(random.below(256)).unwrap()),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            4 if at < bytes.len() => {
                bytes[at] = [0, 0x7f, 0x80, 0xfb, 0xfd, 0xff][place(random, 5)];
            }
            _ => {
                let from = place(random, other.len());
                let to = from + place(random, (other.len() - from).min(40));
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
}

fn run(target: &str, try_out: impl Fn(&[u8])) {
    let corpus = corpus(target);
    let mut random = Random::new(1);
    for (name, bytes) in &corpus {
        testkit::tell(&format!("{target}/{name}"));
        try_out(bytes);
        for _ in 0..changes() {
            let other = place(&mut random, corpus.len() - 1);
            let mut changed = bytes.clone();
            change(&mut changed, &corpus[other].1, &mut random);
            try_out(&changed);
        }
    }
}

#[test]
fn frames_of_strangers_are_taken_or_refused() {
    run("frames", targets::frames);
}

#[test]
fn messages_of_strangers_are_taken_or_refused() {
    run("codec", targets::codec);
}

#[test]
fn trees_of_strangers_are_taken_or_refused() {
    run("trees", targets::trees);
}

#[test]
fn buildspecs_of_strangers_are_taken_or_refused() {
    run("buildspecs", targets::buildspecs);
}
