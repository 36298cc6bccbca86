//! The keys of entries that were evicted not long ago: one that comes back had gone too soon.

use std::collections::{BTreeSet, VecDeque};

/// How many keys are remembered. Some megabytes at most.
const GHOSTS_MAX: usize = 1 << 14;

/// Keys that were evicted.
#[derive(Clone, Debug)]
pub struct Ghosts<K> {
    keys: BTreeSet<K>,
    /// The oldest first; keys that came back since are in here still.
    order: VecDeque<K>,
}

impl<K> Default for Ghosts<K> {
    fn default() -> Self {
        Self {
            keys: BTreeSet::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Ord + Clone> Ghosts<K> {
    /// Remembers a key, and forgets the oldest if there are too many.
    pub fn add(&mut self, key: K) {
        if self.keys.insert(key.clone()) {
            self.order.push_back(key);
        }
        while GHOSTS_MAX < self.order.len() {
            if let Some(oldest) = self.order.pop_front() {
                self.keys.remove(&oldest);
            }
        }
    }

    /// Whether the key is remembered; it is forgotten.
    pub fn take(&mut self, key: &K) -> bool {
        self.keys.remove(key)
    }
}
