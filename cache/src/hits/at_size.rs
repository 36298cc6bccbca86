//! How caches of several sizes do, by what chooses the victims, and what none can surpass.

use std::collections::BTreeMap;

use super::{Counts, Found, Lookup, Rates, replay, simulated::reads};
use crate::eviction::{Clairvoyant, GreedyDual, Lru, Measure, Queues, S3Fifo, bound_of};

/// The sizes that are looked at, in eighths of the largest entry, and of what all others have besides.
const EIGHTHS_OF_LARGEST: [u64; 4] = [2, 4, 6, 8];
const EIGHTHS_OF_REST: [u64; 3] = [2, 4, 8];
/// Sizes are as far apart as this part of the largest entry at least, as a divisor.
const APART_DIVISOR: u64 = 64;
/// What knows no future.
const BLIND: [Eviction; 4] = [
    Eviction::Chosen,
    Eviction::Lru,
    Eviction::S3Fifo,
    Eviction::GreedyDual,
];

/// What chooses the victims.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Eviction {
    /// What the cache has.
    Chosen,
    /// Least recently used first.
    Lru,
    /// Small and main queue, without sizes and costs.
    S3Fifo,
    /// By size, cost and frequency, without probation.
    GreedyDual,
    /// Belady's rule, or what does better here of the others, for each figure by itself: the most that is known
    /// to be within reach.
    Clairvoyant,
}

impl Eviction {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Lru => "LRU",
            Self::S3Fifo => "S3-FIFO",
            Self::GreedyDual => "greedy dual",
            Self::Clairvoyant => "clairvoyant",
        }
    }

    /// What comes of `lookups` in a cache with room for `capacity` bytes.
    pub fn rates(self, lookups: &[Lookup], capacity: u64) -> Rates {
        match self {
            Self::Chosen => replay(lookups, capacity, &mut Queues::default()),
            Self::Lru => replay(lookups, capacity, &mut Lru::default()),
            Self::S3Fifo => replay(lookups, capacity, &mut S3Fifo::default()),
            Self::GreedyDual => replay(lookups, capacity, &mut GreedyDual::default()),
            Self::Clairvoyant => clairvoyant(lookups, capacity),
        }
    }
}

/// The best of several replays for each figure: one looks forward to exact hits, one to what is read by fallback
/// keys as well, if all is there, and the others know no future. Belady's rule looks forward to entries, not to
/// chunks that these share, nor to which entry stands in: without the others it can be far from the best of those.
fn clairvoyant(lookups: &[Lookup], capacity: u64) -> Rates {
    let reads = reads(lookups);
    let blind = BLIND.map(|eviction| eviction.rates(lookups, capacity));
    let mut rates = Rates::default();
    for measure in Measure::ALL {
        for reached in &blind {
            rates.raise(measure, reached);
        }
        let reached = |is_wanted: fn(Found) -> bool| {
            let uses = lookups.iter().zip(&reads).enumerate();
            let uses = uses.filter_map(|(number, (lookup, &(found, key)))| {
                let value = lookup.gain(found).of(measure);
                key.filter(|_| is_wanted(found))
                    .map(|key| (number, key, value))
            });
            replay(lookups, capacity, &mut Clairvoyant::new(uses))
        };
        rates.raise(measure, &reached(|_| true));
        let exact = reached(|found| matches!(found, Found::Exact(_)));
        rates.raise(measure, &exact);
    }
    rates
}

/// What came of lookups in caches of one size.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AtSize {
    /// How large they are, in bytes.
    pub bytes: u64,
    /// By what chose the victims.
    pub rates: Vec<(&'static str, Rates)>,
    /// What no eviction can surpass of exact hits; of the rest no such bound is known.
    pub bound: Counts,
}

impl AtSize {
    /// Simulates caches with room for `bytes` bytes of chunks.
    pub fn simulate(lookups: &[Lookup], bytes: u64, evictions: &[Eviction]) -> Self {
        let rates = evictions
            .iter()
            .map(|eviction| (eviction.name(), eviction.rates(lookups, bytes)));
        Self {
            bytes,
            rates: rates.collect(),
            bound: bound(lookups, bytes),
        }
    }

    /// The rates of one of them, by its name.
    pub fn of(&self, name: &str) -> Option<&Rates> {
        let mut rates = self.rates.iter();
        rates.find(|(of, _)| *of == name).map(|(_, rates)| rates)
    }
}

/// One more than the largest number of a chunk.
pub(super) fn chunk_numbers(lookups: &[Lookup]) -> usize {
    let chunks = lookups.iter().flat_map(|lookup| lookup.chunks.iter());
    chunks.map(|chunk| chunk.number + 1).max().unwrap_or(0)
}

/// What all chunks have that there are, each counted once, in bytes: what a cache takes that has everything.
pub fn distinct_bytes(lookups: &[Lookup]) -> u64 {
    let mut bytes = vec![0; chunk_numbers(lookups)];
    for chunk in lookups.iter().flat_map(|lookup| lookup.chunks.iter()) {
        bytes[chunk.number] = chunk.bytes;
    }
    bytes.into_iter().sum()
}

/// The sizes of caches that tell something about `lookups`, in bytes: from a quarter of the largest entry, where
/// only small ones are kept, to everything. None if there are no lookups.
pub fn sizes(lookups: &[Lookup]) -> Vec<u64> {
    let Some(largest) = lookups.iter().map(Lookup::bytes).max() else {
        return Vec::new();
    };
    let rest = distinct_bytes(lookups).saturating_sub(largest);
    let part = |whole: u64, eighths: u64| whole / 8 * eighths + whole % 8 * eighths / 8;
    let of_largest = EIGHTHS_OF_LARGEST.map(|eighths| part(largest, eighths));
    let of_rest = EIGHTHS_OF_REST.map(|eighths| largest + part(rest, eighths));
    let sizes = of_largest.into_iter().chain(of_rest);
    // From the end, so that everything is among them.
    let mut sizes: Vec<u64> = sizes.rev().collect();
    sizes.dedup_by(|smaller, larger| *larger - *smaller <= largest / APART_DIVISOR);
    sizes.reverse();
    sizes
}

/// What no eviction can surpass of exact hits with room for `capacity` bytes, in each measure for itself:
/// [`bound`](crate::eviction::bound) for entries that share chunks.
pub fn bound(lookups: &[Lookup], capacity: u64) -> Counts {
    let volumes = volumes(lookups);
    let of = |measure: Measure| {
        let uses = lookups.iter().map(|lookup| {
            let key = lookup.key.as_str();
            let (volume, bytes) = volumes[key];
            // What does not fit takes more than there is.
            let volume = if capacity < bytes { u64::MAX } else { volume };
            (key, volume, measure.of(lookup.worth()))
        });
        bound_of(uses, capacity)
    };
    Counts {
        requests: of(Measure::Requests),
        bytes: of(Measure::Bytes),
        millis: of(Measure::Millis),
    }
}

/// What each entry takes at least, in bytes: when each of its chunks counts for as many parts as there are
/// entries that have it, so that whatever entries are there, the sum of theirs is at most what their distinct
/// chunks take; and alone.
fn volumes(lookups: &[Lookup]) -> BTreeMap<&str, (u64, u64)> {
    let mut by_key: BTreeMap<&str, Vec<&Lookup>> = BTreeMap::new();
    for lookup in lookups {
        by_key.entry(&lookup.key).or_default().push(lookup);
    }
    let count = chunk_numbers(lookups);
    let (mut holders, mut marks) = (vec![0_u64; count], vec![0; count]);
    for (mark, same) in (1..).zip(by_key.values()) {
        for chunk in same.iter().flat_map(|lookup| lookup.chunks.iter()) {
            holders[chunk.number] += u64::from(marks[chunk.number] != mark);
            marks[chunk.number] = mark;
        }
    }
    let volume = |lookup: &&Lookup| -> u64 {
        let parts = lookup.chunks.iter();
        parts.map(|chunk| chunk.bytes / holders[chunk.number]).sum()
    };
    let least = |same: &[&Lookup]| {
        let alone = same.iter().map(|lookup| lookup.bytes());
        let volume = same.iter().map(volume);
        (volume.min().unwrap_or(0), alone.min().unwrap_or(0))
    };
    by_key
        .into_iter()
        .map(|(key, same)| (key, least(&same)))
        .collect()
}
