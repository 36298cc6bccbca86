//! What a sandbox fails at: always the farm's doing.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use protocol::codec::CodecError;

use super::message::Trouble;

/// Why a sandbox did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Socket or pipe could not be made: the worker has too many files open.
    #[error("failed to make the sockets of a sandbox")]
    Sockets {
        /// Why.
        source: io::Error,
    },
    /// The program could not be executed: its file is gone, or the machine is out of processes.
    #[error("failed to execute `{}` as keeper", program.display())]
    Execute {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keeper could not set the isolation up. The attempt is a fault; if it is the same for every
    /// attempt, the worker lacks what the probe looks for.
    #[error("failed to set up the sandbox in `{}`", work.display())]
    SetUp {
        /// The sandbox's own directory.
        work: PathBuf,
        /// What exactly failed.
        source: Trouble,
    },
    /// The keeper ended or broke off.
    #[error("failed to talk to the keeper of `{}`", work.display())]
    Keeper {
        /// The sandbox's own directory.
        work: PathBuf,
        /// How.
        source: SandboxError,
    },
}

/// Why an operation on a running sandbox failed: always the farm's doing, and the sandbox is of no use
/// any more.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The keeper is gone: somebody killed it, or the machine ran out of memory.
    #[error("keeper ended while it was to {tried}")]
    Gone {
        /// What was tried.
        tried: &'static str,
    },
    /// The socket failed.
    #[error("failed to talk to the keeper, which was to {tried}")]
    Socket {
        /// What was tried.
        tried: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A message could not be encoded or decoded: too large, or the program was replaced meanwhile.
    #[error("failed to exchange a message with the keeper, which was to {tried}")]
    Message {
        /// What was tried.
        tried: &'static str,
        /// Why.
        source: CodecError,
    },
    /// The keeper could not.
    #[error("keeper failed to {tried}")]
    Refused {
        /// What was tried.
        tried: &'static str,
        /// What exactly failed.
        source: Trouble,
    },
    /// The keeper took too long.
    #[error("keeper did not {tried} within {} s", limit.as_secs())]
    TooSlow {
        /// What was tried.
        tried: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The keeper ended with an error: it was killed, or broke. What ran in the sandbox has ended all the
    /// same.
    #[error("keeper ended with {status}")]
    Ended {
        /// How.
        status: ExitStatus,
    },
    /// The keeper ended with an error, and what ran in the sandbox has not ended, as far as one can see.
    /// Nobody else may do the same work now.
    #[error("keeper ended with {status} and left processes behind")]
    Left {
        /// How.
        status: ExitStatus,
    },
}
