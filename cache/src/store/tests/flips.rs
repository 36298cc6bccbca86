//! Bits flip in the files of the database, and are met first by a read, by the scrub or by a compaction: what
//! cannot be read is missing then, can be brought again, and the store goes on.

use std::{path::PathBuf, sync::Arc};

use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::{
    super::rocks::{self, Column},
    *,
};

const CHUNKS: u64 = 400;
const CHUNKS_OF_ENTRY: usize = 10;

/// Who meets the damage first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Finder {
    Read,
    Scrub,
    Compaction,
}

fn bytes_of(seed: u64) -> Vec<u8> {
    noise(1_000 + seed, 3_000)
}

pub(super) fn all() -> Vec<Vec<u8>> {
    (0..CHUNKS).map(bytes_of).collect()
}

fn entry_of(number: usize, chunks: &[Vec<u8>]) -> (String, Entry) {
    let digests: Vec<Digest> = chunks.iter().map(|bytes| Digest::of(bytes)).collect();
    let entry = entry(vec![blob(&digests, &chunks.concat())]);
    (format!("source/{number:03}"), entry)
}

/// A store whose rows and chunks are all in files; compacted, or as they were flushed.
pub(super) async fn filled(is_compacted: bool) -> Fixture {
    let fixture = Fixture::new();
    for bytes in all() {
        fixture.write("red", &bytes).await;
    }
    for (number, chunks) in all().chunks(CHUNKS_OF_ENTRY).enumerate() {
        let (path, entry) = entry_of(number, chunks);
        fixture.put(&path, entry).await;
    }
    let rocks = fixture.store.shared.rocks().unwrap();
    rocks.flush().unwrap();
    if is_compacted {
        compact(&fixture.store);
    }
    fixture
}

/// The same store once more.
pub(super) fn copied(fixture: &Fixture) -> Fixture {
    let directory = fixture.crash_image();
    let (store, writer) = open(directory.path());
    Fixture {
        store,
        writer,
        directory,
    }
}

pub(super) fn compact(store: &Store) {
    let rocks = store.shared.rocks().unwrap();
    let mut options = CompactOptions::default();
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    for column in Column::ALL {
        rocks.compact(column, &options);
    }
}

pub(super) fn with_ending(fixture: &Fixture, ending: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(fixture.directory.path().join("store")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == ending));
    files.sort();
    files
}

/// The table of a column.
pub(super) fn table_of(fixture: &Fixture, column: Column) -> PathBuf {
    let rocks = fixture.store.shared.rocks().unwrap();
    let mut tables = with_ending(fixture, "sst");
    tables.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        rocks.column_of(name) == Some(column)
    });
    assert_eq!(tables.len(), 1, "{column:?}");
    tables.remove(0)
}

pub(super) fn flip(path: &Path, place: impl Fn(usize) -> usize) {
    let mut content = fs::read(path).unwrap();
    let at = place(content.len());
    content[at] ^= 8;
    fs::write(path, content).unwrap();
}

/// Closes the store, flips a bit, and opens it again.
pub(super) fn flipped(fixture: Fixture, path: &Path, place: impl Fn(usize) -> usize) -> Fixture {
    let directory = fixture.close();
    flip(path, place);
    Fixture::reopen(directory)
}

/// Opens what is so damaged that it does not open by itself.
fn salvaged(image: TempDir) -> Fixture {
    let options = |salvage| StoreOptions {
        directory: image.path().to_owned(),
        budget: UNLIMITED,
        free_low_water: 0,
        hold: HOLD,
        log_directory: None,
        salvage,
    };
    let refused = Store::open(options(false)).unwrap_err();
    assert!(refused.is_damage(), "{refused}");
    let (store, writer) = Store::open(options(true)).unwrap();
    Fixture {
        store,
        writer,
        directory: image,
    }
}

/// Has the damage met, whatever comes of that.
pub(super) async fn meet(store: &Store, finder: Finder) {
    match finder {
        Finder::Read => {
            for number in 0..all().len() / CHUNKS_OF_ENTRY {
                let key = entry_key(&format!("source/{number:03}"));
                let _any = store
                    .blocking(move |store| store.entry(&key, Trust::Team))
                    .await;
            }
            for bytes in all() {
                let digest = Digest::of(&bytes);
                let look = move |store: Store| {
                    store.present(&team("red"), &[digest])?;
                    store.read(&team("red"), &[digest], |_, _| ())
                };
                let _any = store.blocking(look).await;
            }
        }
        Finder::Scrub => {
            let _any = store.scrub(None, UNLIMITED).await;
            let _any = store.scrub_rows().await;
        }
        Finder::Compaction => compact(store),
    }
}

/// Waits until the store writes.
pub(super) async fn write_again(store: &Store) {
    let mut refused = 0;
    while let Err(trouble) = store.change(Change::Probe).await {
        refused += 1;
        assert!(refused < 1_000, "{trouble}");
        tokio::time::sleep(Duration::from_millis(20)).await; // the poll interval
    }
}

/// Everything that is said to be there is, and what is not is taken again; gives how many chunks those were.
pub(super) async fn check(store: &Store) -> usize {
    let contents = all();
    let digests: Vec<Digest> = contents.iter().map(|bytes| Digest::of(bytes)).collect();
    let present = store.present(&team("red"), &digests).unwrap();
    for (number, parts) in present.chunks(CHUNKS_OF_ENTRY).enumerate() {
        let key = entry_key(&format!("source/{number:03}"));
        let is_there = store.entry(&key, Trust::Team).unwrap().is_some();
        assert!(
            !is_there || parts.iter().all(|&part| part),
            "{number}: its team may not read it"
        );
    }
    let mut lost = 0;
    for ((bytes, digest), present) in contents.iter().zip(&digests).zip(present) {
        if !present {
            // It may be there, but nobody knows whose it is.
            write(store, "red", bytes).await.unwrap();
            lost += 1;
        }
        assert_eq!(read(store, "red", *digest).as_ref(), Some(bytes));
    }
    for (number, chunks) in contents.chunks(CHUNKS_OF_ENTRY).enumerate() {
        let (path, entry) = entry_of(number, chunks);
        let found = store.entry(&entry_key(&path), Trust::Team).unwrap();
        let found = found.map(|found| found.entry.blobs);
        match found {
            Some(blobs) => assert_eq!(blobs, entry.blobs),
            None => assert_eq!(put(store, &path, entry, true).await, PutOutcome::Stored),
        }
    }
    let stats = store.stats(None, &[]).unwrap();
    assert_eq!((stats.chunks, stats.bytes), (CHUNKS, CHUNKS * 3_000));
    lost
}

/// The same of a store that was just mended; then everything is compacted and it is opened again.
async fn check_for_good(fixture: Fixture) -> usize {
    write_again(&fixture.store).await;
    let lost = check(&fixture.store).await;
    compact(&fixture.store);
    fixture
        .store
        .shared
        .rocks()
        .unwrap()
        .background_failure()
        .unwrap();
    let fixture = fixture.restart();
    assert_eq!(check(&fixture.store).await, 0);
    for (number, _) in all().chunks(CHUNKS_OF_ENTRY).enumerate() {
        assert_eq!(fixture.delete(&format!("source/{number:03}")).await, 1);
    }
    // All counts are right: nothing is left, and nothing went twice.
    assert_eq!(fixture.collect().await, CHUNKS);
    assert_eq!(fixture.store.stats(None, &[]).unwrap().chunks, 0);
    lost
}

#[tokio::test]
async fn a_flipped_bit_in_a_table_costs_what_was_beside_it_and_nothing_else() {
    let columns = [
        Column::Chunks,
        Column::Facts,
        Column::Owners,
        Column::Entries,
        Column::Closures,
    ];
    for is_compacted in [false, true] {
        let whole = filled(is_compacted).await;
        for finder in [Finder::Read, Finder::Scrub, Finder::Compaction] {
            for column in columns {
                let what = format!("{column:?} {finder:?} {is_compacted}");
                let fixture = copied(&whole);
                let table = table_of(&fixture, column);
                let fixture = flipped(fixture, &table, |length| length / 3);
                meet(&fixture.store, finder).await;
                write_again(&fixture.store).await;
                let rocks = fixture.store.shared.rocks().unwrap();
                let name = rocks.names[column as usize];
                assert_eq!(name, column.names()[1], "{what}: nobody noticed");
                drop(rocks);
                let lost = check_for_good(fixture).await;
                // A block has about a hundred rows.
                assert!(lost < 200, "{what}: {lost}");
            }
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_blob_file_costs_one_chunk_whoever_meets_it() {
    let whole = filled(true).await;
    for finder in [Finder::Read, Finder::Scrub, Finder::Compaction] {
        let fixture = copied(&whole);
        let blob = with_ending(&fixture, "blob").remove(0);
        let fixture = flipped(fixture, &blob, |length| length / 3);
        let store = &fixture.store;
        if finder == Finder::Compaction {
            let shared = Arc::clone(&store.shared);
            let rocks = shared.rocks().unwrap();
            let database = (&*rocks, shared.place.database.as_path());
            super::super::space::reclaim(database, (0, u64::MAX), &shared.ending).unwrap();
            drop(rocks);
            write_again(store).await;
            assert!(store.is_in_doubt(), "nobody noticed");
            store.falls_into_doubt().await;
            meet(store, Finder::Scrub).await;
            store.is_trusted_again();
        } else if finder == Finder::Scrub {
            meet(store, finder).await;
            assert!(!store.is_in_doubt(), "it is set aside already");
        } else {
            // With checksums, as what was reported is read.
            for bytes in all() {
                let digest = Digest::of(&bytes);
                store.read_one(&team("red"), &digest).unwrap();
            }
        }
        assert_eq!(check_for_good(fixture).await, 1, "{finder:?}");
    }
}

#[tokio::test]
async fn a_table_whose_end_is_damaged_stops_the_start_and_is_salvaged() {
    let whole = filled(true).await;
    for column in [Column::Facts, Column::Chunks, Column::Owners] {
        let fixture = copied(&whole);
        let table = table_of(&fixture, column);
        let image = fixture.crash_image();
        let table = image.path().join("store").join(table.file_name().unwrap());
        flip(&table, |length| length - 30);
        let fixture = salvaged(image);
        check_for_good(fixture).await;
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_log_stops_the_start_and_what_is_before_it_is_salvaged() {
    let fixture = Fixture::new();
    for bytes in all() {
        fixture.write("red", &bytes).await;
    }
    let image = fixture.crash_image();
    let path = image.path().join("store");
    let log = with_ending(&fixture, "log").pop().unwrap();
    flip(&path.join(log.file_name().unwrap()), |length| length / 2);
    let fixture = salvaged(image);
    let lost = check(&fixture.store).await;
    assert!((1..all().len()).contains(&lost), "{lost} lost");
    check_for_good(fixture).await;
}

/// Records that go on over many blocks of the log: what is left of one is no batch of changes.
#[tokio::test]
async fn a_log_of_large_chunks_is_salvaged_wherever_it_is_damaged() {
    let whole = Fixture::new();
    let contents: Vec<Vec<u8>> = (0..40).map(|seed| noise(seed, 300_000)).collect();
    for bytes in &contents {
        whole.write("red", bytes).await;
    }
    let log = with_ending(&whole, "log").pop().unwrap();
    let log = log.file_name().unwrap();
    for place in [100_000, 1_234_567, 6_000_000, 11_000_000] {
        let image = whole.crash_image();
        flip(&image.path().join("store").join(log), |_| place);
        let fixture = salvaged(image);
        let mut found = 0;
        for bytes in &contents {
            let digest = Digest::of(bytes);
            let present = fixture.store.present(&team("red"), &[digest]).unwrap();
            let read = read(&fixture.store, "red", digest);
            assert_eq!(present[0], read.is_some(), "{place}");
            assert!(read.is_none_or(|read| read == *bytes), "{place}");
            found += usize::from(present[0]);
        }
        // What was synced before the damage is there.
        assert!(place / 310_000 <= found, "{place}: {found}");
        write_again(&fixture.store).await;
    }
}

#[tokio::test]
async fn a_store_whose_log_and_tables_are_both_damaged_is_salvaged() {
    let whole = filled(true).await;
    for seed in 0..20 {
        whole.write("red", &noise(seed, 300_000)).await;
    }
    let table = table_of(&whole, Column::Facts);
    let log = with_ending(&whole, "log").pop().unwrap();
    let image = whole.crash_image();
    let place = |path: &Path| image.path().join("store").join(path.file_name().unwrap());
    flip(&place(&table), |length| length - 30);
    flip(&place(&log), |_| 3_000_000);
    let fixture = salvaged(image);
    write_again(&fixture.store).await;
    let kept = noise(1, 3_000);
    let (_, digest) = write(&fixture.store, "red", &kept).await.unwrap();
    assert_eq!(read(&fixture.store, "red", digest).unwrap(), kept);
}

#[tokio::test]
async fn a_block_that_an_unchecked_read_has_met_is_still_noticed() {
    let fixture = filled(true).await;
    let table = table_of(&fixture, Column::Chunks);
    let fixture = flipped(fixture, &table, |length| length / 3);
    let mut keys: Vec<ChunkKey> = all()
        .iter()
        .map(|bytes| ChunkKey::of(&Digest::of(bytes)).unwrap())
        .collect();
    keys.sort_unstable();
    {
        // As bulk reads do, without a look at what comes.
        let rocks = fixture.store.shared.rocks().unwrap();
        for key in &keys {
            let _any = rocks::pinned_unchecked(&rocks, Column::Chunks, key.as_bytes());
        }
    }
    let _any = fixture.store.scrub(None, UNLIMITED).await;
    write_again(&fixture.store).await;
    let rocks = fixture.store.shared.rocks().unwrap();
    let name = rocks.names[Column::Chunks as usize];
    assert_eq!(name, Column::Chunks.names()[1], "nobody noticed");
}
