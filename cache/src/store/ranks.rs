//! How far eviction has come, and what went not long ago: in memory, the ages in a row too.

use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::digest::Digest;

use super::{
    Trouble,
    rocks::{Column, Rocks},
    row,
};
use crate::eviction::{Ages, Ghosts, Standing};

/// The row of [`Column::Meta`] that has the ages.
pub(super) const AGES: &[u8] = b"ages";

/// What changes of entries look at to say how an entry stands.
#[derive(Debug)]
pub(super) struct Ranks(Mutex<State>);

#[derive(Debug)]
struct State {
    ages: Ages,
    /// Hashes of the keys of entries.
    ghosts: Ghosts<[u8; 32]>,
}

impl Ranks {
    /// As the database has them; what went before it was opened is forgotten.
    pub(super) fn read(rocks: &Rocks) -> Result<Self, Trouble> {
        let ages = rocks.get(Column::Meta, AGES)?;
        let ages = ages.as_deref().map(row::decode_ages).transpose()?;
        Ok(Self(Mutex::new(State {
            ages: ages.unwrap_or_default(),
            ghosts: Ghosts::default(),
        })))
    }

    /// How far the queues have come.
    pub(super) fn ages(&self) -> Ages {
        self.lock().ages
    }

    /// Whether the entry under `key` went not long ago; that is forgotten.
    pub(super) fn is_back(&self, key: &[u8]) -> bool {
        self.lock().ghosts.take(Digest::of(key).hash())
    }

    /// The entry under `key`, which stood so, goes; gives how far the queues have come.
    pub(super) fn evicted(&self, key: &[u8], standing: Standing) -> Ages {
        let mut state = self.lock();
        state.ages = state.ages.after(standing);
        state.ghosts.add(*Digest::of(key).hash());
        state.ages
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Hints: a half-made change would cost a few hits.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
