//! What the chosen eviction is compared with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Ghosts, Policy, Worth};

/// Least recently used first.
#[derive(Clone, Debug)]
pub struct Lru<K> {
    used: BTreeMap<K, u64>,
    order: BTreeSet<(u64, K)>,
    clock: u64,
}

impl<K> Default for Lru<K> {
    fn default() -> Self {
        Self {
            used: BTreeMap::new(),
            order: BTreeSet::new(),
            clock: 0,
        }
    }
}

impl<K: Ord + Clone> Policy<K> for Lru<K> {
    fn put(&mut self, key: &K, _worth: Worth) {
        self.clock += 1;
        if let Some(before) = self.used.insert(key.clone(), self.clock) {
            self.order.remove(&(before, key.clone()));
        }
        self.order.insert((self.clock, key.clone()));
    }

    fn read(&mut self, key: &K) {
        if self.used.contains_key(key) {
            self.put(key, Worth::default());
        }
    }

    fn evict(&mut self) -> Option<K> {
        let (_, key) = self.order.pop_first()?;
        self.used.remove(&key);
        Some(key)
    }
}

/// Greedy dual with size and frequency (Cherkasova 1998), without probation.
#[derive(Clone, Debug)]
pub struct GreedyDual<K> {
    entries: BTreeMap<K, (u64, u64, Worth)>,
    ranks: BTreeSet<(u64, K)>,
    age: u64,
}

impl<K> Default for GreedyDual<K> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            ranks: BTreeSet::new(),
            age: 0,
        }
    }
}

impl<K: Ord + Clone> GreedyDual<K> {
    fn rank(&mut self, key: &K, reads: u64, worth: Worth) {
        let rank = self.age.saturating_add(worth.value().saturating_mul(reads));
        let before = self.entries.insert(key.clone(), (rank, reads, worth));
        if let Some((before, ..)) = before {
            self.ranks.remove(&(before, key.clone()));
        }
        self.ranks.insert((rank, key.clone()));
    }
}

impl<K: Ord + Clone> Policy<K> for GreedyDual<K> {
    fn put(&mut self, key: &K, worth: Worth) {
        self.rank(key, 1, worth);
    }

    fn read(&mut self, key: &K) {
        if let Some((_, reads, worth)) = self.entries.get(key).copied() {
            self.rank(key, reads.saturating_add(1), worth);
        }
    }

    fn evict(&mut self) -> Option<K> {
        let (rank, key) = self.ranks.pop_first()?;
        self.entries.remove(&key);
        self.age = rank;
        Some(key)
    }
}

/// S3-FIFO (Yang and others, SOSP 2023) in bytes: it does not look at what an entry saves.
#[derive(Clone, Debug)]
pub struct S3Fifo<K> {
    /// Bytes, reads since it was last looked at, whether it is in the main queue.
    entries: BTreeMap<K, (u64, u8, bool)>,
    small: VecDeque<K>,
    main: VecDeque<K>,
    small_bytes: u64,
    main_bytes: u64,
    ghosts: Ghosts<K>,
}

impl<K> Default for S3Fifo<K> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            small_bytes: 0,
            main_bytes: 0,
            ghosts: Ghosts::default(),
        }
    }
}

impl<K: Ord + Clone> Policy<K> for S3Fifo<K> {
    fn put(&mut self, key: &K, worth: Worth) {
        if self.entries.contains_key(key) {
            return self.read(key);
        }
        let is_main = self.ghosts.take(key);
        self.entries.insert(key.clone(), (worth.bytes, 0, is_main));
        if is_main {
            self.main.push_back(key.clone());
            self.main_bytes += worth.bytes;
        } else {
            self.small.push_back(key.clone());
            self.small_bytes += worth.bytes;
        }
    }

    fn read(&mut self, key: &K) {
        if let Some((_, reads, _)) = self.entries.get_mut(key) {
            *reads = 3.min(*reads + 1);
        }
    }

    fn evict(&mut self) -> Option<K> {
        loop {
            let wants_small = (self.small_bytes + self.main_bytes) / 10 < self.small_bytes;
            let from_small = (wants_small || self.main.is_empty()) && !self.small.is_empty();
            let queue = match from_small {
                true => &mut self.small,
                false => &mut self.main,
            };
            let key = queue.pop_front()?;
            let Some((bytes, reads, is_main)) = self.entries.get_mut(&key) else {
                continue;
            };
            if *reads == 0 {
                let bytes = *bytes;
                self.entries.remove(&key);
                match from_small {
                    true => self.small_bytes -= bytes,
                    false => self.main_bytes -= bytes,
                }
                self.ghosts.add(key.clone());
                return Some(key);
            }
            if from_small {
                (*reads, *is_main) = (0, true);
                self.small_bytes -= *bytes;
                self.main_bytes += *bytes;
            } else {
                *reads -= 1;
            }
            self.main.push_back(key);
        }
    }
}
