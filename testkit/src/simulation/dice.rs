//! Chance, from a seed.
//!
//! A number depends on the seed and on what it is for, never on which numbers were drawn before. So a
//! script from which some lines are left out plays the rest as it did before.

/// All chance of one seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// The number for `what` and `keys`.
    pub(super) fn number(self, what: &str, keys: &[u64]) -> u64 {
        let mut number = mixed(self.0);
        for byte in what.bytes() {
            number = (number ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        for key in keys {
            number = mixed(number ^ *key);
        }
        mixed(number)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(self, what: &str, keys: &[u64], end: u64) -> u64 {
        self.number(what, keys) % end
    }

    /// Whether something happens that happens so many times in a hundred.
    pub(super) fn percent(self, what: &str, keys: &[u64], times: u64) -> bool {
        self.below(what, keys, 100) < times
    }

    /// One of `from`, which is not empty.
    pub(super) fn pick<T: Copy>(self, what: &str, keys: &[u64], from: &[T]) -> T {
        let at = self.below(what, keys, from.len() as u64);
        from[usize::try_from(at).unwrap()]
    }
}

/// Splitmix64: every bit of the result depends on every bit of the number.
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
