//! Conduct: who is put aside, and for how long it is remembered.

use crate::tests::{check, script::Farm};

#[test]
fn what_never_came_to_a_worker_is_given_again_at_once_and_is_no_try() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   leave w1
        2s   join w1
        3s   leave w1
        4s   join w1
        5s   fault w1 2
        6s   tick
        7s   ok w1 3
        ",
        "
        0s run b1.BUILD on w1 under 0
        2s b1.BUILD returned 0: NotBegun
        2s run b1.BUILD (attempt 2) on w1 under 1
        4s b1.BUILD returned 1: NotBegun
        4s run b1.BUILD (attempt 3) on w1 under 2
        5s b1.BUILD faulted
        6s run b1.BUILD (attempt 4) on w1 under 3
        7s b1.BUILD SUCCEEDED
        7s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_worker_that_declines_each_time_is_put_aside() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   declined w1 0
        2s   declined w1 1
        3s   declined w1 2
        3s   why b1
        4s   tick
        5s   declined w1 3
        6s   why b1
        7s   tick
        8s   ok w1 4
        9s   submit b2 build
        10s  declined w1 5
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD returned 0: NotBegun
        1s run b1.BUILD (attempt 2) on w1 under 1
        2s b1.BUILD returned 1: NotBegun
        2s run b1.BUILD (attempt 3) on w1 under 2
        3s b1.BUILD returned 2: NotBegun
        3s BUILD: no worker with a free slot (1 connected, 1 put aside after faults)
        4s run b1.BUILD (attempt 4) on w1 under 3
        5s b1.BUILD returned 3: NotBegun
        6s BUILD: no worker with a free slot (1 connected, 1 put aside after faults)
        7s run b1.BUILD (attempt 5) on w1 under 4
        8s b1.BUILD SUCCEEDED
        8s b1 SUCCEEDED
        9s run b2.BUILD on w1 under 5
        10s b2.BUILD returned 5: NotBegun
        10s run b2.BUILD (attempt 2) on w1 under 6
        ",
    );
}

#[test]
fn a_worker_that_has_more_slots_than_it_fills_is_put_aside() {
    check(
        "
        0s   join liar slots 1000
        0s   submit b1 a:build b:build c:build
        0s   declined liar 0
        0s   declined liar 1
        0s   declined liar 2
        500ms join w1
        ",
        "
        0s run b1.a.BUILD on liar under 0
        0s run b1.b.BUILD on liar under 1
        0s run b1.c.BUILD on liar under 2
        0s b1.a.BUILD returned 0: NotBegun
        0s run b1.a.BUILD (attempt 2) on liar under 3
        0s b1.b.BUILD returned 1: NotBegun
        0s run b1.b.BUILD (attempt 2) on liar under 4
        0s b1.c.BUILD returned 2: NotBegun
        500ms run b1.c.BUILD (attempt 2) on w1 under 5
        ",
    );
}

#[test]
fn a_worker_that_comes_and_goes_does_not_attract_jobs() {
    check(
        "
        0s   join w1
        1s   leave w1
        2s   join w1
        3s   leave w1
        4s   join w1
        5s   leave w1
        5s   submit b1 build
        5500ms join w1
        5600ms why b1
        5700ms leave w1
        6s   join w1
        7s   why b1
        8s   tick
        ",
        "
        5600ms BUILD: no worker with a free slot (1 connected, 1 put aside after faults)
        7s BUILD: no worker with a free slot (1 connected, 1 put aside after faults)
        8s run b1.BUILD on w1 under 0
        ",
    );
}

#[test]
fn faults_of_a_worker_are_remembered_while_it_is_away() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   fault w1 0
        1s   leave w1
        3s   join w1
        4s   fault w1 1
        4s   leave w1
        6s   tick
        10s  join w1
        11s  fault w1 2
        11s  submit b2 build
        14s  tick
        15s  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD faulted
        3s run b1.BUILD (attempt 2) on w1 under 1
        4s b1.BUILD faulted
        10s run b1.BUILD (attempt 3) on w1 under 2
        11s b1.BUILD faulted
        11s b1.BUILD given up: FAULT
        11s b1 FAULT
        15s run b2.BUILD on w1 under 3
        ",
    );
}

#[test]
fn faults_of_a_worker_that_stays_away_are_forgotten() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   fault w1 0
        1s   leave w1
        2s   tick
        302s tick
        303s join w1
        304s fault w1 1
        305s tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD faulted
        303s run b1.BUILD (attempt 2) on w1 under 1
        304s b1.BUILD faulted
        305s run b1.BUILD (attempt 3) on w1 under 2
        ",
    );
}

#[test]
fn a_worker_that_takes_what_it_never_begins_loses_it_and_is_put_aside() {
    let renewals = (1..=15).map(|count| format!("{}s renew liar 0 1 2\n", 5 * count));
    let renewals: String = renewals.collect();
    let mut farm = Farm::default();
    let script = format!(
        "0s join liar slots 1000
        0s submit b1 a:build b:build c:build
        1s heard 1
        {renewals}75500ms join w1 slots 3"
    );
    for line in script.lines() {
        farm.play(line.trim());
    }
    let seen = farm.transcript.join("\n");
    // It is renewed for as long as it may take to begin, and then no more; what was heard of goes on.
    assert!(seen.contains("55s renewed for liar: 0 1 2\n"), "{seen}");
    assert!(seen.contains("60s renewed for liar: 1\n"), "{seen}");
    for lost in ["a.BUILD lost 0", "c.BUILD lost 2"] {
        assert!(seen.contains(&format!("75s b1.{lost}")), "{seen}");
    }
    assert!(!seen.contains("lost 1"), "{seen}");
    // It was put aside before the other one came, which gets what it gave up.
    for elsewhere in ["a.BUILD (attempt 2) on w1", "c.BUILD (attempt 2) on w1"] {
        assert!(seen.contains(elsewhere), "{seen}");
    }
}

#[test]
fn whoever_faults_while_it_is_put_aside_stays_so_for_long_enough_that_another_gets_the_job() {
    check(
        "
        0s      join w1 slots 2
        0s      submit b1 build
        0s      submit b2 build
        1s      fault w1 0
        1900ms  fault w1 1
        2s      tick
        2800ms  tick
        2900ms  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        0s run b2.BUILD on w1 under 1
        1s b1.BUILD faulted
        1900ms b2.BUILD faulted
        2900ms run b1.BUILD (attempt 2) on w1 under 2
        2900ms run b2.BUILD (attempt 2) on w1 under 3
        ",
    );
}

#[test]
fn what_is_heard_late_is_renewed_again_as_long_as_its_lease_is_out() {
    let renewals = (1..=12).map(|count| format!("{}s renew w1 0\n", 5 * count));
    let renewals: String = renewals.collect();
    let mut farm = Farm::default();
    let script = format!(
        "0s join w1
        0s submit b1 build
        {renewals}61s heard 0
        65s renew w1 0
        84s tick
        85s tick"
    );
    for line in script.lines() {
        farm.play(line.trim());
    }
    let seen = farm.transcript.join("\n");
    assert!(!seen.contains("60s renewed for w1: 0"), "{seen}");
    assert!(seen.contains("65s renewed for w1: 0"), "{seen}");
    assert!(seen.contains("85s b1.BUILD lost 0"), "{seen}");
    assert!(!seen.contains("84s b1.BUILD lost 0"), "{seen}");
}
