//! The bytes of rows never change.

use std::fmt::Debug;

use super::*;

fn blob(bytes: &[u8]) -> Blob {
    Blob {
        digest: Digest::of(bytes),
        chunks: vec![Digest::of(bytes)],
    }
}

fn tree(name: &str) -> TreeRef {
    TreeRef {
        tree: blob(format!("{name} tree").as_bytes()),
        attributes: blob(format!("{name} attributes").as_bytes()),
        layout: blob(format!("{name} layout").as_bytes()),
    }
}

fn entry() -> StoredEntry {
    StoredEntry {
        entry: Entry {
            blobs: vec![blob(b"snapshot")],
            trees: vec![tree("layer"), tree("source")],
            outlines: vec![tree("outline")],
            trust: Trust::Team,
            team: "red".parse().unwrap(),
            written: WallTime(1_700_000_000_000),
        },
        chunks: 12,
        bytes: 3_456,
    }
}

/// Rows survive being read, and are refused when damaged or cut, without a panic. Gives what the
/// bytes hash to.
#[track_caller]
fn check<T: Debug + PartialEq>(
    value: &T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) -> String {
    let bytes = encode(value);
    assert_eq!(decode(&bytes).as_ref(), Ok(value));
    for end in 0..bytes.len() {
        assert!(decode(&bytes[..end]).is_err());
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x81;
        if let Ok(other) = decode(&damaged) {
            assert_eq!(encode(&other), damaged, "two spellings");
        }
    }
    Digest::of(&bytes).to_string()
}

#[test]
fn the_bytes_of_rows_never_change() {
    let fact = Fact {
        stored: 300,
        references: 2,
    };
    let fact = check(&fact, Fact::encode, Fact::decode);
    let totals = Totals {
        chunks: 3,
        bytes: 1_000,
        stored: 500,
    };
    let totals = check(&totals, Totals::encode, Totals::decode);
    let uses = Uses {
        restored: 1,
        missed: 2,
        saved: 3,
        bytes_restored: 4_000,
        restore_millis: 5,
        used: WallTime(1_700_000_000_000),
        made_millis: 60_000,
        estimated: 1,
    };
    let uses = check(&uses, Uses::encode, Uses::decode);
    let usage = Usage {
        used: WallTime(1_700_000_000_000),
        worth: Worth {
            bytes: 5_000,
            made_millis: 60_000,
        },
        standing: Standing {
            rank: 1 << 40,
            reads: 3,
            is_proved: true,
        },
    };
    let usage = check(&usage, Usage::encode, Usage::decode);
    let ages = Ages {
        probation: 5,
        proved: 6,
    };
    let ages = check(&ages, |&ages| encode_ages(ages), decode_ages);
    let mut closure: Vec<_> = [&b"one"[..], b"two", b"three"]
        .iter()
        .map(|bytes| ChunkKey::of(&Digest::of(bytes)).unwrap())
        .collect();
    closure.sort();
    let closure = check(&closure, |c| encode_closure(c), decode_closure);
    let entry = check(&entry(), StoredEntry::encode, StoredEntry::decode);
    assert_eq!([fact, totals, uses, usage, ages, closure, entry], GOLDEN);
}

#[test]
fn counts_from_before_they_had_a_time_are_read() {
    let mut old = Writer::new(*b"guse", 1);
    (1..=5).for_each(|number| old.number(number));
    let uses = Uses::decode(&old.finish()).unwrap();
    assert_eq!((uses.restored, uses.restore_millis), (1, 5));
    assert_eq!(uses.used, WallTime(0));
}

#[test]
fn counts_from_before_they_had_a_time_to_make_are_read_with_an_estimate_for_all_restores() {
    let uses = Uses::decode(&OLDER_USES).unwrap();
    let expected = Uses {
        restored: 3,
        missed: 2,
        saved: 1,
        bytes_restored: 50_000_000,
        restore_millis: 700,
        used: WallTime(1_700_000_000_000),
        made_millis: 5_000,
        estimated: 3,
    };
    assert_eq!(uses, expected);
    let mut missed = Writer::new(*b"guse", 2);
    for number in [0, 2, 0, 0, 0, 77] {
        missed.number(number);
    }
    let missed = Uses::decode(&missed.finish()).unwrap();
    assert_eq!((missed.missed, missed.made_millis), (2, 0));
}

/// Three restores of 50 MB together, in version 2.
const OLDER_USES: [u8; 20] = [
    b'g', b'u', b's', b'e', 2, 3, 2, 1, 128, 225, 235, 23, 188, 5, 128, 208, 149, 255, 188, 49,
];

#[test]
fn times_of_use_from_before_there_was_more_are_read() {
    let mut old = Writer::new(*b"gusd", 1);
    old.number(77);
    let usage = Usage::decode(&old.finish()).unwrap();
    let expected = Usage {
        used: WallTime(77),
        ..Usage::default()
    };
    assert_eq!(usage, expected);
}

const GOLDEN: [&str; 7] = [
    "a6ade035f0b72cf84d0ca0f1237d45944a680fffc8634fe026bee73f47c4052c/8",
    "d6c8a17f31bfc0651c826a88f76dc4941545b369c49a254ea3981be0beebebea/10",
    "97774618671c92645f68565843bdf23f9a0510005daba9464c97d0fd75b83efa/21",
    "3527dc4f25fa0042b1fbd672406c4ce808eb41b8c330e6fcec1392612920f4ed/24",
    "17c41aa32429d7d6b4548de73f866ba9c92d97a39d1e6f35d6cfbe30b5dd111b/7",
    "bd8b99d3b3387137b5d4f9a8b8cd8c7a418a7ddd3df69fba13e8311561077488/105",
    "942f602ca6f0227177a6c088fc3b90cb1e81778ccdabcf11912856788c9d2d6c/692",
];
