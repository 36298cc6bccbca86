//! Messages over the socket to a shell: frames as on the streams of the farm. The other end is the build's.

use std::io;

use protocol::{
    codec,
    frame::{self, FRAME_HEADER_BYTES},
    message::terminal::TERMINAL_MESSAGE_BYTES_MAX,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Reads messages, of at most [`TERMINAL_MESSAGE_BYTES_MAX`].
#[derive(Debug)]
pub(super) struct Frames<R> {
    from: R,
    /// What has come and is no whole message yet, and some of what follows.
    arrived: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Nothing was read yet.
    pub(super) const fn new(from: R) -> Self {
        Self {
            from,
            arrived: Vec::new(),
        }
    }

    /// The next message; `None`: there is none.
    ///
    /// # Errors
    ///
    /// If the socket breaks, or what comes is no message.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some((header, rest)) = self.arrived.split_first_chunk::<FRAME_HEADER_BYTES>() {
                let length = frame::length(*header).map_err(io::Error::other)?;
                if TERMINAL_MESSAGE_BYTES_MAX < length {
                    return Err(io::Error::other("a message is too long"));
                }
                if let Some(message) = rest.get(..length) {
                    let message = codec::decode(message).map_err(io::Error::other)?;
                    self.arrived.drain(..FRAME_HEADER_BYTES + length);
                    return Ok(Some(message));
                }
            }
            self.arrived.reserve(TERMINAL_MESSAGE_BYTES_MAX);
            if self.from.read_buf(&mut self.arrived).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Writes a message.
///
/// # Errors
///
/// If nobody reads any more.
pub(super) async fn write<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    let message = codec::encode(message).map_err(io::Error::other)?;
    let framed = [&frame::header(&message)[..], &message[..]].concat();
    to.write_all(&framed).await
}
