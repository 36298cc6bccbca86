//! Making a column of the database anew from what of it can still be read.
//!
//! RocksDB cannot leave a damaged table out: whatever compacts it fails, and then nothing is written any
//! more. So all rows that can be read are copied to a second column, which takes the place of the first. A
//! marker file names the one of them that goes, so that an end in the middle of this loses nothing. Nor does a
//! disk without room for the copy: then that goes, and the first column stays.

use std::{fs, io, path::Path};

use rocksdb::{DBRawIteratorWithThreadMode, ReadOptions, WriteBatch, WriteOptions};

use super::{
    error::Trouble,
    rocks::{self, Column, Rocks},
    small_file,
};

/// The marker: it is there while the database is being mended, and names a column that goes, or none.
const MARKER: &str = "MENDING";
/// How many bytes of rows are copied at a time.
const COPIED_AT_ONCE: usize = 4 << 20;
/// How many gaps a column may have; what is behind the last of them counts as lost. One that has so many is
/// not worth the time.
const GAPS_MAX: u64 = 10_000;
/// How many bytes of a key count when it is looked for where a gap ends. Chunks and their owners have
/// theirs in fewer; of rows that begin alike for longer, some may be lost with their neighbours.
const KEY_BYTES: usize = 128;

/// What was copied of a column.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Rebuilt {
    /// How many rows.
    pub(super) rows: u64,
    /// In how many places rows could not be read.
    pub(super) gaps: u64,
}

/// What is said of a copy for which there is no room: all of it takes `bytes`, and not only the rest.
fn wants_all_of(trouble: Trouble, bytes: u64) -> Trouble {
    match trouble {
        Trouble::Full {
            directory,
            free,
            needed,
        } => Trouble::Full {
            directory,
            free,
            needed: needed.saturating_add(bytes),
        },
        trouble => trouble,
    }
}

/// Whether mending the database in `directory` was begun and not ended.
pub(super) fn is_half_mended(directory: &Path) -> bool {
    directory.join(MARKER).exists()
}

/// The column that goes when the database in `directory` is opened.
pub(super) fn doomed(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(directory.join(MARKER)).ok()?;
    Some(text.trim_end().to_owned())
}

/// Notes that mending goes on, and which column goes; the empty word: none.
pub(super) fn mark(directory: &Path, doomed: &str) -> io::Result<()> {
    small_file::write(directory, MARKER, format!("{doomed}\n").as_bytes())
}

/// Removes the log, in `directory`, of a database that does not open with it.
pub(super) fn remove_log(directory: &Path) {
    // What cannot be removed stops the next try to open it.
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    for file in files.map(|file| file.path()) {
        if file.extension().is_some_and(|found| found == "log") {
            tracing::warn!(file = %file.display(), "what this has is lost: it is damaged, and tables are, too");
            let _stays = fs::remove_file(&file);
        }
    }
}

/// Notes that mending has ended.
pub(super) fn unmark(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(MARKER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::File::open(directory)?.sync_all()
}

impl Rocks {
    /// What has gone wrong in the background, if that keeps the database from being written to.
    pub(super) fn background_failure(&self) -> Result<(), rocksdb::Error> {
        let failed = self.db.property_int_value("rocksdb.background-errors")?;
        if failed.unwrap_or(0) == 0 {
            return Ok(());
        }
        // What was overcome since then does not count: only a write says whether it was.
        self.db.write(WriteBatch::default())
    }

    /// The column of the table `file`, like `000012.sst`.
    pub(super) fn column_of(&self, file: &str) -> Option<Column> {
        let live = self.db.live_files().ok()?;
        let file = live.into_iter().find(|live| live.name.ends_with(file))?;
        let names = self.names.iter().zip(Column::ALL);
        let column = names
            .into_iter()
            .find(|(name, _)| ***name == *file.column_family_name);
        column.map(|(_, column)| column)
    }

    /// Reads all rows of a column.
    pub(super) fn read_all(&self, column: Column) -> Result<(), rocksdb::Error> {
        let mut rows = self.all_rows(column);
        rows.seek_to_first();
        while rows.valid() {
            rows.next();
        }
        rows.status()
    }

    /// Whether all tables of a column can be read. Bytes of chunks in blob files are read with the keys, and do
    /// not count: a chunk is set aside by itself.
    pub(super) fn is_whole(&self, column: Column) -> Result<bool, rocksdb::Error> {
        let mut last = Vec::new();
        let mut rows = self.all_rows(column);
        rows.seek_to_first();
        for _gap in 0..GAPS_MAX {
            while let Some(key) = rows.key() {
                last.clear();
                last.extend_from_slice(key);
                rows.next();
            }
            match rows.status() {
                Ok(()) => return Ok(true),
                Err(error) if rocks::is_damage_of_blob(&error) => {}
                Err(error) if rocks::is_damage(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
            let mut is_blob = true;
            let meets = |error: &rocksdb::Error| is_blob &= rocks::is_damage_of_blob(error);
            match self.leap(column, &last, meets) {
                Some(behind) if is_blob => rows = behind,
                _ => return Ok(is_blob),
            }
        }
        Ok(false)
    }

    /// Makes a column anew. `check_room` says whether the disk has room for so many bytes more.
    ///
    /// On an error the column stays as it is: on [`Trouble::Full`] too, which says how much room all of it takes.
    pub(super) fn rebuild(
        &mut self,
        column: Column,
        check_room: impl Fn(u64) -> Result<(), Trouble>,
    ) -> Result<Rebuilt, Trouble> {
        let bytes = self.copied_bytes(column)?;
        check_room(bytes)?;
        let from = self.names[column as usize];
        let [first, second] = column.names();
        let to = if from == first { second } else { first };
        let directory = self.directory.clone();
        let mark =
            |doomed| mark(&directory, doomed).map_err(|source| Trouble::disk(&directory, source));
        mark(to)?;
        let options = self.column_options(column);
        let made = self.db.create_cf(to, &options).map_err(Trouble::from);
        let rebuilt = match made.and_then(|()| self.copy(column, to, || check_room(0))) {
            Ok(rebuilt) => rebuilt,
            Err(trouble) => {
                // If it stays, it goes when the database is opened next: the marker names it.
                let _stays = self.db.drop_cf(to);
                return Err(wants_all_of(trouble, bytes));
            }
        };
        mark(from)?;
        self.names[column as usize] = to;
        self.db.drop_cf(from)?;
        mark("")?;
        Ok(rebuilt)
    }

    /// How many bytes the copy of a column takes at most, about.
    fn copied_bytes(&self, column: Column) -> Result<u64, rocksdb::Error> {
        /// What is not in what the database says of its files, as a divisor: indexes and filters of tables that
        /// are cut differently.
        const MARGIN_DIVISOR: u64 = 16;
        let bytes = self.live_bytes(column)?;
        Ok(bytes + bytes / MARGIN_DIVISOR)
    }

    /// Copies what can be read of a column to another one, durably.
    fn copy(
        &self,
        column: Column,
        to: &str,
        check_room: impl Fn() -> Result<(), Trouble>,
    ) -> Result<Rebuilt, Trouble> {
        let to = self.db.cf_handle(to).expect("it was just made");
        let mut options = WriteOptions::default();
        // It is flushed before it counts.
        options.disable_wal(true);
        let mut rebuilt = Rebuilt::default();
        let mut batch = WriteBatch::default();
        let mut last = Vec::new();
        let mut rows = self.all_rows(column);
        rows.seek_to_first();
        loop {
            while let Some((key, value)) = rows.item() {
                last.clear();
                last.extend_from_slice(key);
                batch.put_cf(to, key, value);
                rebuilt.rows += 1;
                if COPIED_AT_ONCE <= batch.size_in_bytes() {
                    self.db.write_opt(std::mem::take(&mut batch), &options)?;
                    check_room()?;
                }
                rows.next();
            }
            match rows.status() {
                Ok(()) => break,
                Err(error) if rocks::is_damage(&error) => rebuilt.gaps += 1,
                Err(error) => return Err(error.into()),
            }
            match self.leap(column, &last, |_| {}) {
                Some(behind) if rebuilt.gaps < GAPS_MAX => rows = behind,
                _ => break,
            }
        }
        self.db.write_opt(batch, &options)?;
        self.db.flush_cf(to)?;
        Ok(rebuilt)
    }

    /// The rows from the next place on where they can be read behind `last`, behind which they cannot; `None`:
    /// there is none. `meets` is told of what is in the way.
    fn leap(
        &self,
        column: Column,
        last: &[u8],
        mut meets: impl FnMut(&rocksdb::Error),
    ) -> Option<Rows<'_>> {
        let mut seek = |place: &Number| {
            let zeros = place.iter().rev().take_while(|&&byte| byte == 0).count();
            // One that has failed may do so again wherever it goes.
            let mut rows = self.all_rows(column);
            rows.seek(&place[..KEY_BYTES - zeros]);
            rows.status().inspect_err(&mut meets).ok().map(|()| rows)
        };
        let end = end_of_gap(last, |place| seek(place).is_some())?;
        seek(&end)
    }

    fn all_rows(&self, column: Column) -> Rows<'_> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        self.db.raw_iterator_cf_opt(self.column(column), options)
    }
}

type Rows<'a> = DBRawIteratorWithThreadMode<'a, rocksdb::DB>;

/// A key as a number, the most significant byte first.
type Number = [u8; KEY_BYTES];

/// Where behind `last` something can be read again: far off first in steps that double, then back in steps
/// that halve.
fn end_of_gap(last: &[u8], mut can_read: impl FnMut(&Number) -> bool) -> Option<Number> {
    let mut place = [0; KEY_BYTES];
    let length = last.len().min(KEY_BYTES);
    place[..length].copy_from_slice(&last[..length]);
    let mut bit = 0;
    loop {
        // Past the largest number there is nothing.
        let next = plus(place, bit)?;
        if can_read(&next) {
            break;
        }
        bit += 1;
    }
    for bit in (0..bit).rev() {
        let next = plus(place, bit)?;
        if !can_read(&next) {
            place = next;
        }
    }
    plus(place, 0)
}

/// A number and a power of two; `None`: it is too large.
fn plus(mut number: Number, bit: usize) -> Option<Number> {
    let first = KEY_BYTES.checked_sub(1 + bit / 8)?;
    let mut carry = 1_u16 << (bit % 8);
    for byte in number[..=first].iter_mut().rev() {
        let [high, low] = (u16::from(*byte) + carry).to_be_bytes();
        *byte = low;
        carry = u16::from(high);
        if carry == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> Number {
        let mut number = [0; KEY_BYTES];
        number[..bytes.len()].copy_from_slice(bytes);
        number
    }

    #[test]
    fn the_end_of_a_gap_is_found_to_the_last_bit() {
        let end = number(&[3, 0, 7, 9]);
        let found = end_of_gap(&[2, 200, 1], |place| end <= *place);
        assert_eq!(found, Some(end));
        let next = end_of_gap(&[2, 200, 1], |_| true).unwrap();
        assert_eq!((&next[..3], next[KEY_BYTES - 1]), (&[2, 200, 1][..], 1));
        assert_eq!(end_of_gap(&[2], |_| false), None);
    }

    #[test]
    fn numbers_carry_and_do_not_wrap() {
        let mut all = [0xff; KEY_BYTES];
        assert_eq!(plus(all, 0), None);
        all[0] = 1;
        assert_eq!(plus(all, 0), Some(number(&[2])));
        assert_eq!(plus(number(&[]), 8 * KEY_BYTES - 1), Some(number(&[0x80])));
        assert_eq!(plus(number(&[]), 8 * KEY_BYTES), None);
    }

    #[test]
    fn a_marker_names_what_goes_until_it_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_half_mended(folder.path()) && doomed(folder.path()).is_none());
        mark(folder.path(), "facts.2").unwrap();
        assert!(is_half_mended(folder.path()));
        assert_eq!(doomed(folder.path()).unwrap(), "facts.2");
        unmark(folder.path()).unwrap();
        unmark(folder.path()).unwrap();
        assert!(!is_half_mended(folder.path()));
    }
}
