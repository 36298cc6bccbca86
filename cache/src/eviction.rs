//! Which entries go when the disk fills up. Pure: uses in, victims out.
//!
//! Two queues. An entry that comes is on probation; what nobody reads there goes first, however much of
//! it comes, so that a scan passes through without pushing out what is in use (the idea of S3-FIFO).
//! What was read, or comes back soon after it went, is past its probation. Within a queue the order is
//! that of greedy dual: by the time that a byte saves, times how often it was read, counted from the
//! queue's age, which grows with each victim.

mod ghosts;
mod peers;
mod queues;
mod replay;
mod standing;
#[cfg(test)]
mod tests;
mod traces;

use protocol::time::WallTime;

pub use self::{
    ghosts::Ghosts,
    peers::{GreedyDual, Lru, S3Fifo},
    queues::Queues,
    replay::{Access, Measure, Tally, bound, clairvoyant, replay},
    standing::{Ages, Standing, Worth},
    traces::{Random, Shape, Zipf, trace},
};

/// A way to choose what goes.
pub trait Policy<K> {
    /// An entry has come, or replaces the one that stands there.
    fn put(&mut self, key: &K, worth: Worth);
    /// An entry was read.
    fn read(&mut self, key: &K);
    /// Takes out the entry that goes next; `None`: there are no more.
    fn evict(&mut self) -> Option<K>;
}

/// A dependency cache that may go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Where it stands.
    pub key: Vec<u8>,
    /// When it was last read or written.
    pub used: WallTime,
}

/// The keys of all candidates in the order in which they should go: least recently used first. How many
/// have to go shows only while they do: what one of them gives back depends on which others share its
/// chunks.
pub fn order(mut candidates: Vec<Candidate>) -> Vec<Vec<u8>> {
    // The key breaks ties, so that equal states give equal choices.
    candidates.sort_by(|a, b| (a.used, &a.key).cmp(&(b.used, &b.key)));
    let keys = candidates.into_iter().map(|candidate| candidate.key);
    keys.collect()
}

/// How many bytes the files of the store may take on their disk.
///
/// `used` is what they take, `free` what the disk has left, of which `kept_free` has other uses. An
/// eighth of what is there for the store stays free besides, so that room is made before writes are
/// refused, and there is some to rewrite files in.
pub fn limit(used: u64, free: u64, kept_free: u64) -> u64 {
    /// The part that stays free, as a divisor.
    const SLACK_DIVISOR: u64 = 8;
    let there_is = used.saturating_add(free).saturating_sub(kept_free);
    there_is - there_is / SLACK_DIVISOR
}
