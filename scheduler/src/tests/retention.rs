//! Retention: what is deleted when there is too much, and whose.

use std::time::Duration;

use protocol::{build::BuildId, time::WallTime};

use crate::{
    Event, RetentionPolicy, overdue,
    tests::script::{EPOCH, Farm, farm, moment},
};

#[test]
fn builds_that_are_old_or_too_many_or_too_large_are_due_oldest_first() {
    let farm = farm(
        "
        0s   join w1
        0s   submit b1 build
        10s  ok w1 0
        10s  submit b2 build
        20s  ok w1 1
        20s  submit b3 build
        30s  ok w1 2
        30s  submit b4 build
        ",
    );
    let check = |now: u64, builds_max, bytes_max, expected: &[u128]| {
        let policy = RetentionPolicy {
            age: Duration::from_secs(100),
            builds_max,
            bytes_max,
            weight_max: u64::MAX,
        };
        let now: WallTime = EPOCH + Duration::from_secs(now);
        let due = overdue(farm.scheduler.state(), now, &policy);
        let due: Vec<u128> = due.iter().map(|build| build.0).collect();
        assert_eq!(due, expected);
    };
    check(31, 3, 30, &[]);
    check(31, 2, 30, &[1]);
    check(31, 3, 29, &[1]);
    check(31, 3, 15, &[1, 2]);
    check(31, 3, 5, &[1, 2]);
    check(31, 0, 30, &[1, 2, 3]);
    check(110, 3, 30, &[1]);
    check(999, 3, 30, &[1, 2, 3]);
}

#[test]
fn what_is_said_of_one_teams_builds_costs_no_other_team_its_own() {
    let mut farm = farm("0s join w1");
    let builds = [
        ("red", 10),
        ("blue", 10),
        ("red", 10),
        ("red", u64::MAX),
        ("blue", 10),
    ];
    for (lease, (team, bytes)) in (0..).zip(builds) {
        farm.play(&format!(
            "{lease}0s submit b{} build team={team}",
            lease + 1
        ));
        let words = format!("ok w1 {lease}");
        let mut event = farm.event(&words.split(' ').collect::<Vec<_>>());
        if let Event::Finished { result, .. } = &mut event {
            result.log_bytes = bytes;
        }
        farm.apply(moment(Duration::from_secs(10 * lease + 1)), event);
    }
    // Sums that anybody may have said are the same after a start.
    farm.check_ledger();
    let policy = RetentionPolicy {
        age: Duration::from_secs(1_000),
        builds_max: 10,
        bytes_max: 40,
        weight_max: u64::MAX,
    };
    let due = overdue(
        farm.scheduler.state(),
        EPOCH + Duration::from_secs(60),
        &policy,
    );
    let due: Vec<u128> = due.iter().map(|build| build.0).collect();
    assert_eq!(due, [1, 3], "the one who said it gives, but for the newest");
}

#[test]
fn one_number_that_is_too_large_costs_no_other_team_what_it_has() {
    let mut farm = farm("0s join w1");
    let mut lease = 0;
    let mut ends = |farm: &mut Farm, team: &str, bytes: u64| {
        farm.play(&format!(
            "{lease}0s submit b{} build team={team}",
            lease + 1
        ));
        let words = format!("ok w1 {lease}");
        let mut event = farm.event(&words.split(' ').collect::<Vec<_>>());
        if let Event::Finished { result, .. } = &mut event {
            result.log_bytes = bytes;
        }
        farm.apply(moment(Duration::from_secs(10 * lease + 1)), event);
        lease += 1;
    };
    let due = |farm: &Farm| {
        let policy = RetentionPolicy {
            age: Duration::from_secs(1_000),
            builds_max: 10,
            bytes_max: 100,
            weight_max: u64::MAX,
        };
        let now = EPOCH + Duration::from_secs(60);
        let due = overdue(farm.scheduler.state(), now, &policy);
        due.iter().map(|build| build.0).collect::<Vec<_>>()
    };
    for bytes in [30, 30, 30] {
        ends(&mut farm, "blue", bytes);
    }
    ends(&mut farm, "red", 1 << 40);
    assert_eq!(
        due(&farm),
        [] as [u128; 0],
        "the newest stays, and presses nobody"
    );
    ends(&mut farm, "red", 1);
    assert_eq!(due(&farm), [4], "whoever said it gives it up");
    // What is really there is shared: who has most gives.
    ends(&mut farm, "red", 60);
    ends(&mut farm, "red", 1);
    assert_eq!(due(&farm), [4, 5, 6]);
    farm.check_ledger();
}

#[test]
fn builds_that_have_ended_are_due_when_their_graphs_take_too_much_memory() {
    let mut farm = farm("0s join w1");
    for number in 1..=3 {
        farm.play(&format!("{number}0s submit b{number} build"));
        farm.play(&format!("{number}1s ok w1 {}", number - 1));
    }
    let state = farm.scheduler.state();
    let (_, weight) = crate::weight(state, BuildId(1)).unwrap();
    let due = |weight_max| {
        let policy = RetentionPolicy {
            age: Duration::from_secs(1_000),
            builds_max: 10,
            bytes_max: u64::MAX,
            weight_max,
        };
        overdue(state, EPOCH + Duration::from_secs(40), &policy).len()
    };
    assert_eq!(due(3 * weight), 0);
    assert_eq!(due(3 * weight - 1), 1);
    assert_eq!(due(0), 2, "the newest stays");
}
