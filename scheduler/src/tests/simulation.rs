//! The simulation: a farm in which anything may be late, twice, lost or dead, from one seed.
//!
//! The scheduler is the real one. After each step it is checked that no job runs twice at once, that
//! nothing runs before what it needs, that what is stored never runs again, and at the end that every
//! build has ended once and that the facts make the same ledger again. A failing seed prints itself.

mod model;
mod story;

use std::collections::BTreeMap;

use crate::{
    Fact,
    tests::simulation::{
        model::{Random, World},
        story::Story,
    },
};

/// How many seeds a normal run tries: enough for each kind of trouble to meet each other kind, in some
/// seconds.
const SEEDS: u64 = 100;

#[test]
fn whatever_happens_every_build_ends_once_and_nothing_runs_twice_at_once() {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 1..=SEEDS {
        let mut world = World::new(Random(seed));
        while world.advance() {
            world.check_overlap(seed);
        }
        let ended = Story::check(seed, &world.facts);
        let submitted = world
            .facts
            .iter()
            .filter(|fact| matches!(fact, Fact::BuildSubmitted { .. }));
        assert_eq!(
            submitted.count(),
            ended,
            "seed {seed}: builds have not ended"
        );
        world.check_ledger();
        for fact in &world.facts {
            *totals.entry(kind(fact)).or_default() += 1;
        }
        for (trouble, times) in world.troubles {
            *totals.entry(trouble).or_default() += times;
        }
    }
    // A simulation in which some trouble never comes proves nothing about it.
    for what in EXPECTED {
        let times = totals.get(what).copied().unwrap_or(0);
        assert!(100 <= times, "{what} happened too rarely: {totals:#?}");
    }
}

/// What has to have happened, at least a hundred times each.
const EXPECTED: &[&str] = &[
    "attempt faulted",
    "attempt began",
    "build ended",
    "coordinator crashed",
    "coordinator crashed in the middle of a decision",
    "connection broke",
    "forged message",
    "job given up",
    "job skipped",
    "lease lost",
    "lease returned",
    "stop requested",
    "unit restarted",
    "worker died",
    "worker drained",
    "worker killed what it had lost",
    "worker left as it may",
];

fn kind(fact: &Fact) -> &'static str {
    match fact {
        Fact::BuildSubmitted { .. } => "build submitted",
        Fact::LeaseGranted { .. } => "lease granted",
        Fact::AttemptBegan { .. } => "attempt began",
        Fact::LeaseReturned { .. } => "lease returned",
        Fact::LeaseLost { .. } => "lease lost",
        Fact::AttemptFaulted { .. } => "attempt faulted",
        Fact::JobEnded { .. } => "job ended",
        Fact::JobSkipped { .. } => "job skipped",
        Fact::JobGivenUp { .. } => "job given up",
        Fact::UnitRestarted { .. } => "unit restarted",
        Fact::StopRequested { .. } => "stop requested",
        Fact::BuildEnded { .. } => "build ended",
        Fact::BuildDeleted { .. } => "build deleted",
        Fact::WorkerDraining { .. } => "worker draining",
        Fact::WorkerDrained { .. } => "worker drained",
    }
}
