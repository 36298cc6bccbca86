//! How much room there is: on the disks, and within the budget.

use super::{Shared, Trouble, rocks::Rocks, space};
use crate::eviction;

/// How much of the budget is written, as a divisor, before it is measured again what the files take.
const MEASURE_DIVISOR: u64 = 256;

impl Shared {
    /// How many bytes the disk has left.
    pub(super) fn free(&self) -> Result<u64, Trouble> {
        space::free(&self.place.database)
    }

    /// Measures what the files take, and tells the gate, if so much was written since that was done last
    /// that it matters.
    pub(super) fn measure_often(&self, rocks: &Rocks) {
        if self.gate.budget() / MEASURE_DIVISOR <= self.gate.unmeasured() {
            self.measure(rocks);
        }
    }

    /// Measures what the files take and will take by themselves, and tells the gate.
    pub(super) fn measure(&self, rocks: &Rocks) {
        let measuring = self.gate.measuring();
        // Before the files: what is flushed meanwhile counts twice, not never.
        let buffered = rocks.buffered_bytes();
        match space::disk_usage(&self.place.database) {
            Ok(used) => {
                let reserve = eviction::reserve(self.gate.budget(), self.sizes.reserve());
                self.gate.measured(measuring, used.all + buffered + reserve);
            }
            Err(error) => tracing::warn!(%error, "the store's files cannot be measured"),
        }
    }

    /// Whether the disks have room for `bytes` more.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), Trouble> {
        self.check_disk(bytes)?;
        let Some(log) = &self.place.log else {
            return Ok(());
        };
        let free = space::free(&log.path).map_err(|_gone| self.log_gone())?;
        let needed = self.sizes.new_log() + bytes;
        if needed <= free {
            return Ok(());
        }
        Err(Trouble::Full {
            directory: log.path.clone(),
            free,
            needed,
        })
    }

    /// What is said when the log is not where it was.
    pub(super) fn log_gone(&self) -> Trouble {
        Trouble::LogGone {
            log: self.place.log().to_owned(),
        }
    }

    /// Whether the disk of the tables has room for `bytes` more. What is only in memory and in the log is
    /// written once more, so it counts twice.
    pub(super) fn check_disk(&self, bytes: u64) -> Result<(), Trouble> {
        #[cfg(test)]
        if !self
            .room_is_checked
            .load(std::sync::atomic::Ordering::SeqCst)
        {
            return Ok(());
        }
        let unflushed = self.rocks().map_or(0, |rocks| rocks.unflushed_bytes());
        let needed = self.free_low_water + unflushed + 2 * bytes;
        space::check_free(&self.place.database, needed)
    }

    /// Whether the disk has the room for want of which the database was not mended, if it was not.
    pub(super) fn check_room_to_mend(&self) -> Result<(), Trouble> {
        space::check_free(&self.place.database, self.doubt.room_to_mend())
    }
}
