//! The one writer. It takes all changes that wait, writes them as one batch with one sync, and then
//! acknowledges all of them: while the disk syncs one batch, the next one gathers. If they bring much, the large
//! chunks among them are written to a file of their own first.
//!
//! After an error nothing more is written until the database has been opened again, so that what is in
//! memory is what is on the disk.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use protocol::time::Time;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::{error, info, warn};

use super::{
    Shared,
    change::{Applied, Change, Surroundings},
    error::Trouble,
    gate::Admitted,
    rocks::Rocks,
    row::Totals,
    staged::{Committed, Staged},
};

/// How many changes go in one group: with the smallest chunks this bounds how long the first of them
/// waits.
const GROUP_CHANGES_MAX: usize = 4096;
/// How long the writer waits between two tries to write again after an error: long enough to be no
/// load, short enough that nobody waits for it.
const HEAL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a store that opens itself again waits for reads that go on in the old one before it refuses
/// what waits for it, and goes on waiting with the next try. Half of it is what reads have to end by
/// themselves: some windows of chunks to clients that take them.
const RETIRE_TIME: Duration = Duration::from_secs(4);

/// How long the writer waits for a log to go that is not needed any more, and how often it looks: files are
/// deleted a little later.
const LINGER_INTERVAL: Duration = Duration::from_millis(5);
const LINGER_LOOKS: usize = 40;

/// A change, and who waits for it.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) change: Change,
    pub(super) reply: oneshot::Sender<Result<Applied, Trouble>>,
    /// What the gate has let through for it; `None`: nothing had to be.
    pub(super) admitted: Option<Admitted>,
    /// The room that its bytes take in memory.
    pub(super) room: Room,
}

/// The room that the bytes of a change take in memory, of whoever brings it: given back when they are written, or will
/// not be. Not sooner, though nobody may wait for it any more.
pub(crate) type Room = Vec<OwnedSemaphorePermit>;

/// The state of the writer's thread.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    totals: Totals,
    last_heal: Option<Time>,
    /// How many bytes of chunks went past the log since rows were flushed.
    bulk_bytes: u64,
}

impl Writer {
    /// A writer for a database that was just opened and whose sums are `totals`.
    pub(super) const fn new(shared: Arc<Shared>, totals: Totals) -> Self {
        Self {
            shared,
            totals,
            last_heal: None,
            bulk_bytes: 0,
        }
    }

    /// Writes until all senders of `queue` are gone, then closes the database.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        let bytes_max = self.shared.sizes.group();
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = first.change.bytes();
            let mut group = vec![first];
            while bytes < bytes_max && group.len() < GROUP_CHANGES_MAX {
                let Ok(next) = queue.try_recv() else { break };
                bytes += next.change.bytes();
                group.push(next);
            }
            self.write(group, bytes);
        }
        if !self.shared.slot.close(RETIRE_TIME, &self.shared.clock) {
            warn!("the store ends while chunks are still being read from it");
        }
        self.shared.leave_holds();
    }

    /// Writes a group of changes, and answers each when the disk has all of them.
    fn write(&mut self, group: Vec<Queued>, bytes: u64) {
        let makes_room = group.iter().any(|queued| queued.change.makes_room());
        let rocks = match self.heal(makes_room).and_then(|()| self.shared.rocks()) {
            Ok(rocks) => rocks,
            Err(trouble) => return refuse(group, &trouble),
        };
        let room = self.room(&rocks, bytes);
        let around = Surroundings {
            clock: &self.shared.clock,
            holds: &self.shared.holds,
            condemned: &self.shared.condemned,
            ranks: &self.shared.ranks,
        };
        let mut staged = Staged::new(&rocks, self.totals);
        let mut replies = Vec::with_capacity(group.len());
        let mut probed = false;
        let mut leaving = Vec::new();
        // Given back when all of it is in the files, or will not be.
        let mut taken = Vec::with_capacity(group.len());
        for Queued {
            change,
            reply,
            admitted,
            room: in_memory,
        } in group
        {
            taken.push((admitted, in_memory));
            probed |= matches!(change, Change::Probe);
            if let Change::SetAside { chunk } = &change {
                leaving.push(*chunk);
            }
            let applied = match &room {
                Err(full) if !change.makes_room() => Err(full.clone()),
                _ => self.checked(staged.apply(change, &around)),
            };
            replies.push((reply, applied));
        }
        leaving.extend(staged.deleted_chunks());
        let committed = if staged.is_empty() && !probed {
            Ok(None)
        } else {
            staged.commit().map(Some)
        };
        if !leaving.is_empty() {
            self.shared.hot.remove(leaving.iter().copied());
            self.shared.known.remove(leaving.into_iter());
        }
        self.shared.condemned.acquit();
        drop(taken);
        self.shared.measure_often(&rocks);
        let broken = match committed {
            Ok(None) => None,
            Ok(Some(committed)) => {
                self.committed(&committed);
                None
            }
            Err(source) => Some(self.stop(source)),
        };
        for (reply, applied) in replies {
            let applied = match &broken {
                None => applied,
                Some(trouble) => applied.and_then(|_| Err(trouble.clone())),
            };
            // Who has gone does not want to know.
            let _gone = reply.send(applied);
        }
        if self.shared.sizes.log() <= self.bulk_bytes {
            self.flush_rows(&rocks);
        }
    }

    /// Takes note of what was written.
    fn committed(&mut self, committed: &Committed) {
        self.totals = committed.totals;
        self.shared.publish(self.totals);
        self.bulk_bytes += committed.bulk_bytes;
        // Nobody else takes anything out of it.
        let since = self.shared.known.since();
        let rows = committed.owners.iter().map(Vec::as_slice);
        self.shared.known.bring_rows(rows, since);
    }

    /// Flushes the rows, so that the logs that have them can go: each bulk write begins a new one.
    fn flush_rows(&mut self, rocks: &Rocks) {
        self.bulk_bytes = 0;
        if self.shared.ending.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = rocks.flush() {
            // Whoever writes next meets it.
            warn!(%error, "rows not flushed");
        }
    }

    /// Whether the disk has room for `bytes` more. Much that is in memory only, and the log that has it too,
    /// goes to its files first if there is none: the log is what takes the room when the disk does not keep
    /// up.
    fn room(&self, rocks: &Rocks, bytes: u64) -> Result<(), Trouble> {
        /// How much is worth a flush, as a divisor of what a blob file has.
        const WORTH_DIVISOR: u64 = 4;
        let Err(mut full) = self.shared.check_room(bytes) else {
            return Ok(());
        };
        let flushed = rocks.buffered_bytes();
        let is_worth_it = self.shared.sizes.blob_file() / WORTH_DIVISOR <= flushed;
        if !is_worth_it || self.shared.free()? < flushed {
            return Err(full);
        }
        if let Err(error) = rocks.flush() {
            // Whoever writes next meets it.
            warn!(%error, "not flushed on a disk that is nearly full");
            return Err(full);
        }
        for _ in 0..LINGER_LOOKS {
            match self.shared.check_room(bytes) {
                Ok(()) => return Ok(()),
                Err(trouble) => full = trouble,
            }
            std::thread::sleep(LINGER_INTERVAL);
        }
        Err(full)
    }

    /// What came of a change, unless rows that it needed are damaged: then that is to be mended first.
    fn checked(&self, applied: Result<Applied, Trouble>) -> Result<Applied, Trouble> {
        match applied {
            Err(Trouble::Database { source }) if self.shared.look_at(&source) => {
                Err(Trouble::Stopped)
            }
            applied => applied,
        }
    }

    /// Stops writing after an error, and says what those are told who waited for it.
    fn stop(&self, source: rocksdb::Error) -> Trouble {
        let trouble = match self.shared.check_room(0) {
            Err(full) => full,
            Ok(()) => Trouble::Database {
                source: source.clone(),
            },
        };
        error!(error = %source, "the store stops writing");
        self.shared.look_at(&source);
        self.shared.set_stopped(Some(source.to_string()));
        trouble
    }

    /// Makes writing possible again after an error, if it is time to try, and there is room or what
    /// waits makes some.
    fn heal(&mut self, makes_room: bool) -> Result<(), Trouble> {
        if !self.shared.is_stopped()
            && let Ok(rocks) = self.shared.rocks()
            && let Err(source) = rocks.background_failure()
        {
            // Found out before a group of changes, so that they wait and are not refused.
            self.stop(source);
        }
        if !self.shared.is_stopped() {
            return Ok(());
        }
        self.shared.check_room_to_mend()?;
        let check_room = || match self.shared.check_room(0) {
            Err(_) if makes_room => Ok(()),
            checked => checked,
        };
        let now = self.shared.clock.now();
        let waited = self.last_heal.map(|last| now.since(last));
        if waited.is_some_and(|waited| waited < HEAL_INTERVAL) {
            check_room()?;
            return Err(Trouble::Stopped);
        }
        check_room()?;
        self.last_heal = Some(now);
        self.totals = self.shared.reopen(RETIRE_TIME)?;
        self.shared.publish(self.totals);
        self.shared.set_stopped(None);
        info!("the store writes again");
        Ok(())
    }
}

fn refuse(group: Vec<Queued>, trouble: &Trouble) {
    for queued in group {
        if let Some(admitted) = queued.admitted {
            admitted.unused();
        }
        // Who has gone does not want to know.
        let _gone = queued.reply.send(Err(trouble.clone()));
    }
}
