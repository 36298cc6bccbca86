//! A cache in numbers: which entries it has, and how many bytes of distinct chunks.

use std::{collections::BTreeMap, ops::Bound};

use super::{Chunk, Found, Lookup, Rates, at_size::chunk_numbers};
use crate::eviction::{Lru, Policy};

/// Replays `lookups` through a cache that has room for `capacity` bytes of distinct chunks. Of what is not
/// there all is put; what is larger than the cache is not kept.
pub fn replay<'a>(lookups: &'a [Lookup], capacity: u64, policy: &mut dyn Policy<&'a str>) -> Rates {
    let mut rates = Rates::default();
    run((lookups, capacity), policy, |lookup, (found, _), there| {
        rates.count(lookup, found, there);
    });
    rates
}

/// What each of `lookups` would find in a cache that has room for everything: under which key, and how much.
pub(super) fn reads(lookups: &[Lookup]) -> Vec<(Found, Option<&str>)> {
    let mut reads = Vec::with_capacity(lookups.len());
    let all = (lookups, u64::MAX);
    run(all, &mut Lru::default(), |_, read, _| reads.push(read));
    reads
}

/// Calls `each` for each lookup with what it found, under which key, and how many bytes of its chunks were
/// there at all.
fn run<'a>(
    (lookups, capacity): (&'a [Lookup], u64),
    policy: &mut dyn Policy<&'a str>,
    mut each: impl FnMut(&Lookup, (Found, Option<&'a str>), u64),
) {
    let mut cache = Simulated::new(lookups, capacity, policy);
    for (number, lookup) in lookups.iter().enumerate() {
        cache.policy.begin(number);
        let there = cache.there(&lookup.chunks);
        let (found, key) = cache.read(lookup);
        each(lookup, (found, key), there);
        if lookup.replaces || !matches!(found, Found::Exact(_)) {
            cache.put(number, lookup);
        }
    }
}

struct Simulated<'a, 'p> {
    policy: &'p mut dyn Policy<&'a str>,
    capacity: u64,
    /// What the distinct chunks of all entries have, in bytes.
    used: u64,
    entries: BTreeMap<&'a str, Entry<'a>>,
    /// How many entries have each chunk.
    holders: Vec<u32>,
    /// The last mark that each chunk got, and the last one there was.
    marks: Vec<usize>,
    mark: usize,
}

struct Entry<'a> {
    /// The number of the lookup that put it.
    written: usize,
    chunks: &'a [Chunk],
}

impl<'a, 'p> Simulated<'a, 'p> {
    fn new(lookups: &[Lookup], capacity: u64, policy: &'p mut dyn Policy<&'a str>) -> Self {
        let chunks = chunk_numbers(lookups);
        Self {
            policy,
            capacity,
            used: 0,
            entries: BTreeMap::new(),
            holders: vec![0; chunks],
            marks: vec![0; chunks],
            mark: 0,
        }
    }

    /// How many bytes of `chunks` are there.
    fn there(&self, chunks: &[Chunk]) -> u64 {
        let there = chunks.iter().filter(|chunk| 0 < self.holders[chunk.number]);
        there.map(|chunk| chunk.bytes).sum()
    }

    /// Reads the entry under the key of `lookup`, or the newest that one of its fallback keys begins.
    fn read(&mut self, lookup: &Lookup) -> (Found, Option<&'a str>) {
        let exact = self.entries.get_key_value(lookup.key.as_str());
        let exact = exact.map(|(&key, _)| key);
        let fallback = || lookup.fallbacks.iter().find_map(|start| self.newest(start));
        let Some(key) = exact.or_else(fallback) else {
            return (Found::Nothing, None);
        };
        self.policy.read(&key);
        let same = self.same(&lookup.chunks, key);
        let found = match exact {
            Some(_) => Found::Exact(same),
            None => Found::Fallback(same),
        };
        (found, Some(key))
    }

    fn newest(&self, start: &str) -> Option<&'a str> {
        let behind = (Bound::Included(start), Bound::<&str>::Unbounded);
        let behind = self.entries.range::<str, _>(behind);
        let begun = behind.take_while(|(key, _)| key.starts_with(start));
        let newest = begun.max_by_key(|(_, entry)| entry.written);
        newest.map(|(&key, _)| key)
    }

    /// How many bytes of `chunks` the entry under `key` has.
    fn same(&mut self, chunks: &[Chunk], key: &str) -> u64 {
        let Some(entry) = self.entries.get(key) else {
            return 0;
        };
        self.mark += 1;
        for chunk in entry.chunks {
            self.marks[chunk.number] = self.mark;
        }
        let same = chunks
            .iter()
            .filter(|chunk| self.marks[chunk.number] == self.mark);
        same.map(|chunk| chunk.bytes).sum()
    }

    fn put(&mut self, number: usize, lookup: &'a Lookup) {
        let (key, worth) = (lookup.key.as_str(), lookup.worth());
        if self.capacity < worth.bytes {
            return;
        }
        self.remove(key);
        // What goes is chosen among all, the new one included.
        self.policy.put(&key, worth);
        let chunks = &*lookup.chunks;
        for chunk in chunks {
            let holders = &mut self.holders[chunk.number];
            self.used += if *holders == 0 { chunk.bytes } else { 0 };
            *holders += 1;
        }
        let entry = Entry {
            written: number,
            chunks,
        };
        self.entries.insert(key, entry);
        while self.capacity < self.used {
            let Some(victim) = self.policy.evict() else {
                break;
            };
            self.remove(victim);
        }
    }

    fn remove(&mut self, key: &str) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        for chunk in entry.chunks {
            let holders = &mut self.holders[chunk.number];
            *holders -= 1;
            self.used -= if *holders == 0 { chunk.bytes } else { 0 };
        }
    }
}
