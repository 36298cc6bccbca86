//! What an eviction reaches that knows the future.

use std::collections::BTreeMap;

use super::{Policy, Worth};

/// When room is needed, that entry goes whose next use gives least for its bytes and the time until then
/// (Belady's rule, with sizes and costs); of several that give as little, the one that came first. It is not
/// optimal, but can be had; the optimum is between this and [`bound`](super::bound).
#[derive(Clone, Debug)]
pub struct Clairvoyant<K> {
    /// The uses of each entry, the first one first.
    uses: BTreeMap<K, Vec<Use>>,
    there: BTreeMap<K, There>,
    now: usize,
}

/// An entry that is there.
#[derive(Clone, Copy, Debug)]
struct There {
    bytes: u64,
    /// The number of the use that put it.
    put: usize,
    next: Option<Use>,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    number: usize,
    /// What is won if the entry is there.
    value: u64,
}

impl<K: Ord + Clone> Clairvoyant<K> {
    /// For uses that are a number, the key of an entry, and what is won if it is there; numbers ascend.
    pub fn new(uses: impl Iterator<Item = (usize, K, u64)>) -> Self {
        let mut by_key: BTreeMap<K, Vec<Use>> = BTreeMap::new();
        for (number, key, value) in uses {
            by_key.entry(key).or_default().push(Use { number, value });
        }
        Self {
            uses: by_key,
            there: BTreeMap::new(),
            now: 0,
        }
    }

    fn next_use(&self, key: &K) -> Option<Use> {
        let uses = self.uses.get(key)?;
        let later = uses.partition_point(|one| one.number <= self.now);
        uses.get(later).copied()
    }

    /// What an entry gives, and the bytes and the time that it takes for that.
    fn value_and_volume(&self, there: &There) -> (u128, u128) {
        let Some(next) = there.next else {
            return (0, 1);
        };
        let distance = next.number.saturating_sub(self.now) as u128;
        (next.value.into(), u128::from(there.bytes.max(1)) * distance)
    }
}

impl<K: Ord + Clone> Policy<K> for Clairvoyant<K> {
    fn begin(&mut self, number: usize) {
        self.now = number;
    }

    fn put(&mut self, key: &K, worth: Worth) {
        let there = There {
            bytes: worth.bytes,
            put: self.now,
            next: self.next_use(key),
        };
        self.there.insert(key.clone(), there);
    }

    fn read(&mut self, key: &K) {
        let later = self.next_use(key);
        if let Some(there) = self.there.get_mut(key) {
            there.next = later;
        }
    }

    fn evict(&mut self) -> Option<K> {
        let least = self.there.iter().min_by(|(_, one), (_, other)| {
            let (value, volume) = self.value_and_volume(one);
            let (other_value, other_volume) = self.value_and_volume(other);
            // By value for volume, without dividing.
            let by_worth = (value * other_volume).cmp(&(other_value * volume));
            by_worth.then(one.put.cmp(&other.put))
        });
        let key = least?.0.clone();
        self.there.remove(&key);
        Some(key)
    }
}
