//! Placement: which worker gets what.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    Config, RuntimesFound,
    tests::{
        check,
        script::{Farm, moment},
    },
};

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
fn a_unit_that_selects_runtimes_goes_where_they_are_and_others_pass() {
    check(
        "
        0s  join w1
        0s  join w2 offers python:3.12 offers java:17
        0s  submit b1 a:install b:install selects=python:3.x
        0s  submit b2 build
        1s  why b1
        2s  ok w2 0
        ",
        "
        0s run b1.a.INSTALL on w2 under 0
        0s run b2.BUILD on w1 under 1
        1s INSTALL: no worker with a free slot (2 connected, all busy)
        2s b1.a.INSTALL SUCCEEDED
        2s run b1.b.INSTALL on w2 under 2
        ",
    );
}

#[test]
fn a_unit_waits_for_who_offers_its_runtimes_and_is_away() {
    check(
        "
        0s  join w1
        0s  join w2 offers python:3.12
        0s  leave w2
        1s  submit b1 install selects=python:3.12
        2s  why b1
        3s  join w2 offers python:3.12
        ",
        "
        2s INSTALL: no connected worker will do: none offers runtimes
        3s run b1.INSTALL on w2 under 0
        ",
    );
}

#[test]
fn a_unit_goes_where_what_it_asks_of_its_machine_is_served_and_waits_for_that() {
    check(
        "
        0s  join w1 label compute-type:SMALL,MEDIUM
        0s  join w2 label compute-type:LARGE
        1s  submit b1 install asks=compute-type:LARGE
        1s  submit b2 install asks=compute-type:LARGE
        1s  submit b3 install asks=compute-type:MEDIUM
        2s  why b2
        3s  leave w2
        4s  why b2
        ",
        "
        1s run b1.INSTALL on w2 under 0
        1s run b3.INSTALL on w1 under 1
        2s INSTALL: no worker with a free slot (2 connected, all busy)
        4s INSTALL: no connected worker will do: No worker serves compute-type `LARGE`. There are: MEDIUM, SMALL.
        ",
    );
}

#[test]
fn what_selects_nothing_is_not_held_up_by_whatever_selects_what_nobody_offers() {
    let mut farm = Farm::default();
    farm.play("0s join w1");
    for build in 1..=70 {
        farm.play(&format!(
            "1s submit b{build} install selects=python:3.{build}"
        ));
    }
    farm.play("2s submit b99 install");
    farm.play("2s tick");
    let last = farm.transcript.last().unwrap();
    assert!(last.contains("run b99.INSTALL on w1"), "{last}");
}

#[test]
fn what_runtimes_a_worker_offers_is_known_while_it_is_away() {
    let wanted = |version: &str| BTreeMap::from([("python".to_owned(), version.to_owned())]);
    let mut farm = Farm::with(Config::default());
    farm.play("0s join w1");
    let found = |farm: &Farm, version| crate::runtimes(farm.scheduler.state(), &wanted(version));
    assert_eq!(found(&farm, "3.12"), RuntimesFound::NobodyOffersAny);
    farm.play("0s join w2 offers python:3.12");
    for line in ["1s tick", "2s leave w2"] {
        farm.play(line);
        assert_eq!(found(&farm, "3.12"), RuntimesFound::Offered);
        assert!(matches!(found(&farm, "3.13"), RuntimesFound::Mistake(_)));
    }
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
        3s dismiss w1
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

#[test]
fn a_worker_without_isolation_serves_its_own_team_only() {
    check(
        "
        0s  join w1 host team blue
        0s  submit b1 build
        1s  why b1
        2s  submit b2 team=blue install,build
        3s  join w2 host
        4s  why b2
        5s  ok w1 0
        ",
        "
        1s BUILD: no worker serves team red (1 connected that have isolation level host and serve another team)
        2s run b2.INSTALL on w1 under 0
        3s run b1.BUILD on w2 under 1
        4s BUILD: waits for INSTALL
        5s b2.INSTALL SUCCEEDED
        5s run b2.BUILD on w1 under 2
        ",
    );
}

#[test]
fn a_worker_whose_phases_can_travel_serves_all_teams() {
    check(
        "
        0s  join w1 team blue
        0s  submit b1 build
        ",
        "
        0s run b1.BUILD on w1 under 0
        ",
    );
}

#[test]
fn among_builds_of_a_team_the_more_urgent_one_comes_first_until_the_other_has_waited_longer() {
    check(
        "
        0s   submit b1 build
        1s   submit b2 priority=1 build
        2s   submit b3 priority=-1 build
        9m   submit b4 priority=2 build
        19m  submit b5 priority=2 build
        21m  submit b6 priority=2 build
        30m  join w1 slots 6
        ",
        "
        30m run b4.BUILD on w1 under 0
        30m run b2.BUILD on w1 under 1
        30m run b5.BUILD on w1 under 2
        30m run b1.BUILD on w1 under 3
        30m run b6.BUILD on w1 under 4
        30m run b3.BUILD on w1 under 5
        ",
    );
}

#[test]
fn what_has_begun_goes_on_before_what_is_urgent() {
    check(
        "
        0s  join w1
        0s  submit b1 install,build
        0s  submit b2 priority=10 build
        1s  ok w1 0
        2s  ok w1 1
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        2s b1.BUILD SUCCEEDED
        2s b1 SUCCEEDED
        2s run b2.BUILD on w1 under 2
        ",
    );
}

#[test]
fn the_team_that_has_least_of_the_farm_is_next() {
    check(
        "
        0s   join w1 slots 4
        0s   submit b1 a:build b:build c:build d:build e:build f:build
        1s   submit b2 team=blue a:build b:build c:build
        2s   ok w1 0
        3s   ok w1 1
        4s   ok w1 2
        5s   ok w1 4
        ",
        "
        0s run b1.a.BUILD on w1 under 0
        0s run b1.b.BUILD on w1 under 1
        0s run b1.c.BUILD on w1 under 2
        0s run b1.d.BUILD on w1 under 3
        2s b1.a.BUILD SUCCEEDED
        2s run b2.a.BUILD on w1 under 4
        3s b1.b.BUILD SUCCEEDED
        3s run b2.b.BUILD on w1 under 5
        4s b1.c.BUILD SUCCEEDED
        4s run b1.e.BUILD on w1 under 6
        5s b2.a.BUILD SUCCEEDED
        5s run b2.c.BUILD on w1 under 7
        ",
    );
}

#[test]
fn of_teams_that_have_the_same_the_one_that_has_used_less_time_is_next() {
    check(
        "
        0s    join w1
        0s    submit b1 a:build b:build c:build
        0s    submit b2 team=blue a:build b:build c:build d:build e:build
        15s  ok w1 0
        20s  ok w1 1
        31s  ok w1 2
        ",
        "
        0s run b1.a.BUILD on w1 under 0
        15s b1.a.BUILD SUCCEEDED
        15s run b2.a.BUILD on w1 under 1
        20s b2.a.BUILD SUCCEEDED
        20s run b2.b.BUILD on w1 under 2
        31s b2.b.BUILD SUCCEEDED
        31s run b1.b.BUILD on w1 under 3
        ",
    );
}

#[test]
fn a_team_that_comes_again_does_not_get_back_what_it_did_not_use() {
    check(
        "
        0s   join w1
        0s   submit b1 a:build b:build c:build d:build e:build f:build
        15s  ok w1 0
        30s  ok w1 1
        45s  ok w1 2
        45s  submit b2 team=blue a:build b:build c:build d:build
        50s  ok w1 3
        60s  ok w1 4
        64s  ok w1 5
        67s  ok w1 6
        ",
        "
        0s run b1.a.BUILD on w1 under 0
        15s b1.a.BUILD SUCCEEDED
        15s run b1.b.BUILD on w1 under 1
        30s b1.b.BUILD SUCCEEDED
        30s run b1.c.BUILD on w1 under 2
        45s b1.c.BUILD SUCCEEDED
        45s run b1.d.BUILD on w1 under 3
        50s b1.d.BUILD SUCCEEDED
        50s run b2.a.BUILD on w1 under 4
        60s b2.a.BUILD SUCCEEDED
        60s run b1.e.BUILD on w1 under 5
        64s b1.e.BUILD SUCCEEDED
        64s run b1.f.BUILD on w1 under 6
        67s b1.f.BUILD SUCCEEDED
        67s b1 SUCCEEDED
        67s run b2.b.BUILD on w1 under 7
        ",
    );
}

#[test]
fn a_team_of_twice_the_weight_gets_twice_the_slots() {
    let shares = BTreeMap::from([("blue".parse().unwrap(), 2)]);
    let mut farm = Farm::with(Config {
        shares: Arc::new(shares),
        ..Config::default()
    });
    for build in 0..12 {
        let team = ["red", "blue"][build % 2];
        farm.play(&format!("0s submit b{} team={team} build", build + 1));
    }
    farm.play("1s join w1 slots 6");
    farm.restart(moment(Duration::from_secs(2)));
    farm.play("2s join w1 slots 9 holds 0 1 2 3 4 5");
    let runs = |team: &str| {
        let state = farm.scheduler.state();
        let leases = state.ledger.leases.values();
        let of = leases.filter(|lease| {
            state.ledger.builds[&lease.job.build]
                .submission
                .team
                .as_str()
                == team
        });
        of.count()
    };
    // There are no more of blue than six.
    assert_eq!((runs("red"), runs("blue")), (3, 6));
}

#[test]
fn of_the_least_loaded_one_begins_a_unit_that_has_run_the_project() {
    check(
        "
        0s  join w2
        0s  submit b1 build
        1s  ok w2 0
        1s  join w1
        2s  submit b2 build
        2s  submit b3 build
        3s  ok w1 2
        3s  ok w2 1
        4s  submit b4 build
        ",
        "
        0s run b1.BUILD on w2 under 0
        1s b1.BUILD SUCCEEDED
        1s b1 SUCCEEDED
        2s run b2.BUILD on w2 under 1
        2s run b3.BUILD on w1 under 2
        3s b3.BUILD SUCCEEDED
        3s b3 SUCCEEDED
        3s b2.BUILD SUCCEEDED
        3s b2 SUCCEEDED
        4s run b4.BUILD on w2 under 3
        ",
    );
}
