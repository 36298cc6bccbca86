//! Mending: it takes nothing away for want of room, and makes nothing anew on a mere suspicion.

use super::{
    flips::{self, Finder, all, check, copied, filled, flip, flipped, table_of, write_again},
    *,
};
use crate::store::{
    mend::{self, Suspect},
    place::Place,
    rebuild,
    rocks::{Care, Column, Rocks},
    sizes::Sizes,
};

/// What the database says of something that is wrong in no file.
const NAMELESS: &str = "Corruption: a test wants it";

fn is_readable(rocks: &Rocks, bytes: &[u8]) -> bool {
    let chunk = ChunkKey::of(&Digest::of(bytes)).unwrap();
    let value = rocks.get(Column::Chunks, chunk.as_bytes());
    value.is_ok_and(|value| value.is_some())
}

/// What the columns of a store are called.
fn names(store: &Store) -> [&'static str; 8] {
    store.shared.rocks().unwrap().names
}

/// Has the store look after what the database has said.
async fn suspect(store: &Store, said: &str) {
    store.shared.doubt.doubt_rows(said.to_owned());
    store.shared.set_stopped(Some(said.to_owned()));
    write_again(store).await;
    assert_eq!(store.shared.doubt.of_rows(), None);
}

#[tokio::test]
async fn a_damaged_column_stays_while_there_is_no_room_for_its_copy() {
    let fixture = filled(true).await;
    let mut contents = all();
    // More than is copied at a time.
    for seed in 0..20 {
        let bytes = noise(seed, 300_000);
        fixture.write("red", &bytes).await;
        contents.push(bytes);
    }
    flips::compact(&fixture.store);
    let table = table_of(&fixture, Column::Chunks);
    let directory = fixture.close();
    flip(&table, |length| length / 3);
    let place = Place::found(directory.path()).unwrap();
    let open = || Rocks::open(&place, Sizes::of(UNLIMITED), Care::Mending).unwrap();
    let readable = |rocks: &Rocks| -> Vec<bool> {
        let contents = contents.iter();
        contents.map(|bytes| is_readable(rocks, bytes)).collect()
    };
    let before = readable(&open());
    assert!(before.contains(&true) && before.contains(&false));
    let suspect = Suspect::Said(format!("Corruption: a block of {}", table.display()));
    for ends_in_the_middle in [false, true] {
        let check_room = |bytes| {
            if ends_in_the_middle && bytes != 0 {
                return Ok(());
            }
            Err(Trouble::Full {
                directory: place.database.clone(),
                free: 0,
                needed: bytes,
            })
        };
        let mut rocks = open();
        let mended = mend::mend(&mut rocks, &suspect, check_room);
        assert!(matches!(mended, Err(Trouble::Full { .. })), "{mended:?}");
        assert_eq!(readable(&rocks), before);
        drop(rocks);
        assert!(rebuild::is_half_mended(&place.database));
        assert_eq!(readable(&open()), before);
    }
    let mut rocks = open();
    mend::mend(&mut rocks, &suspect, |_| Ok(())).unwrap();
    assert!(!rebuild::is_half_mended(&place.database));
    assert_eq!(readable(&rocks), before);
    assert!(rocks.is_whole(Column::Chunks).unwrap());
}

#[tokio::test]
async fn without_room_to_be_mended_a_store_is_read_and_says_how_much_it_needs() {
    let whole = filled(true).await;
    let table = table_of(&whole, Column::Chunks);
    let image = whole.crash_image();
    let table = image.path().join("store").join(table.file_name().unwrap());
    flip(&table, |length| length / 3);
    let without_room = || StoreOptions {
        free_low_water: u64::MAX / 2,
        ..options(image.path())
    };
    let (store, writer) = Store::open(without_room()).unwrap();
    flips::meet(&store, Finder::Read).await;
    // What makes room has it try all the same.
    for _again in 0..2 {
        let collect = Change::Collect { chunks: Vec::new() };
        let refused = store.change(collect).await.unwrap_err();
        assert!(matches!(refused, Trouble::Full { .. }), "{refused:?}");
    }
    let refused = write(&store, "red", b"new").await.unwrap_err();
    assert!(matches!(refused, Trouble::Full { .. }), "{refused:?}");
    let why = store.stopped().unwrap();
    assert!(why.contains("are needed"), "{why}");
    let digests: Vec<Digest> = all().iter().map(|bytes| Digest::of(bytes)).collect();
    let found = digests.iter().map(|&digest| read(&store, "red", digest));
    let kept = found.flatten().count();
    // A block has about a hundred rows.
    assert!((200..digests.len()).contains(&kept), "{kept} can be read");
    drop(store);
    writer.join();

    let refused = Store::open(without_room()).unwrap_err();
    let OpenStoreError::MendRoom { needed, .. } = &refused else {
        panic!("{refused:?}");
    };
    assert!(refused.to_string().contains(&needed.to_string()));

    let (store, writer) = Store::open(options(image.path())).unwrap();
    assert_eq!(check(&store).await, digests.len() - kept);
    drop(store);
    writer.join();
}

#[tokio::test]
async fn a_store_that_waited_for_room_to_be_mended_is_when_there_is_some() {
    let fixture = copied(&filled(true).await);
    let table = table_of(&fixture, Column::Chunks);
    let fixture = flipped(fixture, &table, |length| length / 3);
    let shared = &fixture.store.shared;
    // As after a try that lacked room.
    shared.doubt.doubt_rows(table.display().to_string());
    shared.doubt.rows_want_room(u64::MAX);
    shared.set_stopped(Some("a test".to_owned()));
    for _again in 0..2 {
        let refused = fixture.store.change(Change::Probe).await.unwrap_err();
        assert!(matches!(refused, Trouble::Full { .. }), "{refused:?}");
    }
    assert_eq!(
        names(&fixture.store),
        Column::ALL.map(|column| column.names()[0])
    );
    shared.doubt.rows_want_room(1);
    write_again(&fixture.store).await;
    assert_eq!(shared.doubt.room_to_mend(), 0);
    let name = names(&fixture.store)[Column::Chunks as usize];
    assert_eq!(name, Column::Chunks.names()[1]);
    let lost = check(&fixture.store).await;
    assert!((1..200).contains(&lost), "{lost}");
}

#[tokio::test]
async fn a_suspicion_that_names_nothing_and_finds_nothing_makes_nothing_anew() {
    let fixture = filled(true).await;
    let before = names(&fixture.store);
    // The second one is of a table that was mended before that was heard.
    for said in [NAMELESS, "Corruption: a block of /store/999999.sst"] {
        suspect(&fixture.store, said).await;
        assert_eq!(names(&fixture.store), before, "{said}");
    }
    assert_eq!(check(&fixture.store).await, 0);
}

#[tokio::test]
async fn a_suspicion_that_names_nothing_finds_the_table_that_is_damaged() {
    let whole = filled(true).await;
    for damaged in [Column::Chunks, Column::Facts] {
        let fixture = copied(&whole);
        let table = table_of(&fixture, damaged);
        let fixture = flipped(fixture, &table, |length| length / 3);
        suspect(&fixture.store, NAMELESS).await;
        let expected = Column::ALL.map(|column| column.names()[usize::from(column == damaged)]);
        assert_eq!(names(&fixture.store), expected);
        check(&fixture.store).await;
    }
}

#[tokio::test]
async fn a_chunk_that_is_damaged_by_itself_has_nothing_made_anew() {
    let fixture = copied(&filled(true).await);
    let blob = flips::with_ending(&fixture, "blob").remove(0);
    let fixture = flipped(fixture, &blob, |length| length / 3);
    let before = names(&fixture.store);
    suspect(&fixture.store, NAMELESS).await;
    assert_eq!(names(&fixture.store), before);
    let scrubbed = fixture.store.scrub(None, UNLIMITED).await.unwrap();
    assert_eq!(scrubbed.damaged, 1);
    assert_eq!(check(&fixture.store).await, 1);
}
