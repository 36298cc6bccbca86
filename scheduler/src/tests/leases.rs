//! Leases: silence, lateness, duplicates, forgery, faults.

use std::time::Duration;

use crate::{
    Ignored,
    tests::{
        check,
        script::{Farm, moment},
    },
};

#[test]
fn a_silent_workers_job_runs_elsewhere() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   join w2
        10s  renew w1 0
        29s  tick
        30s  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        10s renewed for w1: 0
        30s b1.BUILD lost 0
        30s revoke 0 from w1: Lost
        30s run b1.BUILD (attempt 2) on w2 under 1
        ",
    );
}

#[test]
fn a_renewal_that_comes_when_the_lease_has_ended_does_not_revive_it() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        19s  renew w1 0
        39s  renew w1 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        19s renewed for w1: 0
        39s b1.BUILD lost 0
        39s revoke 0 from w1: Lost
        39s renewed for w1: none
        39s ignored: late
        ",
    );
}

#[test]
fn a_late_result_changes_nothing_and_is_acknowledged() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   join w2
        21s  ok w1 0
        22s  ok w2 1
        ",
        "
        0s run b1.BUILD on w1 under 0
        21s b1.BUILD lost 0
        21s revoke 0 from w1: Lost
        21s acknowledge 0 to w1
        21s run b1.BUILD (attempt 2) on w2 under 1
        21s ignored: late
        22s b1.BUILD SUCCEEDED
        22s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_result_that_comes_twice_counts_once() {
    check(
        "
        0s  join w1
        0s  submit b1 install,build
        1s  ok w1 0
        2s  ok w1 0
        3s  fail w1 0
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        2s acknowledge 0 to w1
        2s ignored: duplicate
        3s acknowledge 0 to w1
        3s ignored: duplicate
        ",
    );
}

#[test]
fn nobody_can_end_or_renew_the_lease_of_another() {
    check(
        "
        0s  join w1
        0s  submit b1 build
        1s  join w2
        2s  fail w2 0
        3s  renew w2 0
        4s  ok w2 99
        5s  ok nobody 0
        6s  ok w1 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        2s ignored: forged
        3s renewed for w2: none
        3s ignored: forged
        4s acknowledge 99 to w2
        4s ignored: forged
        5s ignored: late
        6s b1.BUILD SUCCEEDED
        6s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_failure_is_final_and_a_fault_is_tried_again() {
    check(
        "
        0s  join w1
        0s  join w2
        0s  submit b1 build
        1s  fault w1 0
        2s  fail w2 1
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD faulted
        1s run b1.BUILD (attempt 2) on w2 under 1
        2s b1.BUILD FAILED
        2s b1 FAILED
        ",
    );
}

#[test]
fn a_job_that_faults_each_time_is_given_up() {
    check(
        "
        0s  join w1 slots 3
        0s  submit b1 build,post_build
        1s  fault w1 0
        2s  tick
        3s  fault w1 1
        5s  tick
        6s  fault w1 2
        9m  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD faulted
        2s run b1.BUILD (attempt 2) on w1 under 1
        3s b1.BUILD faulted
        5s run b1.BUILD (attempt 3) on w1 under 2
        6s b1.BUILD faulted
        6s b1.BUILD given up: FAULT
        6s b1.POST_BUILD skipped for b1.BUILD
        6s b1 FAULT
        ",
    );
}

#[test]
fn a_worker_that_faults_does_not_attract_all_jobs() {
    check(
        "
        0s    join w1
        0s    submit b1 build
        0s    submit b2 build
        0s    submit b3 build
        100ms fault w1 0
        200ms tick
        900ms join w2
        1s    ok w2 1
        1100ms tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        100ms b1.BUILD faulted
        900ms run b1.BUILD (attempt 2) on w2 under 1
        1s b1.BUILD SUCCEEDED
        1s b1 SUCCEEDED
        1s run b2.BUILD on w2 under 2
        1100ms run b3.BUILD on w1 under 3
        ",
    );
}

#[test]
fn a_success_without_the_snapshot_that_the_next_phase_needs_is_a_fault() {
    check(
        "
        0s  join w1
        0s  submit b1 install,build
        1s  bare w1 0
        2s  ok w1 1
        3s  bare w1 2
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL faulted
        2s acknowledge 1 to w1
        2s run b1.INSTALL (attempt 2) on w1 under 1
        2s ignored: forged
        3s acknowledge 2 to w1
        3s ignored: forged
        ",
    );
}

#[test]
fn a_lease_that_is_not_renewed_any_more_is_not_by_coming_back_either() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   heard 0
        1s   stop b1
        15s  renew w1 0
        30s  renew w1 0
        45s  renew w1 0
        60s  renew w1 0
        62s  join w1 holds 0
        80s  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1 stops
        1s revoke 0 from w1: Stopped
        15s renewed for w1: 0
        30s renewed for w1: 0
        45s renewed for w1: 0
        60s renewed for w1: 0
        62s close the old session of w1
        62s joined w1: none
        80s b1.BUILD lost 0
        80s b1.BUILD given up: STOPPED
        80s b1 STOPPED
        80s revoke 0 from w1: Lost
        ",
    );
}

#[test]
fn a_renewal_that_comes_twice_or_after_a_later_one_changes_nothing() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        10s  renew w1 0
        14s  renew w1 0
        20s  again w1 0
        21s  before w1 0
        34s  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        10s renewed for w1: 0
        14s renewed for w1: 0
        20s ignored: duplicate
        21s ignored: out_of_order
        34s b1.BUILD lost 0
        34s revoke 0 from w1: Lost
        ",
    );
}

#[test]
fn a_worker_can_join_once_for_each_connection() {
    let mut farm = Farm::default();
    farm.play("0s join w1");
    let event = farm.event(&["join", "w1"]);
    let twice = |farm: &mut Farm| farm.apply(moment(Duration::ZERO), event.clone());
    assert_eq!(twice(&mut farm).ignored, []);
    assert_eq!(twice(&mut farm).ignored, [Ignored::Duplicate]);
}
