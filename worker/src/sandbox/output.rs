//! The log of a sandbox: the worker's end of the pipe that commands write to.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::unix::pipe,
};

/// The log of a sandbox.
#[derive(Debug)]
pub struct Output(pipe::Receiver);

impl Output {
    pub(super) const fn new(pipe: pipe::Receiver) -> Self {
        Self(pipe)
    }

    /// How many bytes can be read at once without waiting. After a command's end these are the last of
    /// what it wrote, so that whoever writes between two commands knows where.
    ///
    /// # Errors
    ///
    /// None that is known for a pipe.
    pub fn pending(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(&self.0)?)
    }
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}
