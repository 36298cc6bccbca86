//! RocksDB: its columns, its settings, and the few calls that the store makes. With its siblings the
//! only place that names the library.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DBPinnableSlice, Direction,
    IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};
use self_cell::self_cell;

use super::{
    place::Place,
    rebuild,
    settings::{LeftOut, column_options, database_options},
    sizes::Sizes,
};

/// A table of the database.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Column {
    /// [`ChunkKey`](super::key::ChunkKey) -> one byte of encoding and the body, as it travels. In blob
    /// files, so that compactions do not move it.
    Chunks,
    /// `ChunkKey` -> [`Fact`](super::row::Fact).
    Facts,
    /// `ChunkKey` and a team's name -> nothing. The row is there if the team has proved that it holds
    /// the chunk, or may read an entry that names it; only while the chunk is there. What presence
    /// checks look at.
    Owners,
    /// Namespace `/` path -> [`StoredEntry`](super::row::StoredEntry).
    Entries,
    /// The same key -> the distinct chunks that the entry keeps.
    Closures,
    /// The same key -> when the entry was last read or written.
    Used,
    /// Team `/` project `/` key -> [`Uses`](super::row::Uses).
    Uses,
    /// [`TOTALS`] -> [`Totals`](super::row::Totals), and other rows of which there is one.
    Meta,
}

/// The row of the sums, in [`Column::Meta`].
pub(crate) const TOTALS: &[u8] = b"totals";

impl Column {
    pub(super) const ALL: [Self; 8] = [
        Self::Chunks,
        Self::Facts,
        Self::Owners,
        Self::Entries,
        Self::Closures,
        Self::Used,
        Self::Uses,
        Self::Meta,
    ];

    /// What the database calls it: the first name, or the second when it was rebuilt from the first, and
    /// so on in turn.
    pub(super) const fn names(self) -> [&'static str; 2] {
        match self {
            Self::Chunks => ["chunks", "chunks.2"],
            Self::Facts => ["facts", "facts.2"],
            Self::Owners => ["owners", "owners.2"],
            Self::Entries => ["entries", "entries.2"],
            Self::Closures => ["closures", "closures.2"],
            Self::Used => ["used", "used.2"],
            Self::Uses => ["uses", "uses.2"],
            Self::Meta => ["meta", "meta.2"],
        }
    }

    /// Which of its names it has in a database that has `there`, of which `doomed` goes.
    fn name_among(self, there: &[String], doomed: Option<&str>) -> &'static str {
        let stays = |name: &str| doomed != Some(name) && there.iter().any(|there| there == name);
        let [first, second] = self.names();
        if !stays(first) && stays(second) {
            second
        } else {
            first
        }
    }
}

/// What a database is opened for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Care {
    /// To be used.
    Usual,
    /// To be mended: nothing is compacted meanwhile, which would meet what is damaged.
    Mending,
    /// The same, and what is damaged so far that it would keep the database from opening is left out, as
    /// little as does.
    Salvage,
}

/// What blocks of rows may take in memory, in bytes, for all columns together: who may know of two million
/// chunks.
const BLOCK_CACHE_BYTES: usize = 128 << 20;
const ALL_BUFFERS: &str = "rocksdb.cur-size-all-mem-tables";
const LIVE_SST_SIZE: &str = "rocksdb.live-sst-files-size";
const NEW_TABLES: &str = "rocksdb.num-files-at-level0";
const BLOB_FILES: &str = "rocksdb.num-blob-files";
const LIVE_BLOB_SIZE: &str = "rocksdb.live-blob-file-size";
const BLOB_GARBAGE: &str = "rocksdb.live-blob-file-garbage-size";

/// A key and its value.
pub(crate) type Row = (Box<[u8]>, Box<[u8]>);

/// An open database.
pub(crate) struct Rocks {
    pub(super) db: DB,
    pub(super) directory: PathBuf,
    /// What each column is called, in the order of [`Column::ALL`].
    pub(super) names: [&'static str; 8],
    sizes: Sizes,
    blocks: Cache,
    /// For what its receiver verifies.
    unchecked: ReadOptions,
}

impl fmt::Debug for Rocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rocks")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Rocks {
    /// Opens the database in `place`, or makes one, with files and buffers of these sizes.
    pub(super) fn open(place: &Place, sizes: Sizes, care: Care) -> Result<Self, rocksdb::Error> {
        if care == Care::Salvage {
            for left_out in [LeftOut::LogBehindDamage, LeftOut::Tables] {
                match Self::open_without((place, sizes), care, left_out) {
                    Err(error) if is_damage(&error) => {
                        tracing::warn!(%error, ?left_out, "the database does not open without this");
                    }
                    opened => return opened,
                }
            }
            rebuild::remove_log(place.log());
            return Self::open_without((place, sizes), care, LeftOut::Log);
        }
        Self::open_without((place, sizes), care, LeftOut::Nothing)
    }

    fn open_without(
        (place, sizes): (&Place, Sizes),
        care: Care,
        left_out: LeftOut,
    ) -> Result<Self, rocksdb::Error> {
        // Without locks: presence checks look up some thousand blocks for each request. Zero: it finds out
        // itself how large blocks are.
        let blocks = Cache::new_hyper_clock_cache(BLOCK_CACHE_BYTES, 0);
        let directory: &Path = &place.database;
        let mut options = database_options(sizes, left_out);
        if let Some(log) = &place.log {
            options.set_wal_dir(&log.path);
        }
        let there = match directory.join("CURRENT").exists() {
            true => DB::list_cf(&options, directory)?,
            false => Vec::new(),
        };
        let doomed = rebuild::doomed(directory);
        let names = Column::ALL.map(|column| column.name_among(&there, doomed.as_deref()));
        let is_there = |name: &str| there.iter().any(|there| there == name);
        let mut opened = Vec::new();
        let mut left_over = Vec::new();
        for column in Column::ALL {
            for name in column.names() {
                if names.contains(&name) || is_there(name) {
                    let mut options = column_options(column, &blocks, sizes);
                    options.set_disable_auto_compactions(care != Care::Usual);
                    opened.push(ColumnFamilyDescriptor::new(name, options));
                }
                if !names.contains(&name) && is_there(name) {
                    left_over.push(name);
                }
            }
        }
        let mut db = DB::open_cf_descriptors(&options, directory, opened)?;
        for name in left_over {
            db.drop_cf(name)?;
        }
        let mut unchecked = ReadOptions::default();
        unchecked.set_verify_checksums(false);
        // Who reads a block later takes it for checked. What finds the keys is in the system's memory.
        unchecked.fill_cache(false);
        Ok(Self {
            db,
            directory: directory.to_owned(),
            names,
            sizes,
            blocks,
            unchecked,
        })
    }

    /// How a column is set up that is made while the database is mended.
    pub(super) fn column_options(&self, column: Column) -> Options {
        let mut options = column_options(column, &self.blocks, self.sizes);
        options.set_disable_auto_compactions(true);
        options
    }

    /// The value under `key`.
    pub(crate) fn get(
        &self,
        column: Column,
        key: &[u8],
    ) -> Result<Option<DBPinnableSlice<'_>>, rocksdb::Error> {
        self.db.get_pinned_cf(self.column(column), key)
    }

    /// Which of `keys`, ascending, have a row. Small values only: they are read.
    pub(crate) fn contains<'a>(
        &self,
        column: Column,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<bool>, rocksdb::Error> {
        let rows = self
            .db
            .batched_multi_get_cf(self.column(column), keys, true);
        rows.into_iter()
            .map(|row| row.map(|row| row.is_some()))
            .collect()
    }

    /// The values under `keys`, ascending.
    pub(crate) fn get_many<'a>(
        &self,
        column: Column,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<Option<DBPinnableSlice<'_>>>, rocksdb::Error> {
        self.get_each(column, keys).into_iter().collect()
    }

    /// The same; what is wrong with one of them is not wrong with all.
    pub(crate) fn get_each<'a>(
        &self,
        column: Column,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<Result<Option<DBPinnableSlice<'_>>, rocksdb::Error>> {
        self.db
            .batched_multi_get_cf(self.column(column), keys, true)
    }

    /// The rows from `start` on, ascending.
    pub(crate) fn rows_from(
        &self,
        column: Column,
        start: &[u8],
    ) -> impl Iterator<Item = Result<Row, rocksdb::Error>> {
        let mode = IteratorMode::From(start, Direction::Forward);
        self.db.iterator_cf(self.column(column), mode)
    }

    /// A batch with room for `bytes`.
    pub(crate) fn batch(&self, bytes: usize) -> Batch<'_> {
        Batch {
            rocks: self,
            batch: WriteBatch::with_capacity_bytes(bytes),
        }
    }

    /// Writes a row to memory only: it is durable when its column is flushed.
    pub(crate) fn put_unlogged(
        &self,
        column: Column,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db
            .put_cf_opt(self.column(column), key, value, &options)
    }

    /// Moves a column from memory to a file, and waits until the disk has it.
    pub(crate) fn flush_column(&self, column: Column) -> Result<(), rocksdb::Error> {
        self.db.flush_cf(self.column(column))
    }

    /// How many bytes are in memory and in the log only: the disk needs room for them once more.
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        let column = self.column(Column::Chunks);
        let value = self.db.property_int_value_cf(column, ALL_BUFFERS);
        // Not knowing it makes one check less strict, and nothing else.
        value.ok().flatten().unwrap_or(0)
    }

    /// Moves everything from memory to its files, so that the log that had it too can go.
    pub(crate) fn flush(&self) -> Result<(), rocksdb::Error> {
        for column in Column::ALL {
            self.flush_column(column)?;
        }
        Ok(())
    }

    /// How many bytes of all columns are in memory and in the log only.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        let columns = Column::ALL.iter().map(|&column| {
            let column = self.column(column);
            let value = self.db.property_int_value_cf(column, ALL_BUFFERS);
            value.ok().flatten().unwrap_or(0)
        });
        columns.sum()
    }

    /// What all but the chunks takes in files that are in use, in bytes.
    pub(crate) fn rows_bytes(&self) -> Result<u64, rocksdb::Error> {
        let mut bytes = 0;
        for column in Column::ALL {
            let column = self.column(column);
            let value = self.db.property_int_value_cf(column, LIVE_SST_SIZE)?;
            bytes += value.unwrap_or(0);
        }
        Ok(bytes)
    }

    /// Writes a column's files anew.
    pub(super) fn compact(&self, column: Column, options: &CompactOptions) {
        let everything = None::<&[u8]>;
        self.db
            .compact_range_cf_opt(self.column(column), everything, everything, options);
    }

    /// Changes settings of a column.
    pub(super) fn set(
        &self,
        column: Column,
        settings: &[(&str, &str)],
    ) -> Result<(), rocksdb::Error> {
        self.db.set_options_cf(self.column(column), settings)
    }

    /// How many tables of chunks wait to be merged.
    pub(super) fn new_tables(&self) -> u64 {
        let column = self.column(Column::Chunks);
        let value = self.db.property_value_cf(column, NEW_TABLES);
        // Not knowing it, there are none.
        let value = value.ok().flatten();
        value.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// How many blob files are in use.
    pub(super) fn blob_files(&self) -> Result<u64, rocksdb::Error> {
        let column = self.column(Column::Chunks);
        let count = self.db.property_int_value_cf(column, BLOB_FILES)?;
        Ok(count.unwrap_or(0))
    }

    /// Ends what goes on in the background, and what waits for it: the store is about to close.
    pub(crate) fn cancel_work(&self) {
        self.db.cancel_all_background_work(false);
    }

    /// What the files take that are in use, in bytes.
    pub(super) fn used_bytes(&self) -> Result<u64, rocksdb::Error> {
        let mut bytes = 0;
        for column in Column::ALL {
            for property in [LIVE_SST_SIZE, LIVE_BLOB_SIZE] {
                let value = self
                    .db
                    .property_int_value_cf(self.column(column), property)?;
                bytes += value.unwrap_or(0);
            }
        }
        Ok(bytes)
    }

    /// What is alive in the files of a column takes at most, in bytes.
    pub(super) fn live_bytes(&self, column: Column) -> Result<u64, rocksdb::Error> {
        let column = self.column(column);
        let property = |name: &str| self.db.property_int_value_cf(column, name);
        let tables = property(LIVE_SST_SIZE)?.unwrap_or(0);
        let blobs = property(LIVE_BLOB_SIZE)?.unwrap_or(0);
        let garbage = property(BLOB_GARBAGE)?.unwrap_or(0);
        Ok(tables + blobs.saturating_sub(garbage))
    }

    pub(super) fn column(&self, column: Column) -> &ColumnFamily {
        let handle = self.db.cf_handle(self.names[column as usize]);
        handle.expect("all columns are opened")
    }
}

/// Changes that become durable together or not at all.
pub(crate) struct Batch<'a> {
    rocks: &'a Rocks,
    batch: WriteBatch,
}

impl Batch<'_> {
    pub(crate) fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.batch.put_cf(self.rocks.column(column), key, value);
    }

    pub(crate) fn delete(&mut self, column: Column, key: &[u8]) {
        self.batch.delete_cf(self.rocks.column(column), key);
    }

    /// Writes the batch to the log and waits until the disk has it.
    pub(crate) fn commit(self) -> Result<(), rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        metrics::counter!("grange_cache_syncs_total").increment(1);
        self.rocks.db.write_opt(self.batch, &options)
    }
}

self_cell! {
    /// A value that RocksDB keeps in memory for as long as this lives, with the database that it is of.
    struct Pinned {
        owner: Arc<Rocks>,
        #[covariant]
        dependent: DBPinnableSlice,
    }
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        self.borrow_dependent()
    }
}

/// The value under `key` as it lies in RocksDB's memory, without a copy.
pub(crate) fn pinned(
    rocks: &Arc<Rocks>,
    column: Column,
    key: &[u8],
) -> Result<Option<Bytes>, rocksdb::Error> {
    let pinned = Pinned::try_new(Arc::clone(rocks), |rocks| {
        rocks.get(column, key).map_err(Some)?.ok_or(None)
    });
    match pinned {
        Ok(pinned) => Ok(Some(Bytes::from_owner(pinned))),
        Err(None) => Ok(None),
        Err(Some(error)) => Err(error),
    }
}

/// As [`pinned`], without a look at checksums: for what its receiver verifies.
pub(crate) fn pinned_unchecked(
    rocks: &Arc<Rocks>,
    column: Column,
    key: &[u8],
) -> Result<Option<Bytes>, rocksdb::Error> {
    let pinned = Pinned::try_new(Arc::clone(rocks), |rocks| {
        let value = rocks
            .db
            .get_pinned_cf_opt(rocks.column(column), key, &rocks.unchecked);
        value.map_err(Some)?.ok_or(None)
    });
    match pinned {
        Ok(pinned) => Ok(Some(Bytes::from_owner(pinned))),
        Err(None) => Ok(None),
        Err(Some(error)) => Err(error),
    }
}

/// Whether the database, as this error says, holds something else than was written.
pub(crate) fn is_damage(error: &rocksdb::Error) -> bool {
    error.kind() == rocksdb::ErrorKind::Corruption
}

/// Whether it is the bytes of a chunk in a blob file that are damaged, and not a table of rows.
pub(crate) fn is_damage_of_blob(error: &rocksdb::Error) -> bool {
    // The kind is the same for both; these are the words that the library has for its blob files.
    let said = error.as_ref();
    is_damage(error) && !said.contains(".sst") && (said.contains("blob") || said.contains("Blob"))
}
