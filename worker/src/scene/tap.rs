//! The way of commands' output from their pipe to the log.
//!
//! What was read and is not in the log yet is kept here, so that whoever is broken off in between loses
//! nothing: the next one begins with it.

use std::io;

use tokio::io::AsyncReadExt as _;

use crate::{log::Log, sandbox::Output};

/// How much output is taken at once, in bytes: what a pipe holds.
const OUTPUT_BYTES: usize = 64 * 1024;

/// The way of commands' output from their pipe to the log.
#[derive(Debug, Default)]
pub(super) struct Tap {
    /// `None`: nothing more will come.
    output: Option<Output>,
    /// Read, and not in the log yet.
    unsaid: Vec<u8>,
}

impl Tap {
    /// From here on the output of another sandbox comes.
    pub(super) fn open(&mut self, output: Option<Output>) {
        self.output = output;
    }

    /// Takes the next output there is. Waits for ever when there will be none.
    pub(super) async fn take_some(&mut self, log: &Log) -> io::Result<()> {
        if self.read(log, OUTPUT_BYTES).await? {
            return Ok(());
        }
        std::future::pending().await
    }

    /// Takes what was written before now. Processes in the background may go on to write.
    pub(super) async fn take_pending(&mut self, log: &Log) -> io::Result<()> {
        self.say(log).await?;
        let Some(output) = &self.output else {
            return Ok(());
        };
        let mut left = usize::try_from(output.pending()?).unwrap_or(0);
        while left > 0 {
            let before = left;
            let Some(output) = &mut self.output else {
                return Ok(());
            };
            let mut wanted = (&mut *output).take(left.min(OUTPUT_BYTES) as u64);
            left -= wanted.read_buf(&mut self.unsaid).await?;
            if left == before {
                self.output = None;
            }
            self.say(log).await?;
        }
        Ok(())
    }

    /// Takes everything up to the end: whoever wrote is dead.
    pub(super) async fn drain(&mut self, log: &Log) -> io::Result<()> {
        while self.read(log, OUTPUT_BYTES).await? {}
        Ok(())
    }

    /// Takes up to `most` bytes; `false`: there will be none.
    async fn read(&mut self, log: &Log, most: usize) -> io::Result<bool> {
        self.say(log).await?;
        let Some(output) = &mut self.output else {
            return Ok(false);
        };
        self.unsaid.reserve(most);
        if output.read_buf(&mut self.unsaid).await? == 0 {
            self.output = None;
            return Ok(false);
        }
        self.say(log).await?;
        Ok(true)
    }

    async fn say(&mut self, log: &Log) -> io::Result<()> {
        if self.unsaid.is_empty() {
            return Ok(());
        }
        log.append(&mut self.unsaid).await
    }
}
