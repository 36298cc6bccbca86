//! Trees: what a directory *is*. Equal content gives an equal digest on every machine.
//!
//! A tree holds names, kinds, the executable bit, link targets and file digests, and nothing that
//! depends on who checked it out and when: that is in [`attributes`](crate::attributes). A tree that
//! records a change to a file system, with whiteouts and opaque directories, is a layer.

use crate::{
    canonical::{DecodeError, Reader, Writer},
    digest::Digest,
    path::{PATH_BYTES_MAX, TreePath},
};

/// How many entries a tree may have. The largest real dependency trees hold some 130,000.
pub const TREE_ENTRIES_MAX: u64 = 4_000_000;

const TAG: [u8; 4] = *b"gtre";
const VERSION: u8 = 1;

/// One thing in a tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// A directory. Those that only lead to other entries are listed too.
    Directory {
        /// In a layer: hides what lower layers have at this path.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// Its bytes.
        digest: Digest,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link; the target is kept as it is and not followed.
    Symlink {
        /// Where it points, not empty.
        target: Vec<u8>,
    },
    /// In a layer: what lower layers have at this path is gone.
    Whiteout,
    /// A named pipe.
    Fifo,
    /// A device node.
    Device {
        /// A block device rather than a character device.
        block: bool,
        /// The driver's number.
        major: u32,
        /// The number within the driver.
        minor: u32,
    },
}

/// A directory's content, or a change to a file system.
///
/// Entries are in tree order, each path once, and each after the directory that holds it, if that is
/// listed. Nothing lies below what is not a directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tree {
    entries: Vec<Entry>,
}

/// Why entries do not make a tree.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum TreeError {
    /// Two entries have one path.
    #[error("tree has {path:?} twice")]
    Twice {
        /// The path.
        path: TreePath,
    },
    /// An entry lies below a file, a link or a whiteout.
    #[error("tree has {path:?} below {parent:?}, which is no directory")]
    NotBelowDirectory {
        /// The entry.
        path: TreePath,
        /// What it lies in.
        parent: TreePath,
    },
}

impl Tree {
    /// Puts `entries`, in any order, into a tree.
    ///
    /// # Errors
    ///
    /// If two have the same path or one lies below what is not a directory.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, TreeError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let tree = Self { entries };
        tree.check()?;
        Ok(tree)
    }

    /// The entries, in tree order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at `path`, with its index.
    pub fn find(&self, path: &TreePath) -> Option<(usize, &Entry)> {
        let found = self.entries.binary_search_by(|entry| entry.path.cmp(path));
        found.ok().map(|index| (index, &self.entries[index]))
    }

    /// The sum of the sizes of all files, equal files counted each time.
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match &entry.kind {
            EntryKind::File { digest, .. } => digest.size(),
            _ => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// The canonical bytes: what the tree's digest is of.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(TAG, VERSION);
        writer.number(self.entries.len() as u64);
        let mut last: &[u8] = &[];
        for entry in &self.entries {
            // Paths share their beginnings, so each says how much of the one before it keeps.
            let path = entry.path.as_bytes();
            let shared = shared_prefix(last, path);
            writer.number(shared as u64);
            writer.bytes(&path[shared..]);
            encode_kind(&mut writer, &entry.kind);
            last = path;
        }
        writer.finish()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    ///
    /// If the bytes are anything but what [`encode`](Self::encode) gives for some tree.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, TAG, VERSION)?;
        let count = reader.count("number of entries", TREE_ENTRIES_MAX)?;
        // An entry takes at least three bytes, so the count cannot reserve more than the input implies.
        let mut entries = Vec::with_capacity(count.min(bytes.len() / 3));
        let mut last = Vec::new();
        for _ in 0..count {
            let shared = reader.count("shared length", last.len() as u64)?;
            let rest = reader.bytes("path", PATH_BYTES_MAX as u64)?;
            if last
                .get(shared)
                .is_some_and(|next| Some(next) == rest.first())
            {
                return Err(reader.refuse("shared length"));
            }
            last.truncate(shared);
            last.extend_from_slice(rest);
            let path = TreePath::new(last.clone()).map_err(|_| reader.refuse("path"))?;
            let kind = decode_kind(&mut reader)?;
            entries.push(Entry { path, kind });
        }
        let tree = Self { entries };
        tree.check()
            .map_err(|_| reader.refuse("order of entries"))?;
        reader.finish()?;
        Ok(tree)
    }

    /// Checks order, uniqueness and that nothing lies below what is no directory.
    fn check(&self) -> Result<(), TreeError> {
        // The chain of entries that the current one may lie in.
        let mut chain: Vec<&Entry> = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if index > 0 && entry.path <= self.entries[index - 1].path {
                return Err(TreeError::Twice {
                    path: entry.path.clone(),
                });
            }
            while chain
                .last()
                .is_some_and(|outer| !entry.path.is_within(&outer.path))
            {
                chain.pop();
            }
            if let Some(parent) = chain.last()
                && !matches!(parent.kind, EntryKind::Directory { .. })
            {
                return Err(TreeError::NotBelowDirectory {
                    path: entry.path.clone(),
                    parent: parent.path.clone(),
                });
            }
            chain.push(entry);
        }
        Ok(())
    }
}

fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn encode_kind(writer: &mut Writer, kind: &EntryKind) {
    match kind {
        EntryKind::Directory { opaque: false } => writer.byte(0),
        EntryKind::Directory { opaque: true } => writer.byte(1),
        EntryKind::File { digest, executable } => {
            writer.byte(if *executable { 3 } else { 2 });
            writer.digest(digest);
        }
        EntryKind::Symlink { target } => {
            writer.byte(4);
            writer.bytes(target);
        }
        EntryKind::Whiteout => writer.byte(5),
        EntryKind::Fifo => writer.byte(6),
        EntryKind::Device {
            block,
            major,
            minor,
        } => {
            writer.byte(if *block { 8 } else { 7 });
            writer.number(u64::from(*major));
            writer.number(u64::from(*minor));
        }
    }
}

fn decode_kind(reader: &mut Reader<'_>) -> Result<EntryKind, DecodeError> {
    Ok(match reader.byte("kind of entry")? {
        0 => EntryKind::Directory { opaque: false },
        1 => EntryKind::Directory { opaque: true },
        tag @ (2 | 3) => EntryKind::File {
            digest: reader.digest("file digest")?,
            executable: tag == 3,
        },
        4 => {
            let target = reader.bytes("link target", PATH_BYTES_MAX as u64)?;
            if target.is_empty() || target.contains(&0) {
                return Err(reader.refuse("link target"));
            }
            EntryKind::Symlink {
                target: target.to_vec(),
            }
        }
        5 => EntryKind::Whiteout,
        6 => EntryKind::Fifo,
        tag @ (7 | 8) => {
            let mut number = |what| {
                let found = reader.number(what)?;
                u32::try_from(found).map_err(|_| reader.refuse(what))
            };
            EntryKind::Device {
                block: tag == 8,
                major: number("major number")?,
                minor: number("minor number")?,
            }
        }
        _ => return Err(reader.refuse("kind of entry")),
    })
}

#[cfg(test)]
mod tests {
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
}
