//! What is to be written where, worked out before anything is: tree, attributes and layout come from
//! three blobs that need not fit together. Pure.

use std::collections::BTreeMap;

use protocol::{
    attributes::{Attributes, EntryAttributes},
    digest::Digest,
    layout::Layout,
    path::TreePath,
    tree::{Entry, EntryKind, Tree},
};

use crate::{capture::Dialect, packing::distinct_files};

/// A tree with all that is needed to put it back, but the bytes of its files.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// What it is.
    pub tree: Tree,
    /// What else is known of its entries.
    pub attributes: Attributes,
    /// Where the bytes of its files are.
    pub layout: Layout,
}

impl From<(Tree, Attributes, Layout)> for Contents {
    fn from((tree, attributes, layout): (Tree, Attributes, Layout)) -> Self {
        Self {
            tree,
            attributes,
            layout,
        }
    }
}

/// Why a tree, its attributes and its layout do not fit together. Whoever made them is broken; making
/// them again is all that helps.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The layout is of another tree.
    #[error("layout has {found} files, its tree has {expected}")]
    Files {
        /// Distinct files of the tree that are not empty.
        expected: usize,
        /// Files of the layout.
        found: usize,
    },
    /// The pieces of a file are too long or too short together.
    #[error("pieces of `{path}` have {found} bytes, the file has {expected}")]
    Length {
        /// A path of the file.
        path: TreePath,
        /// The file's length in bytes.
        expected: u64,
        /// The sum of its pieces.
        found: u64,
    },
    /// Attributes are about an entry that is not there.
    #[error("attributes are about entry {index}, the tree has {entries}")]
    NoEntry {
        /// The entry.
        index: usize,
        /// How many there are.
        entries: usize,
    },
    /// A hard link leads to something else than what its entry is.
    #[error("`{path}` is said to be another name of what it does not equal")]
    HardLink {
        /// The entry.
        path: TreePath,
    },
    /// The tree records a change to a file system, and is not to be unpacked as one.
    #[error("`{path}` takes something away, so the tree is a layer and no directory")]
    Layer {
        /// The first such entry.
        path: TreePath,
    },
}

/// A run of bytes of a chunk that belongs to a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Use {
    /// Index into [`Plan::files`].
    pub(crate) file: usize,
    /// Where the run starts in the chunk.
    pub(crate) in_chunk: usize,
    /// How long it is.
    pub(crate) length: usize,
    /// Where it goes in the file.
    pub(crate) in_file: u64,
}

/// A distinct file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct File {
    pub(crate) digest: Digest,
    /// How many pieces it is put together from; zero if it is empty.
    pub(crate) pieces: u32,
    /// The entries that it is written for: all that are no second name of another.
    pub(crate) entries: Vec<usize>,
}

/// What is to be written where.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) contents: Contents,
    pub(crate) files: Vec<File>,
    /// Entries that are files without bytes.
    pub(crate) empty: Vec<usize>,
    /// For each chunk of the layout what it is used for.
    pub(crate) uses: Vec<Vec<Use>>,
}

impl Plan {
    /// Works out what is to be written.
    pub(crate) fn new(contents: Contents, dialect: Dialect) -> Result<Self, PlanError> {
        check_attributes(&contents)?;
        if dialect == Dialect::Plain {
            check_no_layer(&contents.tree)?;
        }
        let distinct = distinct_files(&contents.tree);
        if distinct.len() != contents.layout.files.len() {
            return Err(PlanError::Files {
                expected: distinct.len(),
                found: contents.layout.files.len(),
            });
        }
        let numbers: BTreeMap<Digest, usize> = distinct.iter().copied().zip(0..).collect();
        let new = |&digest: &Digest| File {
            digest,
            pieces: 0,
            entries: Vec::new(),
        };
        let mut files: Vec<File> = distinct.iter().map(new).collect();
        let mut empty = Vec::new();
        for (index, entry) in contents.tree.entries().iter().enumerate() {
            let EntryKind::File { digest, .. } = &entry.kind else {
                continue;
            };
            if hard_link(&contents, index).is_some() {
                continue;
            }
            match numbers.get(digest) {
                Some(&number) => files[number].entries.push(index),
                None => empty.push(index),
            }
        }
        let uses = uses(&contents, &mut files)?;
        Ok(Self {
            contents,
            files,
            empty,
            uses,
        })
    }

    pub(crate) fn entry(&self, index: usize) -> &Entry {
        &self.contents.tree.entries()[index]
    }

    pub(crate) fn attributes(&self, index: usize) -> Option<&EntryAttributes> {
        self.contents.attributes.get(index)
    }

    /// The entry that the one at `index` is a second name of.
    pub(crate) fn hard_link(&self, index: usize) -> Option<usize> {
        hard_link(&self.contents, index)
    }
}

fn hard_link(contents: &Contents, index: usize) -> Option<usize> {
    let first = contents.attributes.get(index)?.hard_link_to?;
    usize::try_from(first).ok()
}

/// Files the pieces of each file under the chunks that they are of.
fn uses(contents: &Contents, files: &mut [File]) -> Result<Vec<Vec<Use>>, PlanError> {
    let mut uses = vec![Vec::new(); contents.layout.chunks.len()];
    for (number, pieces) in contents.layout.files.iter().enumerate() {
        let file = &mut files[number];
        let mut in_file = 0;
        for piece in pieces {
            uses[piece.chunk as usize].push(Use {
                file: number,
                in_chunk: piece.offset as usize,
                length: piece.length as usize,
                in_file,
            });
            file.pieces = file.pieces.saturating_add(1);
            in_file += u64::from(piece.length);
        }
        if in_file != file.digest.size() {
            // Every distinct file has an entry: a second name of it equals the first.
            let index = file.entries[0];
            return Err(PlanError::Length {
                path: contents.tree.entries()[index].path.clone(),
                expected: file.digest.size(),
                found: in_file,
            });
        }
    }
    Ok(uses)
}

fn check_attributes(contents: &Contents) -> Result<(), PlanError> {
    let entries = contents.tree.entries();
    for (index, of) in contents.attributes.entries() {
        let index = *index as usize;
        let Some(entry) = entries.get(index) else {
            return Err(PlanError::NoEntry {
                index,
                entries: entries.len(),
            });
        };
        let Some(first) = of.hard_link_to else {
            continue;
        };
        let first = first as usize;
        let linkable = !matches!(
            entry.kind,
            EntryKind::Directory { .. } | EntryKind::Whiteout
        );
        let fits = first < index
            && entries[first].kind == entry.kind
            && hard_link(contents, first).is_none();
        if !linkable || !fits {
            return Err(PlanError::HardLink {
                path: entry.path.clone(),
            });
        }
    }
    Ok(())
}

fn check_no_layer(tree: &Tree) -> Result<(), PlanError> {
    let takes_away = |entry: &&Entry| {
        matches!(
            entry.kind,
            EntryKind::Whiteout | EntryKind::Directory { opaque: true }
        )
    };
    match tree.entries().iter().find(takes_away) {
        None => Ok(()),
        Some(entry) => Err(PlanError::Layer {
            path: entry.path.clone(),
        }),
    }
}

/// What of `start..end` lies outside of the holes, as ranges with their ends; in order.
///
/// Holes come from attributes, which nothing guarantees to lie inside their file.
pub(crate) fn outside_holes(holes: &[(u64, u64)], start: u64, end: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut at = start;
    // Holes ascend and do not overlap, so their ends ascend too.
    let first = holes.partition_point(|(offset, length)| offset.saturating_add(*length) <= start);
    for (offset, length) in &holes[first..] {
        if end <= *offset {
            break;
        }
        if at < *offset {
            ranges.push((at, *offset));
        }
        at = at.max(offset.saturating_add(*length));
    }
    if at < end {
        ranges.push((at, end));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use protocol::layout::Piece;

    use super::*;

    fn file(path: &str, bytes: &[u8]) -> Entry {
        Entry {
            path: TreePath::new(path).unwrap(),
            kind: EntryKind::File {
                digest: Digest::of(bytes),
                executable: false,
            },
        }
    }

    fn sample() -> Contents {
        let piece = |offset, length| Piece {
            chunk: 0,
            offset,
            length,
        };
        Contents {
            tree: Tree::new(vec![
                file("a", b"one"),
                file("b", b"three"),
                file("c", b"one"),
                file("d", b""),
            ])
            .unwrap(),
            attributes: Attributes::default(),
            layout: Layout {
                chunks: vec![Digest::of(b"onethree")],
                files: vec![vec![piece(0, 3)], vec![piece(3, 2), piece(5, 3)]],
            },
        }
    }

    fn linked(index: u32, to: u32) -> Contents {
        let of = EntryAttributes {
            hard_link_to: Some(to),
            ..Default::default()
        };
        Contents {
            attributes: Attributes::new(vec![(index, of)]),
            ..sample()
        }
    }

    #[test]
    fn pieces_are_filed_under_their_chunks() {
        let plan = Plan::new(sample(), Dialect::Plain).unwrap();
        let at: Vec<_> = plan.uses[0]
            .iter()
            .map(|of| (of.file, of.in_chunk, of.length, of.in_file))
            .collect();
        assert_eq!(at, [(0, 0, 3, 0), (1, 3, 2, 0), (1, 5, 3, 2)]);
        assert_eq!(plan.files[0].entries, [0, 2]);
        assert_eq!(plan.empty, [3]);
        let plan = Plan::new(linked(2, 0), Dialect::Plain).unwrap();
        assert_eq!(plan.files[0].entries, [0], "a second name is not written");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let check = |contents, expected: &str| {
            let refused = Plan::new(contents, Dialect::Plain).unwrap_err();
            assert_eq!(refused.to_string(), expected);
        };
        let mut short = sample();
        short.layout.files[1].pop();
        check(short, "pieces of `b` have 2 bytes, the file has 5");
        let mut few = sample();
        few.layout.files.pop();
        check(few, "layout has 1 files, its tree has 2");
        check(
            linked(1, 0),
            "`b` is said to be another name of what it does not equal",
        );
        check(linked(9, 0), "attributes are about entry 9, the tree has 4");
    }

    #[test]
    fn holes_are_cut_out_of_what_is_written() {
        let holes = [(10, 10), (30, 5), (40, u64::MAX)];
        assert_eq!(outside_holes(&holes, 0, 50), [(0, 10), (20, 30), (35, 40)]);
        assert_eq!(outside_holes(&holes, 12, 18), []);
        assert_eq!(outside_holes(&holes, 20, 30), [(20, 30)]);
        assert_eq!(outside_holes(&holes, 15, 32), [(20, 30)]);
        assert_eq!(outside_holes(&[], 5, 9), [(5, 9)]);
    }
}
