//! Streams: messages in frames, and bytes between them.
//!
//! Both halves have back-pressure: sending waits while the other side does not read, and what was not
//! read yet is bounded by the windows of `config`. A frame that makes no sense ends the connection.

mod error;
mod send;

use std::{collections::VecDeque, error::Error as _, fmt};

use bytes::{Bytes, BytesMut};
use protocol::{
    codec,
    frame::{self, FRAME_BYTES_MAX, FRAME_HEADER_BYTES},
    message::Refusal,
};
use quinn::VarInt;
use serde::{Serialize, de::DeserializeOwned};

pub use self::{error::StreamError, send::SendHalf};
use crate::connection::CLOSE_VIOLATION;

/// What is set aside at once for bytes that are announced; the rest follows as they arrive, so that
/// announcing costs the other side as much as it costs this one. A chunk of the usual size.
const RESERVED_BYTES: usize = 512 * 1024;
/// How many pieces, which are what datagrams brought, are taken from a stream at once: taking one costs
/// a lock on the connection, whatever it has. Together they are at most some 200 KiB.
const PIECES_AT_ONCE: usize = 32;
/// A stream is given up in the middle of a message.
const RESET_ABANDONED: VarInt = VarInt::from_u32(1);

/// A stream: one request, its answer, and what belongs to them.
#[derive(Debug)]
pub struct Stream {
    /// To the other side.
    pub send: SendHalf,
    /// From the other side.
    pub receive: ReceiveHalf,
}

/// The half of a stream that receives. Dropped before the end, it tells the other side to stop.
pub struct ReceiveHalf {
    quic: quinn::RecvStream,
    connection: quinn::Connection,
    /// What has arrived of the message or the bytes that are being read.
    partial: BytesMut,
    /// What has arrived after that, in pieces that are not empty.
    ahead: VecDeque<Bytes>,
    /// Where pieces arrive; empty before the first.
    slots: Box<[Bytes]>,
    /// How long the message is whose header has been read.
    announced: Option<usize>,
}

impl Stream {
    pub(crate) fn new(
        connection: &quinn::Connection,
        send: quinn::SendStream,
        receive: quinn::RecvStream,
    ) -> Self {
        Self {
            send: SendHalf::new(send),
            receive: ReceiveHalf {
                quic: receive,
                connection: connection.clone(),
                partial: BytesMut::new(),
                ahead: VecDeque::new(),
                slots: Box::default(),
                announced: None,
            },
        }
    }

    /// Sends a request and waits for its answer. More may be sent and received after it.
    ///
    /// # Errors
    ///
    /// If the stream breaks. That the server refuses is an answer.
    ///
    /// # Cancel safety
    ///
    /// The request may or may not have been sent, and the stream is of no more use.
    pub async fn request<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        request: &Q,
    ) -> Result<Result<A, Refusal>, StreamError> {
        match self.send.message(request).await {
            // A server that refuses early stops reading, and says why.
            Ok(()) | Err(StreamError::Stopped) => self.answer().await,
            Err(error) => Err(error),
        }
    }

    /// Waits for the answer to a request, such as the one that follows the request's bytes.
    ///
    /// # Errors
    ///
    /// If the stream breaks. That the server refuses is an answer.
    ///
    /// # Cancel safety
    ///
    /// Call it again to go on.
    pub async fn answer<A: DeserializeOwned>(&mut self) -> Result<Result<A, Refusal>, StreamError> {
        self.receive.message().await?.ok_or(StreamError::NoAnswer)
    }
}

impl ReceiveHalf {
    /// Waits until something has arrived, or the other side has finished. A stream may be known before anything
    /// of it has come: another that was opened later has.
    ///
    /// # Errors
    ///
    /// If the stream breaks.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn ready(&mut self) -> Result<(), StreamError> {
        if self.partial.is_empty() && self.ahead.is_empty() {
            // Without the places for many pieces: there may be many streams of which nothing comes.
            let first = self.quic.read_chunk(usize::MAX, true).await?;
            let first = first.map(|piece| piece.bytes);
            self.ahead.extend(first.filter(|piece| !piece.is_empty()));
        }
        Ok(())
    }

    /// The next message; `None`: the other side has finished.
    ///
    /// # Errors
    ///
    /// If the stream breaks. What cannot be a message ends the connection.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: called again, it goes on where it was. So it can be an arm of a `select!`.
    pub async fn message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StreamError> {
        self.message_within(FRAME_BYTES_MAX).await
    }

    /// As [`message`](Self::message), for a message of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// As [`message`](Self::message), and if the message is longer.
    ///
    /// # Cancel safety
    ///
    /// As [`message`](Self::message).
    pub async fn message_within<T: DeserializeOwned>(
        &mut self,
        limit: usize,
    ) -> Result<Option<T>, StreamError> {
        let Some(frame) = self.frame(limit).await? else {
            return Ok(None);
        };
        match codec::decode(&frame) {
            Ok(message) => Ok(Some(message)),
            Err(source) => Err(self.violation(StreamError::Decode { source })),
        }
    }

    /// The bytes of the next frame's message.
    pub(crate) async fn frame(&mut self, limit: usize) -> Result<Option<Bytes>, StreamError> {
        let length = match self.announced {
            Some(length) => length,
            None => match self.announcement(limit).await? {
                Some(length) => *self.announced.insert(length),
                None => return Ok(None),
            },
        };
        match self.take(length).await? {
            Some(frame) => {
                self.announced = None;
                Ok(Some(frame))
            }
            None => Err(self.violation(StreamError::Truncated {
                expected: length,
                received: self.partial.len(),
            })),
        }
    }

    /// How long the next frame's message is; `None`: the other side has finished.
    async fn announcement(&mut self, limit: usize) -> Result<Option<usize>, StreamError> {
        let Some(bytes) = self.take(FRAME_HEADER_BYTES).await? else {
            return match self.partial.len() {
                0 => Ok(None),
                received => Err(self.violation(StreamError::Truncated {
                    expected: FRAME_HEADER_BYTES,
                    received,
                })),
            };
        };
        let mut header = [0; FRAME_HEADER_BYTES];
        header.copy_from_slice(&bytes);
        match frame::length(header) {
            Ok(length) if length <= limit => Ok(Some(length)),
            Ok(bytes) => Err(self.violation(StreamError::OverLimit { bytes, limit })),
            Err(source) => Err(self.violation(StreamError::FrameTooLarge { source })),
        }
    }

    /// The next `length` bytes, which a message before them has announced; the caller has checked that
    /// they are not too many. They are not copied if they have arrived in one piece.
    ///
    /// # Errors
    ///
    /// If the stream breaks, or ends before.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: called again with the same `length`, it goes on where it was.
    pub async fn bytes(&mut self, length: usize) -> Result<Bytes, StreamError> {
        match self.take(length).await? {
            Some(bytes) => Ok(bytes),
            None => Err(truncated(length, self.partial.len())),
        }
    }

    /// What arrives next of a body, at most `limit` bytes, without copying; `None`: the other side has
    /// finished. For bodies that need not be whole in memory.
    ///
    /// # Errors
    ///
    /// If the stream breaks.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn piece(&mut self, limit: usize) -> Result<Option<Bytes>, StreamError> {
        if !self.partial.is_empty() {
            let length = limit.min(self.partial.len());
            return Ok(Some(self.partial.split_to(length).freeze()));
        }
        if !self.arrive().await? {
            return Ok(None);
        }
        Ok(self.next_ahead(limit))
    }

    /// Adds the next `length` bytes to `target`.
    ///
    /// # Errors
    ///
    /// If the stream breaks, or ends before.
    ///
    /// # Cancel safety
    ///
    /// None: nobody knows how much of it was added.
    pub async fn append(
        &mut self,
        target: &mut BytesMut,
        length: usize,
    ) -> Result<(), StreamError> {
        let mut missing = length;
        while 0 < missing {
            let Some(piece) = self.piece(missing).await? else {
                return Err(truncated(length, length - missing));
            };
            target.extend_from_slice(&piece);
            missing -= piece.len();
        }
        Ok(())
    }

    /// Waits until the other side has finished.
    ///
    /// # Errors
    ///
    /// If more comes, which ends the connection, or the stream breaks.
    ///
    /// # Cancel safety
    ///
    /// Can be asked again.
    pub async fn end(&mut self) -> Result<(), StreamError> {
        match self.piece(1).await? {
            None => Ok(()),
            Some(_) => Err(self.violation(StreamError::Surplus)),
        }
    }

    /// Tells the other side that nothing more will be read. An answer can still be sent.
    pub fn stop(&mut self) {
        let _already = self.quic.stop(RESET_ABANDONED);
    }

    /// The next `length` bytes; `None`: the stream ends before, and what came of them is in `partial`.
    /// Cancelled, it goes on when it is called again with the same `length`.
    async fn take(&mut self, length: usize) -> Result<Option<Bytes>, StreamError> {
        if length == 0 {
            return Ok(Some(Bytes::new()));
        }
        if self.partial.is_empty() {
            if !self.arrive().await? {
                return Ok(None);
            }
            if self
                .ahead
                .front()
                .is_some_and(|piece| length <= piece.len())
            {
                return Ok(self.next_ahead(length));
            }
            self.reserve(length);
        }
        while self.partial.len() < length {
            if !self.arrive().await? {
                return Ok(None);
            }
            let missing = length - self.partial.len();
            if let Some(piece) = self.next_ahead(missing) {
                self.partial.extend_from_slice(&piece);
            }
        }
        Ok(Some(self.partial.split().freeze()))
    }

    /// Waits until a piece is ahead; `false`: the stream has ended.
    async fn arrive(&mut self) -> Result<bool, StreamError> {
        while self.ahead.is_empty() {
            if self.slots.is_empty() {
                self.slots = vec![Bytes::new(); PIECES_AT_ONCE].into();
            }
            let Some(count) = self.quic.read_chunks(&mut self.slots).await? else {
                return Ok(false);
            };
            let arrived = self.slots.iter_mut().take(count).map(std::mem::take);
            self.ahead.extend(arrived.filter(|piece| !piece.is_empty()));
        }
        Ok(true)
    }

    /// The piece that is ahead, or as much of it as `limit` says.
    fn next_ahead(&mut self, limit: usize) -> Option<Bytes> {
        let mut piece = self.ahead.pop_front()?;
        if limit < piece.len() {
            let rest = piece.split_off(limit);
            self.ahead.push_front(rest);
        }
        Some(piece)
    }

    /// Whether something has arrived that can be had without waiting.
    pub fn is_ahead(&self) -> bool {
        !self.partial.is_empty() || !self.ahead.is_empty()
    }

    /// How many bytes are set aside.
    #[cfg(test)]
    pub(crate) fn reserved(&self) -> usize {
        self.partial.capacity()
    }

    fn reserve(&mut self, length: usize) {
        let missing = length.saturating_sub(self.partial.len());
        self.partial.reserve(missing.min(RESERVED_BYTES));
    }

    /// Ends the connection: whoever sends this is broken or hostile. It is told what is wrong.
    pub(crate) fn violation(&self, error: StreamError) -> StreamError {
        let reason = match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        self.connection.close(CLOSE_VIOLATION, reason.as_bytes());
        error
    }
}

const fn truncated(expected: usize, received: usize) -> StreamError {
    StreamError::Truncated { expected, received }
}

impl fmt::Debug for ReceiveHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReceiveHalf").field(&self.quic.id()).finish()
    }
}
