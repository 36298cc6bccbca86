//! An experiment: how the disk is got back from deleted chunks, by garbage collection of blob files or by
//! column families that are dropped as a whole. `docs/decisions/` has its figures; it is small unless built
//! with `GRANGE_SLOW_TESTS=1 cargo test --release -p cache --lib -- --nocapture garbage`.

use std::collections::{BTreeMap, BTreeSet};

use rocksdb::{
    BottommostLevelCompaction, ColumnFamilyDescriptor, CompactOptions, DB, Options, WriteBatch,
    WriteOptions,
};

use super::{super::space, *};
use crate::{clock::Clock, eviction::Random};

const MB: u64 = 1 << 20;
const IS_LARGE: bool = option_env!("GRANGE_SLOW_TESTS").is_some();
const BUDGET: u64 = if IS_LARGE { 512 * MB } else { 64 * MB };
const WRITTEN: u64 = if IS_LARGE { 2048 * MB } else { 128 * MB };
const CHUNK: u64 = BUDGET / 4096;
/// How large a blob file is, and what a column family holds.
const PIECE: u64 = BUDGET / 64;
const BATCH: u64 = BUDGET / 128;

/// Which chunk, by the order of writing.
type Id = u64;

fn key_of(id: Id) -> [u8; 32] {
    *Digest::of(&id.to_le_bytes()).hash()
}

/// Entries of some chunks each: they come and go as a whole.
struct Load {
    random: Random,
    /// In the order in which they came.
    entries: Vec<Vec<Id>>,
    next: Id,
    live: u64,
}

impl Load {
    fn new() -> Self {
        Self {
            random: Random(5),
            entries: Vec::new(),
            next: 0,
            live: 0,
        }
    }

    fn come(&mut self) -> Vec<Id> {
        let count = 4 + self.random.below(60);
        let entry: Vec<Id> = (self.next..self.next + count).collect();
        self.next += count;
        self.live += count * CHUNK;
        self.entries.push(entry.clone());
        entry
    }

    /// Of three that go, two are old and one is any.
    fn go(&mut self) -> Vec<Id> {
        let count = self.entries.len() as u64;
        let at = match self.random.below(3) {
            0 => self.random.below(count),
            _ => self.random.below(count / 8 + 1),
        };
        let entry = self.entries.remove(usize::try_from(at).unwrap());
        self.live -= entry.len() as u64 * CHUNK;
        entry
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_total_wal_size(BUDGET / 16);
    options.set_write_buffer_size(usize::try_from(PIECE).unwrap());
    options.set_enable_blob_files(true);
    options.set_min_blob_size(512);
    options.set_blob_file_size(PIECE);
    options.set_max_background_jobs(2);
    options
}

/// A way to get the disk back.
trait Disk {
    fn write(&mut self, put: &[(Id, Vec<u8>)], deleted: &[Id]);
    /// Gets back what one piece has of garbage; says how many bytes were written anew.
    fn clean(&mut self) -> u64;
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// Garbage collection of blob files, the oldest `parts`-th of them at a time.
struct Collected {
    db: DB,
    parts: u64,
}

impl Disk for Collected {
    fn write(&mut self, put: &[(Id, Vec<u8>)], deleted: &[Id]) {
        let mut batch = WriteBatch::default();
        for (id, bytes) in put {
            batch.put(key_of(*id), bytes);
        }
        for id in deleted {
            batch.delete(key_of(*id));
        }
        self.db.write_opt(batch, &synced()).unwrap();
    }

    fn clean(&mut self) -> u64 {
        let cutoff = format!("{:.4}", 1.0 / as_float(self.parts));
        self.db
            .set_options(&[
                ("enable_blob_garbage_collection", "true"),
                ("blob_garbage_collection_age_cutoff", &cutoff),
            ])
            .unwrap();
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db
            .compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        0
    }
}

/// Column families by age; the one with the least in it that is alive goes, and that is written anew.
struct Dropped {
    db: DB,
    place: BTreeMap<Id, u64>,
    pieces: BTreeMap<u64, BTreeSet<Id>>,
    open: u64,
    filled: u64,
}

impl Dropped {
    fn name(piece: u64) -> String {
        format!("piece-{piece}")
    }

    fn put(&mut self, batch: &mut WriteBatch, id: Id, bytes: &[u8]) {
        if PIECE <= self.filled {
            self.open += 1;
            self.filled = 0;
            self.db
                .create_cf(Self::name(self.open), &options())
                .unwrap();
        }
        let open = self.db.cf_handle(&Self::name(self.open)).unwrap();
        batch.put_cf(&open, key_of(id), bytes);
        self.filled += bytes.len() as u64;
        if let Some(before) = self.place.insert(id, self.open) {
            self.pieces.get_mut(&before).unwrap().remove(&id);
        }
        self.pieces.entry(self.open).or_default().insert(id);
    }
}

impl Disk for Dropped {
    fn write(&mut self, put: &[(Id, Vec<u8>)], deleted: &[Id]) {
        let mut batch = WriteBatch::default();
        for (id, bytes) in put {
            self.put(&mut batch, *id, bytes);
        }
        for id in deleted {
            // The row stays until its column goes: nobody looks there any more.
            let place = self.place.remove(id).unwrap();
            self.pieces.get_mut(&place).unwrap().remove(id);
        }
        self.db.write_opt(batch, &synced()).unwrap();
    }

    fn clean(&mut self) -> u64 {
        let open = self.open;
        let closed = self.pieces.iter().filter(|(piece, _)| **piece != open);
        let Some((&piece, alive)) = closed.min_by_key(|(_, alive)| alive.len()) else {
            return 0;
        };
        let alive: Vec<Id> = alive.iter().copied().collect();
        let mut batch = WriteBatch::default();
        for &id in &alive {
            let bytes = {
                let column = self.db.cf_handle(&Self::name(piece)).unwrap();
                self.db.get_cf(&column, key_of(id)).unwrap().unwrap()
            };
            self.put(&mut batch, id, &bytes);
        }
        self.db.write_opt(batch, &synced()).unwrap();
        self.db.drop_cf(&Self::name(piece)).unwrap();
        self.pieces.remove(&piece);
        alive.len() as u64 * CHUNK
    }
}

fn written_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find(|line| line.starts_with("write_bytes"));
    line.unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

fn as_float(count: u64) -> f64 {
    crate::store::as_float(count)
}

/// Writes and deletes; gives how many bytes the files took at most.
fn run(name: &str, live_percent: u64, open: impl Fn(&Path) -> Box<dyn Disk>) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let mut disk = open(directory.path());
    let mut load = Load::new();
    let clock = Clock::start();
    let before = written_bytes();
    let (mut cleaned, mut most, mut gone) = (0, 0, Vec::new());
    let mut put: Vec<(Id, Vec<u8>)> = Vec::new();
    while load.next * CHUNK < WRITTEN {
        let chunk_bytes = usize::try_from(CHUNK).unwrap();
        put.extend(
            load.come()
                .into_iter()
                .map(|id| (id, noise(id, chunk_bytes))),
        );
        while BUDGET * live_percent / 100 < load.live {
            let entry = load.go();
            let (waiting, there): (Vec<Id>, Vec<Id>) = entry
                .into_iter()
                .partition(|id| put.iter().any(|(other, _)| other == id));
            put.retain(|(id, _)| !waiting.contains(id));
            gone.extend(there);
        }
        if (put.len() as u64) * CHUNK < BATCH {
            continue;
        }
        disk.write(&put, &gone);
        put.clear();
        gone.clear();
        let mut used = space::disk_usage(directory.path()).unwrap().all;
        most = most.max(used);
        let mut tries = 0;
        while BUDGET - BUDGET / 8 < used && tries < 8 {
            disk.clean();
            cleaned += 1;
            tries += 1;
            used = space::disk_usage(directory.path()).unwrap().all;
            most = most.max(used);
        }
    }
    let seconds = clock.now().since(protocol::time::Time::ZERO).as_secs_f64();
    let written = written_bytes() - before;
    println!(
        "{name:<28} live {live_percent} %: {:6.1} MB/s, {:4.2} written per byte, du at most {:4} MB, {cleaned} cleanings",
        as_float(WRITTEN / MB) / seconds,
        as_float(written) / as_float(WRITTEN),
        most / MB,
    );
    most
}

#[test]
fn garbage_of_blob_files_is_collected_within_the_budget() {
    let (rounds, lives, parts): (_, &[u64], &[u64]) = match IS_LARGE {
        true => (2, &[60, 65, 70], &[4, 8, 16]),
        false => (1, &[60], &[16]),
    };
    for _ in 0..rounds {
        for &live in lives {
            for &parts in parts {
                let most = run(&format!("blob files, 1/{parts} at a time"), live, |path| {
                    let db = DB::open(&options(), path).unwrap();
                    Box::new(Collected { db, parts })
                });
                assert!(most <= BUDGET, "1/{parts} at a time: {most}");
            }
            // What was not chosen: its files go a little later, and may be over.
            run("column families", live, |path| {
                let first = ColumnFamilyDescriptor::new(Dropped::name(0), options());
                let db = DB::open_cf_descriptors(&options(), path, [first]).unwrap();
                Box::new(Dropped {
                    db,
                    place: BTreeMap::new(),
                    pieces: BTreeMap::new(),
                    open: 0,
                    filled: 0,
                })
            });
        }
    }
}
