//! The chunks that are being deleted right now.
//!
//! A presence check and a collection must not miss each other: either the collection sees the hold that
//! the check has taken, or the check sees that the chunk is condemned. So a collection condemns first,
//! then looks at the holds, then deletes, then acquits; a check holds first, then looks here, then (if
//! anything was condemned meanwhile) looks at the rows again.

use std::{
    collections::BTreeSet,
    sync::{PoisonError, RwLock},
};

use super::key::ChunkKey;

/// The chunks that are being deleted.
#[derive(Debug, Default)]
pub(crate) struct Condemned {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    chunks: BTreeSet<ChunkKey>,
    /// How many collections there have been.
    round: u64,
}

impl Condemned {
    /// Condemns `chunks`.
    pub(crate) fn condemn(&self, chunks: &[ChunkKey]) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.chunks.extend(chunks);
        state.round += 1;
    }

    /// Ends a collection: nothing is condemned any more.
    pub(crate) fn acquit(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.chunks.clear();
    }

    /// The number of the last collection; `None` while one is going on.
    pub(crate) fn quiet_since(&self) -> Option<u64> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.chunks.is_empty().then_some(state.round)
    }

    /// Which of `chunks` are condemned.
    pub(crate) fn among(&self, chunks: &[ChunkKey]) -> BTreeSet<ChunkKey> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let condemned = chunks.iter().filter(|chunk| state.chunks.contains(chunk));
        condemned.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use protocol::digest::Digest;

    use super::*;

    #[test]
    fn a_collection_is_seen_while_it_goes_on_and_after() {
        let chunk = ChunkKey::of(&Digest::of(b"chunk")).unwrap();
        let condemned = Condemned::default();
        let before = condemned.quiet_since();
        assert!(before.is_some());
        condemned.condemn(&[chunk]);
        assert_eq!(condemned.quiet_since(), None);
        assert!(condemned.among(&[chunk]).contains(&chunk));
        condemned.acquit();
        assert!(condemned.among(&[chunk]).is_empty());
        assert_ne!(condemned.quiet_since(), before);
    }
}
