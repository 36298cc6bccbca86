//! What the farm itself failed at: never the build's doing, so it is tried again elsewhere.

use std::{error::Error, io};

use cache::{client::CacheError, download::FetchError, materialize::MaterializeError, ongoing};

/// What the farm failed at, and why.
#[derive(Debug, thiserror::Error)]
#[error("failed to {tried}")]
pub(crate) struct Fault {
    tried: String,
    source: Box<dyn Error + Send + Sync>,
    /// Whether the cache has lost a part of the unit's state.
    is_of_lost_state: bool,
}

impl Fault {
    /// What was tried, as in "failed to …", and what came in between.
    pub(crate) fn new(
        tried: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            tried: tried.into(),
            source: source.into(),
            is_of_lost_state: false,
        }
    }

    /// Says that the unit's state was wanted: if the cache has not all of it, it is lost.
    pub(crate) fn of_the_state(mut self) -> Self {
        self.is_of_lost_state |= is_missing(&*self.source);
        self
    }

    /// Whether the cache has lost a part of the unit's state, so that it has to be made again.
    pub(crate) const fn is_of_lost_state(&self) -> bool {
        self.is_of_lost_state
    }
}

/// Whether something failed because the cache has not what it was asked for.
fn is_missing(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let of_cache = error.downcast_ref().is_some_and(CacheError::is_missing);
        let of_fetch = error.downcast_ref().is_some_and(FetchError::is_missing);
        let of_tree = error
            .downcast_ref()
            .is_some_and(MaterializeError::is_missing);
        if of_cache || of_fetch || of_tree {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Turns errors into faults.
pub(crate) trait OrFault<T> {
    /// Names what was tried, as in "failed to …".
    fn or_fault(self, tried: &str) -> Result<T, Fault>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> OrFault<T> for Result<T, E> {
    fn or_fault(self, tried: &str) -> Result<T, Fault> {
        self.map_err(|error| Fault::new(tried, error))
    }
}

/// Runs `work`, which blocks, where that is allowed. In an attempt that is given up it is waited for.
pub(crate) async fn blocking<T, E>(
    tried: &str,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Fault>
where
    T: Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
{
    match ongoing::spawn_blocking(work).await {
        Ok(done) => done.or_fault(tried),
        Err(ended) => Err(Fault::new(tried, io::Error::from(ended))),
    }
}

/// Changes something below the attempt's directory, where that may block: not any more if the attempt is given up,
/// for then the directory is on its way out; and otherwise that waits for it.
pub(crate) async fn changing<T: Send + 'static>(
    change: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let changed = ongoing::spawn_blocking(|| match ongoing::is_given_up() {
        true => Err(io::Error::other("nobody wants it any more")),
        false => change(),
    });
    changed.await.unwrap_or_else(|ended| Err(ended.into()))
}

#[cfg(test)]
mod tests {
    use protocol::{
        digest::Digest,
        message::{Refusal, RefusalCode},
    };

    use super::*;

    #[test]
    fn only_what_the_cache_has_not_is_lost_state() {
        let missing = || CacheError::MissingChunk {
            digest: Digest::of(b"gone"),
        };
        let refused = |code| CacheError::Refused {
            what: "write an entry",
            source: Refusal::new(code, "no"),
        };
        let fetched = Fault::new("fetch", FetchError::from(missing()));
        assert!(!fetched.is_of_lost_state(), "it may have been anything");
        assert!(fetched.of_the_state().is_of_lost_state());
        let unpacked = MaterializeError::from(FetchError::from(missing()));
        let kept = Fault::new("keep a layer", Fault::new("unpack", unpacked));
        assert!(kept.of_the_state().is_of_lost_state(), "however deep it is");
        let named = refused(RefusalCode::FailedPrecondition);
        assert!(Fault::new("store", named).of_the_state().is_of_lost_state());
        let denied = FetchError::from(refused(RefusalCode::PermissionDenied));
        assert!(
            !Fault::new("fetch", denied)
                .of_the_state()
                .is_of_lost_state()
        );
        let full = Fault::new("unpack", io::Error::from(io::ErrorKind::StorageFull));
        assert!(!full.of_the_state().is_of_lost_state());
    }
}
