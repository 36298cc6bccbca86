//! Full disks: small file systems in memory, which only root can mount.

use std::{path::PathBuf, process::Command};

use futures_util::future::join_all;

use super::*;
use crate::{fixture::cannot, store::rocks::Column};

/// A file system of its own, which is small.
struct Mount(TempDir);

impl Mount {
    /// `None`, with the reason told, where mounting is not allowed.
    fn new(megabytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory)),
            other => {
                cannot(&format!(
                    "a small file system cannot be mounted here: {other:?}"
                ));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the disk but for `left` bytes; gives the file that does.
    fn fill(&self, left: u64) -> PathBuf {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let path = self.path().join("filler");
        let file = fs::File::create(&path).unwrap();
        rustix::fs::fallocate(
            &file,
            rustix::fs::FallocateFlags::empty(),
            0,
            free.saturating_sub(left).max(1),
        )
        .unwrap();
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _left_behind = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn open(mount: &Mount, free_low_water: u64) -> (Store, WriterThread) {
    Store::open(StoreOptions {
        directory: mount.path().join("cache"),
        budget: u64::MAX,
        free_low_water,
        hold: HOLD,
        log_directory: None,
        salvage: false,
    })
    .unwrap()
}

#[tokio::test]
async fn below_the_low_water_mark_writes_are_refused_by_name_until_there_is_room() {
    const MARK: u64 = 8 << 20;
    let Some(mount) = Mount::new(64) else { return };
    let (store, writer) = open(&mount, MARK);
    let (_, first) = write(&store, "red", b"first").await.unwrap();
    let filler = mount.fill(MARK / 2);
    let refused = write(&store, "red", b"second").await.unwrap_err();
    let Trouble::Full { needed, free, .. } = &refused else {
        panic!("{refused:?}");
    };
    assert!(MARK <= *needed && *free < MARK);
    let message = refused.to_string();
    for part in [
        mount.path().to_str().unwrap(),
        &free.to_string(),
        &needed.to_string(),
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(read(&store, "red", first).unwrap(), b"first");
    // What makes room is done all the same.
    let start = b"red/".to_vec();
    store.change(Change::DeleteEntries { start }).await.unwrap();

    fs::remove_file(filler).unwrap();
    let (new, second) = write(&store, "red", b"second").await.unwrap();
    assert!(new);
    assert_eq!(read(&store, "red", second).unwrap(), b"second");
    drop(store);
    writer.join();
}

/// With no mark at all the database itself runs into the wall: in the middle of the log, or of a flush.
#[tokio::test]
async fn a_disk_that_is_full_to_the_brim_loses_nothing_and_is_written_again_when_there_is_room() {
    let Some(mount) = Mount::new(96) else { return };
    let (store, writer) = open(&mount, 0);
    let filler = mount.fill(24 << 20);
    let mut acknowledged = Vec::new();
    let mut refused = None;
    for seed in 0..64 {
        match write_unchecked(&store, seed).await {
            Ok(digest) => acknowledged.push((seed, digest)),
            Err(trouble) => {
                refused = Some(trouble);
                break;
            }
        }
    }
    assert!(refused.is_some(), "the disk was never full");
    assert!(!acknowledged.is_empty());
    for (seed, digest) in &acknowledged {
        assert_eq!(read(&store, "red", *digest).unwrap(), noise(*seed, CHUNK));
    }
    fs::remove_file(filler).unwrap();
    let written = write_again(&store).await;
    assert_eq!(store.stopped(), None);
    acknowledged.push((u64::MAX, written));
    drop(store);
    writer.join();

    let (store, writer) = open(&mount, 0);
    for (seed, digest) in acknowledged {
        let bytes = read(&store, "red", digest).expect("what was acknowledged is there");
        assert!(bytes == b"after" || bytes == noise(seed, CHUNK));
    }
    drop(store);
    writer.join();
}

/// The same in the middle of a large group, whose chunks go past the log.
#[tokio::test]
async fn a_disk_that_is_full_in_the_middle_of_a_large_group_loses_nothing() {
    let Some(mount) = Mount::new(128) else { return };
    let (store, writer) = open(&mount, 0);
    let first = bulk::large(1, 12);
    let changes = first.iter().map(|bytes| store.change(bulk::bring(bytes)));
    for applied in join_all(changes).await {
        applied.unwrap();
    }
    let filler = mount.fill(6 << 20);
    check_room(&store, false);
    // More than the disk has, with what logs have taken in advance.
    let second = bulk::large(2, 120);
    let changes = second.iter().map(|bytes| store.change(bulk::bring(bytes)));
    let taken = join_all(changes).await;
    check_room(&store, true);
    assert!(taken.iter().any(Result::is_err), "the disk was never full");
    fs::remove_file(filler).unwrap();
    write_again(&store).await;
    let all = bulk::digests(&first)
        .into_iter()
        .map(|digest| (digest, true));
    let taken = bulk::digests(&second)
        .into_iter()
        .zip(taken.iter().map(Result::is_ok));
    for (digest, is_taken) in all.chain(taken) {
        let there = read(&store, "red", digest).is_some();
        assert!(there || !is_taken, "{digest} was acknowledged");
        let rocks = store.shared.rocks().unwrap();
        let key = ChunkKey::of(&digest).unwrap();
        let row = rocks.get(Column::Chunks, key.as_bytes()).unwrap();
        assert_eq!(
            row.is_some(),
            there,
            "{digest} takes room, and nobody sees it"
        );
    }
    drop(store);
    writer.join();
}

/// The budget is far larger than the disk, so only the disk says that something has to go.
#[tokio::test]
async fn a_disk_that_is_smaller_than_the_budget_makes_room_instead_of_refusing() {
    const MEGABYTES: u64 = 640;
    let Some(mount) = Mount::new(640) else { return };
    let (store, writer) = open(&mount, 32 << 20);
    let mut last = None;
    for seed in 0..2 * MEGABYTES {
        let bytes = noise(seed, CHUNK);
        if store.is_short_of_room() {
            store.shared.clock.advance(2 * HOLD);
            store.sweep(u64::MAX).await.unwrap();
        }
        let digest = match write(&store, "red", &bytes).await {
            Ok((_, digest)) => digest,
            Err(trouble) => panic!("after {seed} megabytes: {trouble}"),
        };
        let whole = Entry {
            written: WallTime(1_000 + seed),
            ..entry(vec![blob(&[digest], &bytes)])
        };
        put(&store, &format!("dependency/app/{seed}"), whole, true).await;
        last = Some((digest, bytes));
    }
    let there = |seed: u64| {
        let key = entry_key(&format!("dependency/app/{seed}"));
        store.entry(&key, Trust::Team).unwrap().is_some()
    };
    assert!(!there(0) && there(2 * MEGABYTES - 1));
    let kept = (0..2 * MEGABYTES).filter(|&seed| there(seed)).count() as u64;
    assert!(MEGABYTES / 4 < kept, "no more goes than has to: {kept}");
    let (digest, bytes) = last.unwrap();
    assert_eq!(read(&store, "red", digest).unwrap(), bytes);
    drop(store);
    writer.join();
}

/// What the log takes comes back when what is in memory goes to its files, so nothing is refused for that.
#[tokio::test]
async fn a_disk_that_is_filled_by_the_log_is_written_on() {
    const MARK: u64 = 16 << 20;
    let Some(mount) = Mount::new(256) else { return };
    let (store, writer) = open(&mount, MARK);
    let mut chunks = Vec::new();
    for seed in 0..48 {
        let bytes = noise(seed, CHUNK);
        chunks.push((write(&store, "red", &bytes).await.unwrap().1, bytes));
    }
    let rocks = store.shared.rocks().unwrap();
    let unflushed = rocks.buffered_bytes();
    assert!(40 << 20 < unflushed, "{unflushed}");
    drop(rocks);
    // Enough to flush, and not enough besides.
    let filler = mount.fill(unflushed + MARK / 2);
    let bytes = noise(100, CHUNK);
    let (new, digest) = write(&store, "red", &bytes).await.unwrap();
    assert!(new);
    chunks.push((digest, bytes));
    for (digest, bytes) in &chunks {
        assert_eq!(read(&store, "red", *digest).as_ref(), Some(bytes));
    }
    // What the disk really has no room for is refused all the same, and soon.
    fs::remove_file(&filler).unwrap();
    mount.fill(MARK / 2);
    for seed in 300..310 {
        let refused = write(&store, "red", &noise(seed, CHUNK)).await.unwrap_err();
        assert!(matches!(refused, Trouble::Full { .. }), "{refused:?}");
    }
    assert_eq!(store.stopped(), None);
    drop(store);
    writer.join();
}

#[tokio::test]
async fn what_makes_room_gets_through_a_store_that_has_stopped_on_a_full_disk() {
    const MARK: u64 = 16 << 20;
    let Some(mount) = Mount::new(64) else { return };
    let (store, writer) = open(&mount, MARK);
    let (_, digest) = write(&store, "red", b"first").await.unwrap();
    let whole = entry(vec![blob(&[digest], b"first")]);
    put(&store, "dependency/app/1", whole, true).await;
    let _filler = mount.fill(MARK / 2);
    store.shared.set_stopped(Some("a test".to_owned()));
    let refused = write(&store, "red", b"second").await.unwrap_err();
    assert!(matches!(refused, Trouble::Full { .. }), "{refused:?}");
    let start = b"red/".to_vec();
    let deleted = store.change(Change::DeleteEntries { start }).await.unwrap();
    assert!(
        matches!(deleted, Applied::Deleted { count: 1, .. }),
        "{deleted:?}"
    );
    drop(store);
    writer.join();
}

const CHUNK: usize = 1 << 20;

/// Writes a chunk to a store that had stopped, as soon as that writes again.
async fn write_again(store: &Store) -> Digest {
    // Some tries may still hear that it is about to open itself again.
    for _ in 0..2_000 {
        store.shared.clock.advance(Duration::from_secs(2));
        match write(store, "red", b"after").await {
            Ok((_, digest)) => return digest,
            Err(Trouble::Stopped | Trouble::Closed | Trouble::Full { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        tokio::task::yield_now().await;
    }
    panic!("the store does not write again");
}

fn check_room(store: &Store, is_checked: bool) {
    let checked = &store.shared.room_is_checked;
    checked.store(is_checked, std::sync::atomic::Ordering::SeqCst);
}

/// Writes a chunk past the check for room, so that the database has to find out by itself.
async fn write_unchecked(store: &Store, seed: u64) -> Result<Digest, Trouble> {
    check_room(store, false);
    let written = write(store, "red", &noise(seed, CHUNK)).await;
    check_room(store, true);
    written.map(|(_, digest)| digest)
}
