//! Workers: how they come, go and come back.

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
        20s ignored: late
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
        17s  join w2 anew
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

#[test]
fn what_was_said_over_an_earlier_connection_is_ignored() {
    check(
        "
        0s  join w1 connection 1 slots 2
        0s  submit b1 build
        1s  join w1 connection 3 slots 2 holds 0
        2s  submit b2 build
        3s  join w1 connection 2 slots 2 holds 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s close the old session of w1
        1s joined w1: 0
        2s run b2.BUILD on w1 under 1
        3s close the old session of w1
        3s ignored: out_of_order
        ",
    );
}

#[test]
fn what_was_given_over_a_later_connection_is_not_taken_back_for_what_an_earlier_one_says() {
    check(
        "
        0s  join w1 connection 1 slots 2
        0s  submit b1 build
        1s  join w1 connection 3 slots 2 holds 0
        2s  submit b2 build
        3s  leave w1
        4s  join w1 connection 2 slots 2 holds 0
        5s  join w1 connection 4 slots 2 holds 0 1
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s close the old session of w1
        1s joined w1: 0
        2s run b2.BUILD on w1 under 1
        4s joined w1: 0
        5s close the old session of w1
        5s joined w1: 0 1
        ",
    );
}

#[test]
fn what_a_process_was_given_of_which_nothing_runs_any_more_others_have_at_once() {
    check(
        "
        0s   join w1 slots 2
        0s   submit b1 build
        0s   submit b2 build
        1s   join w2
        2s   join w1 anew ended slots 2
        3s   tick
        4s   tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        0s run b2.BUILD on w1 under 1
        2s b1.BUILD lost 0
        2s b2.BUILD lost 1
        2s close the old session of w1
        2s revoke 0 from w1: Lost
        2s revoke 1 from w1: Lost
        2s run b1.BUILD (attempt 2) on w2 under 2
        3s run b2.BUILD (attempt 2) on w1 under 3
        ",
    );
}

#[test]
fn only_the_process_that_is_named_as_ended_loses_its_leases_and_never_the_one_that_speaks() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   join w1 anew
        2s   join w1 anew ended
        19s  tick
        20s  tick
        21s  tick
        22s  join w1 ended-itself holds 1
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s close the old session of w1
        2s close the old session of w1
        20s b1.BUILD lost 0
        20s revoke 0 from w1: Lost
        21s run b1.BUILD (attempt 2) on w1 under 1
        22s close the old session of w1
        22s joined w1: 1
        ",
    );
}
