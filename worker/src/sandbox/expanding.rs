//! Reading what a shell makes of a word, as far as it may be long.

use std::io::{self, PipeReader, PipeWriter, Read as _};

use rustix::fs::{OFlags, fcntl_setfl};

use super::message::Expansion;

/// A word that a shell expands.
#[derive(Debug)]
pub(super) struct Expanding {
    /// `None` when everything was read.
    pipe: Option<PipeReader>,
    bytes: Vec<u8>,
    bytes_max: usize,
    /// Why it was given up.
    stopped: Option<Expansion>,
}

impl Expanding {
    /// A word of which nothing was read yet, and where the shell writes it: at most `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// If there is no pipe to be had.
    pub(super) fn start(bytes_max: usize) -> io::Result<(Self, PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        fcntl_setfl(&reader, OFlags::NONBLOCK)?;
        let expanding = Self {
            pipe: Some(reader),
            bytes: Vec::new(),
            bytes_max,
            stopped: None,
        };
        Ok((expanding, writer))
    }

    /// Where it is read from; `None`: nothing more comes.
    pub(super) const fn pipe(&self) -> Option<&PipeReader> {
        self.pipe.as_ref()
    }

    /// Notes why it is given up; the first reason counts.
    pub(super) fn give_up(&mut self, why: Expansion) {
        self.stopped.get_or_insert(why);
    }

    /// Reads what is there. Whether it is too much.
    pub(super) fn read(&mut self) -> bool {
        let Some(pipe) = &mut self.pipe else {
            return false;
        };
        let mut buffer = [0; 4096];
        // One more for the newline that the script adds.
        while self.bytes.len() <= self.bytes_max + 1 {
            match pipe.read(&mut buffer) {
                Ok(0) => {
                    self.pipe = None;
                    break;
                }
                Ok(length) => self.bytes.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let too_long = self.bytes_max + 1 < self.bytes.len();
        if too_long {
            self.pipe = None;
        }
        too_long
    }

    /// What came of it, after the shell has exited with `code`.
    pub(super) fn finish(mut self, code: i32) -> Expansion {
        if self.read() {
            return Expansion::TooLong;
        }
        match self.stopped {
            Some(why) => why,
            None if code != 0 => Expansion::Failed(code),
            None => {
                self.bytes.pop_if(|last| *last == b'\n');
                Expansion::Word(self.bytes)
            }
        }
    }
}
