//! How far a transfer is, for whoever draws a bar; and what it came to.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counters that a transfer moves and somebody else polls. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    files_total: AtomicU64,
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_skipped: AtomicU64,
    bytes_moved: AtomicU64,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ProgressNow {
    /// Files of the tree.
    pub files_total: u64,
    /// Bytes to deal with, uncompressed: the distinct ones of the tree, or an estimate while its files are read.
    /// Zero: nobody knows yet.
    pub bytes_total: u64,
    /// How many of them are dealt with: sent, written, or found to be there.
    pub bytes_done: u64,
    /// How many of these did not have to be moved, because they are where they should be.
    pub bytes_skipped: u64,
    /// How many bytes went over the network for it.
    pub bytes_moved: u64,
}

impl Progress {
    /// How far it is now. The counters are read one by one, so they need not add up.
    pub fn now(&self) -> ProgressNow {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProgressNow {
            files_total: read(&self.counters.files_total),
            bytes_total: read(&self.counters.bytes_total),
            bytes_done: read(&self.counters.bytes_done),
            bytes_skipped: read(&self.counters.bytes_skipped),
            bytes_moved: read(&self.counters.bytes_moved),
        }
    }

    /// Says how much there is to do.
    pub fn expect(&self, files: u64, bytes: u64) {
        self.counters.files_total.store(files, Ordering::Relaxed);
        self.counters.bytes_total.store(bytes, Ordering::Relaxed);
    }

    /// Says that so many more bytes are dealt with.
    pub fn advance(&self, bytes: u64) {
        self.counters.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Dealt with, and without moving them.
    pub(crate) fn skip(&self, bytes: u64) {
        self.counters
            .bytes_skipped
            .fetch_add(bytes, Ordering::Relaxed);
        self.advance(bytes);
    }

    pub(crate) fn moved(&self, bytes: u64) {
        self.counters
            .bytes_moved
            .fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a transfer came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Transfer {
    /// Files of the tree, equal ones counted each time.
    pub files: u64,
    /// Their bytes, equal ones counted each time.
    pub bytes: u64,
    /// Distinct chunks of their bytes.
    pub chunks: u64,
    /// How many chunks were moved, those of tree, attributes and layout included.
    pub chunks_moved: u64,
    /// The bytes of these.
    pub bytes_moved: u64,
}
