//! The worker's and the keeper's end of the socket between them: messages in frames.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream as StdUnixStream,
    sync::{Arc, Weak},
};

use bytes::{Buf, BytesMut};
use protocol::{
    codec::{self, CodecError},
    frame::{self, FRAME_BYTES_MAX, FRAME_HEADER_BYTES},
    time::Time,
};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
};

use super::{
    fence::Fence,
    message::{Reply, Request},
};

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// Why a message was not exchanged.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    /// The socket failed.
    #[error("failed to use the control socket")]
    Socket {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// A message makes no sense, or is too large.
    #[error("failed to exchange a control message")]
    Message {
        /// Why.
        #[from]
        source: CodecError,
    },
}

pub(super) fn framed<T: Serialize>(message: &T) -> Result<BytesMut, CodecError> {
    let message = codec::encode(message)?;
    let mut bytes = BytesMut::with_capacity(FRAME_HEADER_BYTES + message.len());
    bytes.extend_from_slice(&frame::header(&message));
    bytes.extend_from_slice(&message);
    Ok(bytes)
}

/// Takes the first whole message out of `incoming`; `None` if there is none yet.
fn unframe<T: DeserializeOwned>(incoming: &mut BytesMut) -> Result<Option<T>, CodecError> {
    let Some(header) = incoming.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = frame::length(*header).map_err(|_| CodecError::TooLarge {
        bytes: FRAME_BYTES_MAX + 1,
    })?;
    if incoming.len() < FRAME_HEADER_BYTES + length {
        return Ok(None);
    }
    incoming.advance(FRAME_HEADER_BYTES);
    let message = incoming.split_to(length);
    codec::decode(&message).map(Some)
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Control {
    requests: Arc<Mutex<Requests>>,
    stream: OwnedReadHalf,
    incoming: BytesMut,
}

/// The way of requests to the keeper.
#[derive(Debug)]
struct Requests {
    stream: OwnedWriteHalf,
    outgoing: BytesMut,
}

impl Requests {
    /// Sends a request.
    ///
    /// # Cancel safety
    ///
    /// What is left of the request is sent before the next one.
    async fn send(&mut self, request: &Request) -> Result<(), ControlError> {
        let request = framed(request)?;
        self.outgoing.unsplit(request);
        while !self.outgoing.is_empty() {
            self.stream.write_buf(&mut self.outgoing).await?;
        }
        Ok(())
    }
}

/// A way to say until when a sandbox may run, whatever else goes on with it. It does not keep the sandbox.
#[derive(Clone, Debug)]
pub struct Leash(Weak<Mutex<Requests>>);

impl Leash {
    /// Has the sandbox killed at `end`, on the clock that goes on while the machine sleeps, and not
    /// earlier. One that has ended does not mind.
    pub async fn until(&self, end: Time) {
        if let Some(requests) = self.0.upgrade() {
            // A keeper that cannot be told keeps to what it was told before.
            let sent = requests.lock().await.send(&Request::Until(end.0)).await;
            drop(sent);
        }
    }
}

impl Control {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (stream, outgoing) = stream.into_split();
        let requests = Requests {
            stream: outgoing,
            outgoing: BytesMut::new(),
        };
        Self {
            requests: Arc::new(Mutex::new(requests)),
            stream,
            incoming: BytesMut::new(),
        }
    }

    /// What says until when the keeper may go on.
    pub(super) fn leash(&self) -> Leash {
        Leash(Arc::downgrade(&self.requests))
    }

    /// Closes this end, whoever is about to use it.
    pub(super) fn close(&self) {
        // One that is closed already is as it should be.
        let _closed = rustix::net::shutdown(self.stream.as_ref(), rustix::net::Shutdown::Both);
    }

    /// Sends a request.
    ///
    /// # Cancel safety
    ///
    /// What is left of the request is sent before the next one.
    pub(super) async fn send(&mut self, request: &Request) -> Result<(), ControlError> {
        self.requests.lock().await.send(request).await
    }

    /// Waits for a reply; `None`: the keeper has ended.
    ///
    /// # Cancel safety
    ///
    /// What has come in is kept for the next call.
    pub(super) async fn receive(&mut self) -> Result<Option<Reply>, ControlError> {
        loop {
            if let Some(reply) = unframe(&mut self.incoming)? {
                return Ok(Some(reply));
            }
            self.incoming.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.incoming).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The keeper's end. It does not block on reading.
#[derive(Debug)]
pub(super) struct KeeperControl {
    stream: StdUnixStream,
    incoming: BytesMut,
}

/// What reading from the keeper's end gave.
#[derive(Debug)]
pub(super) enum Received {
    /// A request.
    Request(Request),
    /// Nothing more for now.
    Nothing,
    /// The worker has closed its end, or is gone.
    Ended,
}

impl KeeperControl {
    pub(super) fn new(stream: StdUnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            incoming: BytesMut::new(),
        })
    }

    /// The socket, for `poll`.
    pub(super) const fn stream(&self) -> &StdUnixStream {
        &self.stream
    }

    /// The next request, if it is here. A worker that makes no sense is as good as gone.
    pub(super) fn receive(&mut self) -> Received {
        loop {
            match unframe(&mut self.incoming) {
                Ok(Some(request)) => return Received::Request(request),
                Ok(None) => {}
                Err(_) => return Received::Ended,
            }
            let mut buffer = [0; READ_BYTES];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Received::Ended,
                Ok(length) => self.incoming.extend_from_slice(&buffer[..length]),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Received::Nothing,
                    _ => return Received::Ended,
                },
            }
        }
    }

    /// What the worker has asked for, but for where the fence is, which counts from now on; `None`: it is
    /// gone.
    pub(super) fn requests(&mut self, fence: &mut Fence) -> Option<Vec<Request>> {
        let mut requests = Vec::new();
        loop {
            match self.receive() {
                Received::Request(Request::Until(until)) => fence.set(Time(until)),
                Received::Request(request) => requests.push(request),
                Received::Nothing => return Some(requests),
                Received::Ended => return None,
            }
        }
    }

    /// Waits until a request is here, or the worker is gone.
    pub(super) fn wait(&mut self) -> Received {
        loop {
            match self.receive() {
                Received::Nothing => self.poll(PollFlags::IN, None),
                received => return received,
            }
        }
    }

    /// Sends a reply, and waits for the worker to make room for it, but not behind `fence`.
    ///
    /// # Errors
    ///
    /// If it could not be sent. The worker may have a part of it, so that nothing else can be sent.
    pub(super) fn send(
        &mut self,
        reply: &Reply,
        fence: Option<&Fence>,
    ) -> Result<(), ControlError> {
        let mut bytes = framed(reply)?;
        while !bytes.is_empty() {
            if fence.is_some_and(Fence::is_over) {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            match self.stream.write(&bytes) {
                Ok(length) => bytes.advance(length),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => self.poll(PollFlags::OUT, fence),
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    fn poll(&self, flags: PollFlags, fence: Option<&Fence>) {
        let mut polled = vec![PollFd::new(&self.stream, flags)];
        polled.extend(fence.map(|fence| PollFd::new(fence.timer(), PollFlags::IN)));
        // Whatever it says, the next look says it better.
        let _ = poll(&mut polled, None);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::message::Carried, *};
    use crate::clock;

    #[test]
    fn a_worker_that_does_not_read_holds_nothing_up_behind_the_fence() {
        let (keepers, _worker) = StdUnixStream::pair().unwrap();
        let mut keeper = KeeperControl::new(keepers).unwrap();
        let large = vec![b'x'; 2 * 1024 * 1024];
        let state = Reply::State {
            id: 1,
            carried: Carried {
                variables: BTreeMap::from([("A".to_owned(), large)]),
                directory: b"/".to_vec(),
            },
        };
        let fence = clock::boot() + std::time::Duration::from_millis(100);
        let fence = Fence::new(Some(fence)).unwrap();
        let sent = keeper.send(&state, Some(&fence));
        let gave_up = matches!(&sent, Err(ControlError::Socket { source })
            if source.kind() == io::ErrorKind::TimedOut);
        assert!(gave_up && fence.is_over(), "{sent:?}");
    }
}
