//! Projects, and builds whose sources are fetched.

use super::check;

#[test]
fn what_was_fetched_is_planned_and_starts_with_its_source_and_attempts_are_numbered_on() {
    check(
        "
        0s  join w1 slots 2
        0s  submit b1 from=git download
        1s  fetched w1 0 a:download b:download>a
        2s  ok w1 1
        5s  ok w1 2
        ",
        "
        0s run b1.DOWNLOAD_SOURCE on w1 under 0
        1s b1.a.DOWNLOAD_SOURCE fetched
        1s run b1.a.DOWNLOAD_SOURCE (attempt 2) on w1 under 1
        2s b1.a.DOWNLOAD_SOURCE SUCCEEDED
        2s run b1.b.DOWNLOAD_SOURCE on w1 under 2
        5s b1.b.DOWNLOAD_SOURCE SUCCEEDED
        5s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_fetch_that_gives_nothing_is_a_fault_and_one_of_a_build_that_stops_plans_nothing() {
    check(
        "
        0s  join w1
        0s  submit b1 from=git a:download b:build>a
        1s  bare w1 0
        20s tick
        21s stop b1
        22s fetched w1 1 download,build
        ",
        "
        0s run b1.a.DOWNLOAD_SOURCE on w1 under 0
        1s b1.a.DOWNLOAD_SOURCE faulted
        20s run b1.a.DOWNLOAD_SOURCE (attempt 2) on w1 under 1
        21s b1 stops
        21s b1.b.BUILD given up: STOPPED
        21s revoke 1 from w1: Stopped
        22s b1.a.DOWNLOAD_SOURCE SUCCEEDED
        22s b1 STOPPED
        ",
    );
}

#[test]
fn a_build_over_the_limit_of_its_project_is_not_taken_until_one_has_ended() {
    check(
        "
        0s  submit b1 build at-once=1
        0s  submit b2 build at-once=1
        0s  submit b3 build at-once=1 team=blue
        1s  stop b1
        1s  submit b4 build at-once=1
        1s  retry b4 b5
        2s  join w1 slots 4
        ",
        "
        1s b1 stops
        1s b1.BUILD given up: STOPPED
        1s b1 STOPPED
        2s run b3.BUILD on w1 under 0
        2s run b4.BUILD on w1 under 1
        ",
    );
}

#[test]
fn a_project_is_made_once_and_its_caches_are_made_invalid_also_without_it() {
    check(
        "
        0s  invalidate red shop
        0s  update red shop
        0s  save red shop
        0s  save red shop
        0s  save blue shop
        1s  update red shop
        1s  forget red shop
        1s  forget red shop
        2s  invalidate red shop
        ",
        "
        0s caches of shop invalid: 1
        0s project shop saved
        0s project shop saved
        1s project shop saved
        1s project shop deleted
        2s caches of shop invalid: 2
        ",
    );
}
