//! Placement: which worker gets what.

use crate::tests::check;

#[test]
fn a_phase_goes_to_the_worker_that_ran_the_one_before() {
    check(
        "
        0s  join w1
        0s  join w2
        0s  submit b1 install,build
        0s  submit b2 install,build
        1s  ok w2 1
        2s  ok w1 0
        ",
        "
        0s run b1.INSTALL on w1 under 0
        0s run b2.INSTALL on w2 under 1
        1s b2.INSTALL SUCCEEDED
        1s run b2.BUILD on w2 under 2
        2s b1.INSTALL SUCCEEDED
        2s run b1.BUILD on w1 under 3
        ",
    );
}

#[test]
fn jobs_go_to_the_least_loaded_worker() {
    check(
        "
        0s  join w1 slots 4
        0s  join w2 slots 2
        0s  submit b1 a:build b:build c:build d:build
        ",
        "
        0s run b1.a.BUILD on w1 under 0
        0s run b1.b.BUILD on w2 under 1
        0s run b1.c.BUILD on w1 under 2
        0s run b1.d.BUILD on w1 under 3
        ",
    );
}

#[test]
fn what_has_begun_comes_before_what_has_not() {
    check(
        "
        0s  join w1
        0s  submit b1 install,build
        0s  submit b2 build
        1s  submit b3 build
        2s  ok w1 0
        3s  ok w1 1
        4s  ok w1 2
        ",
        "
        0s run b1.INSTALL on w1 under 0
        2s b1.INSTALL SUCCEEDED
        2s run b1.BUILD on w1 under 1
        3s b1.BUILD SUCCEEDED
        3s b1 SUCCEEDED
        3s run b2.BUILD on w1 under 2
        4s b2.BUILD SUCCEEDED
        4s b2 SUCCEEDED
        4s run b3.BUILD on w1 under 3
        ",
    );
}

#[test]
fn a_phase_waits_a_moment_for_the_worker_that_holds_its_layers() {
    check(
        "
        0s   join w1 slots 2
        0s   submit b1 a:install,build b:build
        1s   join w1 slots 1 holds 0 1
        1s   join w2
        2s   ok w1 0
        3s   why b1
        4s   tick
        ",
        "
        0s run b1.a.INSTALL on w1 under 0
        0s run b1.b.BUILD on w1 under 1
        1s close the old session of w1
        1s joined w1: 0 1
        2s b1.a.INSTALL SUCCEEDED
        3s BUILD: waits a moment for worker w1, which holds its layers
        4s run b1.a.BUILD on w2 under 2
        ",
    );
}

#[test]
fn a_unit_stays_on_the_base_that_it_started_on() {
    check(
        "
        0s  join w1 base x
        0s  submit b1 install,build
        1s  join w2 base y
        1s  join w3 base x
        2s  leaving w1
        3s  ok w1 0
        ",
        "
        0s run b1.INSTALL on w1 under 0
        3s b1.INSTALL SUCCEEDED
        3s run b1.BUILD on w3 under 1
        ",
    );
}

#[test]
fn a_unit_stays_on_a_worker_without_isolation() {
    check(
        "
        0s  join w1 host
        0s  submit b1 install,build
        1s  join w2 host
        2s  submit b2 build
        3s  ok w1 0
        ",
        "
        0s run b1.INSTALL on w1 under 0
        2s run b2.BUILD on w2 under 1
        3s b1.INSTALL SUCCEEDED
        3s run b1.BUILD on w1 under 2
        ",
    );
}

#[test]
fn a_worker_whose_phases_can_travel_comes_first() {
    check(
        "
        0s  join w1 host slots 2
        0s  join w2
        0s  submit b1 a:build b:build
        ",
        "
        0s run b1.a.BUILD on w2 under 0
        0s run b1.b.BUILD on w1 under 1
        ",
    );
}
