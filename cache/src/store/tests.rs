//! Tests of the store, on real disks.

use std::{fs, path::Path, time::Duration};

use protocol::{
    access::Trust,
    blob::{Blob, TreeRef},
    digest::Digest,
    job::{CacheUse, CacheUseKind},
    layout::Layout,
    message::cache::{Entry, EntryKey, PutOutcome, UseRecord},
    name::{Namespace, Team},
    time::WallTime,
};
use tempfile::TempDir;

use super::{
    ClosureError, OpenStoreError, ReadAnswer, Store, StoreOptions, Trouble, WriterThread,
    change::{Applied, Change, PutEntry},
    disk_usage,
    key::{self, ChunkKey},
    row,
};
use crate::{compression, holds::Holds};

mod bulk;
mod damage;
mod durability;
mod entries;
mod flips;
mod full;
mod garbage;
mod mend;
mod place;
mod room;

const HOLD: Duration = Duration::from_secs(600);
const UNLIMITED: u64 = u64::MAX;

fn team(name: &str) -> Team {
    name.parse().unwrap()
}

/// Bytes that cannot be compressed, different for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn options(directory: &Path) -> StoreOptions {
    StoreOptions {
        directory: directory.to_owned(),
        budget: UNLIMITED,
        free_low_water: 0,
        hold: HOLD,
        log_directory: None,
        salvage: false,
    }
}

fn open(directory: &Path) -> (Store, WriterThread) {
    Store::open(options(directory)).unwrap()
}

/// A store in a directory of its own.
#[derive(Debug)]
struct Fixture {
    store: Store,
    writer: WriterThread,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::reopen(tempfile::tempdir().unwrap())
    }

    /// Ends in order.
    fn close(self) -> TempDir {
        drop(self.store);
        self.writer.join();
        self.directory
    }

    /// The store in a directory, which is closed.
    fn reopen(directory: TempDir) -> Self {
        let (store, writer) = open(directory.path());
        Self {
            store,
            writer,
            directory,
        }
    }

    fn restart(self) -> Self {
        Self::reopen(self.close())
    }

    /// What a machine would find whose power went now: the files, and nothing of what is in memory.
    fn crash_image(&self) -> TempDir {
        let image = tempfile::tempdir().unwrap();
        fs::create_dir(image.path().join("store")).unwrap();
        for part in [".", "store"] {
            for file in fs::read_dir(self.directory.path().join(part)).unwrap() {
                let file = file.unwrap();
                if file.file_type().unwrap().is_file() {
                    let to = image.path().join(part).join(file.file_name());
                    fs::copy(file.path(), to).unwrap();
                }
            }
        }
        image
    }

    /// The files of the database, and what they take on the disk, in bytes.
    fn files(&self) -> Vec<(String, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        let files = fs::read_dir(self.directory.path().join("store")).unwrap();
        let taken = files.map(|file| {
            let file = file.unwrap();
            // A file that was just deleted takes nothing.
            let bytes = file.metadata().map_or(0, |file| file.blocks() * 512);
            (file.file_name().into_string().unwrap(), bytes)
        });
        taken.collect()
    }

    async fn write(&self, owner: &str, bytes: &[u8]) -> (bool, Digest) {
        write(&self.store, owner, bytes).await.unwrap()
    }

    async fn put(&self, path: &str, entry: Entry) -> PutOutcome {
        put(&self.store, path, entry, true).await
    }

    async fn delete(&self, path: &str) -> u64 {
        let start = key::entries(&namespace(), path);
        let change = Change::DeleteEntries { start };
        match self.store.change(change).await.unwrap() {
            Applied::Deleted { count, .. } => count,
            other => panic!("{other:?}"),
        }
    }

    /// Lets all holds end, and collects.
    async fn collect(&self) -> u64 {
        self.store.shared.clock.advance(2 * HOLD);
        self.store.sweep(UNLIMITED).await.unwrap().chunks
    }
}

fn namespace() -> Namespace {
    "red".parse().unwrap()
}

fn entry_key(path: &str) -> Vec<u8> {
    key::entry(&EntryKey {
        namespace: namespace(),
        path: path.to_owned(),
    })
}

async fn write(store: &Store, owner: &str, bytes: &[u8]) -> Result<(bool, Digest), Trouble> {
    let digest = Digest::of(bytes);
    let chunk = compression::encode(bytes, digest);
    let encoding = row::encoding_byte(chunk.encoding).unwrap();
    let value = [&[encoding], &chunk.body[..]].concat().into();
    let change = Change::PutChunk {
        team: team(owner),
        chunk: ChunkKey::of(&digest).unwrap(),
        value,
    };
    match store.change(change).await? {
        Applied::Chunk { new, .. } => Ok((new, digest)),
        other => panic!("{other:?}"),
    }
}

async fn put(store: &Store, path: &str, entry: Entry, replace: bool) -> PutOutcome {
    let closure = store.closure(&entry, &entry.team).unwrap();
    let change = Change::PutEntry(Box::new(PutEntry {
        key: entry_key(path),
        entry,
        closure,
        replace,
        made_millis: 0,
    }));
    match store.change(change).await.unwrap() {
        Applied::Put(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

fn blob(chunks: &[Digest], whole: &[u8]) -> Blob {
    Blob {
        digest: Digest::of(whole),
        chunks: chunks.to_vec(),
    }
}

fn entry(blobs: Vec<Blob>) -> Entry {
    Entry {
        blobs,
        trees: vec![],
        outlines: vec![],
        trust: Trust::Team,
        team: team("red"),
        written: WallTime(1_000),
    }
}

fn has(store: &Store, owner: &str, digest: Digest) -> bool {
    store.present(&team(owner), &[digest]).unwrap() == [true]
}

fn read(store: &Store, owner: &str, digest: Digest) -> Option<Vec<u8>> {
    match store.read_one(&team(owner), &digest).unwrap() {
        ReadAnswer::Missing => None,
        ReadAnswer::Found { encoding, body } => {
            let header = protocol::message::cache::ChunkHeader {
                index: 0,
                digest,
                encoding,
                body_bytes: body.len().try_into().unwrap(),
            };
            Some(compression::decode(&header, body).unwrap().to_vec())
        }
    }
}

#[tokio::test]
async fn a_chunk_is_there_for_the_team_that_brought_it_and_for_no_other() {
    let fixture = Fixture::new();
    let (new, digest) = fixture.write("red", b"a chunk").await;
    assert!(new);
    assert!(has(&fixture.store, "red", digest));
    assert!(!has(&fixture.store, "redder", digest));
    assert!(!has(&fixture.store, "blue", digest));
    assert_eq!(read(&fixture.store, "blue", digest), None);
    let longer = Digest::from_parts(*digest.hash(), digest.size() + 1);
    assert!(!has(&fixture.store, "red", longer));
    assert_eq!(read(&fixture.store, "red", longer), None);

    let (new, _) = fixture.write("blue", b"a chunk").await;
    assert!(!new, "stored once");
    assert_eq!(read(&fixture.store, "blue", digest).unwrap(), b"a chunk");
    assert_eq!(fixture.store.stats(None, &[]).unwrap().chunks, 1);
}

#[tokio::test]
async fn presence_is_told_by_index_whatever_the_order() {
    let fixture = Fixture::new();
    let mut asked = Vec::new();
    for seed in 0..200 {
        let bytes = noise(seed, 100);
        asked.push(Digest::of(&bytes));
        if seed % 3 == 0 {
            fixture.write("red", &bytes).await;
        }
    }
    asked.push(Digest::of(b""));
    asked.push(asked[0]);
    let present = fixture.store.present(&team("red"), &asked).unwrap();
    let mut expected: Vec<bool> = (0..200).map(|seed| seed % 3 == 0).collect();
    expected.extend([false, true]);
    assert_eq!(present, expected);
}

#[tokio::test]
async fn who_has_what_was_just_written_is_known_without_a_look_at_the_database() {
    let fixture = Fixture::new();
    let digest = damage::write_damaged(&fixture.store, b"a chunk").await;
    let chunk = ChunkKey::of(&digest).unwrap();
    let known = |owner| {
        let known = &fixture.store.shared.known;
        known.among(&team(owner), [chunk].iter())
    };
    assert_eq!(known("red"), [true]);
    assert_eq!(known("blue"), [false]);
    let set_aside = fixture.store.change(Change::SetAside { chunk });
    set_aside.await.unwrap();
    assert_eq!(known("red"), [false]);
}
