//! How RocksDB is set up.

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, DataBlockIndexType, LogLevel,
    Options,
};

use super::{rocks::Column, sizes::Sizes};

/// What of a damaged database is left out, so that it opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LeftOut {
    /// Nothing: damage stops the start. Only a log that ends in the middle of a record is none.
    Nothing,
    /// All that is in the log behind the first damaged byte.
    LogBehindDamage,
    /// The same, and tables that cannot be opened. The database reads over what is damaged in the log then,
    /// and takes what is behind it for whole, which where a change goes on over many blocks it does not
    /// survive: that stops the start again.
    Tables,
    /// Such tables, and all of the log: what is in no file yet.
    Log,
}

/// From this size on a chunk goes to a blob file, in bytes. Smaller ones are hardly larger than the
/// pointer to them would be.
const BLOB_BYTES_MIN: u64 = 512;
/// How full the table of hashes of a block is: RocksDB's own default.
const BLOCK_HASH_RATIO: f64 = 0.75;
/// What part of a buffer is a filter of its keys: ten bits for each of the usual rows.
const MEMTABLE_FILTER_RATIO: f64 = 0.02;
/// How many new tables of chunks are merged. A chunk is looked up in each of them, in their filters mostly.
pub(super) const TABLES_MERGED: u8 = 8;
/// How many files RocksDB keeps open. Half of what a process may have where nobody has raised the limit. With 16 MiB
/// to a blob file and more, these have 8 GiB and more; for a chunk of another one, that is opened first.
const OPEN_FILES_MAX: i32 = 512;
/// How large RocksDB's own messages get, in bytes, and how many files of them are kept.
const MESSAGES_BYTES_MAX: usize = 1 << 20;
const MESSAGES_FILES_MAX: usize = 4;
/// How large the file gets that says which files there are, in bytes, before it is written anew: each flush adds to it,
/// and a start reads it.
const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// How RocksDB compresses what it is given, whatever it is compiled with: not at all. Bodies of chunks are
/// packed by who sends them, or cannot be, and the rest is digests mostly, which cannot either.
const COMPRESSION: DBCompressionType = DBCompressionType::None;

/// The settings of the database.
pub(super) fn database_options(sizes: Sizes, left_out: LeftOut) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // After a crash the log may end in the middle of a record that nobody was told of: that is cut.
    // Anything else that is wrong with it stops the start. `PointInTime`, the default, would silently
    // drop everything behind the first damaged byte, acknowledged or not; `AbsoluteConsistency` would
    // not start after any crash.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    match left_out {
        LeftOut::Nothing => {}
        LeftOut::LogBehindDamage => options.set_wal_recovery_mode(DBRecoveryMode::PointInTime),
        LeftOut::Tables | LeftOut::Log => {
            options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
            options.set_paranoid_checks(false);
        }
    }
    // A log file that is gone or too short as a whole is damage, too.
    options.set_track_and_verify_wals_in_manifest(left_out == LeftOut::Nothing);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_total_wal_size(sizes.log());
    options.set_db_write_buffer_size(sizes.buffers());
    options.set_wal_compression_type(COMPRESSION);
    // A flush and a compaction.
    options.set_max_background_jobs(2);
    // What is written in the background goes to the disk little by little, so that the syncs of the log
    // do not wait behind it.
    options.set_bytes_per_sync(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(MESSAGES_BYTES_MAX);
    options.set_keep_log_file_num(MESSAGES_FILES_MAX);
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
    options
}

/// The settings of a column.
pub(super) fn column_options(column: Column, cache: &Cache, sizes: Sizes) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    // Ten bits: one lookup in a hundred of a key that is not there reads a block in vain.
    blocks.set_bloom_filter(10.0, false);
    blocks.set_format_version(6);
    // Nearly all lookups are of one key: it is found in its block by its hash.
    blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    blocks.set_data_block_hash_ratio(BLOCK_HASH_RATIO);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(sizes.rows_buffer());
    options.set_compression_type(COMPRESSION);
    if matches!(column, Column::Facts | Column::Owners) {
        // Chunks that are new are looked up in vain first.
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_RATIO);
    }
    if column == Column::Chunks {
        options.set_write_buffer_size(sizes.chunks_buffer());
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_BYTES_MIN);
        options.set_blob_file_size(sizes.blob_file());
        options.set_blob_compression_type(COMPRESSION);
        // Digests have no order that time has, so every compaction meets all keys; with RocksDB's own
        // garbage collection each would write a part of all chunks anew. See `reclaim`.
        options.set_enable_blob_gc(false);
        // Only keys and pointers are here: a fraction of what the default expects. A group that is written in bulk
        // makes a table of its own, some dozens of them a second, so they are merged with little, and not at once.
        options.set_target_file_size_base(2 << 20);
        options.set_max_bytes_for_level_base(8 << 20);
        let merged = i32::from(TABLES_MERGED);
        options.set_level_zero_file_num_compaction_trigger(merged);
        options.set_level_zero_slowdown_writes_trigger(5 * merged);
        options.set_level_zero_stop_writes_trigger(8 * merged);
    }
    options
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rocksdb::{ColumnFamilyDescriptor, DB};

    use super::*;

    /// The settings of an open database, as it writes them down itself.
    fn written_down() -> String {
        let directory = tempfile::tempdir().unwrap();
        let sizes = Sizes::of(0);
        let blocks = Cache::new_lru_cache(1 << 20);
        let columns = Column::ALL.map(|column| {
            let options = column_options(column, &blocks, sizes);
            ColumnFamilyDescriptor::new(column.names()[0], options)
        });
        let options = database_options(sizes, LeftOut::Nothing);
        let database = DB::open_cf_descriptors(&options, directory.path(), columns).unwrap();
        let files = fs::read_dir(directory.path()).unwrap();
        let files = files.map(|file| file.unwrap().path());
        // Numbered, in digits of one length.
        let last = files
            .filter(|path| path.to_string_lossy().contains("/OPTIONS-"))
            .max();
        let text = fs::read_to_string(last.unwrap()).unwrap();
        drop(database);
        text
    }

    /// What `settings` say about `key`, for each column.
    fn values(settings: &str, key: &str) -> Vec<String> {
        let lines = settings
            .lines()
            .filter_map(|line| line.trim().split_once('='));
        lines
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value.to_owned())
            .collect()
    }

    #[test]
    fn buffers_of_what_is_looked_up_in_vain_have_filters() {
        let settings = written_down();
        let filtered = values(&settings, "memtable_whole_key_filtering");
        assert_eq!(filtered.iter().filter(|value| *value == "true").count(), 2);
        let sizes = values(&settings, "memtable_prefix_bloom_size_ratio");
        let with_room = sizes.iter().filter(|size| size.starts_with("0.02"));
        assert_eq!(with_room.count(), 2);
    }

    #[test]
    fn nothing_that_comes_compressed_is_compressed_again() {
        let settings = written_down();
        let values = |key: &str| values(&settings, key);
        // There is a column of RocksDB's own besides.
        for (key, count) in [
            ("compression", Column::ALL.len() + 1),
            ("blob_compression_type", Column::ALL.len() + 1),
            ("wal_compression", 1),
        ] {
            assert_eq!(values(key), vec!["kNoCompression"; count], "{key}");
        }
        // The last level has none of its own.
        let levels = values("bottommost_compression");
        assert_eq!(
            levels,
            vec!["kDisableCompressionOption"; Column::ALL.len() + 1]
        );
    }
}
