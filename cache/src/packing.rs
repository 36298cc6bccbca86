//! Which files share a chunk. Pure.
//!
//! Small files that follow each other in tree order are put together, so that a package tree of tens of
//! thousands of files becomes some hundreds of chunks: one compression frame works across files, one read
//! brings many. Where a pack ends is decided by the digests of its own files, so that a changed, added or
//! removed file changes the pack it is in and seldom a neighbour.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    digest::Digest,
    layout::{CHUNK_BYTES_MAX, Layout, Piece},
    tree::{EntryKind, Tree},
};

/// Files below this many bytes are packed: as many as the smallest chunk that cutting makes, so that
/// no chunk but the last of something is smaller.
pub const PACKED_BELOW: u64 = 128 * 1024;
/// A pack does not end before it has so many bytes, unless the files do.
pub const PACK_BYTES_MIN: u64 = 128 * 1024;
/// What packs have about, in bytes: what chunks of big files have.
pub const PACK_BYTES_TARGET: u64 = 512 * 1024;

/// What is read, and stored, in one go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unit {
    /// These files, one after the other, are one chunk. Indices into the files, ascending.
    Pack(Vec<usize>),
    /// This file has chunks of its own. Its index.
    Alone(usize),
}

/// The distinct files of a tree that are not empty, in the order in which the tree first names them.
///
/// This is what [`Layout::files`](protocol::layout::Layout::files) is parallel to.
pub fn distinct_files(tree: &Tree) -> Vec<Digest> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for entry in tree.entries() {
        if let EntryKind::File { digest, .. } = entry.kind
            && digest.size() > 0
            && seen.insert(digest)
        {
            files.push(digest);
        }
    }
    files
}

impl Unit {
    /// Its files, ascending.
    pub fn members(&self) -> &[usize] {
        match self {
            Self::Pack(files) => files,
            Self::Alone(file) => std::slice::from_ref(file),
        }
    }
}

/// Puts files together that come in tree order, each of 1 to [`PACKED_BELOW`] bytes, that one excluded.
#[derive(Debug)]
pub(crate) struct Packer<T> {
    open: Vec<T>,
    /// How many bytes those in `open` have.
    bytes: u64,
}

impl<T> Packer<T> {
    pub(crate) const fn new() -> Self {
        Self {
            open: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes the next file, whose digest is `digest`; gives the pack that ends with it, or before it.
    pub(crate) fn add(&mut self, digest: &Digest, file: T) -> Option<Vec<T>> {
        let is_full = CHUNK_BYTES_MAX < self.bytes + digest.size();
        let full = is_full.then(|| self.close());
        self.open.push(file);
        self.bytes += digest.size();
        // A pack that has only begun does not end: one file is too little.
        full.or_else(|| ends_pack(digest, self.bytes).then(|| self.close()))
    }

    /// Gives what no other file ends; nothing, if there is none.
    pub(crate) fn close(&mut self) -> Vec<T> {
        self.bytes = 0;
        std::mem::take(&mut self.open)
    }
}

/// Says which of `files` share a chunk; the units are in the order of their first files.
pub fn pack(files: &[Digest]) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut packer = Packer::new();
    for (index, file) in files.iter().enumerate() {
        if PACKED_BELOW <= file.size() {
            // Files with chunks of their own do not end a pack: it would be cut short by one that
            // appears, and the files around it would be sent again.
            units.push(Unit::Alone(index));
        } else {
            units.extend(packer.add(file, index).map(Unit::Pack));
        }
    }
    let rest = packer.close();
    if !rest.is_empty() {
        units.push(Unit::Pack(rest));
    }
    units.sort_by_key(|unit| unit.members()[0]);
    units
}

/// Where the bytes of `files` lie, if `chunks` has the chunks of each of the `units` they were put into.
///
/// # Panics
///
/// If a chunk is longer than a chunk may be.
pub fn layout(files: &[Digest], units: &[Unit], chunks: &[Vec<Digest>]) -> Layout {
    let mut runs: Vec<Vec<(Digest, u64, u64)>> = vec![Vec::new(); files.len()];
    for (unit, chunks) in units.iter().zip(chunks) {
        match unit {
            Unit::Alone(file) => {
                runs[*file] = chunks
                    .iter()
                    .map(|&chunk| (chunk, 0, chunk.size()))
                    .collect();
            }
            Unit::Pack(pack) => {
                let mut offset = 0;
                for &file in pack {
                    let length = files[file].size();
                    runs[file] = chunks
                        .iter()
                        .map(|&chunk| (chunk, offset, length))
                        .collect();
                    offset += length;
                }
            }
        }
    }
    let small = |value: u64| u32::try_from(value).expect("a chunk is at most 2 MiB");
    let mut layout = Layout::default();
    let mut numbers = BTreeMap::new();
    for runs in runs {
        let piece = |(chunk, offset, length)| {
            let next = layout.chunks.len() as u64;
            let number = *numbers.entry(chunk).or_insert_with(|| {
                layout.chunks.push(chunk);
                small(next)
            });
            Piece {
                chunk: number,
                offset: small(offset),
                length: small(length),
            }
        };
        let pieces = runs.into_iter().map(piece).collect();
        layout.files.push(pieces);
    }
    layout
}

/// Whether a pack ends after `file`, with which it has `bytes`.
///
/// The chance grows with the file's length, so that the mean is of bytes and not of files; and it is 16
/// times as large past the target as before it, so that most packs end soon after.
fn ends_pack(file: &Digest, bytes: u64) -> bool {
    if bytes < PACK_BYTES_MIN {
        return false;
    }
    let span = if bytes < PACK_BYTES_TARGET {
        PACK_BYTES_TARGET * 4
    } else {
        PACK_BYTES_TARGET / 4
    };
    let hash = file.hash().first_chunk().expect("a hash has 32 bytes");
    let fraction = u128::from(u64::from_le_bytes(*hash));
    fraction * u128::from(span) < u128::from(file.size()) << 64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{path::TreePath, tree::Entry};

    use super::*;

    /// The digest of a made-up file: sizes are like those of a package tree, a few kilobytes.
    fn file(seed: u64) -> Digest {
        let hash = *Digest::of(&seed.to_le_bytes()).hash();
        let size = 1 + u64::from(u16::from_le_bytes([hash[30], hash[31]])) / 6;
        Digest::from_parts(hash, size)
    }

    fn packs(files: &[Digest]) -> BTreeSet<Vec<Digest>> {
        let digests = |unit: Unit| match unit {
            Unit::Pack(pack) => pack.into_iter().map(|index| files[index]).collect(),
            Unit::Alone(index) => vec![files[index]],
        };
        pack(files).into_iter().map(digests).collect()
    }

    #[test]
    fn the_packs_of_the_same_files_never_change() {
        let files: Vec<_> = (0..600).map(file).collect();
        let lengths: Vec<_> = pack(&files)
            .iter()
            .map(|unit| match unit {
                Unit::Pack(pack) => pack.len(),
                Unit::Alone(_) => 0,
            })
            .collect();
        assert_eq!(lengths, GOLDEN);
    }
    const GOLDEN: [usize; 6] = [107, 99, 96, 128, 111, 59];

    #[test]
    fn a_package_tree_becomes_hundreds_of_chunks() {
        let files: Vec<_> = (0..30_000).map(file).collect();
        let bytes: u64 = files.iter().map(Digest::size).sum();
        let count = pack(&files).len() as u64;
        let mean = bytes / count;
        assert!(
            (400_000..800_000).contains(&mean),
            "{count} packs of {mean}"
        );
    }

    #[test]
    fn big_files_stand_alone_and_do_not_end_a_pack() {
        let big = Digest::from_parts([7; 32], PACKED_BELOW);
        let files = [file(1), big, file(2)];
        assert_eq!(
            pack(&files),
            [Unit::Pack(vec![0, 2]), Unit::Alone(1)],
            "by first file"
        );
    }

    #[test]
    fn equal_and_empty_files_are_named_once_and_never() {
        let entry = |path: &str, bytes: &[u8]| Entry {
            path: TreePath::new(path).unwrap(),
            kind: EntryKind::File {
                digest: Digest::of(bytes),
                executable: false,
            },
        };
        let entries = vec![
            entry("b", b"two"),
            entry("a", b"one"),
            entry("c", b"one"),
            entry("d", b""),
        ];
        let tree = Tree::new(entries).unwrap();
        let expected = [Digest::of(b"one"), Digest::of(b"two")];
        assert_eq!(distinct_files(&tree), expected);
    }

    #[test]
    fn one_changed_file_changes_about_one_pack() {
        let files: Vec<_> = (0..5_000).map(file).collect();
        let before = packs(&files);
        let mut new = Vec::new();
        for at in (0..files.len()).step_by(97) {
            let mut changed = files.clone();
            changed[at] = file(1_000_000 + at as u64);
            new.push(packs(&changed).difference(&before).count());
        }
        let sum: usize = new.iter().sum();
        assert!(
            sum * 10 < new.len() * 17,
            "on average {sum} / {} are new",
            new.len()
        );
        assert!(new.iter().all(|&new| new <= 8), "{new:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn inserting_or_removing_a_file_changes_few_packs(seed: u32, at in 0_usize..3_000) {
            let files: Vec<_> = (0..3_000).map(|n| file((u64::from(seed) << 20) | n)).collect();
            let before = packs(&files);
            let mut longer = files.clone();
            longer.insert(at, file(u64::MAX));
            let mut shorter = files;
            shorter.remove(at);
            // Where packs meet again is chance: each further one is about half as likely.
            prop_assert!(packs(&longer).difference(&before).count() <= 24);
            prop_assert!(packs(&shorter).difference(&before).count() <= 24);
        }

        #[test]
        fn every_file_is_in_one_unit_and_packs_fit_in_a_chunk(
            sizes in prop::collection::vec(1_u64..200_000, 0..400),
        ) {
            let digest = |(n, &size): (usize, &u64)| {
                Digest::from_parts(*Digest::of(&n.to_le_bytes()).hash(), size)
            };
            let files: Vec<_> = sizes.iter().enumerate().map(digest).collect();
            let mut named = Vec::new();
            for unit in pack(&files) {
                match unit {
                    Unit::Alone(index) => {
                        prop_assert!(PACKED_BELOW <= files[index].size());
                        named.push(index);
                    }
                    Unit::Pack(pack) => {
                        let bytes: u64 = pack.iter().map(|&index| files[index].size()).sum();
                        prop_assert!(bytes <= CHUNK_BYTES_MAX);
                        prop_assert!(pack.is_sorted());
                        named.extend(pack);
                    }
                }
            }
            named.sort_unstable();
            prop_assert_eq!(named, (0..files.len()).collect::<Vec<_>>());
        }
    }
}
