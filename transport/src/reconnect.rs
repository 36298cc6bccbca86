//! How long to wait before trying a lost server again. Pure: the caller counts, and waits.

use std::time::Duration;

/// The first wait. A coordinator that is only restarted is back by the second or third try.
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
/// The longest wait. Less than a lease lasts, so that a coordinator that comes back finds its workers
/// before it gives their work to others.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// How long to wait after `failures` tries in a row that failed; nothing after none.
///
/// The wait doubles with each failure up to [`BACK_OFF_MAX`], and is between half of that and the whole,
/// depending on `seed`, so that a hundred workers do not come back at the same moment. `seed` is any
/// number that differs between members of the farm.
pub fn back_off(failures: u32, seed: u64) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let whole = BACK_OFF_FIRST.saturating_mul(factor).min(BACK_OFF_MAX);
    let half = whole / 2;
    let share = u32::from(mix(seed ^ u64::from(failures)).to_le_bytes()[0]);
    half + half * share / u32::from(u8::MAX)
}

/// The last step of `SplitMix64`: neighbouring numbers come out unlike each other.
const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_limit() {
        assert_eq!(back_off(0, 1), Duration::ZERO);
        for seed in 0..100 {
            for (failures, whole) in [(1, 250), (2, 500), (3, 1_000), (7, 10_000), (9, 10_000)] {
                let wait = back_off(failures, seed);
                let whole = Duration::from_millis(whole);
                assert!(whole / 2 <= wait && wait <= whole, "{failures}: {wait:?}");
            }
            assert!(back_off(u32::MAX, seed) <= BACK_OFF_MAX);
        }
    }

    #[test]
    fn workers_do_not_come_back_together() {
        let mut waits: Vec<_> = (0..100).map(|seed| back_off(6, seed)).collect();
        waits.sort();
        waits.dedup();
        assert!(50 < waits.len(), "{} different waits of 100", waits.len());
    }
}
