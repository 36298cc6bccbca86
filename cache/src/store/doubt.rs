//! What is known to be damaged and not mended yet.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::lock;

/// What is doubted.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// What the database said of its tables.
    rows: Mutex<Option<String>>,
    /// How many bytes the disk must have left for the tables to be mended; zero: nothing is known to be short.
    room: AtomicU64,
    /// Whether a damaged chunk was met by what does not set it aside.
    chunks: AtomicBool,
    /// Wakes who reads all chunks.
    wake: Notify,
}

impl Doubt {
    /// Doubts the tables. What was said first counts: the rest may come of that.
    pub(super) fn doubt_rows(&self, said: String) {
        let mut rows = lock(&self.rows);
        if rows.is_none() {
            *rows = Some(said);
        }
    }

    /// What was said of the tables; `None`: they are not doubted.
    pub(super) fn of_rows(&self) -> Option<String> {
        lock(&self.rows).clone()
    }

    /// The tables were mended.
    pub(super) fn rows_are_whole(&self) {
        *lock(&self.rows) = None;
        self.room.store(0, Ordering::SeqCst);
    }

    /// The tables were not mended: the disk must have so many bytes left for that.
    pub(super) fn rows_want_room(&self, needed: u64) {
        self.room.store(needed, Ordering::SeqCst);
    }

    /// How many bytes the disk must have left for the tables to be mended, as far as that was tried.
    pub(super) fn room_to_mend(&self) -> u64 {
        self.room.load(Ordering::SeqCst)
    }

    /// Doubts the chunks: until all were read, nothing is done that fails on a damaged one.
    pub(super) fn doubt_chunks(&self) {
        self.chunks.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Whether the chunks are doubted.
    pub(super) fn is_of_chunks(&self) -> bool {
        self.chunks.load(Ordering::SeqCst)
    }

    /// All chunks were read, and those that are damaged were set aside.
    pub(super) fn chunks_are_whole(&self) {
        self.chunks.store(false, Ordering::SeqCst);
    }

    /// Waits until chunks are doubted, if nobody has waited since they were.
    pub(super) async fn wakes(&self) {
        self.wake.notified().await;
    }
}
