//! Holds: the promise that a chunk stays, for a while.
//!
//! A fixed table of moments, one slot for many chunks: a hold costs nothing per chunk, and a collision
//! only makes one longer. The table is in memory; a store that ends in order leaves it for the next start,
//! and after any other start everything is held for one hold time.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use protocol::{
    digest::Digest,
    time::{Time, WallTime},
};

/// How many slots there are. 4 MiB; with a million chunks held at once, two in three that are not held
/// stay longer than they must, and nothing else happens.
const SLOTS: usize = 1 << 20;

/// When the holds of all chunks end.
#[derive(Debug)]
pub(crate) struct Holds {
    /// By slot: the last second, on the store's clock, in which a chunk of it is held.
    until: Box<[AtomicU32]>,
    time: Duration,
    /// Until when everything is held.
    all_until: Time,
}

/// What a table starts with that was left for the next start: what it is, and its version.
const TAG: &[u8; 8] = b"ghld\x02\0\0\0";

impl Holds {
    /// No holds yet; each will last `time`. Everything is held until `time` after the clock's start.
    pub(crate) fn new(time: Duration) -> Self {
        Self {
            until: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            time,
            all_until: Time::ZERO + time,
        }
    }

    /// The table for the next start: what is left of each hold at `now`, which is `wall` by the time of day.
    pub(crate) fn leave(&self, now: Time, wall: WallTime) -> Vec<u8> {
        let all_left = match now < self.all_until {
            // What of a second is left counts as a whole one.
            true => seconds(self.all_until).saturating_sub(seconds(now)) + 1,
            false => 0,
        };
        let now = seconds(now);
        let mut bytes = TAG.to_vec();
        bytes.extend_from_slice(&wall.0.to_le_bytes());
        bytes.extend_from_slice(&all_left.to_le_bytes());
        for (slot, until) in (0_u32..).zip(&self.until) {
            let left = until.load(Ordering::SeqCst).saturating_sub(now);
            if left != 0 {
                bytes.extend_from_slice(&slot.to_le_bytes());
                bytes.extend_from_slice(&left.to_le_bytes());
            }
        }
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(digest.hash());
        bytes
    }

    /// What was left, at the start of the clock, which is `wall` by the time of day; each new hold will last
    /// `time`. `None`: it is damaged, or the time of day has gone backwards, so nobody knows what is held.
    pub(crate) fn resume(bytes: &[u8], wall: WallTime, time: Duration) -> Option<Self> {
        let (table, hash) = bytes.split_last_chunk::<32>()?;
        let (tag, rest) = table.split_first_chunk()?;
        let (left_at, rest) = rest.split_first_chunk()?;
        let (all_left, slots) = rest.split_first_chunk()?;
        if tag != TAG || Digest::of(table).hash() != hash {
            return None;
        }
        let passed = wall.0.checked_sub(u64::from_le_bytes(*left_at))? / 1000;
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        let all_left = u32::from_le_bytes(*all_left).saturating_sub(passed);
        let holds = Self {
            all_until: Time::ZERO + Duration::from_secs(u64::from(all_left)),
            ..Self::new(time)
        };
        let (slots, _) = slots.as_chunks::<8>();
        for [a, b, c, d, left @ ..] in slots.iter().copied() {
            let slot = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
            let left = u32::from_le_bytes(left).saturating_sub(passed);
            holds.until.get(slot)?.store(left, Ordering::SeqCst);
        }
        Some(holds)
    }

    /// Holds the chunk with this hash from `now` on for the hold time.
    pub(crate) fn hold(&self, hash: &[u8; 32], now: Time) {
        let until = seconds(now + self.time).saturating_add(1);
        self.slot(hash).fetch_max(until, Ordering::SeqCst);
    }

    /// Whether the chunk with this hash may not go at `now`.
    pub(crate) fn is_held(&self, hash: &[u8; 32], now: Time) -> bool {
        now < self.all_until || seconds(now) < self.slot(hash).load(Ordering::SeqCst)
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
    fn holds_go_on_after_a_start_if_they_were_left_whole() {
        let holds = Holds::new(MINUTE);
        holds.hold(&[1; 32], at(100));
        let left = holds.leave(at(110), WallTime(50_000));
        let after = Holds::resume(&left, WallTime(60_000), MINUTE).unwrap();
        assert!(after.is_held(&[1; 32], at(39)) && !after.is_held(&[1; 32], at(42)));
        assert!(!after.is_held(&[2; 32], at(0)));
        after.hold(&[2; 32], at(10));
        assert!(after.is_held(&[2; 32], at(69)));

        assert!(Holds::resume(&left, WallTime(49_999), MINUTE).is_none());
        assert!(Holds::resume(&left[1..], WallTime(60_000), MINUTE).is_none());
        let mut damaged = left;
        damaged[20] ^= 1;
        assert!(Holds::resume(&damaged, WallTime(60_000), MINUTE).is_none());
    }

    #[test]
    fn what_a_start_holds_because_nobody_knows_better_is_held_after_the_next_one_too() {
        let holds = Holds::new(MINUTE);
        let left = holds.leave(at(20), WallTime(50_000));
        let after = Holds::resume(&left, WallTime(60_000), MINUTE).unwrap();
        assert!(after.is_held(&[1; 32], at(29)) && !after.is_held(&[1; 32], at(32)));
        let left = holds.leave(at(60), WallTime(50_000));
        let after = Holds::resume(&left, WallTime(50_000), MINUTE).unwrap();
        assert!(!after.is_held(&[1; 32], at(0)));
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
