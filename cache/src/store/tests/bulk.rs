//! Large groups of large chunks: they are in a file when they are acknowledged, and not in the log.

use futures_util::future::join_all;

use super::*;
use crate::store::{
    Shared, bulk,
    change::Surroundings,
    rocks::{Column, Rocks},
    row::Totals,
    staged::{Committed, Staged},
};

const MIB: u64 = 1 << 20;

/// Large chunks, of other bytes for each `seed`.
pub(super) fn large(seed: u64, count: u64) -> Vec<Vec<u8>> {
    let seeds = (0..count).map(|at| 1_000 * seed + at + 1);
    seeds.map(|seed| noise(seed, 1 << 20)).collect()
}

pub(super) fn digests(chunks: &[Vec<u8>]) -> Vec<Digest> {
    chunks.iter().map(|bytes| Digest::of(bytes)).collect()
}

pub(super) fn chunk_key(bytes: &[u8]) -> ChunkKey {
    ChunkKey::of(&Digest::of(bytes)).unwrap()
}

/// The row of a chunk that is not compressed.
fn value(bytes: &[u8]) -> bytes::Bytes {
    [&[0], bytes].concat().into()
}

/// A change that brings a chunk.
pub(super) fn bring(bytes: &[u8]) -> Change {
    Change::PutChunk {
        team: team("red"),
        chunk: chunk_key(bytes),
        value: value(bytes),
    }
}

/// A change that brings other bytes than the chunk has, as a disk that lies does.
pub(super) fn bring_damaged(bytes: &[u8]) -> Change {
    let mut value = value(bytes).to_vec();
    value[1] ^= 1;
    Change::PutChunk {
        team: team("red"),
        chunk: chunk_key(bytes),
        value: value.into(),
    }
}

/// Brings new chunks, all at once.
async fn bring_all(store: &Store, chunks: &[Vec<u8>]) {
    let changes = chunks.iter().map(|bytes| store.change(bring(bytes)));
    for applied in join_all(changes).await {
        assert!(matches!(applied, Ok(Applied::Chunk { new: true, .. })));
    }
}

/// Writes changes as one group, past the writer.
pub(super) fn write_group(shared: &Shared, changes: Vec<Change>) -> Committed {
    let rocks = shared.rocks().unwrap();
    let around = Surroundings {
        clock: &shared.clock,
        holds: &shared.holds,
        condemned: &shared.condemned,
        ranks: &shared.ranks,
    };
    let mut staged = Staged::new(&rocks, Totals::default());
    for change in changes {
        staged.apply(change, &around).unwrap();
    }
    staged.commit().unwrap()
}

/// Writes chunks to a file as a group does that is cut off before anybody may know of them.
fn cut_off(store: &Store, chunks: &[Vec<u8>]) {
    let values = chunks.iter().map(|bytes| (chunk_key(bytes), value(bytes)));
    let values: Vec<_> = values.collect();
    bulk::write(&store.shared.rocks().unwrap(), &values).unwrap();
}

/// How many bytes the logs in a directory have, and how many logs there are.
fn logs(directory: &Path) -> (u64, usize) {
    let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let logs = files.filter(|file| {
        file.path()
            .extension()
            .is_some_and(|ending| ending == "log")
    });
    let lengths: Vec<u64> = logs.map(|log| log.metadata().unwrap().len()).collect();
    (lengths.iter().sum(), lengths.len())
}

/// Which of `chunks` have a row, whether anybody knows of it or not.
fn rows(rocks: &Rocks, chunks: &[Vec<u8>]) -> Vec<bool> {
    let keys = chunks.iter().map(|bytes| chunk_key(bytes));
    let rows = keys.map(|key| rocks.get(Column::Chunks, key.as_bytes()).unwrap());
    rows.map(|row| row.is_some()).collect()
}

fn assert_read(store: &Store, chunks: &[Vec<u8>]) {
    for (bytes, digest) in chunks.iter().zip(digests(chunks)) {
        assert_eq!(read(store, "red", digest).as_ref(), Some(bytes));
    }
}

#[tokio::test]
async fn a_large_group_is_in_a_file_when_it_is_acknowledged_and_not_in_the_log() {
    let fixture = Fixture::new();
    let chunks = large(1, 30);
    bring_all(&fixture.store, &chunks).await;
    let image = fixture.crash_image();
    let (logged, _) = logs(&image.path().join("store"));
    assert!(logged < 14 * MIB, "{logged} of 30 MiB are in the log");
    let (after_crash, writer) = open(image.path());
    assert_read(&after_crash, &chunks);
    assert_eq!(after_crash.stats(None, &[]).unwrap().chunks, 30);
    drop(after_crash);
    writer.join();
}

#[tokio::test]
async fn what_a_large_group_left_behind_when_it_was_cut_off_goes_at_the_next_start() {
    let fixture = Fixture::new();
    let chunks = large(1, 8);
    fixture.write("red", &chunks[0]).await;
    cut_off(&fixture.store, &chunks);
    assert_eq!(
        rows(&fixture.store.shared.rocks().unwrap(), &chunks),
        [true; 8]
    );
    assert!(
        !has(&fixture.store, "red", digests(&chunks)[1]),
        "nobody sees it"
    );

    let image = fixture.crash_image();
    let (after_crash, writer) = open(image.path());
    let rocks = after_crash.shared.rocks().unwrap();
    let (column, note) = bulk::note();
    assert!(rocks.get(column, note).unwrap().is_none());
    let mut expected = [false; 8];
    expected[0] = true;
    assert_eq!(rows(&rocks, &chunks), expected, "one was there before");
    drop(rocks);
    assert_read(&after_crash, &chunks[..1]);
    let (new, _) = write(&after_crash, "red", &chunks[1]).await.unwrap();
    assert!(new);
    drop(after_crash);
    writer.join();
}

#[tokio::test]
async fn a_note_that_nobody_can_read_hinders_no_start() {
    let fixture = Fixture::new();
    let chunks = large(1, 1);
    bring_all(&fixture.store, &chunks).await;
    let (column, note) = bulk::note();
    let rocks = fixture.store.shared.rocks().unwrap();
    let mut batch = rocks.batch(0);
    batch.put(column, note, b"of another version");
    batch.commit().unwrap();
    drop(rocks);
    let fixture = fixture.restart();
    let rocks = fixture.store.shared.rocks().unwrap();
    assert!(rocks.get(column, note).unwrap().is_none());
    assert_read(&fixture.store, &chunks);
}

#[tokio::test]
async fn a_store_is_salvaged_though_a_large_group_was_cut_off() {
    let fixture = Fixture::new();
    let chunks = large(1, 12);
    bring_all(&fixture.store, &chunks[..6]).await;
    cut_off(&fixture.store, &chunks[6..]);
    let image = fixture.crash_image();
    let (salvaged, writer) = Store::open(StoreOptions {
        salvage: true,
        ..options(image.path())
    })
    .unwrap();
    assert_read(&salvaged, &chunks[..6]);
    let rocks = salvaged.shared.rocks().unwrap();
    assert_eq!(rows(&rocks, &chunks[6..]), [false; 6]);
    drop(rocks);
    drop(salvaged);
    writer.join();
}

#[test]
fn a_chunk_that_is_given_up_and_brought_again_in_one_large_group_is_there() {
    let fixture = Fixture::new();
    let shared = &fixture.store.shared;
    let chunks = large(1, 10);
    let mut first: Vec<Change> = chunks.iter().map(|bytes| bring(bytes)).collect();
    first[0] = bring_damaged(&chunks[0]);
    let committed = write_group(shared, first);
    assert_eq!(committed.bulk_bytes, 10 * (MIB + 1));
    let chunk = chunk_key(&chunks[0]);
    let mut again = vec![Change::SetAside { chunk }, bring(&chunks[0])];
    let more = large(2, 10);
    again.extend(more.iter().map(|bytes| bring(bytes)));
    let committed = write_group(shared, again);
    assert_eq!(
        committed.bulk_bytes,
        10 * (MIB + 1),
        "not the one that goes"
    );
    assert_read(&fixture.store, &chunks);
    let image = fixture.crash_image();
    let (after_crash, writer) = open(image.path());
    assert_read(&after_crash, &chunks);
    assert_read(&after_crash, &more);
    drop(after_crash);
    writer.join();
}

#[test]
fn a_chunk_that_is_brought_and_given_up_in_one_large_group_is_not_there() {
    let fixture = Fixture::new();
    let chunks = large(1, 10);
    let mut changes: Vec<Change> = chunks.iter().map(|bytes| bring(bytes)).collect();
    changes[0] = bring_damaged(&chunks[0]);
    let chunk = chunk_key(&chunks[0]);
    changes.push(Change::SetAside { chunk });
    write_group(&fixture.store.shared, changes);
    let mut expected = [true; 10];
    expected[0] = false;
    assert_eq!(
        rows(&fixture.store.shared.rocks().unwrap(), &chunks),
        expected
    );
    assert!(!has(&fixture.store, "red", digests(&chunks)[0]));
    assert_read(&fixture.store, &chunks[1..]);
}

#[tokio::test]
async fn logs_of_large_groups_do_not_pile_up() {
    let directory = tempfile::tempdir().unwrap();
    // Pieces of 8 MiB.
    let (store, writer) = Store::open(StoreOptions {
        budget: 512 * MIB,
        ..options(directory.path())
    })
    .unwrap();
    for group in 0..12 {
        bring_all(&store, &large(group, 7)).await;
    }
    let rocks = store.shared.rocks().unwrap();
    let files = rocks.blob_files().unwrap();
    assert!(12 <= files, "{files} files");
    drop(rocks);
    let (bytes, count) = logs(&directory.path().join("store"));
    assert!(count <= 8, "{count} logs are left, with {bytes} bytes");
    drop(store);
    writer.join();
}

#[tokio::test]
async fn while_nothing_is_merged_large_groups_go_by_the_log() {
    let fixture = Fixture::new();
    let rocks = fixture.store.shared.rocks().unwrap();
    let merge = |disabled| {
        let disabled = [("disable_auto_compactions", disabled)];
        rocks.set(Column::Chunks, &disabled).unwrap();
    };
    merge("true");
    for group in 0..bulk::TABLES_MAX + 2 {
        bring_all(&fixture.store, &large(group, 10)).await;
    }
    assert_eq!(rocks.new_tables(), bulk::TABLES_MAX);
    merge("false");
    rocks.compact(Column::Chunks, &rocksdb::CompactOptions::default());
    let before = rocks.blob_files().unwrap();
    bring_all(&fixture.store, &large(100, 20)).await;
    assert!(before < rocks.blob_files().unwrap());
}

#[tokio::test]
async fn large_groups_go_by_the_log_when_nothing_is_flushed_any_more() {
    let fixture = Fixture::new();
    fixture.store.end().await;
    let chunks = large(1, 20);
    bring_all(&fixture.store, &chunks).await;
    assert_eq!(fixture.store.stopped(), None);
    let image = fixture.crash_image();
    let (after_crash, writer) = open(image.path());
    assert_read(&after_crash, &chunks);
    drop(after_crash);
    writer.join();
}
