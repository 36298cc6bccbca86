//! Leaving: workers that are away when they are told, and those that come back.

use crate::tests::check;

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
