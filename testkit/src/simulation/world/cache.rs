//! The cache: content that stays while it is held or named.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{build::BuildId, digest::Digest};

use crate::simulation::{
    dice::Dice,
    script::{Micros, SECOND},
};

/// How long content is held after it was put: short, so that an eviction finds what nobody names.
const HOLD: Micros = 120 * SECOND;

/// The cache. What it acknowledged survives it.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) is_up: bool,
    /// Until when it is held.
    content: BTreeMap<Digest, Micros>,
    /// What is named, by build.
    snapshots: BTreeMap<BuildId, BTreeSet<Digest>>,
    sources: BTreeMap<BuildId, Digest>,
    /// What went although it was named, and was not put again since.
    lost: BTreeSet<Digest>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            is_up: true,
            content: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            sources: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }
}

impl Cache {
    /// Takes content and holds it.
    pub(super) fn put(&mut self, digest: Digest, now: Micros) {
        self.content.insert(digest, now + HOLD);
        self.lost.remove(&digest);
    }

    /// Loses some snapshots, as a damaged disk does; `number` says which.
    pub(super) fn lose(&mut self, dice: Dice, number: u64) {
        for (place, digest) in (0..).zip(self.snapshots.values().flatten()) {
            let goes = dice.percent("lost", &[number, place], 60);
            if goes && self.content.remove(digest).is_some() {
                self.lost.insert(*digest);
            }
        }
    }

    /// Whether content went although it was named.
    pub(super) fn has_lost(&self, digest: Digest) -> bool {
        self.lost.contains(&digest)
    }

    /// Names content as a snapshot of a build; `false`: it is not there.
    pub(super) fn name_snapshot(&mut self, build: BuildId, digest: Digest) -> bool {
        self.snapshots.entry(build).or_default().insert(digest);
        self.content.contains_key(&digest)
    }

    /// Names content as the source of a build; `false`: it is not there.
    pub(super) fn name_source(&mut self, build: BuildId, digest: Digest) -> bool {
        self.sources.insert(build, digest);
        self.content.contains_key(&digest)
    }

    /// Names of a build that has ended go: its snapshots.
    pub(super) fn forget_snapshots(&mut self, build: BuildId) {
        self.snapshots.remove(&build);
    }

    /// Names of a build that is deleted go.
    pub(super) fn forget(&mut self, build: BuildId) {
        self.forget_snapshots(build);
        self.sources.remove(&build);
    }

    /// The builds that snapshots are named for.
    pub(super) fn builds(&self) -> Vec<BuildId> {
        self.snapshots.keys().copied().collect()
    }

    /// Whether content is there.
    pub(super) fn has(&self, digest: Digest) -> bool {
        self.content.contains_key(&digest)
    }

    /// Lets go of all that is neither held nor named; gives how much that was.
    pub(super) fn evict(&mut self, now: Micros) -> usize {
        let named: BTreeSet<Digest> = self
            .snapshots
            .values()
            .flatten()
            .chain(self.sources.values())
            .copied()
            .collect();
        let before = self.content.len();
        self.content
            .retain(|digest, held| now < *held || named.contains(digest));
        before - self.content.len()
    }
}
