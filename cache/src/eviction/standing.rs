//! What one entry is worth, and how its uses are remembered: small enough to be kept in its row.

/// What keeping an entry costs and saves.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Worth {
    /// What it takes, in bytes.
    pub bytes: u64,
    /// How long it took to make what it names, in milliseconds; zero: nobody has said.
    pub made_millis: u64,
}

/// How long something takes to make of which nobody has said it, in bytes per millisecond: 10 MB/s, which
/// is what an install of dependencies does that downloads, unpacks and compiles a little.
const USUAL_BYTES_PER_MILLI: u64 = 10_000;
/// What an entry takes at least, in bytes: its rows, and its part of a file system's blocks.
const BYTES_MIN: u64 = 4096;
/// By how many bits the value of a byte is shifted, so that a second for 32 GiB is not nothing.
const VALUE_SHIFT: u32 = 30;
/// How many reads count, so that what was read a thousand times long ago does not stand in the way of what
/// is read now: projects change their lock files, and the entries of the old ones are never read again. See
/// the simulations of `docs/decisions/0008-eviction.md`.
const READS_MAX: u8 = 4;

impl Worth {
    /// What it saves, in milliseconds, or what such an entry usually does.
    pub fn saves_millis(&self) -> u64 {
        match self.made_millis {
            0 => (self.bytes / USUAL_BYTES_PER_MILLI).max(1),
            millis => millis,
        }
    }

    /// What a byte of it saves, on the scale of [`Standing::rank`]. Never zero.
    pub(super) fn value(&self) -> u64 {
        if self.made_millis == 0 {
            return (1 << VALUE_SHIFT) / USUAL_BYTES_PER_MILLI;
        }
        let value =
            (u128::from(self.made_millis) << VALUE_SHIFT) / u128::from(self.bytes.max(BYTES_MIN));
        u64::try_from(value).unwrap_or(u64::MAX).max(1)
    }
}

/// How far each of the two queues has come: the rank of the last entry that was evicted from it. Only
/// grows, so that what is not used any more is overtaken by all that is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ages {
    /// Of entries that nobody has read since they came.
    pub probation: u64,
    /// Of entries that were read.
    pub proved: u64,
}

impl Ages {
    /// When an entry that stood so was evicted.
    #[must_use]
    pub fn after(self, evicted: Standing) -> Self {
        match evicted.is_proved {
            true => Self {
                proved: self.proved.max(evicted.rank),
                ..self
            },
            false => Self {
                probation: self.probation.max(evicted.rank),
                ..self
            },
        }
    }
}

/// Where an entry stands among those of its queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// The lower, the sooner it goes.
    pub rank: u64,
    /// How often it was read, as far as that counts.
    pub reads: u8,
    /// Whether it is past its probation.
    pub is_proved: bool,
}

impl Standing {
    /// Of an entry that comes. It is on probation, unless its key is known: it replaces one that stands
    /// so (`before`), or was evicted not long ago (`is_back`).
    pub fn put(worth: Worth, ages: Ages, before: Option<Self>, is_back: bool) -> Self {
        let before = before.unwrap_or_default();
        let is_proved = before.is_proved || is_back;
        Self {
            rank: 0,
            reads: before.reads,
            is_proved,
        }
        .ranked(worth, ages)
    }

    /// Of the same entry when it has been read.
    #[must_use]
    pub fn read(self, worth: Worth, ages: Ages) -> Self {
        Self {
            rank: 0,
            reads: READS_MAX.min(self.reads.saturating_add(1)),
            is_proved: true,
        }
        .ranked(worth, ages)
    }

    fn ranked(self, worth: Worth, ages: Ages) -> Self {
        let age = match self.is_proved {
            true => ages.proved,
            false => ages.probation,
        };
        let value = worth.value().saturating_mul(u64::from(self.reads.max(1)));
        Self {
            rank: age.saturating_add(value),
            ..self
        }
    }
}
