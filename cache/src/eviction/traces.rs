//! Traces from seeds: the shapes that tell evictions apart.

use std::collections::BTreeMap;

use super::{Access, Worth};

/// The shape of a trace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// A few entries are used often, many seldom: Zipf's law.
    Skewed,
    /// The same, but every now and then many entries come once, one after another.
    Scans,
    /// The same entries in the same order, again and again, more of them than fit.
    Loops,
    /// As skewed, but which entries are used often changes from time to time.
    Shifting,
    /// As skewed, but half of all uses are of entries that are never used again.
    OnceOnly,
    /// Projects, of which some build often; one build in five has another lock file, and what the old one
    /// named is never used again.
    Projects,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Skewed,
        Self::Scans,
        Self::Loops,
        Self::Shifting,
        Self::OnceOnly,
        Self::Projects,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Skewed => "skewed",
            Self::Scans => "scans",
            Self::Loops => "loops",
            Self::Shifting => "shifting",
            Self::OnceOnly => "once only",
            Self::Projects => "projects",
        }
    }
}

/// How many entries a trace comes back to.
const KEYS: u64 = 1000;
/// From this number on keys are used once only.
const ONCE: u64 = 1 << 32;
/// How many projects there are.
const PROJECTS: u64 = 100;
/// One build in so many has another lock file.
const LOCK_FILE_EVERY: u64 = 5;

/// A trace of `length` uses.
pub fn trace(shape: Shape, seed: u64, length: usize) -> Vec<Access> {
    let mut random = Random(seed);
    if shape == Shape::Projects {
        return projects(&mut random, seed, length);
    }
    let zipf = Zipf::new(KEYS);
    let mut once = ONCE;
    let mut keys = Vec::with_capacity(length);
    for at in 0..length as u64 {
        let skewed = zipf.draw(&mut random);
        let mut fresh = || {
            once += 1;
            once
        };
        keys.push(match shape {
            Shape::Skewed => skewed,
            Shape::Scans if at % 4000 < 1500 && 4000 <= at => fresh(),
            Shape::Scans => skewed,
            Shape::Loops => at % KEYS,
            Shape::Shifting => (skewed + at / 5000 * 197) % KEYS,
            Shape::OnceOnly if random.below(2) == 0 => fresh(),
            Shape::OnceOnly | Shape::Projects => skewed,
        });
    }
    let access = |key| Access {
        key,
        worth: worth(seed, key),
    };
    keys.into_iter().map(access).collect()
}

/// Uses by projects. All entries of one have the same worth.
fn projects(random: &mut Random, seed: u64, length: usize) -> Vec<Access> {
    let zipf = Zipf::new(PROJECTS);
    let mut lock_files = BTreeMap::new();
    let build = |_| {
        let project = zipf.draw(random);
        let lock_file: &mut u64 = lock_files.entry(project).or_default();
        if random.below(LOCK_FILE_EVERY) == 0 {
            *lock_file += 1;
        }
        Access {
            key: *lock_file * PROJECTS + project,
            worth: worth(seed, project),
        }
    };
    (0..length).map(build).collect()
}

/// What an entry is worth, the same for each of its uses: 1 to 1024 MB in powers of two, made at 1 to 32
/// MB/s.
fn worth(seed: u64, key: u64) -> Worth {
    let mut random = Random(seed ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Sums of two make the middle more usual than the ends.
    let bytes = 1_000_000_u64 << (random.below(6) + random.below(6));
    let rate = 1000_u64 << random.below(6);
    Worth {
        bytes,
        made_millis: bytes / rate,
    }
}

/// Numbers from a seed: splitmix64.
#[derive(Clone, Copy, Debug)]
pub struct Random(
    /// The seed.
    pub u64,
);

impl Random {
    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `end`, which is not zero.
    ///
    /// # Panics
    ///
    /// If it is.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Zipf's law: the key with the number n is drawn in proportion to 1 / (n + 1).
#[derive(Clone, Debug)]
pub struct Zipf {
    /// The sums of the weights up to each key.
    sums: Vec<u64>,
}

impl Zipf {
    /// For keys below `keys`, which is not zero.
    pub fn new(keys: u64) -> Self {
        const SCALE: u64 = 1 << 32;
        let weights = (1..=keys.max(1)).map(|number| SCALE / number);
        let sums = weights.scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self {
            sums: sums.collect(),
        }
    }

    /// The next key.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let end = self.sums.last().copied().unwrap_or(1);
        let drawn = random.below(end);
        self.sums.partition_point(|&sum| sum <= drawn) as u64
    }
}
