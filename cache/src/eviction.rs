//! Which entries go when the disk fills up. Pure: uses in, victims out.
//!
//! Two queues. An entry that comes is on probation; what nobody reads there goes first, however much of
//! it comes, so that a scan passes through without pushing out what is in use (the idea of S3-FIFO).
//! What was read, or comes back soon after it went, is past its probation. Within a queue the order is
//! that of greedy dual: by the time that a byte saves, times how often it was read, counted from the
//! queue's age, which grows with each victim.

mod clairvoyant;
mod ghosts;
mod peers;
mod queues;
mod replay;
mod standing;
#[cfg(test)]
mod tests;
mod traces;

pub(crate) use self::replay::bound_of;
pub use self::{
    clairvoyant::Clairvoyant,
    ghosts::Ghosts,
    peers::{GreedyDual, Lru, S3Fifo},
    queues::Queues,
    replay::{Access, Measure, Tally, bound, clairvoyant, replay},
    standing::{Ages, Standing, Worth},
    traces::{Random, Shape, Zipf, trace},
};

/// A way to choose what goes.
pub trait Policy<K> {
    /// The use with this number, from zero on, begins: for those who know the future.
    fn begin(&mut self, _number: usize) {}
    /// An entry has come, or replaces the one that stands there.
    fn put(&mut self, key: &K, worth: Worth);
    /// An entry was read.
    fn read(&mut self, key: &K);
    /// Takes out the entry that goes next; `None`: there are no more.
    fn evict(&mut self) -> Option<K>;
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

/// What a store aims at when it makes room, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Targets {
    /// What all chunks may take together that are there, with the rows about them: when it is more,
    /// entries go until it is `evicted`.
    pub live: u64,
    /// See `live`.
    pub evicted: u64,
    /// What the files may take when room has been made: what is between this and `live` is garbage, and
    /// the log. With a quarter of garbage, what is rewritten to get a byte back stays about two bytes.
    pub files: u64,
}

/// How much of `limit` is kept for what files grow by on their own.
pub fn reserve(limit: u64, wanted: u64) -> u64 {
    /// The part that this takes at most, as a divisor: in very small budgets there is no room for more.
    const RESERVE_DIVISOR: u64 = 4;
    wanted.min(limit / RESERVE_DIVISOR)
}

/// What part of the limit stays free for what comes next, as a divisor.
pub(crate) const SLACK_DIVISOR: u64 = 16;

impl Targets {
    /// For files that may take `limit` bytes, of which `reserve` is kept for what they grow by on their
    /// own. Each of the first `tries` to make room that did not do aims at a sixteenth less alive, so that
    /// more of the rest is garbage, and less has to be written anew to get it back.
    pub fn of(limit: u64, reserve: u64, tries: u32) -> Self {
        let slack = limit / SLACK_DIVISOR;
        let files = limit.saturating_sub(reserve).saturating_sub(slack);
        let mut live = files / 4 * 3;
        for _ in 0..tries {
            live -= live / SLACK_DIVISOR;
        }
        Self {
            live,
            evicted: live - live / (2 * SLACK_DIVISOR),
            files,
        }
    }
}
