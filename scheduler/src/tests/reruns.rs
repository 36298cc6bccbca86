//! Phases that must not run twice.

use std::time::Duration;

use protocol::build::BuildId;

use crate::{
    build_detail,
    tests::{
        check,
        script::{Farm, moment},
    },
};

#[test]
fn a_phase_that_publishes_does_not_run_again_once_it_has_begun() {
    check(
        "
        0s   join w1
        0s   join w2
        0s   submit b1 build,post_build,upload
        1s   ok w1 0
        2s   began w1 1
        3s   began w1 1
        21s  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD SUCCEEDED
        1s run b1.POST_BUILD on w1 under 1
        2s b1.POST_BUILD began
        2s go ahead 1 on w1
        3s go ahead 1 on w1
        3s ignored: duplicate
        21s b1.POST_BUILD lost 1
        21s b1.POST_BUILD given up: FAULT
        21s b1.UPLOAD_ARTIFACTS skipped for b1.POST_BUILD
        21s b1 FAULT
        21s revoke 1 from w1: Lost
        ",
    );
}

#[test]
fn a_phase_that_publishes_runs_again_if_it_has_not_begun_or_may() {
    check(
        "
        0s   join w1
        0s   submit b1 build,post_build
        1s   ok w1 0
        2s   fault w1 1
        3s   tick
        4s   ok w1 2
        5s   submit b2 rerun=post_build post_build
        6s   began w1 3
        7s   fault w1 3
        8s   tick
        9s   ok w1 4
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD SUCCEEDED
        1s run b1.POST_BUILD on w1 under 1
        2s b1.POST_BUILD faulted
        3s run b1.POST_BUILD (attempt 2) on w1 under 2
        4s b1.POST_BUILD SUCCEEDED
        4s b1 SUCCEEDED
        5s run b2.POST_BUILD on w1 under 3
        6s go ahead 3 on w1
        6s ignored: duplicate
        7s b2.POST_BUILD faulted
        8s run b2.POST_BUILD (attempt 2) on w1 under 4
        9s b2.POST_BUILD SUCCEEDED
        9s b2 SUCCEEDED
        ",
    );
}

#[test]
fn a_unit_whose_publishing_phase_has_begun_does_not_start_again_either() {
    check(
        "
        0s   join w1 host
        0s   join w2 host
        0s   submit b1 build,post_build
        1s   ok w1 0
        2s   began w1 1
        3s   leaving w1
        4s   hand-over w1 1
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD SUCCEEDED
        1s run b1.POST_BUILD on w1 under 1
        2s b1.POST_BUILD began
        2s go ahead 1 on w1
        4s b1.POST_BUILD returned 1: HandedOver
        4s b1.POST_BUILD given up: FAULT
        4s b1 FAULT
        4s dismiss w1
        ",
    );
}

#[test]
fn that_a_phase_has_begun_outlives_the_coordinator() {
    check(
        "
        0s   join w1
        0s   submit b1 post_build
        1s   began w1 0
        2s   restart
        3s   join w1 holds 0
        4s   began w1 0
        5s   fault w1 0
        ",
        "
        0s run b1.POST_BUILD on w1 under 0
        1s b1.POST_BUILD began
        1s go ahead 0 on w1
        3s joined w1: 0
        4s go ahead 0 on w1
        4s ignored: duplicate
        5s b1.POST_BUILD faulted
        5s b1.POST_BUILD given up: FAULT
        5s b1 FAULT
        ",
    );
}

#[test]
fn a_unit_does_not_start_again_for_what_comes_after_its_publishing_phase() {
    check(
        "
        0s   join w1 host
        0s   join w2 host
        0s   submit b1 post_build,upload
        1s   began w1 0
        2s   ok w1 0
        3s   fault w1 1
        ",
        "
        0s run b1.POST_BUILD on w1 under 0
        1s b1.POST_BUILD began
        1s go ahead 0 on w1
        2s b1.POST_BUILD SUCCEEDED
        2s run b1.UPLOAD_ARTIFACTS on w1 under 1
        3s b1.UPLOAD_ARTIFACTS faulted
        3s b1.UPLOAD_ARTIFACTS given up: FAULT
        3s b1 FAULT
        ",
    );
}

#[test]
fn a_unit_whose_state_the_cache_has_lost_starts_again_from_its_first_phase_anywhere() {
    check(
        "
        0s   join w1
        0s   join w2
        0s   submit b1 install,build,upload
        1s   ok w1 0
        2s   ok w1 1
        3s   state-lost w1 2
        4s   restart
        4s   join w2 holds 3
        5s   ok w2 3
        6s   ok w2 4
        7s   ok w2 5
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        2s b1.BUILD SUCCEEDED
        2s run b1.UPLOAD_ARTIFACTS on w1 under 2
        3s b1.UPLOAD_ARTIFACTS faulted
        3s b1 unit 0 starts again: StateLost w1
        3s run b1.INSTALL (attempt 2) on w2 under 3
        4s joined w2: 3
        5s b1.INSTALL SUCCEEDED
        5s run b1.BUILD (attempt 2) on w2 under 4
        6s b1.BUILD SUCCEEDED
        6s run b1.UPLOAD_ARTIFACTS (attempt 2) on w2 under 5
        7s b1.UPLOAD_ARTIFACTS SUCCEEDED
        7s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_unit_whose_state_is_lost_again_and_again_is_given_up() {
    check(
        "
        0s   join w1
        0s   submit b1 install,build
        1s   ok w1 0
        2s   state-lost w1 1
        3s   tick
        4s   ok w1 2
        5s   state-lost w1 3
        6s   tick
        7s   ok w1 4
        8s   state-lost w1 5
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        2s b1.BUILD faulted
        2s b1 unit 0 starts again: StateLost w1
        3s run b1.INSTALL (attempt 2) on w1 under 2
        4s b1.INSTALL SUCCEEDED
        4s run b1.BUILD (attempt 2) on w1 under 3
        5s b1.BUILD faulted
        5s b1 unit 0 starts again: StateLost w1
        6s run b1.INSTALL (attempt 3) on w1 under 4
        7s b1.INSTALL SUCCEEDED
        7s run b1.BUILD (attempt 3) on w1 under 5
        8s b1.BUILD faulted
        8s b1.BUILD given up: FAULT
        8s b1 FAULT
        ",
    );
}

#[test]
fn a_state_that_is_lost_behind_a_phase_that_published_or_failed_is_not_made_again() {
    check(
        "
        0s   join w1
        0s   submit b1 post_build,upload
        1s   began w1 0
        2s   ok w1 0
        3s   state-lost w1 1
        4s   submit b2 install,build,post_build
        5s   ok w1 2
        6s   fail w1 3
        7s   state-lost w1 4
        ",
        "
        0s run b1.POST_BUILD on w1 under 0
        1s b1.POST_BUILD began
        1s go ahead 0 on w1
        2s b1.POST_BUILD SUCCEEDED
        2s run b1.UPLOAD_ARTIFACTS on w1 under 1
        3s b1.UPLOAD_ARTIFACTS faulted
        3s b1.UPLOAD_ARTIFACTS given up: FAULT
        3s b1 FAULT
        4s run b2.INSTALL on w1 under 2
        5s b2.INSTALL SUCCEEDED
        5s run b2.BUILD on w1 under 3
        6s b2.BUILD FAILED
        6s run b2.POST_BUILD on w1 under 4
        7s b2.POST_BUILD faulted
        7s b2.POST_BUILD given up: FAULT
        7s b2 FAULT
        ",
    );
}

#[test]
fn a_source_that_is_lost_is_a_fault_like_any_other() {
    check(
        "
        0s   join w1
        0s   submit b1 install,build
        1s   state-lost w1 0
        2s   tick
        3s   ok w1 1
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL faulted
        2s run b1.INSTALL (attempt 2) on w1 under 1
        3s b1.INSTALL SUCCEEDED
        3s run b1.BUILD on w1 under 2
        ",
    );
}

#[test]
fn a_phase_that_does_not_run_again_says_why_and_what_to_do() {
    let mut farm = Farm::default();
    for line in [
        "0s join w1",
        "0s submit b1 post_build",
        "1s began w1 0",
        "21s tick",
    ] {
        farm.play(line);
    }
    let state = farm.scheduler.state();
    let detail = build_detail(state, BuildId(1), moment(Duration::from_secs(21))).unwrap();
    let context = detail.units[0].phases[0].context.clone().unwrap();
    assert_eq!(context.status_code, "WORKER_LOST");
    assert_eq!(
        context.message,
        "Worker w1 was lost. The first command of POST_BUILD had started, and what it published must not \
         be published twice, so the phase does not run again by itself. Look at what it did; `grange retry` \
         runs the whole build again, and `grange build --rerun post_build=always` says that the phase may \
         be repeated."
    );
}
