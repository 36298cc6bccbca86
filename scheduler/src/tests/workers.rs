//! Workers: how they come, drain, go and come back.

use crate::tests::check;

#[test]
fn a_worker_that_comes_back_goes_on_with_what_it_holds() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        5s   leave w1
        15s  join w1 holds 0
        30s  tick
        34s  renew w1 0
        40s  ok w1 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        15s joined w1: 0
        34s renewed for w1: 0
        40s b1.BUILD SUCCEEDED
        40s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_worker_that_comes_back_too_late_has_lost_what_it_holds() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        5s   leave w1
        20s  join w1 holds 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        20s b1.BUILD lost 0
        20s joined w1: none
        ",
    );
}

#[test]
fn a_worker_that_forgot_its_lease_has_its_slot_free_but_the_job_waits_for_the_fence() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        5s   join w1
        6s   submit b2 build
        19s  renew w1 1
        20s  tick
        21s  ok w1 1
        ",
        "
        0s run b1.BUILD on w1 under 0
        5s close the old session of w1
        6s run b2.BUILD on w1 under 1
        19s renewed for w1: 1
        20s b1.BUILD lost 0
        20s revoke 0 from w1: Lost
        21s b2.BUILD SUCCEEDED
        21s b2 SUCCEEDED
        21s run b1.BUILD (attempt 2) on w1 under 2
        ",
    );
}

#[test]
fn a_stop_is_said_again_to_a_worker_that_was_away() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        5s   leave w1
        6s   stop b1
        7s   join w1 holds 0
        8s   stopped w1 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        6s b1 stops
        7s joined w1: 0
        7s revoke 0 from w1: Stopped
        8s b1.BUILD STOPPED
        8s b1 STOPPED
        ",
    );
}

#[test]
fn a_draining_worker_ends_its_phase_and_the_next_runs_elsewhere() {
    check(
        "
        0s  join w1
        0s  submit b1 install,build
        1s  join w2
        2s  drain w1
        3s  drain w1
        4s  ok w1 0
        5s  leave w1
        6s  join w1
        7s  submit b2 build
        ",
        "
        0s run b1.INSTALL on w1 under 0
        2s w1 drains
        2s tell w1 to leave
        4s b1.INSTALL SUCCEEDED
        4s run b1.BUILD on w2 under 1
        5s w1 is drained
        7s run b2.BUILD on w1 under 2
        ",
    );
}

#[test]
fn a_draining_worker_drains_on_after_a_lost_connection() {
    check(
        "
        0s  join w1
        0s  submit b1 install,build
        1s  drain w1
        2s  leave w1
        3s  join w1 holds 0
        4s  ok w1 0
        5s  leave w1
        6s  join w1
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s w1 drains
        1s tell w1 to leave
        3s joined w1: 0
        3s tell w1 to leave
        4s b1.INSTALL SUCCEEDED
        5s w1 is drained
        6s run b1.BUILD on w1 under 1
        ",
    );
}

#[test]
fn nobody_can_drain_a_worker_that_is_not_known() {
    check("0s drain w1", "");
}

#[test]
fn a_unit_starts_again_when_its_only_worker_does_not_come_back() {
    check(
        "
        0s   join w1 host
        0s   join w2 host
        0s   submit b1 install,build
        1s   ok w1 0
        2s   leave w1
        20s  tick
        22s  tick
        30s  ok w2 2
        31s  ok w2 3
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        22s b1.BUILD lost 1
        22s b1 unit 0 starts again: WorkerLost w1
        22s run b1.INSTALL (attempt 2) on w2 under 2
        30s b1.INSTALL SUCCEEDED
        30s run b1.BUILD (attempt 2) on w2 under 3
        31s b1.BUILD SUCCEEDED
        31s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_unit_between_two_phases_waits_for_its_only_worker_and_then_starts_again() {
    check(
        "
        0s   join w1 host slots 2
        0s   submit b1 a:install,build b:build
        1s   join w1 host slots 1 holds 0 1
        1s   join w2 host
        2s   ok w1 0
        3s   why b1
        4s   leave w1
        5s   why b1
        21s  tick
        23s  why b1
        24s  tick
        ",
        "
        0s run b1.a.INSTALL on w1 under 0
        0s run b1.b.BUILD on w1 under 1
        1s close the old session of w1
        1s joined w1: 0 1
        2s b1.a.INSTALL SUCCEEDED
        3s BUILD: its worker w1 has no free slot
        5s BUILD: its worker w1 is gone; waits 19 s for it to come back, then starts again elsewhere
        21s b1.b.BUILD lost 1
        21s b1 unit 1 starts again: WorkerLost w1
        21s run b1.b.BUILD (attempt 2) on w2 under 2
        23s BUILD: its worker w1 is gone; waits 1 s for it to come back, then starts again elsewhere
        24s b1 unit 0 starts again: WorkerLost w1
        ",
    );
}

#[test]
fn a_unit_that_loses_its_only_worker_each_time_is_given_up() {
    check(
        "
        0s   join w1 host
        0s   submit b1 install,build,post_build
        1s   ok w1 0
        2s   fault w1 1
        3s   join w2 host
        4s   ok w1 2
        4s   fault w1 3
        5s   ok w2 4
        6s   fault w2 5
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        2s b1.BUILD faulted
        2s b1 unit 0 starts again: WorkerLost w1
        3s run b1.INSTALL (attempt 2) on w1 under 2
        4s b1.INSTALL SUCCEEDED
        4s run b1.BUILD (attempt 2) on w1 under 3
        4s b1.BUILD faulted
        4s b1 unit 0 starts again: WorkerLost w1
        4s run b1.INSTALL (attempt 3) on w2 under 4
        5s b1.INSTALL SUCCEEDED
        5s run b1.BUILD (attempt 3) on w2 under 5
        6s b1.BUILD faulted
        6s b1.BUILD given up: FAULT
        6s b1.POST_BUILD skipped for b1.BUILD
        6s b1 FAULT
        ",
    );
}

#[test]
fn a_failed_phase_never_runs_again_even_if_its_worker_is_lost() {
    check(
        "
        0s  join w1 host
        0s  join w2 host
        0s  submit b1 build,post_build
        1s  fail w1 0
        2s  fault w1 1
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD FAILED
        1s run b1.POST_BUILD on w1 under 1
        2s b1.POST_BUILD faulted
        2s b1.POST_BUILD given up: FAULT
        2s b1 FAULT
        ",
    );
}

#[test]
fn draining_a_units_only_worker_starts_it_again_and_does_not_count_as_a_try() {
    check(
        "
        0s  join w1 host
        0s  join w2 host
        0s  join w3 host
        0s  join w4 host
        0s  submit b1 install,build
        1s  drain w1
        2s  ok w1 0
        3s  drain w2
        4s  ok w2 1
        5s  drain w3
        6s  ok w3 2
        7s  ok w4 3
        8s  ok w4 4
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s w1 drains
        1s tell w1 to leave
        2s b1.INSTALL SUCCEEDED
        2s b1 unit 0 starts again: WorkerLeaves w1
        2s run b1.INSTALL (attempt 2) on w2 under 1
        3s w2 drains
        3s tell w2 to leave
        4s b1.INSTALL SUCCEEDED
        4s b1 unit 0 starts again: WorkerLeaves w2
        4s run b1.INSTALL (attempt 3) on w3 under 2
        5s w3 drains
        5s tell w3 to leave
        6s b1.INSTALL SUCCEEDED
        6s b1 unit 0 starts again: WorkerLeaves w3
        6s run b1.INSTALL (attempt 4) on w4 under 3
        7s b1.INSTALL SUCCEEDED
        7s run b1.BUILD on w4 under 4
        8s b1.BUILD SUCCEEDED
        8s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_second_worker_of_a_name_takes_the_place_of_the_first() {
    check(
        "
        0s  join w1
        1s  join w1 slots 2
        2s  submit b1 a:build b:build
        ",
        "
        1s close the old session of w1
        2s run b1.a.BUILD on w1 under 0
        2s run b1.b.BUILD on w1 under 1
        ",
    );
}

#[test]
fn a_restarted_coordinator_gives_live_leases_a_full_time_and_decides_nothing_twice() {
    check(
        "
        0s   join w1
        0s   join w2
        0s   submit b1 a:install,build b:install,build
        10s  ok w1 0
        15s  restart
        16s  join w1 holds 2
        17s  join w2
        34s  tick
        35s  renew w1 2
        36s  ok w1 2
        37s  ok w2 3
        ",
        "
        0s run b1.a.INSTALL on w1 under 0
        0s run b1.b.INSTALL on w2 under 1
        10s b1.a.INSTALL SUCCEEDED
        10s run b1.a.BUILD on w1 under 2
        16s joined w1: 2
        35s b1.b.INSTALL lost 1
        35s revoke 1 from w2: Lost
        35s renewed for w1: 2
        36s b1.a.BUILD SUCCEEDED
        36s run b1.b.INSTALL (attempt 2) on w2 under 3
        37s b1.b.INSTALL SUCCEEDED
        37s run b1.b.BUILD on w2 under 4
        ",
    );
}

#[test]
fn a_restarted_coordinator_says_again_that_a_build_stops_and_that_a_worker_drains() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   stop b1
        1s   drain w1
        2s   restart
        3s   join w1 holds 0
        4s   stopped w1 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1 stops
        1s revoke 0 from w1: Stopped
        1s w1 drains
        1s tell w1 to leave
        3s joined w1: 0
        3s revoke 0 from w1: Stopped
        3s tell w1 to leave
        4s b1.BUILD STOPPED
        4s b1 STOPPED
        ",
    );
}

#[test]
fn a_restarted_coordinator_gives_up_a_worker_that_does_not_come_back() {
    check(
        "
        0s   join w1 host
        0s   submit b1 a:build b:install,build>a
        1s   ok w1 0
        2s   ok w1 1
        3s   leave w1
        4s   restart
        5s   join w2 host
        24s  tick
        ",
        "
        0s run b1.a.BUILD on w1 under 0
        1s b1.a.BUILD SUCCEEDED
        1s run b1.b.INSTALL on w1 under 1
        2s b1.b.INSTALL SUCCEEDED
        2s run b1.b.BUILD on w1 under 2
        24s b1.b.BUILD lost 2
        24s b1 unit 1 starts again: WorkerLost w1
        24s run b1.b.INSTALL (attempt 2) on w2 under 3
        ",
    );
}
