//! Traces of uses, replayed through an eviction, and what an eviction that knows the future would do.

use std::collections::BTreeMap;

use super::{Clairvoyant, Policy, Worth};

/// One use of an entry: it is read if it is there, and otherwise made and put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Access {
    /// Which entry.
    pub key: u64,
    /// What it takes and saves.
    pub worth: Worth,
}

/// What came of a trace.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// All uses.
    pub requests: u64,
    /// Those that found their entry.
    pub hits: u64,
    /// What all uses were of, in bytes.
    pub bytes: u64,
    /// The same of the hits.
    pub hit_bytes: u64,
    /// What all uses would take to make, in milliseconds.
    pub millis: u64,
    /// The same of the hits: what the cache has saved.
    pub saved_millis: u64,
}

impl Tally {
    /// Counts a use.
    pub fn count(&mut self, worth: Worth, is_hit: bool) {
        self.requests += 1;
        self.bytes += worth.bytes;
        self.millis += worth.saves_millis();
        if is_hit {
            self.hits += 1;
            self.hit_bytes += worth.bytes;
            self.saved_millis += worth.saves_millis();
        }
    }
}

/// Which part of a tally a bound is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Measure {
    /// The hits.
    Requests,
    /// Their bytes.
    Bytes,
    /// The time that they saved.
    Millis,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Bytes, Self::Millis];

    /// What a hit of such an entry is.
    pub fn of(self, worth: Worth) -> u64 {
        match self {
            Self::Requests => 1,
            Self::Bytes => worth.bytes,
            Self::Millis => worth.saves_millis(),
        }
    }
}

/// Replays `trace` through a cache of `capacity` bytes. What is larger than all of it is not kept.
pub fn replay(trace: &[Access], capacity: u64, policy: &mut dyn Policy<u64>) -> Tally {
    let mut tally = Tally::default();
    let mut there = BTreeMap::new();
    let mut used = 0;
    for (number, &Access { key, worth }) in trace.iter().enumerate() {
        policy.begin(number);
        let is_hit = there.contains_key(&key);
        tally.count(worth, is_hit);
        if is_hit {
            policy.read(&key);
            continue;
        }
        if capacity < worth.bytes {
            continue;
        }
        // What goes is chosen among all, the new one included.
        policy.put(&key, worth);
        there.insert(key, worth.bytes);
        used += worth.bytes;
        while capacity < used {
            let Some(victim) = policy.evict() else { break };
            used -= there.remove(&victim).unwrap_or(0);
        }
    }
    tally
}

/// What no eviction can surpass on `trace` with `capacity` bytes, on this measure: PFOO-L of Berger,
/// Beckmann and Harchol-Balter (2018). Each pair of uses of one entry is a reservation of its bytes for
/// the time between; a cache has its bytes times the length of the trace, and the bound takes the
/// reservations that give most for what they take, without asking whether they fit at each moment.
pub fn bound(trace: &[Access], capacity: u64, measure: Measure) -> u64 {
    let uses = trace.iter().map(|access| {
        let worth = access.worth;
        (access.key, worth.bytes, measure.of(worth))
    });
    bound_of(uses, capacity)
}

/// The same for uses that are a key, the bytes of its entry, and what a hit gives.
pub(crate) fn bound_of<K: Ord>(uses: impl Iterator<Item = (K, u64, u64)>, capacity: u64) -> u64 {
    let mut last = BTreeMap::new();
    let mut reservations = Vec::new();
    let (mut length, mut sum) = (0, 0);
    for (at, (key, bytes, value)) in uses.enumerate() {
        length = at as u128 + 1;
        let before = last.insert(key, at);
        let Some(before) = before.filter(|_| bytes <= capacity) else {
            continue;
        };
        if bytes == 0 {
            // What takes nothing always fits.
            sum += value;
            continue;
        }
        let volume = (at - before) as u128 * u128::from(bytes);
        reservations.push((volume, value));
    }
    // By value for volume, most first: a / b before c / d where a * d is more than c * b.
    reservations.sort_by(|a, b| (u128::from(b.1) * a.0).cmp(&(u128::from(a.1) * b.0)));
    let mut left = u128::from(capacity) * length;
    for (volume, value) in reservations {
        if left < volume {
            // The part of the last one that fits keeps this a bound.
            let part = u128::from(value) * left / volume + 1;
            return sum + u64::try_from(part).unwrap_or(value).min(value);
        }
        left -= volume;
        sum += value;
    }
    sum
}

/// What [`Clairvoyant`] reaches on `trace` with `capacity` bytes.
pub fn clairvoyant(trace: &[Access], capacity: u64, measure: Measure) -> Tally {
    let uses = trace.iter().enumerate();
    let uses = uses.map(|(number, access)| (number, access.key, measure.of(access.worth)));
    replay(trace, capacity, &mut Clairvoyant::new(uses))
}
