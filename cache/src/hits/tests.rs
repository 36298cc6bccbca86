//! What counts as there, and what is true of the figures whatever is looked up.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::eviction::Clairvoyant;

/// A lookup of chunks of 10 bytes each, which take a second to make together.
fn lookup(key: &str, fallbacks: &[&str], chunks: &[usize]) -> Lookup {
    let chunk = |&number| Chunk { number, bytes: 10 };
    Lookup {
        key: key.to_owned(),
        fallbacks: fallbacks.iter().map(ToString::to_string).collect(),
        chunks: chunks.iter().map(chunk).collect(),
        made_millis: 1000,
        replaces: false,
    }
}

fn counts(requests: u64, bytes: u64, millis: u64) -> Counts {
    Counts {
        requests,
        bytes,
        millis,
    }
}

#[track_caller]
fn check(lookups: &[Lookup], capacity: u64, expected: [Counts; 3]) {
    let rates = Eviction::Lru.rates(lookups, capacity);
    let found = [rates.exact, rates.with_fallbacks, rates.with_chunks];
    assert_eq!(found, expected, "in {capacity} bytes");
}

#[test]
fn what_another_entry_has_counts_for_its_part() {
    let lookups = [
        lookup("k-1", &["k-"], &[1, 2, 3, 4]),
        lookup("k-1", &["k-"], &[1, 2, 3, 4]),
        lookup("k-2", &["k-"], &[1, 2, 3, 5]),
        lookup("j-1", &["i-"], &[1, 9]),
        lookup("j-2", &[], &[7]),
    ];
    let exact = counts(1, 40, 1000);
    let with_fallbacks = counts(2, 70, 1750);
    let with_chunks = counts(3, 80, 2250);
    check(&lookups, 1000, [exact, with_fallbacks, with_chunks]);
    let all = Eviction::Lru.rates(&lookups, 1000).all;
    assert_eq!(all, counts(5, 150, 5000));
}

#[test]
fn the_first_fallback_key_counts_that_begins_a_key_and_the_newest_of_its_entries() {
    let before = |last: Lookup| {
        let lookups = [
            lookup("a-1", &[], &[1, 2]),
            lookup("b-2", &[], &[3]),
            lookup("b-1", &[], &[4]),
            last,
        ];
        Eviction::Lru.rates(&lookups, 1000).with_fallbacks
    };
    let millis = |fallbacks: &[&str], chunks: &[usize]| {
        let counts = before(lookup("c", fallbacks, chunks));
        (counts.requests, counts.millis)
    };
    assert_eq!(millis(&["b-", "a-"], &[1, 2, 3, 4]), (1, 250));
    assert_eq!(millis(&["b-"], &[3]), (1, 0), "`b-1` was put after `b-2`");
    assert_eq!(millis(&["x", "a-"], &[1, 2]), (1, 1000));
    assert_eq!(millis(&["x"], &[1, 2]), (0, 0));
    assert_eq!(millis(&[], &[1, 2]), (0, 0));
}

#[test]
fn chunks_that_entries_share_take_room_once() {
    let lookups = [
        lookup("a", &[], &[1, 2, 3]),
        lookup("b", &[], &[1, 2, 4]),
        lookup("a", &[], &[1, 2, 3]),
        lookup("b", &[], &[1, 2, 4]),
    ];
    assert_eq!(distinct_bytes(&lookups), 40);
    let found = counts(2, 60, 2000);
    let with_chunks = counts(3, 80, 2666);
    check(&lookups, 40, [found, found, with_chunks]);
    let nothing = Counts::default();
    // One goes for the other each time, which leaves two chunks of three.
    check(&lookups, 39, [nothing, nothing, counts(3, 60, 1998)]);
    check(&lookups, 29, [nothing; 3]);
}

#[test]
fn an_entry_that_each_build_replaces_is_there_with_what_the_last_one_had() {
    let keyless = |chunks: &[usize]| Lookup {
        replaces: true,
        ..lookup("", &[], chunks)
    };
    let lookups = [keyless(&[1, 2]), keyless(&[2, 3]), keyless(&[1, 3])];
    let found = counts(2, 20, 1000);
    check(&lookups, 20, [found; 3]);
    // Under a key the first stays.
    let kept = lookups.map(|lookup| Lookup {
        replaces: false,
        ..lookup
    });
    check(&kept[..2], 20, [counts(1, 10, 500); 3]);
    check(&kept, 20, [counts(2, 20, 1000); 3]);
}

#[test]
fn sizes_go_from_a_part_of_the_largest_entry_to_everything() {
    let lookups = [
        lookup("a", &[], &[1, 2]),
        lookup("b", &[], &[1, 3]),
        lookup("c", &[], &[4, 5]),
        lookup("d", &[], &[6, 7]),
        lookup("e", &[], &[8, 9, 10]),
    ];
    assert_eq!(sizes(&lookups), [7, 15, 22, 30, 47, 65, 100]);
    assert_eq!(sizes(&lookups[..1]), [5, 10, 15, 20]);
    assert!(sizes(&[]).is_empty());
    // What is hardly larger than the largest is left out, but for everything.
    let many: Vec<usize> = (0..640).collect();
    let close = [lookup("a", &[], &many), lookup("b", &[], &[640])];
    assert_eq!(sizes(&close), [1600, 3200, 4800, 6410]);
}

#[test]
fn a_table_and_curves_show_all_sizes() {
    let lookups = [
        lookup("k-1", &["k-"], &[1, 2]),
        lookup("k-2", &["k-"], &[1, 3]),
        lookup("k-1", &["k-"], &[1, 2]),
    ];
    let evictions = [Eviction::Chosen, Eviction::Lru, Eviction::Clairvoyant];
    let simulated = |bytes| AtSize::simulate(&lookups, bytes, &evictions);
    let sizes = [simulated(20), simulated(30)];
    let chart = Chart {
        sizes: &sizes,
        name: |bytes| format!("{bytes} B"),
    };
    let table = chart.table();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 2 + 2 * 4, "{table}");
    let last = "| 30 B | chosen | 33.3 | 66.7 | 66.7 | 33.3 | 50.0 | 50.0 | 33.3 | 50.0 | 50.0 |";
    assert_eq!(rows[6], last);
    assert_eq!(
        rows[9],
        "| 30 B | bound | 33.3 |  |  | 33.3 |  |  | 33.3 |  |  |"
    );
    let svg = chart.curves(Measure::Millis, &["chosen", "LRU"]);
    assert_eq!(svg.matches("<polyline").count(), 5, "{svg}");
    assert!(svg.contains(">30 B</text>") && svg.ends_with("</svg>\n"));
}

/// Exact, with fallback keys, with chunks, all.
fn levels(rates: &Rates, measure: Measure) -> [u64; 4] {
    let levels = [
        rates.exact,
        rates.with_fallbacks,
        rates.with_chunks,
        rates.all,
    ];
    levels.map(|counts| counts.of(measure))
}

#[test]
fn where_no_entry_is_asked_for_again_the_clairvoyant_keeps_the_newest() {
    // Each has a chunk of the one before. The keys descend: the oldest has the largest.
    let lookups: Vec<Lookup> = (0..9)
        .map(|number| lookup(&format!("k{}", 9 - number), &[], &[number, number + 1]))
        .collect();
    let found = replay(&lookups, 20, &mut Clairvoyant::new(std::iter::empty()));
    assert_eq!(found.with_chunks, counts(8, 80, 4000));
}

/// Which entry is looked up, and which chunks it has: the same for the same entry.
fn history() -> impl Strategy<Value = Vec<Lookup>> {
    let entries = prop::collection::vec(prop::collection::btree_set(0..8_usize, 1..5), 6);
    // Entries that share a chunk of few bytes take less than a byte of it each.
    let sizes = prop::collection::vec(0..20_u64, 8);
    let drawn = (entries, sizes, prop::collection::vec(0..6_usize, 0..40));
    drawn.prop_map(|(entries, sizes, keys)| {
        let drawn = |key: usize| {
            let chunk = |&number: &usize| Chunk {
                number,
                bytes: sizes[number],
            };
            Lookup {
                chunks: entries[key].iter().map(chunk).collect(),
                ..lookup(&format!("k{key}"), &["k"], &[])
            }
        };
        keys.into_iter().map(drawn).collect()
    })
}

proptest! {
    #[test]
    fn no_eviction_surpasses_the_bound_or_the_clairvoyant_and_each_level_has_the_one_before(
        lookups in history(),
        capacity in 0..90_u64,
    ) {
        let evictions = [
            Eviction::Chosen,
            Eviction::Lru,
            Eviction::S3Fifo,
            Eviction::GreedyDual,
            Eviction::Clairvoyant,
        ];
        let found = AtSize::simulate(&lookups, capacity, &evictions);
        let most = *found.of(Eviction::Clairvoyant.name()).unwrap();
        for (name, rates) in &found.rates {
            for measure in Measure::ALL {
                let (reached, most) = (levels(rates, measure), levels(&most, measure));
                prop_assert!(reached.is_sorted(), "{name} {measure:?} {reached:?}");
                prop_assert!(reached[0] <= found.bound.of(measure), "{name} {measure:?}");
                for (level, most) in reached.iter().zip(most) {
                    prop_assert!(*level <= most, "{name} {measure:?} {reached:?}");
                }
            }
        }
    }

    #[test]
    fn with_room_for_everything_each_entry_is_missed_once(lookups in history()) {
        let keys: BTreeSet<&str> =
            lookups.iter().map(|lookup| lookup.key.as_str()).collect();
        let hits = (lookups.len() - keys.len()) as u64;
        let everything = distinct_bytes(&lookups);
        for eviction in [Eviction::Chosen, Eviction::Lru, Eviction::Clairvoyant] {
            prop_assert_eq!(eviction.rates(&lookups, everything).exact.requests, hits);
        }
    }
}
