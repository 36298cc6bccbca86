//! What a worker and the coordinator say to each other.
//!
//! Every stream that a worker opens starts with a [`WorkRequest`] frame. One stream,
//! [`WorkRequest::Session`], is open for as long as the worker is there: it sends [`WorkerMessage`]s, the
//! first of them [`WorkerMessage::Join`], and gets [`CoordinatorMessage`]s. The log of each attempt goes
//! over a stream of its own, [`WorkRequest::Log`]: for each piece a [`LogPiece`] frame and its bytes; the
//! coordinator answers with [`LogAck`] frames, the first at once, saying what it has already.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    access::SignedGrant,
    blob::{Blob, TreeRef},
    build::Phase,
    job::{AttemptResult, JobId, Task},
    lease::LeaseId,
    message::{cache::keys::CacheScope, terminal::TerminalStart},
    name::{Namespace, ProjectName, Team},
    worker::{Incarnation, WorkerOffer},
};

/// The first frame of each stream that a worker opens.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum WorkRequest {
    /// The stream carries the session.
    Session,
    /// The stream carries the log of one attempt.
    Log(LogStart),
    /// What are the secrets of the unit that this lease is for? Answer:
    /// [`SecretsReply`](crate::secret::SecretsReply), to whoever holds the lease.
    Secrets(LeaseId),
    /// The stream carries a terminal: [`TerminalOpened`](super::terminal::TerminalOpened), and if there is a shell a
    /// lane after it.
    Terminal(TerminalStart),
}

/// From a worker.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum WorkerMessage {
    /// The worker is there.
    Join {
        /// What it offers.
        offer: WorkerOffer,
        /// Which process it is.
        incarnation: Incarnation,
        /// Which connection of this process it is: counts up. What was given over a later one cannot be
        /// missed by what is said here.
        connection: u64,
        /// The process before it in the same data directory, if nothing that that one started runs any
        /// more: others may have at once what it was given. `None`: there was none, or it is not certain.
        ended: Option<Incarnation>,
        /// Whether it takes no units that it has not begun.
        leaving: bool,
        /// All attempts that it runs, those too that it is killing, and all results that were not
        /// acknowledged. What this process was given and does not name, it never began.
        holds: Vec<HeldLease>,
    },
    /// The worker wants to go on with these. Sent every
    /// [`LEASE_RENEWAL`](crate::lease::LEASE_RENEWAL), also when there are none.
    Renew {
        /// Counts up, so that the worker knows when it sent what was acknowledged.
        sequence: u64,
        /// All leases it holds.
        leases: Vec<LeaseId>,
    },
    /// An attempt has ended, and everything of it is stored. Repeated until acknowledged.
    Finished {
        /// The attempt's lease.
        lease: LeaseId,
        /// What came of it.
        result: Box<AttemptResult>,
    },
    /// The first command of the attempt is about to start: said only if the assignment
    /// [asks for it](Assignment::asks_to_begin), repeated until [`CoordinatorMessage::GoAhead`] comes,
    /// and no command starts before.
    Began {
        /// The attempt's lease.
        lease: LeaseId,
    },
    /// The worker does not begin an attempt: its assignment came too late.
    Declined {
        /// The lease.
        lease: LeaseId,
    },
    /// Nothing of these attempts runs any more, and nothing of them will be reported: others may have
    /// their jobs at once. From a worker that leaves also: what it keeps of units is gone.
    HandOver {
        /// The attempts' leases.
        leases: Vec<LeaseId>,
    },
    /// How far the worker is with bringing here what an attempt starts from. Said now and then while that
    /// takes long, and a last time when it is there; nobody answers, and nothing depends on it.
    Restoring {
        /// The attempt's lease.
        lease: LeaseId,
        /// How far it is.
        progress: RestoreProgress,
    },
    /// The worker takes no units that it has not begun: somebody told it to leave. It stays until
    /// [`CoordinatorMessage::Dismissed`].
    Leaving,
}

/// To a worker.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum CoordinatorMessage {
    /// The worker has joined.
    Joined {
        /// Where the cache is.
        cache: SocketAddr,
        /// Of the leases that it said it holds, those that it may go on with.
        leases: Vec<LeaseId>,
    },
    /// Run this.
    Assign(Box<Assignment>),
    /// These leases live on, counted from when the renewal was sent. Those that were in the renewal and
    /// are not here are lost: the worker kills their attempts.
    Renewed {
        /// The renewal that this answers.
        sequence: u64,
        /// The leases that live on.
        leases: Vec<LeaseId>,
    },
    /// Kill the attempt: its result is not wanted any more, but its log is.
    Revoke {
        /// The attempt's lease.
        lease: LeaseId,
        /// Why.
        reason: RevokeReason,
    },
    /// The result of an attempt is journalled; the worker may forget it.
    Acknowledged {
        /// The attempt's lease.
        lease: LeaseId,
    },
    /// That an attempt has [begun](WorkerMessage::Began) is journalled: its first command may start.
    GoAhead {
        /// The attempt's lease.
        lease: LeaseId,
    },
    /// Let running attempts end, and the units whose state is on this worker; then leave.
    Drain,
    /// There is nothing left for the worker to do, and nothing will come: it may leave.
    Dismissed,
    /// Somebody wants a shell in an attempt: open a [stream](WorkRequest::Terminal) for it. Not answered otherwise.
    Attach(TerminalStart),
}

/// How far a restore is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RestoreProgress {
    /// Bytes that are in place, uncompressed.
    pub bytes_done: u64,
    /// Bytes in all; not zero. All of them are done: the restore is over.
    pub bytes_total: u64,
}

/// Why an attempt is to be killed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum RevokeReason {
    /// Somebody stopped the build. The attempt reports `Stopped`.
    Stopped,
    /// The build is over its time limit. The attempt reports `TimedOut`.
    TimedOut,
    /// The lease was lost. The attempt reports nothing.
    Lost,
}

/// A lease that a worker holds when it comes back.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HeldLease {
    /// The lease.
    pub lease: LeaseId,
    /// The job that it is for.
    pub job: JobId,
    /// Which try.
    pub attempt: u32,
}

/// One attempt at a job, with all that the worker needs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Assignment {
    /// The right to it.
    pub lease: LeaseId,
    /// The job.
    pub job: JobId,
    /// Which try, counted from 1.
    pub attempt: u32,
    /// The phase, for the log.
    pub phase: Phase,
    /// Index of the unit in the build's graph.
    pub unit: u32,
    /// Whose build it is.
    pub team: Team,
    /// Where its results go.
    pub namespace: Namespace,
    /// The project, for keys of dependency caches.
    pub project: ProjectName,
    /// What to do.
    pub task: Task,
    /// What to start from.
    pub input: JobInput,
    /// Variables that depend on the occasion, set over all others.
    pub variables: BTreeMap<String, String>,
    /// Whether no phase of the unit has failed so far.
    pub succeeding: bool,
    /// What the worker may do at the cache.
    pub grant: SignedGrant,
    /// Whether to say that the first command is about to start, and to wait for the answer: the phase
    /// must not run again after that.
    pub asks_to_begin: bool,
    /// What is left of the build's time limit.
    pub time_left: Duration,
    /// The secondary sources, by identifier.
    pub secondary_sources: BTreeMap<String, TreeRef>,
    /// Whose dependency caches the build uses.
    pub dependencies: CacheScope,
    /// Whether the unit has secrets: the worker [asks](WorkRequest::Secrets) for them before it does
    /// anything.
    pub has_secrets: bool,
    /// Whether it pauses at breakpoints.
    pub debug: bool,
}

/// What an attempt starts from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum JobInput {
    /// The uploaded source.
    Source(TreeRef),
    /// What the phase before it left, anywhere.
    Snapshot(Blob),
    /// What the phase before it left on this worker (isolation level `host`).
    Local,
    /// Nothing: the attempt fetches the source.
    Nothing,
}

/// Whose log a stream carries.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogStart {
    /// The lease under which the log is written.
    pub lease: LeaseId,
    /// The job.
    pub job: JobId,
    /// Which try.
    pub attempt: u32,
}

/// The most log bytes in one piece.
pub const LOG_PIECE_BYTES_MAX: u32 = 256 * 1024;
/// The most log bytes of one attempt; what comes after is counted and dropped, and the log says so.
pub const LOG_BYTES_MAX: u64 = 1 << 30;

/// A piece of log.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogPiece {
    /// Where it starts in the attempt's log, in bytes. What the coordinator has already is ignored.
    pub offset: u64,
    /// How many bytes follow; at most [`LOG_PIECE_BYTES_MAX`].
    pub bytes: u32,
}

/// How much of an attempt's log is durable.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogAck {
    /// Bytes from the start.
    pub durable: u64,
}
