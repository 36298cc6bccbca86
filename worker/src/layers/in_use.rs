//! An unpacked layer in somebody's hands.

use std::path::{Path, PathBuf};

use super::{LayerFacts, LayerKey, Layers};

/// An unpacked layer in use: it stays until this is dropped.
#[derive(Debug)]
pub(crate) struct LayerUse {
    pub(super) path: PathBuf,
    pub(super) key: LayerKey,
    pub(super) layers: Layers,
    pub(super) facts: LayerFacts,
    pub(super) was_there: bool,
}

impl LayerUse {
    /// The directory that holds the layer.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of it.
    pub(crate) const fn facts(&self) -> LayerFacts {
        self.facts
    }

    /// Whether nothing had to be unpacked for it.
    pub(crate) const fn was_there(&self) -> bool {
        self.was_there
    }
}

impl Drop for LayerUse {
    fn drop(&mut self) {
        let mut shelf = self.layers.shelf();
        let Some(slot) = shelf.slots.get_mut(&self.key) else {
            return;
        };
        slot.uses = slot.uses.saturating_sub(1);
        if slot.uses == 0 && slot.facts.is_none() {
            shelf.slots.remove(&self.key);
        }
    }
}
