//! Leaving: workers that drain, that hand over, and the units that they keep.

use crate::tests::check;

#[test]
fn what_another_process_of_a_worker_was_given_keeps_its_slot_until_the_fence() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        5s   join w1 anew
        6s   submit b2 build
        7s   why b2
        20s  tick
        21s  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        5s close the old session of w1
        7s BUILD: no worker with a free slot (1 connected, all busy)
        20s b1.BUILD lost 0
        20s revoke 0 from w1: Lost
        21s run b1.BUILD (attempt 2) on w1 under 1
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
        6s  join w1 anew
        7s  submit b2 build
        ",
        "
        0s run b1.INSTALL on w1 under 0
        2s w1 drains
        2s tell w1 to leave
        4s b1.INSTALL SUCCEEDED
        4s run b1.BUILD on w2 under 1
        4s dismiss w1
        6s w1 is drained
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
        6s  join w1 anew
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s w1 drains
        1s tell w1 to leave
        3s joined w1: 0
        3s tell w1 to leave
        4s b1.INSTALL SUCCEEDED
        4s dismiss w1
        6s w1 is drained
        6s run b1.BUILD on w1 under 1
        ",
    );
}

#[test]
fn nobody_can_drain_a_worker_that_is_not_known() {
    check("0s drain w1", "");
}

#[test]
fn a_draining_worker_ends_the_units_that_it_keeps_and_is_dismissed_then() {
    check(
        "
        0s  join w1 host
        0s  join w2 host
        0s  submit b1 install,build,post_build
        1s  ok w1 0
        2s  drain w1
        3s  fail w1 1
        4s  submit b2 build
        5s  ok w1 2
        6s  leave w1
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        2s w1 drains
        2s tell w1 to leave
        3s b1.BUILD FAILED
        3s run b1.POST_BUILD on w1 under 2
        4s run b2.BUILD on w2 under 3
        5s b1.POST_BUILD SUCCEEDED
        5s b1 FAILED
        5s dismiss w1
        ",
    );
}

#[test]
fn a_draining_workers_units_start_again_if_it_is_lost() {
    check(
        "
        0s   join w1 host
        0s   join w2 host
        0s   submit b1 install,build
        1s   drain w1
        2s   ok w1 0
        3s   leave w1
        22s  tick
        23s  tick
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s w1 drains
        1s tell w1 to leave
        2s b1.INSTALL SUCCEEDED
        2s run b1.BUILD on w1 under 1
        22s b1.BUILD lost 1
        22s b1 unit 0 starts again: WorkerLost w1
        22s run b1.INSTALL (attempt 2) on w2 under 2
        ",
    );
}

#[test]
fn what_a_worker_says_that_it_has_killed_runs_elsewhere_at_once() {
    check(
        "
        0s  join w1
        0s  submit b1 install,build
        1s  ok w1 0
        2s  hand-over w1 1
        2500ms join w2
        3s  ok w2 2
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        2s b1.BUILD lost 1
        2s revoke 1 from w1: Lost
        2500ms run b1.BUILD (attempt 2) on w2 under 2
        3s b1.BUILD SUCCEEDED
        3s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_worker_that_hands_over_gives_up_the_units_that_it_keeps() {
    check(
        "
        0s  join w1 host slots 2
        0s  join w2 host
        0s  submit b1 a:install,build b:install,build
        0s  submit b2 install,build
        1s  ok w1 0
        2s  leaving w1
        3s  hand-over w1 2 3
        4s  ok w2 1
        5s  ok w2 4
        6s  ok w2 5
        ",
        "
        0s run b1.a.INSTALL on w1 under 0
        0s run b1.b.INSTALL on w2 under 1
        0s run b2.INSTALL on w1 under 2
        1s b1.a.INSTALL SUCCEEDED
        1s run b1.a.BUILD on w1 under 3
        3s b2.INSTALL returned 2: HandedOver
        3s b1.a.BUILD returned 3: HandedOver
        3s b1 unit 0 starts again: WorkerLeaves w1
        3s b2 unit 0 starts again: WorkerLeaves w1
        3s dismiss w1
        4s b1.b.INSTALL SUCCEEDED
        4s run b1.b.BUILD on w2 under 4
        5s b1.b.BUILD SUCCEEDED
        5s run b1.a.INSTALL (attempt 2) on w2 under 5
        6s b1.a.INSTALL SUCCEEDED
        6s run b1.a.BUILD (attempt 2) on w2 under 6
        ",
    );
}

#[test]
fn nobody_can_hand_over_what_is_anothers() {
    check(
        "
        0s  join w1
        0s  submit b1 build
        1s  join w2
        2s  leaving w2
        3s  hand-over w2 0 7
        4s  declined w2 0
        5s  began w2 0
        6s  ok w1 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        2s dismiss w2
        3s acknowledge 7 to w2
        3s ignored: forged
        3s ignored: forged
        4s ignored: forged
        5s ignored: forged
        6s b1.BUILD SUCCEEDED
        6s b1 SUCCEEDED
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
        4s dismiss w1
        ",
    );
}

#[test]
fn a_worker_that_leaves_and_hands_its_jobs_over_has_no_try_counted() {
    check(
        "
        0s  join w1
        0s  submit b1 install,build
        1s  ok w1 0
        2s  leaving w1
        3s  hand-over w1 1
        4s  join w2
        5s  ok w2 2
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        3s b1.BUILD returned 1: HandedOver
        3s dismiss w1
        4s run b1.BUILD (attempt 2) on w2 under 2
        5s b1.BUILD SUCCEEDED
        5s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_worker_that_hands_over_gives_up_units_of_which_nothing_runs() {
    check(
        "
        0s   join w1 host slots 2
        0s   submit b1 a:install,build b:build
        1s   join w1 host slots 1 holds 0 1
        2s   ok w1 0
        3s   join w2 host
        4s   leaving w1
        5s   hand-over w1 1
        6s   ok w2 2
        ",
        "
        0s run b1.a.INSTALL on w1 under 0
        0s run b1.b.BUILD on w1 under 1
        1s close the old session of w1
        1s joined w1: 0 1
        2s b1.a.INSTALL SUCCEEDED
        5s b1.b.BUILD returned 1: HandedOver
        5s b1 unit 0 starts again: WorkerLeaves w1
        5s b1 unit 1 starts again: WorkerLeaves w1
        5s run b1.a.INSTALL (attempt 2) on w2 under 2
        5s dismiss w1
        6s b1.a.INSTALL SUCCEEDED
        6s run b1.a.BUILD on w2 under 3
        ",
    );
}

#[test]
fn a_worker_that_leaves_gets_nothing_new_when_it_comes_back() {
    check(
        "
        0s  join w1
        0s  submit b1 build
        1s  leave w1
        1s  submit b2 build
        2s  join w1 slots 2 leaving holds 0
        3s  ok w1 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        2s joined w1: 0
        3s b1.BUILD SUCCEEDED
        3s b1 SUCCEEDED
        3s dismiss w1
        ",
    );
}

#[test]
fn a_draining_worker_is_not_dismissed_between_two_phases_of_a_unit_that_it_keeps() {
    check(
        "
        0s  join w1 host
        0s  submit b1 install,build
        1s  ok w1 0
        2s  declined w1 1
        2s  declined w1 2
        2s  declined w1 3
        2500ms drain w1
        3s  tick
        4s  ok w1 4
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        2s b1.BUILD returned 1: NotBegun
        2s run b1.BUILD (attempt 2) on w1 under 2
        2s b1.BUILD returned 2: NotBegun
        2s run b1.BUILD (attempt 3) on w1 under 3
        2s b1.BUILD returned 3: NotBegun
        2500ms w1 drains
        2500ms tell w1 to leave
        3s run b1.BUILD (attempt 4) on w1 under 4
        4s b1.BUILD SUCCEEDED
        4s b1 SUCCEEDED
        4s dismiss w1
        ",
    );
}

#[test]
fn a_worker_that_is_away_when_it_is_told_to_leave_leaves_when_it_is_back() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   leave w1
        2s   drain w1
        20s  tick
        25s  join w1
        26s  restart
        27s  join w1
        28s  leave w1
        29s  join w1 anew
        ",
        "
        0s run b1.BUILD on w1 under 0
        2s w1 drains
        20s b1.BUILD lost 0
        25s tell w1 to leave
        25s dismiss w1
        27s tell w1 to leave
        27s dismiss w1
        29s w1 is drained
        29s run b1.BUILD (attempt 2) on w1 under 1
        ",
    );
}

#[test]
fn another_process_in_the_place_of_a_worker_that_was_to_leave_works() {
    check(
        "
        0s   join w1
        2s   submit b1 build
        3s   drain w1
        4s   leave w1
        22s  tick
        30s  join w1 anew
        ",
        "
        2s run b1.BUILD on w1 under 0
        3s w1 drains
        3s tell w1 to leave
        22s b1.BUILD lost 0
        30s w1 is drained
        30s run b1.BUILD (attempt 2) on w1 under 1
        ",
    );
}

#[test]
fn that_a_worker_drains_that_never_comes_back_is_forgotten_in_the_end() {
    check(
        "
        0s    join w1
        1s    drain w1
        2s    join w1
        3s    restart
        30s   tick
        1439m tick
        1441m tick
        ",
        "
        1s w1 drains
        1s tell w1 to leave
        1s dismiss w1
        2s close the old session of w1
        2s tell w1 to leave
        2s dismiss w1
        1441m w1 is drained
        ",
    );
}

#[test]
fn a_worker_that_never_heard_that_it_is_to_leave_leaves_when_it_is_back() {
    // Its link was down when it was told, and nobody knew yet.
    check(
        "
        0s   join w1
        1s   drain w1
        13s  leave w1
        14s  join w1
        15s  submit b1 build
        16s  join w1 anew
        ",
        "
        1s w1 drains
        1s tell w1 to leave
        1s dismiss w1
        14s tell w1 to leave
        14s dismiss w1
        16s w1 is drained
        16s close the old session of w1
        16s run b1.BUILD on w1 under 0
        ",
    );
}

#[test]
fn a_worker_that_is_away_with_nothing_on_its_hands_can_be_told_to_leave() {
    check(
        "
        0s     join w1
        1s     leave w1
        2s     drain w1
        3s     join w1
        4s     submit b1 build
        5s     leave w1
        1445m  tick
        1446m  drain w1
        1447m  join w1
        1447m  submit b2 build
        ",
        "
        2s w1 drains
        3s tell w1 to leave
        3s dismiss w1
        1445m w1 is drained
        1445m b1 stops: over its limit
        1445m b1.BUILD given up: TIMED_OUT
        1445m b1 TIMED_OUT
        1447m run b2.BUILD on w1 under 0
        ",
    );
}

#[test]
fn of_a_worker_whose_process_is_not_known_one_that_was_here_before_leaves() {
    check(
        "
        0s   join w1 host
        0s   submit b1 install,build
        1s   ok w1 0
        2s   declined w1 1
        2s   declined w1 2
        2s   declined w1 3
        3s   restart
        4s   drain w1
        30s  join w1 host connection 2
        40s  join w1 host anew connection 1
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        2s b1.BUILD returned 1: NotBegun
        2s run b1.BUILD (attempt 2) on w1 under 2
        2s b1.BUILD returned 2: NotBegun
        2s run b1.BUILD (attempt 3) on w1 under 3
        2s b1.BUILD returned 3: NotBegun
        4s w1 drains
        30s b1 unit 0 starts again: WorkerLost w1
        30s tell w1 to leave
        30s dismiss w1
        40s w1 is drained
        40s close the old session of w1
        40s run b1.INSTALL (attempt 2) on w1 under 4
        ",
    );
}
