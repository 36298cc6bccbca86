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
