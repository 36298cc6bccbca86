//! Bytes of trees there and back, and what is no tree.

use super::*;

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: TreePath::new(path).unwrap(),
        kind,
    }
}

fn file(path: &str, bytes: &[u8]) -> Entry {
    entry(
        path,
        EntryKind::File {
            digest: Digest::of(bytes),
            executable: false,
        },
    )
}

fn sample() -> Tree {
    Tree::new(vec![
        file("src/main.rs", b"fn main() {}\n"),
        entry("src", EntryKind::Directory { opaque: false }),
        entry(
            "link",
            EntryKind::Symlink {
                target: b"src".to_vec(),
            },
        ),
        entry("gone", EntryKind::Whiteout),
        entry("new", EntryKind::Directory { opaque: true }),
        entry("pipe", EntryKind::Fifo),
        entry(
            "null",
            EntryKind::Device {
                block: false,
                major: 1,
                minor: 3,
            },
        ),
    ])
    .unwrap()
}

#[test]
fn the_bytes_of_a_tree_never_change() {
    // Every key of every cache depends on these bytes: a change takes a new version.
    assert_eq!(Digest::of(&sample().encode()).to_string(), GOLDEN);
}
const GOLDEN: &str = "6439b6301090cf1a1eb3a1ed3b20141effc1673aa9dec758c23ada3e8ff1ab2d/95";

#[test]
fn names_and_targets_of_any_bytes_are_written_so() {
    let entry = |path: &[u8], kind| Entry {
        path: TreePath::new(path).unwrap(),
        kind,
    };
    let target = b"\xfe".to_vec();
    let program = EntryKind::File {
        digest: Digest::from_parts([7; 32], 300),
        executable: true,
    };
    let disk = EntryKind::Device {
        block: true,
        major: 8,
        minor: 259,
    };
    let tree = Tree::new(vec![
        entry(b"disk", disk),
        entry(b"caf\xe9-x", program),
        entry(b"caf\xe9", EntryKind::Directory { opaque: false }),
        entry(b"caf\xe9/\n\xff", EntryKind::Symlink { target }),
    ])
    .unwrap();
    let expected: [&[u8]; 7] = [
        b"gtre\x01\x04",
        b"\x00\x04caf\xe9\x00",
        b"\x04\x03/\n\xff\x04\x01\xfe",
        b"\x04\x02-x\x03",
        &[7; 32],
        b"\xac\x02",
        b"\x00\x04disk\x08\x08\x83\x02",
    ];
    assert_eq!(tree.encode(), expected.concat());
    assert_eq!(Tree::decode(&tree.encode()), Ok(tree));
}

#[test]
fn a_tree_survives_its_bytes() {
    let tree = sample();
    assert_eq!(Tree::decode(&tree.encode()), Ok(tree));
    assert_eq!(Tree::decode(&Tree::default().encode()), Ok(Tree::default()));
}

#[test]
fn the_order_of_listing_makes_no_difference() {
    let mut entries = sample().entries;
    entries.reverse();
    assert_eq!(Tree::new(entries), Ok(sample()));
}

#[test]
fn what_is_no_tree_is_refused() {
    assert!(matches!(
        Tree::new(vec![file("a", b""), file("a", b"x")]),
        Err(TreeError::Twice { .. })
    ));
    assert!(matches!(
        Tree::new(vec![file("a", b""), file("a/b/c", b"x")]),
        Err(TreeError::NotBelowDirectory { .. })
    ));
}

/// Three entries with paths of 98, 100 and 101 bytes, most of which they share.
fn deep() -> Vec<Entry> {
    let directory = "d".repeat(98);
    let inside = |name| file(&format!("{directory}/{name}"), b"");
    vec![
        entry(&directory, EntryKind::Directory { opaque: false }),
        inside("a"),
        inside("bc"),
    ]
}

#[test]
fn a_tree_over_its_limits_is_not_made() {
    let at_most = |entries, path_bytes| {
        let limits = Limits {
            entries,
            path_bytes,
        };
        Tree::within(limits, deep()).map(|_| ())
    };
    let refused = |what, found, limit| Err(TreeError::TooMany { what, found, limit });
    assert_eq!(at_most(3, 299), Ok(()));
    assert_eq!(at_most(3, 298), refused(PATH_BYTES, 299, 298));
    assert_eq!(at_most(2, 299), refused(ENTRIES, 3, 2));
    assert_eq!(
        at_most(3, 298).unwrap_err().to_string(),
        "length of all paths of the tree is 299, at most 298 are allowed"
    );
}

#[test]
fn bytes_that_unfold_to_more_than_a_tree_may_have_are_read_no_further() {
    let bytes = Tree::new(deep()).unwrap().encode();
    let at_most = |path_bytes, bytes: &[u8]| {
        let entries = TREE_ENTRIES_MAX;
        let limits = Limits {
            entries,
            path_bytes,
        };
        Tree::decode_within(limits, bytes).map(|tree| tree.entries)
    };
    let refused = |found, limit| {
        let what = PATH_BYTES;
        Err(DecodeError::TooMany { what, found, limit })
    };
    assert_eq!(at_most(299, &bytes), Ok(deep()));
    assert_eq!(at_most(298, &bytes), refused(299, 298));
    // Without the third entry, which is not looked for.
    let start = &bytes[..bytes.len() - 38];
    assert_eq!(at_most(197, start), refused(198, 197));
    assert!(matches!(
        at_most(198, start),
        Err(DecodeError::Truncated { .. })
    ));
}

#[test]
fn damaged_bytes_are_refused_and_never_panic() {
    let bytes = sample().encode();
    for end in 0..bytes.len() {
        assert!(Tree::decode(&bytes[..end]).is_err());
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(tree) = Tree::decode(&damaged) {
                assert_eq!(tree.encode(), damaged, "two spellings of one tree");
            }
        }
    }
}
