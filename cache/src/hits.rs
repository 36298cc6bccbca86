//! Hit rates: what builds look up, replayed through a cache that is there only in numbers. Entries stand
//! in for each other by fallback keys, and share chunks, which are kept once. Pure.

mod at_size;
mod chart;
mod simulated;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::{
    at_size::{AtSize, Eviction, bound, distinct_bytes, sizes},
    chart::Chart,
    simulated::replay,
};
use crate::eviction::{Measure, Worth};

/// A run of bytes that several entries may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// Which. A table has a row for each number up to the largest.
    pub number: usize,
    /// How long it is: the same wherever it is.
    pub bytes: u64,
}

/// What a build looks up, and puts if it is not there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lookup {
    /// Under which key.
    pub key: String,
    /// How keys begin of entries that do as well if there is none under `key`: the first that begins a key
    /// counts, and of several entries the newest.
    pub fallbacks: Vec<String>,
    /// What the build needs of it, each once. It is what it puts.
    pub chunks: Arc<[Chunk]>,
    /// How long that takes to make, in milliseconds; zero: nobody has said.
    pub made_millis: u64,
    /// Whether it is put in place of what is there, too.
    pub replaces: bool,
}

impl Lookup {
    /// What the entry has, in bytes.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// What the entry takes and saves.
    pub fn worth(&self) -> Worth {
        Worth {
            bytes: self.bytes(),
            made_millis: self.made_millis,
        }
    }

    /// What is won by what was found: a part of the bytes is that part of the time.
    fn gain(&self, found: Found) -> Counts {
        match found {
            Found::Nothing => Counts::default(),
            Found::Exact(same) | Found::Fallback(same) => self.part(same),
        }
    }

    /// What it is to have so many bytes of what is needed; of no bytes everything is there.
    fn part(&self, bytes: u64) -> Counts {
        let worth = self.worth();
        let whole = worth.saves_millis();
        let part = u128::from(whole) * u128::from(bytes) / u128::from(worth.bytes.max(1));
        Counts {
            requests: 1,
            bytes,
            millis: match worth.bytes <= bytes {
                true => whole,
                false => u64::try_from(part).unwrap_or(whole),
            },
        }
    }
}

/// What was there for a lookup: how much of what it needs, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// An entry under its key.
    Exact(u64),
    /// Another that does as well.
    Fallback(u64),
    /// None.
    Nothing,
}

impl Found {
    const fn bytes(self) -> u64 {
        match self {
            Self::Exact(same) | Self::Fallback(same) => same,
            Self::Nothing => 0,
        }
    }
}

/// Lookups, counted in each measure.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// How many.
    pub requests: u64,
    /// Of how many bytes.
    pub bytes: u64,
    /// Of how much time, in milliseconds.
    pub millis: u64,
}

impl Counts {
    /// The count in one measure.
    pub const fn of(self, measure: Measure) -> u64 {
        match measure {
            Measure::Requests => self.requests,
            Measure::Bytes => self.bytes,
            Measure::Millis => self.millis,
        }
    }

    fn of_mut(&mut self, measure: Measure) -> &mut u64 {
        match measure {
            Measure::Requests => &mut self.requests,
            Measure::Bytes => &mut self.bytes,
            Measure::Millis => &mut self.millis,
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.millis += other.millis;
    }
}

/// What came of lookups. Each of the last three has what is in the one before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rates {
    /// All of them: what they need, and how long that takes to make.
    pub all: Counts,
    /// What was there under their own keys.
    pub exact: Counts,
    /// With what another entry had, for those that had none.
    pub with_fallbacks: Counts,
    /// With what was there at all, in whatever entries: as if a build made only what is new. A request counts
    /// as soon as anything of it was there, however little.
    pub with_chunks: Counts,
}

impl Rates {
    /// Counts a lookup: what it found, and what was there of its chunks, in bytes.
    pub fn count(&mut self, lookup: &Lookup, found: Found, there: u64) {
        self.all.add(lookup.part(lookup.bytes()));
        let (gain, same) = (lookup.gain(found), found.bytes());
        if matches!(found, Found::Exact(_)) {
            self.exact.add(gain);
        }
        self.with_fallbacks.add(gain);
        if found != Found::Nothing || 0 < there {
            self.with_chunks.add(lookup.part(there.max(same)));
        }
    }

    /// Takes what `other` has more of in one measure.
    fn raise(&mut self, measure: Measure, other: &Self) {
        let raise = |one: &mut Counts, other: Counts| {
            let count = one.of_mut(measure);
            *count = other.of(measure).max(*count);
        };
        raise(&mut self.all, other.all);
        raise(&mut self.exact, other.exact);
        raise(&mut self.with_fallbacks, other.with_fallbacks);
        raise(&mut self.with_chunks, other.with_chunks);
    }
}

/// How much of `whole` a part is, in percent; of nothing it is nothing.
#[expect(
    clippy::cast_precision_loss,
    reason = "nobody reads the sixteenth digit of a share"
)]
pub fn percent(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        _ => 100.0 * part as f64 / whole as f64,
    }
}
