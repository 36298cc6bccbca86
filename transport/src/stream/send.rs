//! The half of a stream that sends.

use std::fmt;

use bytes::Bytes;
use protocol::{codec, frame};
use serde::Serialize;

use super::{RESET_ABANDONED, StreamError};

/// Up to this size a message is copied behind its header, in bytes: one piece to look through for each datagram
/// takes less time than two.
const COPIED_BYTES_MAX: usize = 32 * 1024;

/// The half of a stream that sends.
///
/// Dropped between messages, it finishes; dropped in the middle of one, because its task was
/// cancelled, it [resets](Self::reset).
pub struct SendHalf {
    quic: quinn::SendStream,
    /// A write was begun and has not ended.
    writing: bool,
}

impl SendHalf {
    pub(super) const fn new(quic: quinn::SendStream) -> Self {
        Self {
            quic,
            writing: false,
        }
    }

    /// Sends a message in a frame. Waits while the other side does not keep up.
    ///
    /// # Errors
    ///
    /// If the message does not fit in a frame, or the other side is gone or reads no more.
    ///
    /// # Cancel safety
    ///
    /// The stream is reset when this half is dropped; nothing more may be sent.
    pub async fn message<T: Serialize>(&mut self, message: &T) -> Result<(), StreamError> {
        let body = codec::encode(message).map_err(|source| StreamError::Encode { source })?;
        let header = frame::header(&body);
        if body.len() <= COPIED_BYTES_MAX {
            return self.bytes([&header[..], &body].concat().into()).await;
        }
        let header = Bytes::copy_from_slice(&header);
        self.write(&mut [header, Bytes::from(body)]).await
    }

    /// Sends bytes as they are, without copying them. Waits while the other side does not keep up.
    ///
    /// # Errors
    ///
    /// If the other side is gone or reads no more.
    ///
    /// # Cancel safety
    ///
    /// As [`message`](Self::message).
    pub async fn bytes(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.write(&mut [bytes]).await
    }

    /// Sends several pieces of bytes, one after another, without copying them: cheaper than one by one.
    ///
    /// # Errors
    ///
    /// If the other side is gone or reads no more.
    ///
    /// # Cancel safety
    ///
    /// As [`message`](Self::message).
    pub async fn pieces(&mut self, mut pieces: Vec<Bytes>) -> Result<(), StreamError> {
        self.write(&mut pieces).await
    }

    async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), StreamError> {
        if self.writing {
            return Err(StreamError::Finished);
        }
        self.writing = true;
        let written = self.quic.write_all_chunks(chunks).await;
        // A stream that failed stays so; there is nothing left to reset.
        self.writing = false;
        Ok(written?)
    }

    /// Has everything else that this side sends on the connection go first, for what is large, but for what is
    /// large and has a later turn: nobody waits for a small answer behind it, and one large piece after another
    /// arrives whole. Turns count from zero; after 2^31 of them the order is another for a moment.
    pub fn yield_to_others(&mut self, turn: u32) {
        let turn = (turn & (u32::MAX >> 1)).cast_signed();
        // Everything else has priority zero. Fails only when nothing is sent any more.
        let _over = self.quic.set_priority(-1 - turn);
    }

    /// Says that nothing more follows. What was sent still arrives, also when this half is dropped.
    pub fn finish(&mut self) {
        // Finished before, or stopped by the other side: nothing follows either way.
        let _already = self.quic.finish();
    }

    /// Gives the stream up: what has not arrived yet never may, and the other side gets
    /// [`StreamError::Reset`]. For whoever cannot send what it has announced.
    pub fn reset(&mut self) {
        let _already = self.quic.reset(RESET_ABANDONED);
    }

    /// Waits until the other side wants nothing more: it reads no more, or it has acknowledged all of a
    /// finished half, or the connection is over. What is waited with does not hold the stream.
    ///
    /// # Cancel safety
    ///
    /// Can be asked again.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.quic.stopped();
        async move {
            let _why = stopped.await;
        }
    }

    /// Sets how urgent this stream's bytes are among those of its connection: higher goes first, 0 is
    /// usual.
    pub fn prioritise(&mut self, priority: i32) {
        let _over = self.quic.set_priority(priority);
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if self.writing {
            self.reset();
        }
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendHalf").field(&self.quic.id()).finish()
    }
}
