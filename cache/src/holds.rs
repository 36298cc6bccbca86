//! Holds: the promise that a chunk stays, for a while.
//!
//! A fixed table of moments, one slot for many chunks: a hold costs nothing per chunk, and a collision
//! only makes one longer. The table is in memory; after a start everything is held for one hold time.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use protocol::time::Time;

/// How many slots there are. 4 MiB; with a million chunks held at once, two in three that are not held
/// stay longer than they must, and nothing else happens.
const SLOTS: usize = 1 << 20;

/// When the holds of all chunks end.
#[derive(Debug)]
pub(crate) struct Holds {
    /// By slot: the last second, on the store's clock, in which a chunk of it is held.
    until: Box<[AtomicU32]>,
    time: Duration,
}

impl Holds {
    /// No holds yet; each will last `time`. Everything is held until `time` after the clock's start.
    pub(crate) fn new(time: Duration) -> Self {
        Self {
            until: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            time,
        }
    }

    /// Holds the chunk with this hash from `now` on for the hold time.
    pub(crate) fn hold(&self, hash: &[u8; 32], now: Time) {
        let until = seconds(now + self.time).saturating_add(1);
        self.slot(hash).fetch_max(until, Ordering::SeqCst);
    }

    /// Whether the chunk with this hash may not go at `now`.
    pub(crate) fn is_held(&self, hash: &[u8; 32], now: Time) -> bool {
        now < Time::ZERO + self.time || seconds(now) < self.slot(hash).load(Ordering::SeqCst)
    }

    fn slot(&self, hash: &[u8; 32]) -> &AtomicU32 {
        // BLAKE3 spreads evenly: any bytes of the hash will do.
        let [a, b, c, ..] = *hash;
        let index = u32::from_le_bytes([a, b, c, 0]) as usize % SLOTS;
        &self.until[index]
    }
}

fn seconds(time: Time) -> u32 {
    u32::try_from(time.since(Time::ZERO).as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn everything_is_held_for_one_hold_time_after_a_start() {
        let holds = Holds::new(MINUTE);
        assert!(holds.is_held(&[1; 32], at(59)));
        assert!(!holds.is_held(&[1; 32], at(60)));
    }

    #[test]
    fn a_hold_lasts_its_time_and_is_never_shortened() {
        let holds = Holds::new(MINUTE);
        holds.hold(&[1; 32], at(100));
        holds.hold(&[1; 32], at(90));
        assert!(holds.is_held(&[1; 32], at(160)));
        assert!(!holds.is_held(&[1; 32], at(162)));
        assert!(!holds.is_held(&[2; 32], at(100)));
    }
}
