//! Content addresses: what bytes hash to, and how many there are.

mod many;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The address of a run of bytes: BLAKE3-256 of the whole uncompressed bytes, with their length.
///
/// Written `<64 lower-case hex digits>/<length in bytes>`. The length makes a transfer's cost known
/// before a byte of it moves, and a truncated read evident before it is hashed.
///
/// Where people read (JSON) it is serialised as that text, in messages as bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest {
    hash: [u8; 32],
    size: u64,
}

impl Digest {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            hash: *blake3::hash(bytes).as_bytes(),
            size: bytes.len() as u64,
        }
    }

    /// Hashes each of `runs`, in their order: faster than one after another if they are short. Takes memory besides,
    /// less than a tenth of what runs of 2 KiB and more have.
    pub fn of_each(runs: &[&[u8]]) -> Vec<Self> {
        many::digests_of(runs)
    }

    /// A digest from its parts, as read from an encoding; nothing is verified.
    pub const fn from_parts(hash: [u8; 32], size: u64) -> Self {
        Self { hash, size }
    }

    /// The BLAKE3-256 hash.
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The length of the bytes, uncompressed.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Whether `bytes` are what this digest names.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.size == bytes.len() as u64 && *blake3::hash(bytes).as_bytes() == self.hash
    }

    /// The first eight hex digits, for logs and people. Not unique.
    pub fn short(&self) -> String {
        hex(&self.hash[..4])
    }
}

/// A digest in messages.
#[derive(Deserialize, Serialize)]
struct Wire {
    hash: [u8; 32],
    size: u64,
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let Self { hash, size } = *self;
        Wire { hash, size }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            return text.parse().map_err(de::Error::custom);
        }
        let Wire { hash, size } = Wire::deserialize(deserializer)?;
        Ok(Self { hash, size })
    }
}

/// Hashes what comes in pieces.
#[derive(Debug, Default)]
pub struct Hasher {
    inner: blake3::Hasher,
    size: u64,
}

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The digest of all pieces so far, in order.
    pub fn finish(&self) -> Digest {
        Digest {
            hash: *self.inner.finalize().as_bytes(),
            size: self.size,
        }
    }
}

/// Lower-case hex of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.short(), self.size)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", hex(&self.hash), self.size)
    }
}

/// Why a text is no digest.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseDigestError {
    /// There is no `/`.
    #[error("digest has no `/<length>` after its hash")]
    NoSize,
    /// The hash is too short or too long.
    #[error("hash has {digits} digits, not 64")]
    HashLength {
        /// How many bytes stand before the `/`.
        digits: usize,
    },
    /// The hash holds something else than `0-9a-f`.
    #[error("hash holds `{found}`, which is no lower-case hex digit")]
    HexDigit {
        /// The first offender.
        found: char,
    },
    /// What follows the `/` is no length.
    #[error("`{found}` is no length in bytes")]
    Size {
        /// The text after the `/`.
        found: String,
    },
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let (digits, size) = text.split_once('/').ok_or(ParseDigestError::NoSize)?;
        if digits.len() != 64 {
            return Err(ParseDigestError::HashLength {
                digits: digits.len(),
            });
        }
        if let Some(found) = digits.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
            return Err(ParseDigestError::HexDigit { found });
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
        }
        let size = size.parse().map_err(|_| ParseDigestError::Size {
            found: size.to_owned(),
        })?;
        Ok(Self { hash, size })
    }
}

/// The value of a digit that is known to be lower-case hex.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_one_that_blake3_publishes() {
        assert_eq!(
            Digest::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262/0"
        );
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest::of(b"grange");
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn mistakes_in_a_digest_are_named() {
        let check = |text: &str, expected| {
            assert_eq!(
                text.parse::<Digest>().map_err(|e| e.to_string()),
                Err(expected)
            );
        };
        let hash = "a".repeat(64);
        check(&hash, "digest has no `/<length>` after its hash".to_owned());
        check("ab/3", "hash has 2 digits, not 64".to_owned());
        check(
            &format!("{}G/3", &hash[1..]),
            "hash holds `G`, which is no lower-case hex digit".to_owned(),
        );
        check(
            &format!("{hash}/-1"),
            "`-1` is no length in bytes".to_owned(),
        );
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let mut hasher = Hasher::default();
        hasher.update(b"gra");
        hasher.update(b"nge");
        assert_eq!(hasher.finish(), Digest::of(b"grange"));
        assert!(hasher.finish().matches(b"grange"));
    }
}
