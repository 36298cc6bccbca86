//! The one byte encoding that is hashed or kept for long: hand-written, versioned, golden-tested.
//!
//! Every canonical value starts with a four-byte tag and a version byte. Numbers are LEB128 varints of
//! minimal length, or fixed little-endian where said; byte strings are a varint length and the bytes.
//! A value has exactly one encoding: readers refuse overlong varints, unsorted collections and bytes
//! after the end, so that one meaning never has two digests.

use crate::digest::Digest;

/// Writes canonical bytes.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts a value of the kind `tag` in `version` of its encoding.
    pub fn new(tag: [u8; 4], version: u8) -> Self {
        let mut bytes = tag.to_vec();
        bytes.push(version);
        Self { bytes }
    }

    /// Appends one byte.
    pub fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends an unsigned number as a varint.
    pub fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.bytes.push(value.to_le_bytes()[0]);
    }

    /// Appends a signed number, zigzag-coded so that small magnitudes stay short.
    pub fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// Appends a byte string.
    pub fn bytes(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// Appends a digest: its 32 hash bytes and its length.
    pub fn digest(&mut self, value: &Digest) {
        self.bytes.extend_from_slice(value.hash());
        self.number(value.size());
    }

    /// The encoding.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Why bytes are no canonical value. The bytes are corrupt, or of a version that this program does not
/// know; there is nothing to retry.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle of a value.
    #[error("bytes end at {offset} in the middle of {what}")]
    Truncated {
        /// Where the bytes end.
        offset: usize,
        /// What was being read.
        what: &'static str,
    },
    /// The value starts with another tag.
    #[error("bytes are tagged {found:?}, expected {expected:?}")]
    Tag {
        /// The tag of the kind that was asked for.
        expected: [u8; 4],
        /// The tag that is there.
        found: [u8; 4],
    },
    /// The encoding has a version that this program does not read.
    #[error("encoding has version {found}, this program reads {expected}")]
    Version {
        /// The version that is read.
        expected: u8,
        /// The version that is there.
        found: u8,
    },
    /// The value breaks a rule of the encoding.
    #[error("{what} at {offset} is not canonical")]
    NotCanonical {
        /// Where.
        offset: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A count or a length is over its limit.
    #[error("{what} is {found}, at most {limit} are allowed")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there may be.
        limit: u64,
    },
}

/// Reads canonical bytes, refusing every second spelling.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Opens a value of the kind `tag` in `version`.
    ///
    /// # Errors
    ///
    /// If the bytes start with another tag or version.
    pub fn new(bytes: &'a [u8], tag: [u8; 4], version: u8) -> Result<Self, DecodeError> {
        let mut reader = Self { bytes, offset: 0 };
        let found: [u8; 4] = reader.array("tag")?;
        if found != tag {
            return Err(DecodeError::Tag {
                expected: tag,
                found,
            });
        }
        let found = reader.byte("version")?;
        if found != version {
            return Err(DecodeError::Version {
                expected: version,
                found,
            });
        }
        Ok(reader)
    }

    /// How far the bytes have been read.
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Reads one byte.
    ///
    /// # Errors
    ///
    /// If the bytes are at their end.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Reads `N` bytes as they are.
    ///
    /// # Errors
    ///
    /// If fewer are left.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let mut found = [0; N];
        found.copy_from_slice(self.take(N, what)?);
        Ok(found)
    }

    /// Reads a varint.
    ///
    /// # Errors
    ///
    /// If it is truncated, longer than needed or over 64 bits.
    pub fn number(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let start = self.offset;
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift != 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(DecodeError::NotCanonical {
            offset: start,
            what,
        })
    }

    /// Reads a varint that must not be over `limit`: a count, before anything is allocated for it.
    ///
    /// # Errors
    ///
    /// As [`number`](Self::number), and if it is over the limit.
    pub fn count(&mut self, what: &'static str, limit: u64) -> Result<usize, DecodeError> {
        let found = self.number(what)?;
        if found > limit {
            return Err(DecodeError::TooMany { what, found, limit });
        }
        usize::try_from(found).map_err(|_| DecodeError::TooMany { what, found, limit })
    }

    /// Reads a zigzag-coded signed number.
    ///
    /// # Errors
    ///
    /// As [`number`](Self::number).
    pub fn signed(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let value = self.number(what)?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// Reads a byte string of at most `limit` bytes, without copying it.
    ///
    /// # Errors
    ///
    /// If it is truncated or longer.
    pub fn bytes(&mut self, what: &'static str, limit: u64) -> Result<&'a [u8], DecodeError> {
        let length = self.count(what, limit)?;
        self.take(length, what)
    }

    /// Reads a digest.
    ///
    /// # Errors
    ///
    /// If it is truncated.
    pub fn digest(&mut self, what: &'static str) -> Result<Digest, DecodeError> {
        let hash = self.array(what)?;
        Ok(Digest::from_parts(hash, self.number(what)?))
    }

    /// An error about what was read last.
    pub const fn refuse(&self, what: &'static str) -> DecodeError {
        DecodeError::NotCanonical {
            offset: self.offset,
            what,
        }
    }

    /// Ends the value.
    ///
    /// # Errors
    ///
    /// If bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.offset == self.bytes.len() {
            Ok(())
        } else {
            Err(self.refuse("what follows the end"))
        }
    }

    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.offset..];
        let found = rest.get(..length).ok_or(DecodeError::Truncated {
            offset: self.bytes.len(),
            what,
        })?;
        self.offset += length;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut writer = Writer::new(*b"test", 1);
            writer.number(value);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes, *b"test", 1).unwrap();
            assert_eq!(reader.number("value"), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
        let overlong = [b't', b'e', b's', b't', 1, 0x80, 0x00];
        let mut reader = Reader::new(&overlong, *b"test", 1).unwrap();
        assert_eq!(
            reader.number("value"),
            Err(DecodeError::NotCanonical {
                offset: 5,
                what: "value"
            })
        );
    }

    #[test]
    fn signed_numbers_survive() {
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut writer = Writer::new(*b"test", 1);
            writer.signed(value);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes, *b"test", 1).unwrap();
            assert_eq!(reader.signed("value"), Ok(value));
        }
    }

    #[test]
    fn a_count_over_its_limit_allocates_nothing() {
        let mut writer = Writer::new(*b"test", 1);
        writer.number(u64::MAX);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes, *b"test", 1).unwrap();
        assert_eq!(
            reader.bytes("name", 10),
            Err(DecodeError::TooMany {
                what: "name",
                found: u64::MAX,
                limit: 10
            })
        );
    }
}
