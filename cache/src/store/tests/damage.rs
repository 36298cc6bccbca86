//! Damage, and how it is found.

use super::*;
use crate::store::scrub::Scrubbed;

/// Makes the store hold other bytes than a chunk has, as a disk that lies does.
pub(super) async fn write_damaged(store: &Store, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let mut value = [&[0], bytes].concat();
    value[1] ^= 1;
    let change = Change::PutChunk {
        team: team("red"),
        chunk: ChunkKey::of(&digest).unwrap(),
        value: value.into(),
    };
    store.change(change).await.unwrap();
    digest
}

#[tokio::test]
async fn a_scrub_reads_all_chunks_step_by_step_and_sets_damaged_ones_aside() {
    let fixture = Fixture::new();
    let mut good = Vec::new();
    for seed in 0..40 {
        good.push(fixture.write("red", &noise(seed, 10_000)).await.1);
    }
    let bytes = noise(100, 10_000);
    let bad = write_damaged(&fixture.store, &bytes).await;
    fixture
        .put("source/1", entry(vec![blob(&[bad], &bytes)]))
        .await;
    let there = || {
        let found = fixture.store.entry(&entry_key("source/1"), Trust::Team);
        found.unwrap().is_some()
    };
    assert!(there(), "nobody knows yet");
    let (mut steps, mut all, mut after) = (0, Scrubbed::default(), None);
    loop {
        let step = fixture.store.scrub(after, 50_000).await.unwrap();
        steps += 1;
        all.chunks += step.chunks;
        all.bytes += step.bytes;
        all.damaged += step.damaged;
        after = step.last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((all.chunks, all.damaged), (41, 1));
    assert!((8..=10).contains(&steps), "{steps} steps");
    assert!(!has(&fixture.store, "red", bad) && !there());
    assert!(
        good.iter()
            .all(|&digest| has(&fixture.store, "red", digest))
    );

    let (new, _) = fixture.write("red", &bytes).await;
    assert!(new && there(), "who has it brings it again");
    let again = fixture.store.scrub(None, UNLIMITED).await.unwrap();
    assert_eq!((again.chunks, again.damaged), (41, 0));
}

#[tokio::test]
async fn what_is_reported_is_read_again_if_it_is_the_teams() {
    let fixture = Fixture::new();
    let (_, good) = fixture.write("red", b"good").await;
    let bad = write_damaged(&fixture.store, b"bad as well").await;
    let verify = |owner: &str| {
        let chunks = vec![good, bad, Digest::of(b"absent")];
        fixture.store.verify(team(owner), chunks)
    };
    assert_eq!(verify("blue").await.unwrap(), 0);
    assert!(has(&fixture.store, "red", bad));
    assert_eq!(verify("red").await.unwrap(), 1);
    assert!(!has(&fixture.store, "red", bad) && has(&fixture.store, "red", good));
}

/// A scrub sets aside one after another what it found some time ago.
#[tokio::test]
async fn a_chunk_that_was_brought_again_is_not_set_aside_for_what_was_seen_before() {
    let fixture = Fixture::new();
    let bytes = noise(1, 10_000);
    let digest = write_damaged(&fixture.store, &bytes).await;
    let chunk = ChunkKey::of(&digest).unwrap();
    let (_, damaged) = fixture.store.next_damaged(None, UNLIMITED).unwrap();
    assert_eq!(damaged, [chunk]);
    let set_aside = || fixture.store.change(Change::SetAside { chunk });
    // A reader is first.
    assert_eq!(set_aside().await.unwrap(), Applied::Done);
    assert!(!has(&fixture.store, "red", digest));
    let (new, _) = fixture.write("red", &bytes).await;
    assert!(new);

    assert_eq!(fixture.store.set_aside(damaged).await.unwrap(), 0);
    assert_eq!(set_aside().await.unwrap(), Applied::Whole);
    assert!(has(&fixture.store, "red", digest));
    assert_eq!(read(&fixture.store, "red", digest), Some(bytes));
    assert_eq!(fixture.store.stats(None, &[]).unwrap().chunks, 1);
}

#[test]
fn whether_a_chunk_is_damaged_is_seen_as_the_changes_before_leave_it() {
    let fixture = Fixture::new();
    let shared = &fixture.store.shared;
    let bytes = noise(1, 10_000);
    let chunk = bulk::chunk_key(&bytes);
    let set_aside = || Change::SetAside { chunk };
    let (bad, good) = (|| bulk::bring_damaged(&bytes), || bulk::bring(&bytes));
    let there = || has(&fixture.store, "red", chunk.digest());
    bulk::write_group(shared, vec![bad()]);
    assert!(there());
    bulk::write_group(shared, vec![set_aside(), good(), set_aside()]);
    assert_eq!(
        read(&fixture.store, "red", chunk.digest()),
        Some(bytes.clone())
    );
    bulk::write_group(shared, vec![set_aside()]);
    assert!(there());

    let other = noise(2, 10_000);
    let chunk = bulk::chunk_key(&other);
    let brought = vec![bulk::bring_damaged(&other), Change::SetAside { chunk }];
    bulk::write_group(shared, brought);
    assert!(!has(&fixture.store, "red", chunk.digest()));
}

#[tokio::test]
async fn a_report_of_what_is_not_the_teams_leaves_the_hot_set_as_it_is() {
    let fixture = Fixture::new();
    let (_, hot) = fixture.write("red", b"hot").await;
    let (_, other) = fixture.write("red", b"other").await;
    let chunks = [hot, other].map(|digest| ChunkKey::of(&digest).unwrap());
    let set = &fixture.store.shared.hot;
    let red = set.reader(&team("red"));
    let are_there = || chunks.map(|chunk| set.show(red, &chunk, |_| ()));
    // What is read twice is taken in.
    for digest in [hot, hot, other] {
        fixture
            .store
            .read(&team("red"), &[digest], |_, _| ())
            .unwrap();
    }
    let reading = set.since();
    let report = |owner: &str| {
        let chunks = vec![hot, other, Digest::of(b"absent")];
        fixture.store.verify(team(owner), chunks)
    };
    assert_eq!(report("blue").await.unwrap(), 0);
    set.bring(red, &chunks[1], b"\0other", reading);
    assert_eq!(
        are_there(),
        [true, true],
        "nor does it keep anything out that is being read"
    );
    assert_eq!(report("red").await.unwrap(), 0);
    assert_eq!(are_there(), [false, false]);
}

/// A batch that failed may have been seen before the disk had it.
#[tokio::test]
async fn what_memory_knows_is_asked_again_of_a_database_that_was_opened_anew() {
    let fixture = Fixture::new();
    let (_, there) = fixture.write("red", b"there").await;
    let lost = Digest::of(b"lost");
    let shared = &fixture.store.shared;
    let seen = [ChunkKey::of(&lost).unwrap()];
    shared
        .known
        .bring(&team("red"), seen.iter(), shared.known.since());
    assert!(has(&fixture.store, "red", there) && has(&fixture.store, "red", lost));
    shared.reopen(Duration::from_secs(10)).unwrap();
    assert!(has(&fixture.store, "red", there) && !has(&fixture.store, "red", lost));
}
