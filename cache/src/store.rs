//! The store: chunks, what is known about them, entries and counts, in RocksDB.
//!
//! Reading happens on the threads of those who ask, which may block; writing on one thread of its own.
//! What was acknowledged survives the end of the process and of the machine: it is in the log, or in a file, and
//! these are on the disk. A chunk, its facts, who may know of it and the counts change in one batch; large chunks of a
//! large group are in a file before that.

mod bodies;
mod bulk;
pub(crate) mod change;
mod closure;
mod condemned;
mod doubt;
mod error;
mod evict;
mod gate;
pub(crate) mod key;
mod left;
mod mend;
mod place;
mod processor;
mod quick;
mod ranks;
mod read;
mod rebuild;
mod rocks;
mod room;
pub(crate) mod row;
mod scrub;
mod settings;
mod sizes;
mod slot;
mod small_file;
mod space;
mod staged;
mod stalls;
mod sweep;
#[cfg(test)]
mod tests;
mod version;
mod whole;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use metrics::gauge;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use self::error::{Damage, OpenStoreError};
pub(crate) use self::{
    bodies::{ReadAnswer, Visit},
    error::{ClosureError, Trouble},
    whole::WholeEntry,
    writer::Room,
};
use self::{
    change::{Applied, Change},
    condemned::Condemned,
    doubt::Doubt,
    gate::Gate,
    mend::Suspect,
    place::Place,
    quick::Quick,
    ranks::Ranks,
    rocks::{Care, Column, Rocks, TOTALS},
    row::Totals,
    sizes::Sizes,
    slot::Slot,
    space::DiskUsage,
    stalls::Stalls,
    writer::{Queued, Writer},
};
use crate::{clock::Clock, holds::Holds, hot::Hot, known::Known};

/// How many changes may wait for the writer. Past that, those who bring them wait: that is the store's
/// back-pressure. The bytes that wait are bounded where they are received.
const QUEUE_MAX: usize = 4096;

/// How long nothing is tried when nothing more could go: holds last for seconds at least, builds too.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Where the store is, and its limits.
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    /// The cache's directory: the database is in `store`, its version in `version`.
    pub(crate) directory: PathBuf,
    /// Where the database's log is, if not in `store`; it moves there.
    pub(crate) log_directory: Option<PathBuf>,
    /// How many bytes the files may take on the disk, as `du` counts them; but for a log elsewhere.
    pub(crate) budget: u64,
    /// How many bytes the disk must have left for anything to be written.
    pub(crate) free_low_water: u64,
    /// How long a hold lasts.
    pub(crate) hold: Duration,
    /// Whether what is so damaged that the store would not open is left out.
    pub(crate) salvage: bool,
}

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Queued>,
}

/// The thread that writes; it ends when the last [`Store`] is gone.
#[derive(Debug)]
pub(crate) struct WriterThread(JoinHandle<()>);

impl WriterThread {
    fn start(writer: Writer, changes: mpsc::Receiver<Queued>) -> Result<Self, OpenStoreError> {
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(changes));
        thread
            .map(Self)
            .map_err(|source| OpenStoreError::Thread { source })
    }

    /// Waits for the end of the thread. Blocks.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the store's writer has panicked");
        }
    }
}

impl Store {
    /// Opens the store, or makes one. Blocks.
    ///
    /// # Errors
    ///
    /// If it is of a newer version, damaged, or open elsewhere.
    pub(crate) fn open(options: StoreOptions) -> Result<(Self, WriterThread), OpenStoreError> {
        processor::check()?;
        version::check(&options.directory)?;
        let wanted = options.log_directory.as_deref().and_then(absolute);
        let found = Place::found(&options.directory)?;
        let mut found = found.renamed(&options.directory, wanted.as_deref())?;
        let database = found.database.clone();
        let error = |source| OpenStoreError::Database {
            directory: database.clone(),
            source: Damage::from(source),
        };
        let sizes = Sizes::of(options.budget);
        if options.salvage {
            found = found.without_lost_log(&options.directory)?;
        }
        found.check()?;
        if options.salvage || rebuild::is_half_mended(&database) {
            let care = if options.salvage {
                Care::Salvage
            } else {
                Care::Mending
            };
            let place = (&found, sizes, options.free_low_water);
            mend_database(place, care, &Suspect::All)
                .map_err(|trouble| OpenStoreError::of_mending(&database, trouble))?;
        }
        let place = found.moved(&options.directory, wanted.as_deref(), sizes)?;
        let rocks = Rocks::open(&place, sizes, Care::Usual).map_err(error)?;
        let read = |rocks| Ok((totals(rocks)?, Ranks::read(rocks)?));
        let (totals, ranks) = read(&rocks).map_err(|trouble| match trouble {
            Trouble::Database { source } => error(source),
            trouble => OpenStoreError::Totals {
                directory: database.clone(),
                source: Box::new(trouble),
            },
        })?;
        let shared = Arc::new(Shared {
            slot: Slot::new(rocks),
            place,
            sizes,
            gate: Arc::new(Gate::new(options.budget)),
            ranks,
            free_low_water: options.free_low_water,
            clock: Clock::start(),
            holds: left::take(&options.directory, options.hold),
            directory: options.directory,
            hot: Hot::default(),
            known: Known::default(),
            quick: Quick::default(),
            condemned: Condemned::default(),
            doubt: Doubt::default(),
            totals: Mutex::new(totals),
            stalls: Mutex::default(),
            ending: AtomicBool::new(false),
            stopped: Mutex::new(None),
            is_stopped: AtomicBool::new(false),
            #[cfg(test)]
            room_is_checked: AtomicBool::new(true),
        });
        shared.publish(totals);
        if let Ok(rocks) = shared.rocks() {
            shared.measure(&rocks);
        }
        let (queue, changes) = mpsc::channel(QUEUE_MAX);
        let writer = Writer::new(Arc::clone(&shared), totals);
        let thread = WriterThread::start(writer, changes)?;
        Ok((Self { shared, queue }, thread))
    }

    /// Makes a change; it is durable when this returns.
    ///
    /// # Errors
    ///
    /// If it could not be made, and then nothing of it was.
    ///
    /// # Cancel safety
    ///
    /// The change may be made or not.
    pub(crate) async fn change(&self, change: Change) -> Result<Applied, Trouble> {
        self.change_in(Room::new(), change).await
    }

    /// As [`change`](Self::change); the bytes that it brings take `room`.
    pub(crate) async fn change_in(&self, room: Room, change: Change) -> Result<Applied, Trouble> {
        if self.shared.is_stopped() {
            // Who waited at the gate would not hear of it.
            self.shared.check_room_to_mend()?;
        }
        let admitted = match change.brings_content() {
            true => Some(self.shared.gate.admit(change.bytes()).await?),
            false => None,
        };
        let (reply, answer) = oneshot::channel();
        let queued = Queued {
            change,
            reply,
            admitted,
            room,
        };
        // Without the writer nothing is acknowledged any more.
        self.queue.send(queued).await.map_err(|_| Trouble::Closed)?;
        answer.await.map_err(|_| Trouble::Closed)?
    }

    /// Makes a change if the writer is not too busy, without waiting for it.
    pub(crate) fn try_change(&self, change: Change) {
        let (reply, _answer) = oneshot::channel();
        // Only for what is not missed: a full queue means that others are.
        let _full = self.queue.try_send(Queued {
            change,
            reply,
            admitted: None,
            room: Room::new(),
        });
    }

    /// Ends when the database that is open now is closed: who holds chunks that were read from it lets
    /// them go then, because it cannot be opened again before.
    ///
    /// # Errors
    ///
    /// If no database is open.
    pub(crate) fn retired(&self) -> Result<CancellationToken, Trouble> {
        self.shared.slot.retired()
    }

    /// Why nothing is written at the moment; `None` if all is well.
    pub(crate) fn stopped(&self) -> Option<String> {
        if self.writer_has_ended() {
            return Some("the store's writer has ended".to_owned());
        }
        lock(&self.shared.stopped).clone()
    }

    /// Whether the writer has ended, which is never before the store does, unless it is broken.
    pub(crate) fn writer_has_ended(&self) -> bool {
        self.queue.is_closed()
    }

    /// Waits for the end of the writer, which never ends before the store does unless it is broken.
    pub(crate) async fn writer_ended(&self) {
        self.queue.closed().await;
    }

    /// Whether the disk is about to be too full to write, so that room should be made now.
    pub(crate) fn is_short_of_room(&self) -> bool {
        /// What a second's writes take, on a quick network.
        const AHEAD_BYTES: u64 = 256 << 20;
        self.shared.check_disk(AHEAD_BYTES / 2).is_err()
    }

    /// Counts for how long the database has held up writes. Takes a moment.
    pub(crate) fn count_stalls(&self) {
        self.shared.count_stalls();
    }

    /// Waits until somebody waits for room within the budget, or soon will. While nothing more can go, that is
    /// no more often than [`RETRY_INTERVAL`].
    pub(crate) async fn wants_room(&self) {
        if self.shared.gate.is_exhausted() {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        self.shared.gate.wanted().await;
    }

    /// Says that the store is about to close: what takes long, such as a sweep, ends early.
    pub(crate) async fn end(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        // It may flush what is in memory only.
        let cancelled = self.blocking(|store| {
            store.shared.rocks()?.cancel_work();
            Ok(())
        });
        // Without a database nothing goes on.
        let _none_is_open = cancelled.await;
    }
}

/// What the writer and those who read share.
#[derive(Debug)]
struct Shared {
    slot: Slot,
    place: Place,
    directory: PathBuf,
    sizes: Sizes,
    gate: Arc<Gate>,
    ranks: Ranks,
    free_low_water: u64,
    clock: Clock,
    holds: Holds,
    hot: Hot,
    known: Known,
    quick: Quick,
    condemned: Condemned,
    doubt: Doubt,
    totals: Mutex<Totals>,
    /// What the database had held up when that was counted last.
    stalls: Mutex<Stalls>,
    /// Whether the store is about to close, so that long work ends early.
    ending: AtomicBool,
    /// Why nothing is written.
    stopped: Mutex<Option<String>>,
    /// The same, to look at often.
    is_stopped: AtomicBool,
    /// Tests turn it off, to let the database run into the wall.
    #[cfg(test)]
    room_is_checked: AtomicBool,
}

impl Shared {
    fn rocks(&self) -> Result<Arc<Rocks>, Trouble> {
        self.slot.rocks()
    }

    fn publish(&self, totals: Totals) {
        *lock(&self.totals) = totals;
        gauge!("grange_cache_chunks").set(as_float(totals.chunks));
        gauge!("grange_cache_bytes").set(as_float(totals.bytes));
        gauge!("grange_cache_stored_bytes").set(as_float(totals.stored));
        gauge!("grange_cache_hot_bytes").set(as_float(self.hot.bytes() as u64));
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    fn set_stopped(&self, reason: Option<String>) {
        self.is_stopped.store(reason.is_some(), Ordering::Relaxed);
        *lock(&self.stopped) = reason;
    }

    /// Leaves the holds for the next start.
    fn leave_holds(&self) {
        left::leave(&self.directory, &self.holds, &self.clock);
    }

    /// Makes the database, which is closed, whole again.
    fn mend(&self, suspect: &Suspect) -> Result<(), Trouble> {
        let place = (&self.place, self.sizes, self.free_low_water);
        match mend_database(place, Care::Mending, suspect) {
            // It does not even open.
            Err(Trouble::Database { source }) if rocks::is_damage(&source) => {
                tracing::error!(error = %source, "the store saves what it can of its database");
                mend_database(place, Care::Salvage, suspect)
            }
            mended => mended,
        }
    }

    /// Looks at an error of the database: if that is damaged, it is opened anew and mended, or all chunks are
    /// read soon. Says whether the former is to be waited for.
    fn look_at(&self, error: &rocksdb::Error) -> bool {
        if rocks::is_damage_of_blob(error) {
            self.doubt.doubt_chunks();
        }
        self.look_at_rows(error)
    }

    /// As [`look_at`](Self::look_at), for who sets aside a chunk that is damaged.
    fn look_at_rows(&self, error: &rocksdb::Error) -> bool {
        if !rocks::is_damage(error) || rocks::is_damage_of_blob(error) {
            return false;
        }
        if self.doubt.of_rows().is_none() {
            tracing::error!(error = %error, "the database is damaged; the store opens it again to mend it");
        }
        self.doubt.doubt_rows(error.to_string());
        // What has stopped it before says more: that it waits for room, say.
        if !self.is_stopped() {
            self.set_stopped(Some(error.to_string()));
        }
        true
    }

    /// Where the disk has no room to mend the database, what can be read of it is read until there is some.
    fn read_unmended(&self, trouble: &Trouble) {
        let Trouble::Full { needed, .. } = trouble else {
            return;
        };
        tracing::error!(error = %trouble, "the store takes nothing until the disk has room to mend it");
        self.doubt.rows_want_room(*needed);
        self.set_stopped(Some(trouble.to_string()));
        match Rocks::open(&self.place, self.sizes, Care::Mending) {
            Ok(rocks) => self.slot.put(rocks),
            Err(error) => tracing::error!(%error, "the store gives nothing until then, either"),
        }
    }

    /// Closes the database and opens it again; gives its sums.
    fn reopen(&self, patience: Duration) -> Result<Totals, Trouble> {
        self.place.check().map_err(|_gone| self.log_gone())?;
        if !self.slot.close(patience, &self.clock) {
            return Err(Trouble::Stopped);
        }
        // What was seen of a batch that failed may not be there now, and what is mended has lost some.
        self.known.clear();
        if let Some(said) = self.doubt.of_rows() {
            self.mend(&Suspect::Said(said))
                .inspect_err(|trouble| self.read_unmended(trouble))?;
            self.doubt.rows_are_whole();
        }
        let rocks = Rocks::open(&self.place, self.sizes, Care::Usual)?;
        let totals = totals(&rocks)?;
        self.slot.put(rocks);
        Ok(totals)
    }
}

/// A path that is the same wherever the next start is.
fn absolute(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok()
}

/// Makes the database in a directory whole.
fn mend_database(
    (place, sizes, low_water): (&Place, Sizes, u64),
    care: Care,
    suspect: &Suspect,
) -> Result<(), Trouble> {
    let check_room = |bytes| space::check_free(&place.database, low_water.saturating_add(bytes));
    let mut rocks = Rocks::open(place, sizes, care)?;
    mend::mend(&mut rocks, suspect, check_room)
}

/// Ends what a database that was just opened had not ended, and reads its sums.
fn totals(rocks: &Rocks) -> Result<Totals, Trouble> {
    bulk::settle(rocks);
    let totals = rocks.get(Column::Meta, TOTALS)?;
    let totals = totals.as_deref().map(Totals::decode).transpose()?;
    Ok(totals.unwrap_or_default())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A count for a gauge.
#[expect(
    clippy::cast_precision_loss,
    reason = "nobody reads the sixteenth digit of a gauge"
)]
pub(crate) const fn as_float(count: u64) -> f64 {
    count as f64
}

/// What the files of the database take on the disk.
pub(crate) fn disk_usage(store: &Store) -> Result<DiskUsage, Trouble> {
    let database: &Path = &store.shared.place.database;
    space::disk_usage(database).map_err(|source| Trouble::disk(database, source))
}
