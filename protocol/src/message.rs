//! The messages, one file per conversation.
//!
//! Every request is a stream of its own: the client opens it and sends one request frame; the server
//! answers with `Result<reply, Refusal>`, and with what else the request says. `docs/protocol.md` has
//! the whole.

pub mod cache;
pub mod client;
pub mod handshake;
pub mod lane;
pub mod terminal;
pub mod work;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a request was refused. What is inside a server stays inside: `internal` says an id under which
/// the server's log has the causes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind, for programs.
    pub code: RefusalCode,
    /// The whole, for people: what was tried, on what, expected and found, what to do next.
    pub message: String,
    /// When trying again may help; `None`: not by itself.
    pub retry_after: Option<Duration>,
}

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum RefusalCode {
    /// The request makes no sense; sending it again will not help.
    InvalidArgument,
    /// What it names is not there, or not for this client to know of.
    NotFound,
    /// Something has to be done first.
    FailedPrecondition,
    /// A limit is reached: a quota, a full disk, too much in flight.
    ResourceExhausted,
    /// This identity may not do it.
    PermissionDenied,
    /// The server cannot do it now.
    Unavailable,
    /// The server has failed.
    Internal,
}

impl RefusalCode {
    /// The name, as metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::FailedPrecondition => "failed_precondition",
            Self::ResourceExhausted => "resource_exhausted",
            Self::PermissionDenied => "permission_denied",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

impl Refusal {
    /// A refusal that trying again by itself will not change.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The same, saying when trying again may help.
    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}
