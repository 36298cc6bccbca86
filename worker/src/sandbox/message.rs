//! What a worker and a keeper say to each other, over a socket that nobody else has.

use std::{collections::BTreeMap, fmt, io, path::Path};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::SandboxSpec;

/// What a worker asks its keeper.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Request {
    /// The first request: set the sandbox up. Answered by `Started` or `Refused`, number 0.
    Start(Box<SandboxSpec>),
    /// Kill everything and end at this moment, unless a later one is named before: microseconds on the
    /// clock that goes on while the machine sleeps. Not answered.
    Until(u64),
    /// Run a command. Answered by `Exited` when it has ended.
    Run {
        /// Names the request.
        id: u64,
        /// The text for the shell.
        command: String,
    },
    /// Expand a word. Answered by `Expanded`.
    Expand {
        /// Names the request.
        id: u64,
        /// The word.
        text: String,
        /// How long the result may be, in bytes.
        bytes_max: u32,
    },
    /// Give the expansion of that number up. Its answer says so.
    Cancel {
        /// The number of the expansion.
        id: u64,
    },
    /// Tell variables and directory. Answered by `State`.
    State {
        /// Names the request.
        id: u64,
    },
    /// Kill everything that commands started. Answered by `Quiesced`.
    Quiesce {
        /// Names the request.
        id: u64,
    },
    /// Go back to the variables and the directory of the start. Not answered.
    Rewind,
}

/// What a keeper answers.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Reply {
    /// The sandbox is set up.
    Started {
        /// The init of its PID namespace, as the worker sees it; `None` at level `host`.
        init: Option<i32>,
        /// What is different from the ideal.
        notes: Vec<String>,
    },
    /// The request could not be carried out.
    Refused {
        /// The request.
        id: u64,
        /// Why.
        trouble: Trouble,
    },
    /// A command ended.
    Exited {
        /// The request.
        id: u64,
        /// How.
        exit: CommandExit,
    },
    /// A word was expanded, or not.
    Expanded {
        /// The request.
        id: u64,
        /// What came of it.
        expansion: Expansion,
    },
    /// Variables and directory.
    State {
        /// The request.
        id: u64,
        /// They.
        carried: Carried,
    },
    /// Nothing that a command started is left.
    Quiesced {
        /// The request.
        id: u64,
    },
}

impl Reply {
    /// The number of the request that this answers.
    pub(super) const fn id(&self) -> u64 {
        match self {
            Self::Started { .. } => 0,
            Self::Refused { id, .. }
            | Self::Exited { id, .. }
            | Self::Expanded { id, .. }
            | Self::State { id, .. }
            | Self::Quiesced { id } => *id,
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CommandExit {
    /// The exit status as shells count it: 0 to 255, 128 and the signal's number if a signal ended it.
    pub code: i32,
    /// The signal that ended the shell itself; `None` if it exited.
    pub signal: Option<i32>,
    /// Why variables and directory were not carried over although the command ran to its end, for
    /// people; `None` if they were, or if the command left its shell early.
    pub state_lost: Option<String>,
    /// Why its shell was not started, in the words of CodeBuild; `None`: it was.
    pub not_started: Option<String>,
}

/// What came of the expansion of a word.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Expansion {
    /// The word expands to these bytes.
    Word(Vec<u8>),
    /// The shell ended with this status: the word makes no sense to it. What it said is in the log.
    Failed(i32),
    /// The word expands to more than it may.
    TooLong,
    /// It took too long.
    TimedOut,
}

/// What carries over from command to command and from phase to phase.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Carried {
    /// The exported variables.
    pub variables: BTreeMap<String, Vec<u8>>,
    /// The working directory, absolute.
    pub directory: Vec<u8>,
}

/// What exactly failed: an operation, what it was tried on, and the error of the operating system.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Trouble {
    /// What was tried, as in "failed to …".
    pub tried: String,
    /// On what.
    pub path: String,
    /// The error number.
    pub errno: i32,
}

impl Trouble {
    /// Makes the trouble of an error number.
    pub(super) fn new(tried: &str, path: impl AsRef<Path>, errno: Errno) -> Self {
        Self {
            tried: tried.to_owned(),
            path: path.as_ref().display().to_string(),
            errno: errno.raw_os_error(),
        }
    }

    /// Makes the trouble of an I/O error.
    pub(super) fn io(tried: &str, path: impl AsRef<Path>, error: &io::Error) -> Self {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        Self::new(tried, path, errno)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The error number is all that is known of the cause, so it is said here.
        let cause = io::Error::from_raw_os_error(self.errno);
        write!(f, "failed to {} `{}`: {cause}", self.tried, self.path)
    }
}

impl std::error::Error for Trouble {}
