//! What goes, and what stays.

use super::*;

#[tokio::test]
async fn a_chunk_goes_when_no_entry_names_it_and_no_hold_is_left() {
    let fixture = Fixture::new();
    let (_, kept) = fixture.write("red", b"kept").await;
    let (_, loose) = fixture.write("red", b"loose").await;
    fixture
        .put("source/1", entry(vec![blob(&[kept], b"kept")]))
        .await;
    fixture
        .put("source/2", entry(vec![blob(&[kept], b"kept")]))
        .await;

    let swept = fixture.store.sweep(UNLIMITED).await.unwrap();
    assert_eq!(swept.chunks, 0, "everything is held after a start");
    fixture.store.shared.clock.advance(2 * HOLD);
    assert!(has(&fixture.store, "red", loose));
    let swept = fixture.store.sweep(UNLIMITED).await.unwrap();
    assert_eq!(swept.chunks, 0, "what was reported is held");
    assert_eq!(fixture.collect().await, 1);
    assert!(!has(&fixture.store, "red", loose));
    assert_eq!(read(&fixture.store, "red", loose), None);

    assert_eq!(fixture.delete("source/1").await, 1);
    assert_eq!(fixture.collect().await, 0, "the other entry names it");
    assert_eq!(fixture.delete("source/").await, 1);
    assert_eq!(fixture.collect().await, 1);
    let stats = fixture.store.stats(None, &[]).unwrap();
    assert_eq!((stats.chunks, stats.bytes, stats.bytes_stored), (0, 0, 0));
}

const CHUNK: usize = 1 << 20;

/// Puts an entry of one chunk that is different for each seed.
async fn put_noise(fixture: &Fixture, path: &str, seed: u64) {
    let bytes = noise(seed, CHUNK);
    let (_, digest) = fixture.write("red", &bytes).await;
    fixture
        .put(path, entry(vec![blob(&[digest], &bytes)]))
        .await;
}

fn there(fixture: &Fixture, path: &str) -> bool {
    let found = fixture.store.entry(&entry_key(path), Trust::Team).unwrap();
    found.is_some()
}

#[tokio::test]
async fn over_its_budget_the_store_evicts_what_nobody_reads_and_gives_the_disk_back() {
    let fixture = Fixture::new();
    put_noise(&fixture, "snapshot/1/0", 1_000).await;
    for seed in 0..96 {
        put_noise(&fixture, &format!("dependency/app/{seed:02}"), seed).await;
    }
    // The first one is read.
    let touched = Change::Touch {
        key: entry_key("dependency/app/00"),
        at: WallTime(9_000),
    };
    fixture.store.change(touched).await.unwrap();
    fixture.store.shared.rocks().unwrap().flush().unwrap();
    fixture.store.shared.clock.advance(2 * HOLD);
    let budget = 48 * CHUNK as u64;
    assert!(budget < disk_usage(&fixture.store).unwrap().all);
    let swept = fixture.store.sweep(budget).await.unwrap();
    assert_eq!(swept.chunks, swept.evicted);
    let stats = fixture.store.stats(None, &[]).unwrap();
    let live = stats.bytes_stored * 100 / budget;
    assert!((40..60).contains(&live), "{live} %");
    assert!(
        there(&fixture, "snapshot/1/0"),
        "snapshots go with their builds"
    );
    assert!(there(&fixture, "dependency/app/00") && there(&fixture, "dependency/app/95"));
    assert!(!there(&fixture, "dependency/app/01"));
    // The log is bounded by itself; this is about the chunks.
    let files = fixture.files().into_iter();
    let blobs = files.filter(|(name, _)| name.ends_with(".blob"));
    let blobs: u64 = blobs.map(|(_, bytes)| bytes).sum();
    assert!(blobs < budget, "{:?}", fixture.files());
}

#[tokio::test]
async fn what_is_held_is_not_evicted_and_counts_as_used_when_it_is_read() {
    let fixture = Fixture::new();
    for seed in 0..96 {
        put_noise(&fixture, &format!("dependency/app/{seed:02}"), seed).await;
    }
    fixture.store.shared.clock.advance(2 * HOLD);
    for seed in 0..8 {
        assert!(there(&fixture, &format!("dependency/app/{seed:02}")));
    }
    let swept = fixture.store.sweep(48 << 20).await.unwrap();
    assert!(0 < swept.evicted);
    for seed in 0..8 {
        assert!(there(&fixture, &format!("dependency/app/{seed:02}")));
    }
    assert!(!there(&fixture, "dependency/app/08"));
}

/// What an entry has uncompressed, or shares with others, says nothing of what its end gives back.
#[tokio::test]
async fn eviction_counts_what_the_disk_gets_back() {
    let fixture = Fixture::new();
    let common = noise(1_000, CHUNK);
    let (_, shared) = fixture.write("red", &common).await;
    let mut digests = Vec::new();
    for seed in 0..100_u64 {
        // The first ones are large only before they are packed.
        let bytes = match seed {
            0..4 => vec![u8::try_from(seed).unwrap(); 2 * CHUNK],
            _ => noise(seed, CHUNK),
        };
        let (_, digest) = fixture.write("red", &bytes).await;
        let whole = entry(vec![blob(&[digest], &bytes), blob(&[shared], &common)]);
        fixture
            .put(&format!("dependency/app/{seed:02}"), whole)
            .await;
        digests.push(digest);
    }
    // From now on memory knows who has them.
    assert!(
        digests
            .iter()
            .all(|&digest| has(&fixture.store, "red", digest))
    );
    fixture.store.shared.clock.advance(2 * HOLD);
    let before = fixture.store.stats(None, &[]).unwrap().bytes_stored;
    let swept = fixture.store.sweep(48 << 20).await.unwrap();
    let after = fixture.store.stats(None, &[]).unwrap().bytes_stored;
    assert_eq!(before - after, swept.stored);
    assert_eq!(swept.evicted, swept.chunks);
    let packed = swept.evicted - swept.stored / CHUNK as u64;
    assert_eq!(packed, 4, "the packed ones went, and counted for nothing");
    assert!(has(&fixture.store, "red", digests[99]) && !has(&fixture.store, "red", digests[4]));
    assert!(has(&fixture.store, "red", shared));
}

/// A budget that some dozens of chunks fill.
const BUDGET: u64 = 64 << 20;

fn open_small(directory: &Path) -> (Store, WriterThread) {
    Store::open(StoreOptions {
        directory: directory.to_owned(),
        budget: BUDGET,
        free_low_water: 0,
        hold: HOLD,
        log_directory: None,
        salvage: false,
    })
    .unwrap()
}

/// What comes of `change` while somebody makes room, as the server does when it is asked to.
async fn with_sweeps<T>(store: &Store, change: impl Future<Output = T>) -> T {
    let mut change = std::pin::pin!(change);
    loop {
        tokio::select! {
            changed = &mut change => return changed,
            () = store.wants_room() => {
                store.sweep(BUDGET).await.unwrap();
            }
        }
    }
}

/// Writes chunks of [`CHUNK`] bytes, from `seed` on, until one is refused. Gives what was written, and why the
/// last one was not.
async fn fill(store: &Store, seed: u64) -> (Vec<Digest>, Trouble) {
    let mut written = Vec::new();
    loop {
        let bytes = noise(seed + written.len() as u64, CHUNK);
        match with_sweeps(store, write(store, "red", &bytes)).await {
            Ok((_, digest)) => written.push(digest),
            Err(trouble) => return (written, trouble),
        }
        assert!(disk_usage(store).unwrap().all <= BUDGET);
    }
}

/// What a chunk of noise takes in the store: the byte that says how it is encoded, and itself.
const STORED: u64 = 1 + CHUNK as u64;

#[tokio::test]
async fn when_all_is_held_writes_are_refused_by_name_and_taken_again_when_holds_end() {
    let directory = tempfile::tempdir().unwrap();
    let (store, writer) = open_small(directory.path());
    let (written, refused) = fill(&store, 0).await;
    let Trouble::Held { budget, held, kept } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!((*budget, *kept), (BUDGET, 0));
    assert!(BUDGET / 4 < *held, "{held}");
    assert!(*held <= STORED * written.len() as u64, "{held}");
    for digest in &written {
        assert!(
            read(&store, "red", *digest).is_some(),
            "what is held is there"
        );
    }
    store.shared.clock.advance(2 * HOLD);
    let swept = store.sweep(BUDGET).await.unwrap();
    assert_eq!(swept.chunks, written.len() as u64);
    let (_, digest) = write(&store, "red", b"again").await.unwrap();
    assert!(has(&store, "red", digest));
    drop(store);
    writer.join();
}

#[tokio::test]
async fn what_builds_keep_is_told_apart_from_what_is_held() {
    const KEPT: u64 = 12;
    let directory = tempfile::tempdir().unwrap();
    let (store, writer) = open_small(directory.path());
    for seed in 0..KEPT {
        let bytes = noise(seed, CHUNK);
        let written = async {
            let (_, digest) = write(&store, "red", &bytes).await.unwrap();
            let whole = entry(vec![blob(&[digest], &bytes)]);
            put(&store, &format!("snapshot/1/{seed}"), whole, true).await
        };
        assert_eq!(with_sweeps(&store, written).await, PutOutcome::Stored);
    }
    // Their holds end.
    store.shared.clock.advance(2 * HOLD);
    store.sweep(BUDGET).await.unwrap();
    let (written, refused) = fill(&store, 1_000).await;
    let Trouble::Held { held, kept, .. } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(*kept, KEPT * STORED);
    let most = STORED * written.len() as u64;
    assert!((1..=most).contains(held), "{held} of {most}");
    let message = refused.to_string();
    assert!(message.contains("builds end"), "{message}");
    drop(store);
    writer.join();
}

#[tokio::test]
async fn a_reclaim_ends_early_when_the_store_ends() {
    let fixture = Fixture::new();
    for seed in 0..8 {
        fixture.write("red", &noise(seed, 1 << 20)).await;
    }
    let rocks = fixture.store.shared.rocks().unwrap();
    rocks.flush().unwrap();
    assert_eq!(fixture.collect().await, 8);
    let before = fixture.files();
    fixture.store.end().await;
    let shared = &fixture.store.shared;
    super::super::space::reclaim(
        (&rocks, &shared.place.database),
        (0, u64::MAX),
        &shared.ending,
    )
    .unwrap();
    let blobs = |files: Vec<(String, u64)>| {
        let files = files.into_iter();
        files
            .filter(|(name, _)| name.ends_with(".blob"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        blobs(fixture.files()),
        blobs(before),
        "nothing was rewritten"
    );
}

#[tokio::test]
async fn a_presence_check_is_not_fooled_by_a_collection_that_goes_on() {
    let fixture = Fixture::new();
    let (_, digest) = fixture.write("red", b"chunk").await;
    let chunk = ChunkKey::of(&digest).unwrap();
    fixture.store.shared.condemned.condemn(&[chunk]);
    assert!(!has(&fixture.store, "red", digest));
    fixture.store.shared.condemned.acquit();
    assert!(has(&fixture.store, "red", digest));
    let holds: &Holds = &fixture.store.shared.holds;
    let later = fixture.store.shared.clock.now() + HOLD / 2;
    assert!(holds.is_held(chunk.hash(), later));
}
