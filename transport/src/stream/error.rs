//! Why a stream cannot be read or written.

use protocol::{codec::CodecError, frame::FrameTooLarge};
use quinn::{ReadError, WriteError};

use crate::connection::ConnectionLost;

/// Why a stream cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection is over. Connect again.
    #[error("connection is lost")]
    Lost {
        /// Why.
        source: ConnectionLost,
    },
    /// The other side has given up this stream in the middle; the connection goes on. Ask again.
    #[error("the other side gave up the stream")]
    Reset,
    /// The other side reads no more of this stream. There may be an answer that says why.
    #[error("the other side does not read the stream any more")]
    Stopped,
    /// This half was finished, reset or at its end before. A mistake of the caller.
    #[error("stream was finished before")]
    Finished,
    /// The other side finished in the middle. Its answer is worth nothing.
    #[error("stream ends after {received} of {expected} bytes")]
    Truncated {
        /// How many bytes the frame or the message before has announced.
        expected: usize,
        /// How many came.
        received: usize,
    },
    /// The other side announced a frame over the limit. The connection has been closed.
    #[error("frame is too large")]
    FrameTooLarge {
        /// What it announced.
        source: FrameTooLarge,
    },
    /// The other side announced a frame over what is allowed at this place. The connection has been
    /// closed.
    #[error("frame says it has {bytes} bytes, at most {limit} are allowed here")]
    OverLimit {
        /// What it announced.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A frame holds no message of the expected kind. The connection has been closed.
    #[error("frame holds no such message")]
    Decode {
        /// What the codec says.
        source: CodecError,
    },
    /// More came where the other side should have finished. The connection has been closed.
    #[error("more follows the last message")]
    Surplus,
    /// The message to send does not fit in a frame. Nothing was sent; send less at once.
    #[error("message cannot be sent")]
    Encode {
        /// What the codec says.
        source: CodecError,
    },
    /// The other side finished without an answer.
    #[error("the other side finished without an answer")]
    NoAnswer,
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(_) => Self::Stopped,
            WriteError::ConnectionLost(error) => Self::Lost {
                source: error.into(),
            },
            // 0-RTT is off.
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Finished,
        }
    }
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(_) => Self::Reset,
            ReadError::ConnectionLost(error) => Self::Lost {
                source: error.into(),
            },
            // All reads are ordered, and 0-RTT is off.
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Finished,
        }
    }
}
