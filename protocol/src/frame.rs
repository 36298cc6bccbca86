//! Frames: how messages are told apart on a stream. A frame is its length (4 bytes, little-endian) and
//! that many bytes of one message. Bodies (chunks, log bytes) follow frames as they are, with a length
//! that the frame before them says.

/// The largest frame, in bytes: a batch of 65,536 digests, or a buildspec of a megabyte.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The length of what precedes a frame's message, in bytes.
pub const FRAME_HEADER_BYTES: usize = 4;

/// A frame says that it is longer than [`FRAME_BYTES_MAX`]. The stream makes no sense any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("frame says it has {bytes} bytes, at most {FRAME_BYTES_MAX} are allowed")]
pub struct FrameTooLarge {
    /// What it says.
    pub bytes: u32,
}

/// The header of a frame around `message`, which has at most [`FRAME_BYTES_MAX`] bytes.
///
/// # Panics
///
/// If the message is longer: the codec refuses to encode such a message.
pub fn header(message: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
    assert!(
        message.len() <= FRAME_BYTES_MAX,
        "the codec keeps messages within a frame"
    );
    let length = u32::try_from(message.len()).expect("the limit is below 2^32");
    length.to_le_bytes()
}

/// How many bytes of message follow `header`.
///
/// # Errors
///
/// If there are more than may be.
pub fn length(header: [u8; FRAME_HEADER_BYTES]) -> Result<usize, FrameTooLarge> {
    let bytes = u32::from_le_bytes(header);
    match usize::try_from(bytes) {
        Ok(length) if length <= FRAME_BYTES_MAX => Ok(length),
        _ => Err(FrameTooLarge { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_too_large_is_refused_before_it_is_read() {
        assert_eq!(length(header(b"abc")), Ok(3));
        assert_eq!(length([0xff; 4]), Err(FrameTooLarge { bytes: u32::MAX }));
    }
}
