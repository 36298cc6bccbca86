//! What can go wrong with the cold tier.

use std::time::Duration;

use protocol::{canonical::DecodeError, report::Chain};

use crate::store::{ClosureError, Trouble};

/// Why the cold tier cannot be used as it is set up. Nothing was asked of the server yet.
#[derive(Debug, thiserror::Error)]
pub enum OpenColdError {
    /// The address or the credentials make no sense.
    #[error("the settings of the cold tier's bucket `{bucket}` make no sense")]
    Settings {
        /// Which bucket.
        bucket: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Names cannot begin so.
    #[error("no object's name begins with the cold tier's prefix `{prefix}`")]
    Prefix {
        /// What was given.
        prefix: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why something was not done with the cold tier. Builds go on without it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ColdError {
    /// The server, or the way to it.
    #[error("failed to {what} `{name}` in the cold tier")]
    Bucket {
        what: &'static str,
        name: String,
        source: Box<object_store::Error>,
    },
    /// An object is larger than any that was written.
    #[error("`{name}` in the cold tier has {found} bytes, expected at most {limit}")]
    TooLarge {
        name: String,
        found: u64,
        limit: u64,
    },
    /// The server takes longer than anybody wants to wait.
    #[error("failed to {what} in the cold tier within {}s", limit.as_secs())]
    Slow { what: &'static str, limit: Duration },
    /// The server failed a short while ago.
    #[error("the cold tier is left in peace for a while after a failure")]
    Paused,
    /// A listing does not end.
    #[error("the listing of `{start}` in the cold tier has no end after {pages} pages")]
    Endless { start: String, pages: u32 },
    /// No object can be called so.
    #[error("`{name}` is too long for the name of an object, or no name at all")]
    Name {
        name: String,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// An entry's object is not what was written.
    #[error("entry `{name}` in the cold tier is damaged")]
    Record { name: String, source: DecodeError },
    /// An entry's object is not what its name says, or does not name the chunks of its trees.
    #[error("entry `{name}` in the cold tier contradicts itself")]
    Contradiction { name: String },
    /// The same, for a reason.
    #[error("entry `{name}` in the cold tier makes no sense")]
    Entry { name: String, source: ClosureError },
    /// A chunk that an entry names is not there.
    #[error("`{name}` is not in the cold tier, and an entry there names it")]
    NoChunk { name: String },
    /// A chunk has other bytes.
    #[error("`{name}` in the cold tier is damaged")]
    Chunk {
        name: String,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The store has a problem of its own.
    #[error(transparent)]
    Store(#[from] Trouble),
}

impl ColdError {
    /// The object that is worth nothing, so that it goes; `None`: nothing is known against any.
    pub(super) fn damaged(&self) -> Option<&str> {
        match self {
            Self::TooLarge { name, .. }
            | Self::Record { name, .. }
            | Self::Contradiction { name }
            | Self::Entry { name, .. }
            | Self::NoChunk { name }
            | Self::Chunk { name, .. } => Some(name),
            Self::Bucket { .. }
            | Self::Slow { .. }
            | Self::Paused
            | Self::Endless { .. }
            | Self::Name { .. }
            | Self::Store(_) => None,
        }
    }

    /// Whether the server is away or ill, and not just unwilling to do one thing: then it is left in peace for a
    /// while.
    pub(super) fn is_of_server(&self) -> bool {
        match self {
            Self::Slow { .. } | Self::Endless { .. } => true,
            Self::Bucket { source, .. } => matches!(
                **source,
                object_store::Error::Generic { .. } | object_store::Error::Unauthenticated { .. }
            ),
            _ => false,
        }
    }

    /// The error and its causes, each once, as far as anybody wants to read it: a server may say much.
    pub(super) fn text(&self) -> String {
        const LETTERS_MAX: usize = 600;
        let text = Chain(self).to_string();
        text.chars().take(LETTERS_MAX).collect()
    }
}

pub(super) fn bucket_error(
    what: &'static str,
    name: &str,
) -> impl FnOnce(object_store::Error) -> ColdError {
    let name = name.to_owned();
    move |source| ColdError::Bucket {
        what,
        name,
        source: Box::new(source),
    }
}
