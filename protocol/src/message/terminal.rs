//! What a person at a terminal and a shell inside a build say to each other.
//!
//! The shell's end is the helper command `codebuild-breakpoint` in the build; the person's is `grange attach`.
//! Coordinator and worker pass the messages on between them, over a [lane](super::lane).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lease::LeaseId;

/// The most bytes of a terminal in one message: what a terminal reads or a pipe holds at once.
pub const TERMINAL_BYTES_MAX: usize = 16 * 1024;
/// The longest message, in bytes: [`TERMINAL_BYTES_MAX`], and what says what they are.
pub const TERMINAL_MESSAGE_BYTES_MAX: usize = TERMINAL_BYTES_MAX + 64;
/// How many messages may be on their way between coordinator and worker, each way: enough for a fast screen over
/// a long path, and together with [`TERMINALS_OF_WORKER_MAX`] a quarter of what a connection holds, so that
/// terminals that nobody reads hold up neither leases nor logs.
pub const TERMINAL_MESSAGES_MAX: u32 = 8;
/// How many terminals may be open in one attempt: some people, each with a few.
pub const TERMINALS_OF_ATTEMPT_MAX: usize = 8;
/// How many terminals may be open in all attempts of a worker.
pub const TERMINALS_OF_WORKER_MAX: usize = 64;

/// The variable that tells a build that it is debugged: where the helper commands meet.
pub const DEBUG_DIRECTORY: &str = "GRANGE_DEBUG";
/// The socket in that directory at which a build that pauses waits for people.
pub const DEBUG_SOCKET: &str = "debug.sock";

/// The first byte over the socket: the build goes on.
pub const RESUME: u8 = b'r';
/// The first byte over the socket: somebody wants a shell.
pub const SHELL: u8 = b's';
/// The first byte over the socket: somebody waits until the build goes on.
pub const WAIT: u8 = b'w';

/// Names a person at a terminal, as long as the coordinator runs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct TerminalId(pub u64);

/// Which attempt's shell a stream of a worker is for, and whose.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TerminalStart {
    /// The attempt's lease.
    pub lease: LeaseId,
    /// Who waits for it.
    pub terminal: TerminalId,
}

/// The first message of a worker over such a stream.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum TerminalOpened {
    /// A lane follows: [`TerminalInput`] to the worker, [`TerminalOutput`] from it.
    Here,
    /// There is no shell; why, for people.
    NotHere(String),
}

/// From a person.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum TerminalInput {
    /// Keys; at most [`TERMINAL_BYTES_MAX`].
    Bytes(Vec<u8>),
    /// The terminal is so large now.
    Size {
        /// Lines.
        rows: u16,
        /// Characters of a line.
        columns: u16,
    },
}

impl TerminalInput {
    /// Whether it is more than may come at once.
    pub const fn is_too_long(&self) -> bool {
        match self {
            Self::Bytes(bytes) => TERMINAL_BYTES_MAX < bytes.len(),
            Self::Size { .. } => false,
        }
    }
}

/// From a shell.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum TerminalOutput {
    /// What is to be shown; at most [`TERMINAL_BYTES_MAX`].
    Bytes(Vec<u8>),
    /// The shell has ended with this status, 128 and the number of a signal that ended it. The last message.
    Ended(u8),
    /// What the shell was in is over. The last message.
    Gone(Gone),
}

impl TerminalOutput {
    /// Whether nothing follows.
    pub const fn is_last(&self) -> bool {
        !matches!(self, Self::Bytes(_))
    }
}

/// Why a shell is gone that did not end by itself.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Gone {
    /// The build does not pause any more.
    GoesOn,
    /// Somebody stopped the build.
    Stopped,
    /// The build is over its time limit.
    TimedOut,
    /// The worker is not there any more, or has lost the right to the attempt.
    WorkerLost,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GoesOn => "the build goes on",
            Self::Stopped => "the build was stopped",
            Self::TimedOut => "the build is over its time limit",
            Self::WorkerLost => "the worker of the build was lost",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec, message::lane::OnLane};

    #[test]
    fn the_longest_messages_are_within_their_limit() {
        let bytes = vec![b'x'; TERMINAL_BYTES_MAX];
        let output = OnLane::Passed(TerminalOutput::Bytes(bytes.clone()));
        let input = TerminalInput::Bytes(bytes);
        assert!(!input.is_too_long());
        let input = OnLane::Passed(input);
        for encoded in [codec::encode(&output), codec::encode(&input)] {
            assert!(encoded.unwrap().len() <= TERMINAL_MESSAGE_BYTES_MAX);
        }
        assert!(TerminalInput::Bytes(vec![b'x'; TERMINAL_BYTES_MAX + 1]).is_too_long());
    }
}
