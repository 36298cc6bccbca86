//! Messages and bodies on their way into a stream, put together so that they are few pieces of memory: for each
//! datagram, QUIC looks through the pieces that are not acknowledged yet, one after another.

use bytes::{Bytes, BytesMut};
use protocol::{
    codec::{self, CodecError},
    frame,
};
use serde::Serialize;

/// Up to this size a body is copied to where its header is, in bytes: that takes less time than sending it by
/// itself.
const COPIED_BYTES_MAX: usize = 32 * 1024;

/// What is to be sent, in order.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    pieces: Vec<Bytes>,
    /// What comes behind them.
    gathered: BytesMut,
    bytes: usize,
}

impl Gather {
    /// Adds a message, in its frame.
    ///
    /// # Errors
    ///
    /// If it is larger than a frame; then nothing was added.
    pub(crate) fn message<T: Serialize>(&mut self, message: &T) -> Result<(), CodecError> {
        let message = codec::encode(message)?;
        let header = frame::header(&message);
        self.gathered.extend_from_slice(&header);
        self.gathered.extend_from_slice(&message);
        self.bytes += header.len() + message.len();
        Ok(())
    }

    /// Adds a body as it is.
    pub(crate) fn body(&mut self, body: Bytes) {
        if body.len() <= COPIED_BYTES_MAX {
            self.copy(&body);
        } else {
            self.bytes += body.len();
            self.close();
            self.pieces.push(body);
        }
    }

    /// Adds a copy of a body.
    pub(crate) fn copy(&mut self, body: &[u8]) {
        self.bytes += body.len();
        self.gathered.extend_from_slice(body);
    }

    /// Sets room aside for what will be copied, in bytes: growing piece by piece would copy it again.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.gathered.reserve(bytes);
    }

    /// Whether a body of so many bytes is copied to where its header is.
    pub(crate) const fn is_copied(bytes: u64) -> bool {
        bytes <= COPIED_BYTES_MAX as u64
    }

    /// How many bytes there are.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// All there is, in pieces.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        self.close();
        self.bytes = 0;
        std::mem::take(&mut self.pieces)
    }

    fn close(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        // A piece lives until it is acknowledged, with all the memory that it is a part of.
        let is_mostly_empty = 2 * self.gathered.len() < self.gathered.capacity();
        self.pieces.push(match is_mostly_empty {
            true => Bytes::copy_from_slice(&self.gathered),
            false => self.gathered.split().freeze(),
        });
        self.gathered.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_takes_no_memory_for_what_did_not_come() {
        let mut gather = Gather::default();
        gather.reserve(1 << 20);
        gather.copy(&[7; 100]);
        let [piece] = &gather.take()[..] else {
            panic!("it is one piece");
        };
        assert_eq!(piece, &[7; 100][..]);
        let whole = BytesMut::from(piece.clone());
        assert!(whole.capacity() < 1 << 20, "{}", whole.capacity());
    }

    #[test]
    fn small_bodies_share_a_piece_with_their_messages_and_a_large_one_is_not_copied() {
        let bodies = [100, 4096, 100_000, 1].map(|length| Bytes::from(vec![7; length]));
        let mut gather = Gather::default();
        let mut expected = Vec::new();
        for (number, body) in (0_u32..).zip(&bodies) {
            gather.message(&number).unwrap();
            gather.body(body.clone());
            let message = codec::encode(&number).unwrap();
            expected.extend([&frame::header(&message)[..], &message, body].concat());
        }
        assert_eq!(gather.bytes(), expected.len());
        let pieces = gather.take();
        assert_eq!(pieces.concat(), expected);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), bodies[2].as_ptr());
        assert_eq!((gather.bytes(), gather.take().len()), (0, 0));
    }
}
