//! Hashing many short runs of bytes at once.
//!
//! BLAKE3 cuts what it hashes into leaves of 1,024 bytes, and a processor with wide registers hashes up to sixteen
//! leaves in little more time than one (The BLAKE3 authors, *BLAKE3: one function, fast everywhere*, 5.3). A run of
//! 4 KiB has only four: here, leaves of several runs go together. What comes out is what hashing each by itself
//! gives.

use blake3::{
    CHUNK_LEN as LEAF_BYTES, Hasher, IncrementCounter, OUT_LEN,
    hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root},
    platform::Platform,
};

use super::Digest;

/// What every tree starts from: the words of SHA-256 (BLAKE3, 2.2).
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
/// The flags of a leaf's first and last block (BLAKE3, 2.1).
const LEAF_STARTS: u8 = 1 << 0;
const LEAF_ENDS: u8 = 1 << 1;

/// From so many leaves on a run fills the widest registers by itself.
const LEAVES_ALONE: usize = 16;

/// What each of `runs` hashes to, in their order.
pub(super) fn digests_of(runs: &[&[u8]]) -> Vec<Digest> {
    let mut trees: Vec<Vec<ChainingValue>> = runs.iter().map(|run| leaves(run)).collect();
    let most = trees.iter().map(Vec::len).max().unwrap_or(0);
    for number in 0..most {
        hash_leaves(runs, &mut trees, number);
    }
    let hashed = runs.iter().zip(&trees).map(|(run, tree)| Digest {
        hash: match &tree[..] {
            [] => *blake3::hash(run).as_bytes(),
            tree => {
                let (left, right) = halves(tree);
                *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
            }
        },
        size: run.len() as u64,
    });
    hashed.collect()
}

/// Places for the leaves of a run, of which only a last one that is not whole is hashed; none if the run is to be
/// hashed by itself.
fn leaves(run: &[u8]) -> Vec<ChainingValue> {
    let count = run.len().div_ceil(LEAF_BYTES);
    if !(2..LEAVES_ALONE).contains(&count) {
        return Vec::new();
    }
    let mut leaves = vec![[0; OUT_LEN]; count];
    let (whole, rest) = run.as_chunks::<LEAF_BYTES>();
    if let [.., last] = &mut leaves[..]
        && !rest.is_empty()
    {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(size_of_val(whole) as u64);
        *last = hasher.update(rest).finalize_non_root();
    }
    leaves
}

/// Hashes the `number`th leaf of all runs that have one that is whole.
fn hash_leaves(runs: &[&[u8]], trees: &mut [Vec<ChainingValue>], number: usize) {
    let start = number * LEAF_BYTES;
    let (mut places, mut inputs) = (Vec::new(), Vec::new());
    for (run, tree) in runs.iter().zip(trees) {
        let leaf = run.get(start..).and_then(<[u8]>::first_chunk);
        let (Some(leaf), Some(place)) = (leaf, tree.get_mut(number)) else {
            continue;
        };
        inputs.push(leaf);
        places.push(place);
    }
    let mut hashed = vec![0; inputs.len() * OUT_LEN];
    Platform::detect().hash_many::<LEAF_BYTES>(
        &inputs,
        &START,
        number as u64,
        IncrementCounter::No,
        0,
        LEAF_STARTS,
        LEAF_ENDS,
        &mut hashed,
    );
    let (hashed, _) = hashed.as_chunks();
    for (place, leaf) in places.into_iter().zip(hashed) {
        *place = *leaf;
    }
}

/// What the two halves of a tree of at least two leaves hash to: the left one has as many as the largest power of two
/// that leaves some for the right one (BLAKE3, 2.1).
fn halves(tree: &[ChainingValue]) -> (ChainingValue, ChainingValue) {
    let (left, right) = tree.split_at(tree.len().next_power_of_two() / 2);
    (subtree(left), subtree(right))
}

fn subtree(tree: &[ChainingValue]) -> ChainingValue {
    match tree {
        [leaf] => *leaf,
        tree => {
            let (left, right) = halves(tree);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_runs_hash_to_what_each_hashes_to_by_itself() {
        let bytes: Vec<u8> = (0..70_000_u32).flat_map(u32::to_le_bytes).collect();
        let around =
            (0..40).flat_map(|leaves| [0, 1, 63, 64, 65, 1_023].map(|more| leaves * 1024 + more));
        let lengths: Vec<usize> = around.collect();
        for together in [1, 2, 3, 15, 16, 17, 240] {
            for lengths in lengths.chunks(together) {
                let runs = lengths.iter().map(|&length| &bytes[length..2 * length]);
                let runs: Vec<&[u8]> = runs.collect();
                let alone: Vec<Digest> = runs.iter().map(|run| Digest::of(run)).collect();
                assert_eq!(digests_of(&runs), alone, "{lengths:?}");
            }
        }
    }
}
