//! What messages travel in. The one module that names the serialiser (see `docs/decisions/0001`), so
//! that it can be replaced in an afternoon. Nothing that is hashed or kept goes through it.

use serde::{Serialize, de::DeserializeOwned};

use crate::frame::FRAME_BYTES_MAX;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes are no message of the expected kind: the sender is damaged, hostile, or of another
    /// version than it said.
    #[error("failed to decode a message of {bytes} bytes")]
    Decode {
        /// How many bytes there were.
        bytes: usize,
        /// What the serialiser says.
        source: bincode::error::DecodeError,
    },
    /// Bytes follow the message.
    #[error("message ends after {used} of {bytes} bytes")]
    Rest {
        /// How many bytes the message took.
        used: usize,
        /// How many there were.
        bytes: usize,
    },
    /// The message does not fit in a frame: whoever makes it must send less at once.
    #[error("message of {bytes} bytes is over the {FRAME_BYTES_MAX} of a frame")]
    TooLarge {
        /// How many bytes it would take.
        bytes: usize,
    },
    /// The message cannot be encoded.
    #[error("failed to encode a message")]
    Encode {
        /// What the serialiser says.
        source: bincode::error::EncodeError,
    },
}

/// What is set aside for a message at first, in bytes: most are shorter, such as the header of a chunk, of which there
/// are thousands, and none of these is copied while it grows.
const USUAL_BYTES: usize = 128;

/// Where a message is encoded to.
struct Sink(Vec<u8>);

impl bincode::enc::write::Writer for &mut Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Encodes a message.
///
/// # Errors
///
/// If it is larger than a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let mut sink = Sink(Vec::with_capacity(USUAL_BYTES));
    bincode::serde::encode_into_writer(message, &mut sink, bincode::config::standard())
        .map_err(|source| CodecError::Encode { source })?;
    let Sink(bytes) = sink;
    if FRAME_BYTES_MAX < bytes.len() {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Decodes a message.
///
/// What it allocates is bounded by [`FRAME_BYTES_MAX`], whatever the bytes say.
///
/// # Errors
///
/// If the bytes are anything but one message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();
    let (message, used) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|source| CodecError::Decode {
            bytes: bytes.len(),
            source,
        })?;
    if used == bytes.len() {
        Ok(message)
    } else {
        Err(CodecError::Rest {
            used,
            bytes: bytes.len(),
        })
    }
}

/// Decodes what `bytes` start with, whatever follows: what messages of all versions have in common.
///
/// # Errors
///
/// If they do not start so.
pub fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();
    let (first, _used) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|source| CodecError::Decode {
            bytes: bytes.len(),
            source,
        })?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives() {
        let message = (7_u32, "text".to_owned(), vec![Some(1_u8), None]);
        let bytes = encode(&message).unwrap();
        assert_eq!(
            decode::<(u32, String, Vec<Option<u8>>)>(&bytes).unwrap(),
            message
        );
    }

    #[test]
    fn garbage_is_refused() {
        assert!(decode::<String>(&[0xff; 16]).is_err());
        assert!(matches!(
            decode::<u8>(&[1, 2]),
            Err(CodecError::Rest { used: 1, bytes: 2 })
        ));
    }
}
