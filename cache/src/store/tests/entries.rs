//! Entries, what they keep, and what is counted.

use super::*;

#[tokio::test]
async fn counts_stay_right_when_entries_are_replaced_across_a_restart() {
    let fixture = Fixture::new();
    let (_, one) = fixture.write("red", b"one").await;
    let (_, two) = fixture.write("red", b"two").await;
    // The same chunk twice in an entry counts once.
    let both = entry(vec![blob(&[one], b"one"), blob(&[one, two], b"onetwo")]);
    assert_eq!(
        fixture.put("source/1", both.clone()).await,
        PutOutcome::Stored
    );
    assert_eq!(fixture.put("source/1", both).await, PutOutcome::Kept);
    let fixture = fixture.restart();
    let only_two = entry(vec![blob(&[two], b"two")]);
    let outcome = put(&fixture.store, "source/1", only_two.clone(), false).await;
    assert_eq!(outcome, PutOutcome::Kept);
    assert_eq!(fixture.put("source/1", only_two).await, PutOutcome::Stored);
    assert_eq!(fixture.collect().await, 1);
    assert!(!has(&fixture.store, "red", one));
    assert!(has(&fixture.store, "red", two));
}

#[tokio::test]
async fn an_entry_needs_all_its_chunks_and_gives_nothing_without_them() {
    let fixture = Fixture::new();
    let (_, here) = fixture.write("red", b"here").await;
    let (_, foreign) = fixture.write("blue", b"foreign").await;
    let absent = Digest::of(b"absent");
    for missing in [foreign, absent] {
        let bytes = blob(&[missing], &[]).chunks[0].size();
        let blob = Blob {
            digest: Digest::from_parts([1; 32], here.size() + bytes),
            chunks: vec![here, missing],
        };
        let entry = entry(vec![blob]);
        let closure = fixture.store.closure(&entry, &entry.team).unwrap();
        let change = Change::PutEntry(Box::new(PutEntry {
            key: entry_key("source/1"),
            entry,
            closure,
            replace: true,
            made_millis: 0,
        }));
        let applied = fixture.store.change(change).await.unwrap();
        assert_eq!(applied, Applied::Missing(missing));
        let found = fixture
            .store
            .entry(&entry_key("source/1"), Trust::Untrusted);
        assert!(found.unwrap().is_none());
    }
    assert_eq!(fixture.collect().await, 2, "nothing was counted");
}

#[tokio::test]
async fn a_tree_keeps_its_files_and_an_outline_only_its_own_bytes() {
    let fixture = Fixture::new();
    let (_, file) = fixture.write("red", b"file").await;
    let (_, tree) = fixture.write("red", b"tree").await;
    let layout = Layout {
        chunks: vec![file],
        files: vec![],
    };
    let layout_bytes = layout.encode(&tree);
    let (_, layout) = fixture.write("red", &layout_bytes).await;
    let tree = TreeRef {
        tree: blob(&[tree], b"tree"),
        attributes: blob(&[], b""),
        layout: blob(&[layout], &layout_bytes),
    };
    let whole = Entry {
        trees: vec![tree.clone()],
        ..entry(vec![])
    };
    let outline = Entry {
        outlines: vec![tree.clone()],
        ..entry(vec![])
    };
    fixture.put("dependency/a/1", whole).await;
    fixture.put("dependency/a/2", outline).await;
    assert_eq!(fixture.collect().await, 0);
    fixture.delete("dependency/a/1").await;
    assert_eq!(fixture.collect().await, 1);
    assert!(!has(&fixture.store, "red", file));
    assert!(has(&fixture.store, "red", layout));

    let mut lying = tree;
    lying.layout.digest = Digest::from_parts([1; 32], layout_bytes.len() as u64);
    let entry = Entry {
        trees: vec![lying],
        ..entry(vec![])
    };
    let closure = fixture.store.closure(&entry, &entry.team);
    assert!(
        matches!(closure, Err(ClosureError::Blob { .. })),
        "{closure:?}"
    );
}

#[tokio::test]
async fn an_entry_that_is_put_again_as_it_is_was_used() {
    let fixture = Fixture::new();
    let (_, chunk) = fixture.write("red", b"chunk").await;
    let at = |written| Entry {
        written: WallTime(written),
        ..entry(vec![blob(&[chunk], b"chunk")])
    };
    let used = || {
        let listed = fixture
            .store
            .list(&namespace(), ("saved/", ""), Trust::Team);
        let (listed, _) = listed.unwrap();
        (listed[0].1.written, listed[0].1.used)
    };
    fixture.put("saved/a", at(1_000)).await;
    assert_eq!(used(), (WallTime(1_000), WallTime(1_000)));
    assert_eq!(fixture.put("saved/a", at(5_000)).await, PutOutcome::Kept);
    assert_eq!(used(), (WallTime(1_000), WallTime(5_000)));
}

#[tokio::test]
async fn nobody_sees_or_replaces_what_is_trusted_further() {
    let fixture = Fixture::new();
    let (_, one) = fixture.write("red", b"one").await;
    let (_, two) = fixture.write("red", b"two").await;
    let with = |trust, digest, whole: &[u8]| Entry {
        trust,
        ..entry(vec![blob(&[digest], whole)])
    };
    let see = |trust| {
        let found = fixture
            .store
            .entry(&entry_key("dependency/a/k"), trust)
            .unwrap();
        found.map(|found| found.entry.blobs[0].digest)
    };
    let path = "dependency/a/k";
    fixture.put(path, with(Trust::Untrusted, one, b"one")).await;
    assert_eq!(see(Trust::Untrusted), Some(one));
    assert_eq!(see(Trust::Team), None);

    let protected = with(Trust::Protected, two, b"two");
    let outcome = put(&fixture.store, path, protected, false).await;
    assert_eq!(
        outcome,
        PutOutcome::Stored,
        "an untrusted entry keeps no place"
    );
    assert_eq!(see(Trust::Protected), Some(two));
    let outcome = fixture.put(path, with(Trust::Team, one, b"one")).await;
    assert_eq!(outcome, PutOutcome::Kept);
    assert_eq!(see(Trust::Untrusted), Some(two));
}

#[tokio::test]
async fn entries_are_listed_by_key_page_by_page() {
    let fixture = Fixture::new();
    let (_, chunk) = fixture.write("red", b"chunk").await;
    for path in ["source/2", "source/1", "sourcerer", "artifact/1"] {
        fixture
            .put(path, entry(vec![blob(&[chunk], b"chunk")]))
            .await;
    }
    let list = |prefix: &str, after: &str| {
        let page = fixture
            .store
            .list(&namespace(), (prefix, after), Trust::Team);
        let (entries, more) = page.unwrap();
        assert!(!more);
        entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(list("source/", ""), ["source/1", "source/2"]);
    assert_eq!(list("source/", "source/1"), ["source/2"]);
    assert_eq!(list("", "source/1"), ["source/2", "sourcerer"]);
    let (entries, _) = fixture
        .store
        .list(&namespace(), ("artifact/", ""), Trust::Team)
        .unwrap();
    assert_eq!((entries[0].1.bytes, entries[0].1.chunks), (5, 1));
    let trusted = fixture.store.list(&namespace(), ("", ""), Trust::Protected);
    assert_eq!(trusted.unwrap(), (vec![], false));
}

#[tokio::test]
async fn uses_are_counted_by_team_project_and_key() {
    let fixture = Fixture::new();
    let record = |owner: &str, what, bytes| {
        let what = CacheUse {
            key: "npm/1".to_owned(),
            fallbacks: Vec::new(),
            what,
            bytes,
            bytes_moved: 1,
            millis: 10,
        };
        used(owner, what, WallTime(1_000))
    };
    for change in [
        record("red", CacheUseKind::Restored, 100),
        record("red", CacheUseKind::Restored, 50),
        record("red", CacheUseKind::Missed, 0),
        record("red", CacheUseKind::Saved, 70),
        record("red", CacheUseKind::Kept, 70),
        record("redder", CacheUseKind::Missed, 0),
    ] {
        fixture.store.change(change).await.unwrap();
    }
    let fixture = fixture.restart();
    let stats = fixture.store.stats(Some(&team("red")), &[]).unwrap();
    let [uses] = &stats.uses[..] else {
        panic!("{stats:?}");
    };
    let counts = (uses.restored, uses.missed, uses.saved, uses.bytes_restored);
    assert_eq!(counts, (2, 1, 1, 150));
    assert_eq!((uses.key.as_str(), uses.restore_millis), ("npm/1", 20));
    assert_eq!(fixture.store.stats(None, &[]).unwrap().uses.len(), 2);
}

fn used(owner: &str, what: CacheUse, at: WallTime) -> Change {
    let record = UseRecord {
        team: team(owner),
        project: "app".parse().unwrap(),
        what,
        entry: None,
    };
    Change::Record { record, at }
}

/// A restore, in 100 ms, of 50 MB that are said to be those of the entry at `path`.
fn restored(key: &str, path: Option<&str>) -> Change {
    let what = CacheUse {
        what: CacheUseKind::RestoredByFallback,
        bytes: 50_000_000,
        millis: 100,
        ..missed(key)
    };
    let record = UseRecord {
        team: team("red"),
        project: "app".parse().unwrap(),
        what,
        entry: path.map(|path| EntryKey {
            namespace: namespace(),
            path: path.to_owned(),
        }),
    };
    let at = WallTime(1_000);
    Change::Record { record, at }
}

#[tokio::test]
async fn a_restore_counts_for_as_long_as_its_entry_took_to_make_or_by_its_bytes_if_nobody_knows() {
    let fixture = Fixture::new();
    let (_, chunk) = fixture.write("red", b"chunk").await;
    for (path, made_millis) in [("dependency/app/known", 60_000), ("dependency/app/new", 0)] {
        let entry = entry(vec![blob(&[chunk], b"chunk")]);
        let closure = fixture.store.closure(&entry, &entry.team).unwrap();
        let change = Change::PutEntry(Box::new(PutEntry {
            key: entry_key(path),
            entry,
            closure,
            replace: true,
            made_millis,
        }));
        fixture.store.change(change).await.unwrap();
    }
    for path in ["known", "known", "new", "gone"] {
        let change = restored("key", Some(&format!("dependency/app/{path}")));
        fixture.store.change(change).await.unwrap();
    }
    fixture.store.change(restored("other", None)).await.unwrap();
    let fixture = fixture.restart();
    let stats = fixture.store.stats(None, &[]).unwrap();
    let [uses, other] = &stats.uses[..] else {
        panic!("{stats:?}");
    };
    // At 10 MB/s, 50 MB take 5 s.
    assert_eq!(uses.made_millis, 2 * 60_000 + 2 * 5_000);
    assert_eq!(
        (uses.restored, uses.estimated, uses.restore_millis),
        (4, 2, 400)
    );
    assert_eq!((other.made_millis, other.estimated), (5_000, 1));
}

fn missed(key: &str) -> CacheUse {
    CacheUse {
        key: key.to_owned(),
        fallbacks: Vec::new(),
        what: CacheUseKind::Missed,
        bytes: 0,
        bytes_moved: 0,
        millis: 0,
    }
}

#[tokio::test]
async fn counts_of_uses_come_in_pages() {
    let fixture = Fixture::new();
    for at in 0..2_500 {
        let change = used("red", missed(&format!("npm/{at:04}")), WallTime(1_000));
        fixture.store.try_change(change);
    }
    fixture.store.change(Change::Probe).await.unwrap();
    let (mut after, mut seen, mut pages) = (Vec::new(), Vec::new(), 0);
    loop {
        let page = fixture.store.stats(Some(&team("red")), &after).unwrap();
        pages += 1;
        seen.extend(page.uses.iter().map(|uses| uses.key.clone()));
        if !page.more {
            break;
        }
        let last = page.uses.last().unwrap();
        after = key::uses(&last.team, &last.project, &last.key);
    }
    let expected: Vec<_> = (0..2_500).map(|at| format!("npm/{at:04}")).collect();
    assert_eq!((seen, pages), (expected, 3));
}

#[tokio::test]
async fn counts_go_when_nothing_was_added_for_ninety_days() {
    const DAY: u64 = 24 * 3600 * 1000;
    let fixture = Fixture::new();
    for (key, day) in [
        ("old", 1),
        ("used again", 1),
        ("used again", 60),
        ("new", 60),
    ] {
        let change = used("red", missed(key), WallTime(day * DAY));
        fixture.store.change(change).await.unwrap();
    }
    let left = || {
        let stats = fixture.store.stats(None, &[]).unwrap();
        let keys = stats.uses.into_iter().map(|uses| uses.key);
        keys.collect::<Vec<_>>()
    };
    fixture.store.forget_uses(WallTime(90 * DAY)).await.unwrap();
    assert_eq!(left(), ["new", "old", "used again"]);
    fixture
        .store
        .forget_uses(WallTime(100 * DAY))
        .await
        .unwrap();
    assert_eq!(left(), ["new", "used again"]);
}
