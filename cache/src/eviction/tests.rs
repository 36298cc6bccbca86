//! What is true of the eviction whatever happens, and how it does on traces.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const MB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u8, u16, u16),
    Read(u8),
    Evict,
    Remove(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..40_u8, any::<u16>(), any::<u16>())
            .prop_map(|(key, bytes, ms)| Step::Put(key, bytes, ms)),
        (0..40_u8).prop_map(Step::Read),
        Just(Step::Evict),
        (0..40_u8).prop_map(Step::Remove),
    ]
}

proptest! {
    #[test]
    fn what_is_there_goes_once_and_ages_only_grow(steps in prop::collection::vec(step(), 0..400)) {
        let mut queues = Queues::default();
        let mut there = BTreeSet::new();
        for step in steps {
            let before = queues.ages();
            match step {
                Step::Put(key, bytes, ms) => {
                    let worth = Worth { bytes: u64::from(bytes) * MB, made_millis: ms.into() };
                    queues.put(&key, worth);
                    there.insert(key);
                }
                Step::Read(key) => queues.read(&key),
                Step::Evict => {
                    let victim = queues.evict();
                    prop_assert_eq!(victim.is_none(), there.is_empty());
                    if let Some(victim) = victim {
                        prop_assert!(there.remove(&victim));
                    }
                }
                Step::Remove(key) => {
                    prop_assert_eq!(queues.remove(&key).is_some(), there.remove(&key));
                }
            }
            let after = queues.ages();
            prop_assert!(before.probation <= after.probation && before.proved <= after.proved);
        }
        let mut left = BTreeSet::new();
        while let Some((key, _)) = queues.pop() {
            prop_assert!(left.insert(key));
        }
        prop_assert_eq!(left, there);
    }

    /// The store keeps standings in rows and puts the queues together anew for each sweep.
    #[test]
    fn queues_from_rows_choose_as_those_that_lived_through_it(
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut queues = Queues::default();
        let mut rows: BTreeMap<u8, (Standing, Worth)> = BTreeMap::new();
        for step in steps {
            let ages = queues.ages();
            match step {
                Step::Put(key, bytes, ms) => {
                    let worth = Worth { bytes: u64::from(bytes) * MB, made_millis: ms.into() };
                    let before = rows.get(&key).map(|row| row.0);
                    let standing = Standing::put(worth, ages, before, false);
                    rows.insert(key, (standing, worth));
                    queues.insert(key, standing, worth);
                }
                Step::Read(key) => {
                    if let Some((standing, worth)) = rows.get_mut(&key) {
                        *standing = standing.read(*worth, ages);
                    }
                    queues.read(&key);
                }
                Step::Evict => {
                    let mut anew = Queues::new(ages);
                    for (key, (standing, worth)) in &rows {
                        anew.insert(*key, *standing, *worth);
                    }
                    let (expected, victim) = (queues.pop(), anew.pop());
                    prop_assert_eq!(victim, expected);
                    prop_assert_eq!(anew.ages(), queues.ages());
                    if let Some((victim, _)) = victim {
                        rows.remove(&victim);
                    }
                }
                Step::Remove(key) => {
                    rows.remove(&key);
                    queues.remove(&key);
                }
            }
        }
    }

    /// On traces so short that all ways to evict can be tried.
    #[test]
    fn the_optimum_is_between_the_clairvoyant_and_the_bound(
        keys in prop::collection::vec(0..5_u64, 0..12),
        worths in prop::collection::vec((0..4_u64, 1..9_u64), 5),
        capacity in 1..8_u64,
    ) {
        let access = |key: u64| {
            let (bytes, made_millis) = worths[usize::try_from(key).unwrap()];
            Access { key, worth: Worth { bytes, made_millis } }
        };
        let trace: Vec<Access> = keys.into_iter().map(access).collect();
        let optimum = optimum(&trace, capacity);
        prop_assert!(optimum <= bound(&trace, capacity, Measure::Millis));
        let reached = clairvoyant(&trace, capacity, Measure::Millis).saved_millis;
        prop_assert!(reached <= optimum);
        let chosen = replay(&trace, capacity, &mut Queues::default());
        prop_assert!(chosen.saved_millis <= optimum);
    }
}

/// The most that can be saved, by trying everything.
fn optimum(trace: &[Access], capacity: u64) -> u64 {
    let mut states: BTreeMap<BTreeSet<u64>, u64> = BTreeMap::from([(BTreeSet::new(), 0)]);
    let bytes: BTreeMap<u64, u64> = trace.iter().map(|a| (a.key, a.worth.bytes)).collect();
    for access in trace {
        let mut next = BTreeMap::new();
        for (there, saved) in states {
            let gain = match there.contains(&access.key) {
                true => access.worth.made_millis,
                false => 0,
            };
            let mut there = there;
            there.insert(access.key);
            let all: Vec<u64> = there.into_iter().collect();
            for chosen in 0..1_u32 << all.len() {
                let kept = all.iter().enumerate();
                let kept = kept.filter(|(at, _)| chosen & (1 << at) != 0);
                let kept: BTreeSet<u64> = kept.map(|(_, key)| *key).collect();
                if kept.iter().map(|key| bytes[key]).sum::<u64>() <= capacity {
                    let best: &mut u64 = next.entry(kept).or_default();
                    *best = (*best).max(saved + gain);
                }
            }
        }
        states = next;
    }
    states.into_values().max().unwrap_or(0)
}

#[test]
fn a_scan_does_not_push_out_what_is_read() {
    let equal = Worth {
        bytes: MB,
        made_millis: 100,
    };
    let mut trace = Vec::new();
    let mut access = |key| trace.push(Access { key, worth: equal });
    (0..90).for_each(&mut access);
    (0..90).for_each(&mut access);
    (1_000..2_000).for_each(&mut access);
    (0..90).for_each(&mut access);
    let chosen = replay(&trace, 100 * MB, &mut Queues::default());
    assert_eq!(chosen.hits, 180);
    let lru = replay(&trace, 100 * MB, &mut Lru::default());
    assert_eq!(lru.hits, 90);
}

#[test]
fn where_one_entry_fits_what_has_just_come_stays() {
    let mut queues = Queues::default();
    let worth = Worth {
        bytes: MB,
        made_millis: 100,
    };
    queues.put(&"old", worth);
    queues.read(&"old");
    queues.put(&"new", worth);
    assert_eq!(queues.evict(), Some("old"));
}

#[test]
fn what_saves_more_for_its_bytes_stays() {
    let mut queues = Queues::default();
    let worth = |bytes, made_millis| Worth { bytes, made_millis };
    queues.put(&"slow to make", worth(MB, 9_000));
    queues.put(&"large", worth(100 * MB, 9_000));
    queues.put(&"quick to make", worth(MB, 100));
    let order: Vec<_> = std::iter::from_fn(|| queues.evict()).collect();
    assert_eq!(order, ["large", "quick to make", "slow to make"]);
}

#[test]
fn what_comes_back_soon_is_past_its_probation() {
    let worth = Worth {
        bytes: MB,
        made_millis: 50,
    };
    let mut queues = Queues::default();
    queues.put(&0, worth);
    assert_eq!(queues.evict(), Some(0));
    queues.put(&0, worth);
    assert_eq!(
        queues.remove(&0).map(|(standing, _)| standing.is_proved),
        Some(true)
    );
}

#[test]
fn on_all_traces_it_saves_more_than_lru_and_no_more_than_the_bound() {
    for shape in Shape::ALL {
        let trace = trace(shape, 7, 20_000);
        for capacity in [4_000 * MB, 16_000 * MB] {
            let chosen = replay(&trace, capacity, &mut Queues::default()).saved_millis;
            let lru = replay(&trace, capacity, &mut Lru::default()).saved_millis;
            let fifo = replay(&trace, capacity, &mut S3Fifo::default()).saved_millis;
            let bound = bound(&trace, capacity, Measure::Millis);
            let name = shape.name();
            let (lru_at_least, fifo_at_least) = match shape {
                // What was not used for longest is what is never used again: nothing does better here.
                Shape::Projects => (lru - lru / 6, fifo - fifo / 10),
                _ => (lru + lru / 20, fifo),
            };
            assert!(lru_at_least <= chosen, "{name}: {chosen}, LRU {lru}");
            assert!(fifo_at_least <= chosen, "{name}: {chosen}, S3-FIFO {fifo}");
            assert!(chosen <= bound, "{name}: {chosen}, at most {bound}");
        }
    }
}

#[test]
fn what_may_be_alive_leaves_room_for_garbage_and_for_what_comes() {
    let targets = Targets::of(1_000_000_000, 62_000_000, 0);
    assert!(640_000_000 < targets.live && 600_000_000 < targets.evicted);
    assert!(targets.live / 4 * 5 <= targets.files);
    assert!(Targets::of(1_000_000_000, 62_000_000, 1).live < targets.evicted);
    let none = Targets::of(0, reserve(0, 100), 2);
    assert_eq!((none.live, none.evicted, none.files), (0, 0, 0));
    assert!(0 < Targets::of(u64::MAX, 0, 0).live);
}

#[test]
fn of_what_the_disk_has_an_eighth_stays_free() {
    assert_eq!(limit(300, 120, 20), 350);
    assert_eq!(limit(400, 20, 20), 350);
    assert_eq!(limit(0, 10, 20), 0);
    assert_eq!(limit(u64::MAX, u64::MAX, 7), (u64::MAX - 7) / 8 * 7);
}
