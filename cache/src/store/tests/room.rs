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

#[tokio::test]
async fn over_its_budget_the_store_evicts_what_was_used_least_and_gives_the_disk_back() {
    const CHUNK: usize = 1 << 20;
    let fixture = Fixture::new();
    let mut paths = Vec::new();
    for seed in 0..32 {
        let bytes = noise(seed, CHUNK);
        let (_, digest) = fixture.write("red", &bytes).await;
        let path = match seed {
            0 => "snapshot/1/0".to_owned(),
            _ => format!("dependency/app/{seed}"),
        };
        let written = WallTime(1_000 + seed);
        let blobs = vec![blob(&[digest], &bytes)];
        fixture
            .put(
                &path,
                Entry {
                    written,
                    ..entry(blobs)
                },
            )
            .await;
        paths.push(path);
    }
    // The second oldest is used again.
    let touched = Change::Touch {
        key: entry_key(&paths[1]),
        at: WallTime(9_000),
    };
    fixture.store.change(touched).await.unwrap();
    fixture.store.shared.rocks().unwrap().flush().unwrap();
    fixture.store.shared.clock.advance(2 * HOLD);
    let budget = 16 * CHUNK as u64;
    assert!(budget < disk_usage(&fixture.store).unwrap().all);
    let swept = fixture.store.sweep(budget).await.unwrap();
    // A quarter of the budget stays free; each chunk takes a byte more than it has.
    assert_eq!(swept.evicted, 21);
    assert_eq!(swept.chunks, swept.evicted);
    let there = |path: &String| {
        let found = fixture.store.entry(&entry_key(path), Trust::Team).unwrap();
        found.is_some()
    };
    assert!(there(&paths[0]), "snapshots are not the cache's to evict");
    assert!(there(&paths[1]) && there(&paths[31]));
    assert!(!there(&paths[2]) && !there(&paths[22]) && there(&paths[23]));
    // The log is bounded by itself; this is about the chunks. Files that are not in use any more are
    // deleted a little later.
    let blobs = || {
        let files = fixture.files().into_iter();
        let blobs = files.filter(|(name, _)| name.ends_with(".blob"));
        blobs.map(|(_, bytes)| bytes).sum::<u64>()
    };
    let given_back = async {
        while budget < blobs() {
            tokio::task::yield_now().await;
        }
    };
    let patience = Duration::from_secs(30);
    let in_time = tokio::time::timeout(patience, given_back).await;
    assert!(in_time.is_ok(), "{:?}", fixture.files());
}

/// What an entry has uncompressed, or shares with others, says nothing of what its end gives back.
#[tokio::test]
async fn eviction_counts_what_the_disk_gets_back() {
    const CHUNK: usize = 1 << 20;
    let fixture = Fixture::new();
    let common = noise(1_000, CHUNK);
    let (_, shared) = fixture.write("red", &common).await;
    let mut digests = Vec::new();
    for seed in 0..24_u64 {
        // The first ones are large only before they are packed.
        let bytes = match seed {
            0..4 => vec![u8::try_from(seed).unwrap(); 2 * CHUNK],
            _ => noise(seed, CHUNK),
        };
        let (_, digest) = fixture.write("red", &bytes).await;
        let whole = Entry {
            written: WallTime(1_000 + seed),
            ..entry(vec![blob(&[digest], &bytes), blob(&[shared], &common)])
        };
        fixture.put(&format!("dependency/app/{seed}"), whole).await;
        digests.push(digest);
    }
    fixture.store.shared.clock.advance(2 * HOLD);
    // 21 megabytes and some rows are there, and 15 may stay.
    let swept = fixture.store.sweep(20 * CHUNK as u64).await.unwrap();
    assert_eq!((swept.evicted, swept.chunks), (4 + 7, 4 + 7));
    assert!(has(&fixture.store, "red", digests[11]) && !has(&fixture.store, "red", digests[10]));
    assert!(has(&fixture.store, "red", shared));
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
    fixture.store.end();
    let shared = &fixture.store.shared;
    super::super::space::reclaim((&rocks, &shared.database), 0, &shared.ending).unwrap();
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
