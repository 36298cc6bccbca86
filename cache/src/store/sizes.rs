//! How large files and buffers of the database are: in proportion to what the disk's budget is, so that
//! what is on its way takes a small part of it.

/// The sizes for one budget.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Sizes {
    piece: u64,
    rewritten: u64,
}

/// How many bytes of chunks are gathered at most before they become a blob file. Blob files are as
/// large, so that one flush is one file, and garbage can be dropped in pieces of this size. What is written in bulk
/// makes smaller ones.
const PIECE_MAX: u64 = 64 << 20;
/// The same at least: below that files are many and flushes always.
const PIECE_MIN: u64 = 4 << 20;
/// How many bytes of changes are gathered at most: what is written in bulk becomes a file, so it should be much; and
/// all of it is in memory a few times over.
const GROUP_MAX: u64 = 16 << 20;
/// How much is written anew at a time at most, in bytes.
const REWRITTEN_MAX: u64 = 4 << 30;
/// What part of the budget a piece is, as a divisor.
const PIECE_DIVISOR: u64 = 64;

impl Sizes {
    /// For a budget in bytes.
    pub(super) fn of(budget: u64) -> Self {
        let part = budget / PIECE_DIVISOR;
        let piece = part.clamp(PIECE_MIN, PIECE_MAX);
        Self {
            piece,
            // Rewriting passes all keys by, so for large stores each time is to be worth it.
            rewritten: part.clamp(2 * piece, REWRITTEN_MAX),
        }
    }

    /// How large a blob file is, in bytes, about.
    pub(super) const fn blob_file(self) -> u64 {
        self.piece
    }

    /// How many bytes of changes the writer gathers at most.
    pub(super) fn group(self) -> u64 {
        self.piece.min(GROUP_MAX)
    }

    /// How many bytes of chunks are gathered before they become a file.
    pub(super) fn chunks_buffer(self) -> usize {
        memory(self.piece)
    }

    /// The same of each of the small columns.
    pub(super) fn rows_buffer(self) -> usize {
        memory(self.piece / 4)
    }

    /// What all buffers may take together, in bytes, before the oldest is flushed.
    pub(super) fn buffers(self) -> usize {
        memory(3 * self.piece)
    }

    /// How large the write-ahead log gets before the columns that keep it are flushed, in bytes. What a
    /// start has to read again. Rows of as many bytes that were written in bulk are flushed, too.
    pub(super) const fn log(self) -> u64 {
        4 * self.piece
    }

    /// How large a new log is from the start, in bytes, about.
    pub(super) const fn new_log(self) -> u64 {
        2 * self.piece
    }

    /// What the files may grow by without a change that asks for it, in bytes: a new log is as large as a
    /// buffer from the start, and what is alive in some blob files is written anew before these go.
    pub(super) const fn reserve(self) -> u64 {
        self.new_log() + self.rewritten
    }

    /// What is written anew at a time, in bytes of old files.
    pub(super) const fn rewritten(self) -> u64 {
        self.rewritten
    }
}

fn memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a buffer fits into memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_a_small_part_of_the_budget() {
        let budget = 1_000_000_000;
        let sizes = Sizes::of(budget);
        assert_eq!(sizes.blob_file(), 15_625_000);
        assert!(sizes.log() + sizes.reserve() < budget / 7);
        assert_eq!(Sizes::of(u64::MAX).log(), 256 << 20);
        assert_eq!(Sizes::of(0).chunks_buffer(), 4 << 20);
        for budget in [0, budget, u64::MAX] {
            let sizes = Sizes::of(budget);
            assert!(sizes.group() <= sizes.blob_file(), "{budget}");
        }
    }
}
