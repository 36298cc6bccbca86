//! How chunks are shared out among several connections. One connection is one task that seals or opens
//! datagrams, on one core; several fill a fast network. Pure, but for how many there should be.

use std::{num::NonZero, thread::available_parallelism};

use protocol::digest::Digest;

/// How many connections there are at most: one moved 1.2 GB/s on two cores, server included, so four are more than
/// the network of most machines.
const CONNECTIONS_MAX: usize = 4;
/// How many bytes go over one connection before the next has its turn: enough that the server reads some
/// chunks together.
const RUN_BYTES: u64 = 4 << 20;

/// How many connections to a cache make sense on this machine: the half of its cores, because the other half
/// compresses, hashes and writes.
pub(super) fn connections() -> usize {
    let cores = available_parallelism().map_or(1, NonZero::get);
    (cores / 2).clamp(1, CONNECTIONS_MAX)
}

/// The indices of `chunks` for each of so many connections, ascending: runs of [`RUN_BYTES`], in turn. Fewer
/// shares, but always one, where there is not that much.
pub(super) fn shares(chunks: &[Digest], connections: usize) -> Vec<Vec<usize>> {
    let mut shares = vec![Vec::new()];
    let (mut at, mut bytes) = (0, 0_u64);
    for (index, chunk) in chunks.iter().enumerate() {
        if RUN_BYTES <= bytes {
            (at, bytes) = ((at + 1) % connections, 0);
            if shares.len() <= at {
                shares.push(Vec::new());
            }
        }
        shares[at].push(index);
        bytes = bytes.saturating_add(chunk.size());
    }
    shares
}

pub(super) fn chosen(chunks: &[Digest], indices: &[usize]) -> Vec<Digest> {
    indices.iter().map(|&index| chunks[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(sizes: &[u64]) -> Vec<Digest> {
        let digest = |&size| Digest::from_parts([7; 32], size);
        sizes.iter().map(digest).collect()
    }

    #[test]
    fn little_goes_over_one_connection() {
        let chunks = sized(&[1 << 20, 1 << 20, 1 << 20]);
        assert_eq!(shares(&chunks, 4), [vec![0, 1, 2]]);
        assert_eq!(shares(&[], 4), [Vec::<usize>::new()]);
    }

    #[test]
    fn much_goes_over_all_in_turn_and_each_chunk_over_one() {
        let chunks = sized(&[2 << 20; 9]);
        let expected = [vec![0, 1, 6, 7], vec![2, 3, 8], vec![4, 5]];
        assert_eq!(shares(&chunks, 3), expected);
        assert_eq!(shares(&chunks, 1), [(0..9).collect::<Vec<_>>()]);
        assert_eq!(shares(&sized(&[u64::MAX; 3]), 2), [vec![0, 2], vec![1]]);
    }
}
