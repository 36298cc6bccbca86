//! Builds that are stopped, or take too long.

use crate::tests::check;

#[test]
fn a_build_that_is_stopped_in_the_queue_ends_at_once() {
    check(
        "
        0s  submit b1 install,build
        1s  stop b1
        2s  stop b1
        3s  join w1
        ",
        "
        1s b1 stops
        1s b1.INSTALL given up: STOPPED
        1s b1.BUILD given up: STOPPED
        1s b1 STOPPED
        ",
    );
}

#[test]
fn a_build_that_is_stopped_while_it_runs_ends_when_its_worker_has_let_go() {
    check(
        "
        0s  join w1
        0s  submit b1 install,build
        1s  stop b1
        2s  stopped w1 0
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1 stops
        1s b1.BUILD given up: STOPPED
        1s revoke 0 from w1: Stopped
        2s b1.INSTALL STOPPED
        2s b1 STOPPED
        ",
    );
}

#[test]
fn a_stopped_build_whose_last_phase_ends_all_the_same_has_succeeded() {
    check(
        "
        0s  join w1
        0s  submit b1 build
        1s  stop b1
        2s  ok w1 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1 stops
        1s revoke 0 from w1: Stopped
        2s b1.BUILD SUCCEEDED
        2s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_fault_in_a_stopped_build_is_not_tried_again() {
    check(
        "
        0s  join w1
        0s  submit b1 build
        1s  stop b1
        2s  fault w1 0
        9s  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1 stops
        1s revoke 0 from w1: Stopped
        2s b1.BUILD faulted
        2s b1.BUILD given up: STOPPED
        2s b1 STOPPED
        ",
    );
}

#[test]
fn a_stopped_build_ends_with_its_lease_if_the_worker_does_not_answer() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   stop b1
        20s  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1 stops
        1s revoke 0 from w1: Stopped
        20s b1.BUILD lost 0
        20s b1.BUILD given up: STOPPED
        20s b1 STOPPED
        20s revoke 0 from w1: Lost
        ",
    );
}

#[test]
fn a_worker_that_does_not_obey_loses_the_lease() {
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
        61s  renew w1 0
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
        61s renewed for w1: none
        61s ignored: late
        80s b1.BUILD lost 0
        80s b1.BUILD given up: STOPPED
        80s b1 STOPPED
        80s revoke 0 from w1: Lost
        ",
    );
}

#[test]
fn a_build_is_over_its_limit_an_hour_after_its_first_phase_started() {
    check(
        "
        0m      submit b1 install,build
        300m    join w1
        300m    ok w1 0
        359m    tick
        21541s  tick
        21555s  renew w1 2
        21570s  renew w1 2
        21585s  renew w1 2
        21599s  tick
        360m    tick
        21604s  stopped w1 2
        ",
        "
        300m run b1.INSTALL on w1 under 0
        300m b1.INSTALL SUCCEEDED
        300m run b1.BUILD on w1 under 1
        359m b1.BUILD lost 1
        359m revoke 1 from w1: Lost
        21541s run b1.BUILD (attempt 2) on w1 under 2
        21555s renewed for w1: 2
        21570s renewed for w1: 2
        21585s renewed for w1: 2
        360m b1 stops: over its limit
        360m revoke 2 from w1: TimedOut
        21604s b1.BUILD TIMED_OUT
        21604s b1 TIMED_OUT
        ",
    );
}

#[test]
fn a_build_that_no_worker_takes_is_over_its_limit_after_eight_hours() {
    check(
        "
        0m    submit b1 install,build
        479m  tick
        480m  tick
        ",
        "
        480m b1 stops: over its limit
        480m b1.INSTALL given up: TIMED_OUT
        480m b1.BUILD given up: TIMED_OUT
        480m b1 TIMED_OUT
        ",
    );
}

#[test]
fn a_worker_may_see_the_limit_first() {
    check(
        "
        0s  join w1
        0s  submit b1 install,build
        1s  timed-out w1 0
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL TIMED_OUT
        1s b1.BUILD skipped for b1.INSTALL
        1s b1 TIMED_OUT
        ",
    );
}
