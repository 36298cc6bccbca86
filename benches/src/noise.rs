//! Bytes that cannot be compressed, the same on every run.

/// `SplitMix64`.
#[derive(Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    /// Noise from a seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next `length` bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_follows_from_its_seed_and_has_the_length_that_is_asked_for() {
        assert_eq!(Noise::new(1).bytes(1001), Noise::new(1).bytes(1001));
        assert_ne!(Noise::new(1).bytes(1001), Noise::new(2).bytes(1001));
        assert_eq!(Noise::new(1).bytes(1001).len(), 1001);
    }
}
