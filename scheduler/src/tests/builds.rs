//! Builds: what runs after what, what is skipped, how builds end.

use std::time::Duration;

use protocol::{access::SignedGrant, project::BatchConfig};

use crate::{
    Event, assignment,
    tests::{
        check,
        sample::submission,
        script::{Farm, farm, moment},
    },
};

#[test]
fn phases_run_one_after_another_and_the_build_ends_with_the_last() {
    check(
        "
        0s  submit b1 download,install,pre_build,build,post_build,upload
        1s  join w1 slots 4
        2s  ok w1 0
        3s  ok w1 1
        4s  ok w1 2
        5s  ok w1 3
        6s  ok w1 4
        7s  ok w1 5
        ",
        "
        1s run b1.DOWNLOAD_SOURCE on w1 under 0
        2s b1.DOWNLOAD_SOURCE SUCCEEDED
        2s run b1.INSTALL on w1 under 1
        3s b1.INSTALL SUCCEEDED
        3s run b1.PRE_BUILD on w1 under 2
        4s b1.PRE_BUILD SUCCEEDED
        4s run b1.BUILD on w1 under 3
        5s b1.BUILD SUCCEEDED
        5s run b1.POST_BUILD on w1 under 4
        6s b1.POST_BUILD SUCCEEDED
        6s run b1.UPLOAD_ARTIFACTS on w1 under 5
        7s b1.UPLOAD_ARTIFACTS SUCCEEDED
        7s b1 SUCCEEDED
        ",
    );
}

#[test]
fn post_build_runs_after_a_failed_build_and_the_build_has_failed() {
    check(
        "
        0s  join w1
        0s  submit b1 build,post_build,upload
        1s  fail w1 0
        2s  ok w1 1
        3s  ok w1 2
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD FAILED
        1s run b1.POST_BUILD on w1 under 1
        2s b1.POST_BUILD SUCCEEDED
        2s run b1.UPLOAD_ARTIFACTS on w1 under 2
        3s b1.UPLOAD_ARTIFACTS SUCCEEDED
        3s b1 FAILED
        ",
    );
}

#[test]
fn nothing_runs_after_a_failed_install() {
    check(
        "
        0s  join w1
        0s  submit b1 download,install,pre_build,build,post_build,upload
        1s  ok w1 0
        2s  fail w1 1
        ",
        "
        0s run b1.DOWNLOAD_SOURCE on w1 under 0
        1s b1.DOWNLOAD_SOURCE SUCCEEDED
        1s run b1.INSTALL on w1 under 1
        2s b1.INSTALL FAILED
        2s b1.PRE_BUILD skipped for b1.INSTALL
        2s b1.BUILD skipped for b1.PRE_BUILD
        2s b1.POST_BUILD skipped for b1.BUILD
        2s b1.UPLOAD_ARTIFACTS skipped for b1.POST_BUILD
        2s b1 FAILED
        ",
    );
}

#[test]
fn a_unit_waits_for_all_phases_of_those_it_depends_on() {
    check(
        "
        0s  join w1 slots 9
        0s  submit b1 a:build,post_build b:build c:build>a+b
        1s  ok w1 0
        2s  ok w1 1
        3s  ok w1 2
        4s  ok w1 3
        ",
        "
        0s run b1.a.BUILD on w1 under 0
        0s run b1.b.BUILD on w1 under 1
        1s b1.a.BUILD SUCCEEDED
        1s run b1.a.POST_BUILD on w1 under 2
        2s b1.b.BUILD SUCCEEDED
        3s b1.a.POST_BUILD SUCCEEDED
        3s run b1.c.BUILD on w1 under 3
        4s b1.c.BUILD SUCCEEDED
        4s b1 SUCCEEDED
        ",
    );
}

#[test]
fn what_depends_on_a_failed_unit_is_skipped_and_so_is_what_depends_on_that() {
    check(
        "
        0s  join w1 slots 9
        0s  submit b1 a:build b:build>a c:build>b d:build
        1s  fail w1 0
        2s  ok w1 1
        ",
        "
        0s run b1.a.BUILD on w1 under 0
        0s run b1.d.BUILD on w1 under 1
        1s b1.a.BUILD FAILED
        1s b1.b.BUILD skipped for b1.a.BUILD
        1s b1.c.BUILD skipped for b1.b.BUILD
        2s b1.d.BUILD SUCCEEDED
        2s b1 FAILED
        ",
    );
}

#[test]
fn a_unit_whose_failure_is_ignored_fails_alone() {
    check(
        "
        0s  join w1 slots 9
        0s  submit b1 a!:install,build b:build>a
        1s  fail w1 0
        2s  ok w1 1
        ",
        "
        0s run b1.a.INSTALL on w1 under 0
        1s b1.a.INSTALL FAILED
        1s b1.a.BUILD skipped for b1.a.INSTALL
        1s run b1.b.BUILD on w1 under 1
        2s b1.b.BUILD SUCCEEDED
        2s b1 SUCCEEDED
        ",
    );
}

#[test]
fn the_first_failed_unit_of_a_fast_fail_batch_stops_the_others() {
    check(
        "
        0s  join w1 slots 2
        0s  submit b1 fast-fail a:build,post_build b:build,post_build c:build
        1s  fail w1 0
        2s  ok w1 2
        3s  stopped w1 1
        ",
        "
        0s run b1.a.BUILD on w1 under 0
        0s run b1.b.BUILD on w1 under 1
        1s b1.a.BUILD FAILED
        1s run b1.a.POST_BUILD on w1 under 2
        2s b1.a.POST_BUILD SUCCEEDED
        2s b1 stops: fast-fail
        2s b1.b.POST_BUILD given up: STOPPED
        2s b1.c.BUILD given up: STOPPED
        2s revoke 1 from w1: Stopped
        3s b1.b.BUILD STOPPED
        3s b1 FAILED
        ",
    );
}

#[test]
fn an_ignored_failure_does_not_stop_a_fast_fail_batch() {
    check(
        "
        0s  join w1 slots 2
        0s  submit b1 fast-fail a!:build b:build
        1s  fail w1 0
        2s  ok w1 1
        ",
        "
        0s run b1.a.BUILD on w1 under 0
        0s run b1.b.BUILD on w1 under 1
        1s b1.a.BUILD FAILED
        2s b1.b.BUILD SUCCEEDED
        2s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_retry_is_a_new_build_with_the_next_number() {
    check(
        "
        0s  join w1
        0s  submit b1 build
        1s  fail w1 0
        2s  retry b1 b2
        3s  ok w1 1
        4s  retry b9 b3
        5s  delete b1
        6s  delete b1
        ",
        "
        0s run b1.BUILD on w1 under 0
        1s b1.BUILD FAILED
        1s b1 FAILED
        2s run b2.BUILD on w1 under 1
        3s b2.BUILD SUCCEEDED
        3s b2 SUCCEEDED
        5s b1 deleted
        ",
    );
}

#[test]
fn a_build_that_has_not_ended_is_not_deleted() {
    check(
        "
        0s  join w1
        0s  submit b1 build
        1s  delete b1
        2s  ok w1 0
        ",
        "
        0s run b1.BUILD on w1 under 0
        2s b1.BUILD SUCCEEDED
        2s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_build_without_jobs_has_succeeded() {
    check(
        "0s submit b1",
        "
        0s b1 SUCCEEDED
        ",
    );
}

#[test]
fn a_build_of_which_nothing_ran_after_all_waits_in_the_queue_again() {
    check(
        "
        0s   join w1
        0s   submit b1 build
        1s   leave w1
        2s   join w1 leaving
        61m  tick
        479m tick
        480m tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        2s b1.BUILD returned 0: NotBegun
        2s dismiss w1
        480m b1 stops: over its limit
        480m b1.BUILD given up: TIMED_OUT
        480m b1 TIMED_OUT
        ",
    );
    // One of which something ran has started.
    check(
        "
        0s   join w1
        0s   submit b1 install,build
        1s   ok w1 0
        1s   leave w1
        2s   join w1 leaving
        59m  tick
        60m  tick
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        2s b1.BUILD returned 1: NotBegun
        2s dismiss w1
        60m b1 stops: over its limit
        60m b1.BUILD given up: TIMED_OUT
        60m b1 TIMED_OUT
        ",
    );
    // So has one that ran until its worker handed it over.
    check(
        "
        0s   join w1
        0s   submit b1 build
        10s  leaving w1
        10s  hand-over w1 0
        11s  join w2
        12s  leave w2
        13s  join w2 leaving
        59m  tick
        60m  tick
        ",
        "
        0s run b1.BUILD on w1 under 0
        10s b1.BUILD returned 0: HandedOver
        10s dismiss w1
        11s run b1.BUILD (attempt 2) on w2 under 1
        13s b1.BUILD returned 1: NotBegun
        13s dismiss w2
        60m b1 stops: over its limit
        60m b1.BUILD given up: TIMED_OUT
        60m b1 TIMED_OUT
        ",
    );
}

#[test]
fn a_batch_has_its_own_time_limit() {
    let ended = |batch: Option<BatchConfig>, minutes: u64| {
        let mut farm = farm("0s join w1");
        let mut submission = submission("b1", &["a:install,build"]);
        let build = submission.build;
        submission.terms.batch = batch;
        farm.apply(moment(Duration::ZERO), Event::Submit(Box::new(submission)));
        for line in ["1s ok w1 0", "1s leave w1", "2s join w1 leaving"] {
            farm.play(line);
        }
        farm.apply(moment(Duration::from_secs(60 * minutes)), Event::Tick);
        farm.scheduler.state().ledger.builds[&build].stop.is_some()
    };
    let of = |minutes| {
        Some(BatchConfig {
            minutes,
            ..BatchConfig::default()
        })
    };
    assert!(!ended(of(Some(10)), 9) && ended(of(Some(10)), 10));
    assert!(ended(None, 60), "a build has an hour");
    assert!(!ended(of(None), 479) && ended(of(None), 480));
    assert!(
        ended(of(Some(2_000)), 480),
        "the farm's owner allows no more"
    );
}

/// How long the attempt that is out may take still.
fn left(farm: &Farm, after: Duration) -> Duration {
    let lease = *farm.scheduler.state().ledger.leases.keys().next().unwrap();
    let now = moment(after).wall;
    let blank = SignedGrant {
        grant: Vec::new(),
        signature: Vec::new(),
    };
    let draft = assignment(farm.scheduler.state(), lease, now).unwrap();
    draft.signed(blank).time_left
}

#[test]
fn each_build_of_a_batch_has_the_limit_of_any_build() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut farm = farm("0s join w1");
    let mut submission = submission("b1", &["a:install,build"]);
    submission.terms.batch = Some(BatchConfig::default());
    farm.apply(moment(Duration::ZERO), Event::Submit(Box::new(submission)));
    assert_eq!(left(&farm, Duration::ZERO), minutes(60));
    farm.play("10s ok w1 0");
    let later = Duration::from_secs(10);
    assert_eq!(left(&farm, later), minutes(60) - later);
}

#[test]
fn no_build_of_a_batch_is_charged_for_the_fetching_of_the_sources() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut farm = farm("0s join w1");
    let mut submission = submission("b1", &["from=git", "download"]);
    submission.terms.batch = Some(BatchConfig::default());
    farm.apply(moment(Duration::ZERO), Event::Submit(Box::new(submission)));
    farm.play("15s fetched w1 0 a:download,build b:download,build");
    assert_eq!(left(&farm, Duration::from_secs(15)), minutes(60));
}
