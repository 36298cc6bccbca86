//! Where big files are cut, so that a change in one place moves few cuts. Pure.
//!
//! The algorithm is FastCDC 2020 with the parameters of the Remote Execution API's `SplitBlob`; like
//! there, what fits in one chunk is not cut.

use std::ops::Range;

use fastcdc::v2020::{FastCDC, Normalization};
use protocol::layout::CHUNK_BYTES_MAX;

/// The smallest chunk that a cut makes, in bytes. What is left at the end may be smaller.
pub const CHUNK_BYTES_MIN: usize = 128 * 1024;
/// What chunks have on average, in bytes.
pub const CHUNK_BYTES_AVERAGE: usize = 512 * 1024;
/// The largest chunk, in bytes, as a length in memory.
pub const WINDOW_BYTES: usize = 2 * 1024 * 1024;

const _: () = assert!(
    WINDOW_BYTES as u64 == CHUNK_BYTES_MAX,
    "one limit, two types"
);

/// How long the first chunk of `window` is, in bytes; zero exactly if the window is empty.
///
/// `window` has to hold [`WINDOW_BYTES`] or all that is left. Whether the whole is small enough not to be
/// cut is for the caller to say, who knows how long it is.
pub fn first_cut(window: &[u8]) -> usize {
    let mut cuts = FastCDC::with_level(
        window,
        CHUNK_BYTES_MIN,
        CHUNK_BYTES_AVERAGE,
        WINDOW_BYTES,
        Normalization::Level2,
    );
    cuts.next().map_or(0, |chunk| chunk.length)
}

/// The chunks of `bytes`, in order, without gaps: one if they fit in it, none if there are no bytes.
pub fn cut(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let window = &bytes[start..];
        let length = if bytes.len() <= WINDOW_BYTES {
            bytes.len()
        } else {
            first_cut(window)
        };
        chunks.push(start..start + length);
        start += length;
    }
    chunks
}

/// How finely trees, attributes and layouts are cut: smallest, average and largest chunk, in bytes. They
/// hold hashes and times, which hardly compress, and one changed file changes a few bytes of each: with
/// chunks of the usual size these would be most of what travels after a change.
const OUTLINE_BYTES: (usize, usize, usize) = (8 * 1024, 32 * 1024, 128 * 1024);

/// The chunks of the bytes of a tree, of attributes or of a layout, as [`cut`] gives those of files.
pub fn cut_outline(bytes: &[u8]) -> Vec<Range<usize>> {
    let (min, average, max) = OUTLINE_BYTES;
    let cuts = FastCDC::with_level(bytes, min, average, max, Normalization::Level2);
    let chunk = |chunk: fastcdc::v2020::Chunk| chunk.offset..chunk.offset + chunk.length;
    cuts.map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that do not repeat: `SplitMix64`.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn the_cut_points_never_change() {
        // Layouts of the same bytes share chunks only as long as these stay.
        let ends: Vec<_> = cut(&noise(1, 6_000_000))
            .iter()
            .map(|chunk| chunk.end)
            .collect();
        assert_eq!(ends, GOLDEN);
        let ends: Vec<_> = cut(&vec![0; 5_000_000])
            .iter()
            .map(|chunk| chunk.end)
            .collect();
        assert_eq!(ends, [2_097_152, 4_194_304, 5_000_000]);
    }
    const GOLDEN: [usize; 12] = [
        278_755, 849_084, 1_106_190, 1_818_230, 2_739_707, 3_303_375, 3_834_010, 3_991_912,
        4_556_756, 5_105_987, 5_728_357, 6_000_000,
    ];

    #[test]
    fn the_cut_points_of_outlines_never_change() {
        let bytes = noise(4, 300_000);
        let chunks = cut_outline(&bytes);
        let sizes: Vec<_> = chunks.iter().map(ExactSizeIterator::len).collect();
        assert_eq!(sizes, OUTLINE_GOLDEN);
        assert_eq!(sizes.iter().sum::<usize>(), bytes.len());
        assert!(cut_outline(&[]).is_empty());
        assert_eq!(cut_outline(&bytes[..100]), vec![0..100; 1]);
    }
    const OUTLINE_GOLDEN: [usize; 8] = [
        33_157, 33_870, 36_614, 51_762, 47_972, 51_225, 36_519, 8_881,
    ];

    #[test]
    fn what_fits_in_one_chunk_is_not_cut() {
        assert!(cut(&[]).is_empty());
        let bytes = noise(2, WINDOW_BYTES);
        assert_eq!(cut(&bytes[..1]), vec![0..1; 1]);
        assert_eq!(cut(&bytes), vec![0..WINDOW_BYTES; 1]);
        assert!(cut(&noise(2, WINDOW_BYTES + 1)).len() > 1);
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let before = noise(3, 12_000_000);
        let mut after = before.clone();
        after.splice(5_000_000..5_000_000, *b"seven b");
        let chunks = |bytes: &[u8]| -> std::collections::BTreeSet<Vec<u8>> {
            cut(bytes)
                .into_iter()
                .map(|at| bytes[at].to_vec())
                .collect()
        };
        let (before, after) = (chunks(&before), chunks(&after));
        let new = after.difference(&before).count();
        assert!(new <= 3, "{new} of {} chunks are new", after.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn chunks_have_no_gaps_and_keep_their_sizes(seed: u64, length in 0_usize..8_000_000) {
            let chunks = cut(&noise(seed, length));
            let mut end = 0;
            for (index, chunk) in chunks.iter().enumerate() {
                prop_assert_eq!(chunk.start, end);
                prop_assert!(!chunk.is_empty() && chunk.len() <= WINDOW_BYTES);
                prop_assert!(index + 1 == chunks.len() || CHUNK_BYTES_MIN <= chunk.len());
                end = chunk.end;
            }
            prop_assert_eq!(end, length);
        }
    }
}
