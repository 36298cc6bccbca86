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
/// How long the paths of a tree may be together, in bytes. Canonical bytes have what paths share only once, so a few
/// megabytes of them could unfold to many gigabytes. As many entries as a tree may have, with paths of 100 bytes each,
/// take three quarters of this.
pub const TREE_PATH_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// What every tree stays within.
const LIMITS: Limits = Limits {
    entries: TREE_ENTRIES_MAX,
    path_bytes: TREE_PATH_BYTES_MAX,
};
const ENTRIES: &str = "number of entries";
const PATH_BYTES: &str = "length of all paths";

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
    /// A number or a length is over its limit.
    #[error("{what} of the tree is {found}, at most {limit} are allowed")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there may be.
        limit: u64,
    },
}

/// How large a tree may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    entries: u64,
    /// Of all paths together.
    path_bytes: u64,
}

impl Limits {
    fn check(self, entries: &[Entry]) -> Result<(), TreeError> {
        let lengths = entries
            .iter()
            .map(|entry| entry.path.as_bytes().len() as u64);
        for (what, found, limit) in [
            (ENTRIES, entries.len() as u64, self.entries),
            (PATH_BYTES, lengths.sum(), self.path_bytes),
        ] {
            if limit < found {
                return Err(TreeError::TooMany { what, found, limit });
            }
        }
        Ok(())
    }
}

impl Tree {
    /// Puts `entries`, in any order, into a tree.
    ///
    /// # Errors
    ///
    /// If two have the same path or one lies below what is not a directory; or if there are more than
    /// [`TREE_ENTRIES_MAX`], or their paths are over [`TREE_PATH_BYTES_MAX`] together.
    pub fn new(entries: Vec<Entry>) -> Result<Self, TreeError> {
        Self::within(LIMITS, entries)
    }

    fn within(limits: Limits, mut entries: Vec<Entry>) -> Result<Self, TreeError> {
        limits.check(&entries)?;
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
        Self::decode_within(LIMITS, bytes)
    }

    fn decode_within(limits: Limits, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, TAG, VERSION)?;
        let count = reader.count(ENTRIES, limits.entries)?;
        // An entry takes at least three bytes, so the count cannot reserve more than the input implies.
        let mut entries = Vec::with_capacity(count.min(bytes.len() / 3));
        let mut last = Vec::new();
        let mut path_bytes = 0;
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
            path_bytes += last.len() as u64;
            if limits.path_bytes < path_bytes {
                return Err(DecodeError::TooMany {
                    what: PATH_BYTES,
                    found: path_bytes,
                    limit: limits.path_bytes,
                });
            }
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
mod tests;
