//! The JSON of the whole state lasts as long as journals do, too.

use crate::{Ledger, tests::script::Farm};

/// A farm in which every kind of thing stands.
const SCRIPT: &[&str] = &[
    "0s join w1",
    "0s submit b5 build",
    "1s fail w1 0",
    "1s submit b1 priority=2 rerun=build install,build,post_build",
    "2s ok w1 1",
    "3s fault w1 2",
    "4s join w3 host team blue",
    "4s submit b3 team=blue install,post_build",
    "5s ok w3 4",
    "6s began w3 5",
    "7s join w2 host",
    "7s submit b2 fast-fail a:build b!:install,build>a",
    "8s declined w2 6",
    "9s declined w1 3",
    "10s drain w2",
    "11s stop b2",
    "12s submit b4 build",
];

fn ledger() -> Ledger {
    let mut farm = Farm::default();
    for line in SCRIPT {
        farm.play(line);
    }
    farm.scheduler.ledger().clone()
}

#[test]
fn the_json_of_the_state_never_changes() {
    let golden = include_str!("golden/state.json").trim();
    assert_eq!(serde_json::to_string(&ledger()).unwrap(), golden);
    assert_eq!(serde_json::from_str::<Ledger>(golden).unwrap(), ledger());
}

#[test]
fn states_of_older_programs_are_still_read() {
    let golden = include_str!("golden/state-older.json").trim();
    let older: Ledger = serde_json::from_str(golden).unwrap();
    let known = |ledger: &Ledger| (ledger.builds.len(), ledger.leases.len(), ledger.next_order);
    assert_eq!(known(&older), known(&ledger()));
    assert_eq!(
        older.index.bound,
        ledger().index.bound,
        "the platform binds"
    );
}

#[test]
fn an_image_says_what_the_ledger_said_when_it_was_made_whatever_happens_then() {
    let mut farm = Farm::default();
    farm.play("0s join w1");
    farm.play("0s submit b1 install,build");
    let then = serde_json::to_string(farm.scheduler.ledger()).unwrap();
    let image = farm.scheduler.ledger().image();
    farm.play("1s ok w1 0");
    farm.play("1s submit b2 build");
    assert_eq!(serde_json::to_string(&image).unwrap(), then);
    let now = serde_json::to_string(farm.scheduler.ledger()).unwrap();
    assert_ne!(now, then);
    farm.check_ledger();
}
