//! The simulation: many seeds, and mutants that have to be caught.

use std::io::Write as _;

use testkit::{
    simulation::{Mutant, Script, Tally, play, sweep},
    slow_tests,
};

/// How many seeds are played: each kind of trouble meets each other kind, in some seconds.
const SEEDS: u64 = 200;
/// How many in the slow run.
const SLOW_SEEDS: u64 = 10_000;
/// Within how many seeds a mutant has to be caught.
const MUTANT_SEEDS: u64 = 1_000;

/// Writes the counts to where they are seen also if the test passes.
fn print(seeds: u64, tally: &Tally) {
    let text = format!("simulation, {seeds} seeds:\n{tally}");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

#[test]
fn whatever_happens_every_build_ends_once_and_nothing_runs_twice_at_once() {
    let seeds = if slow_tests() { SLOW_SEEDS } else { SEEDS };
    let (tally, failure) = sweep(1..seeds + 1, None);
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    print(seeds, &tally);
    // A simulation in which something hardly ever happens proves nothing about it.
    let rare = tally.rarer_than(seeds / 100);
    assert!(rare.is_empty(), "too rare: {rare:?}");
}

#[test]
fn every_mutant_is_caught() {
    for mutant in Mutant::ALL {
        let (_, failure) = sweep(1..MUTANT_SEEDS + 1, Some(mutant));
        let Some(failure) = failure else {
            panic!("{mutant:?} does not break its rule in {MUTANT_SEEDS} seeds");
        };
        // What was left out is not what made it fail.
        let again = play(&failure.script, Some(mutant));
        assert_eq!(again.broken.as_ref(), Some(&failure.broken), "{mutant:?}");
        let real = play(&failure.script, None);
        assert_eq!(
            real.broken, None,
            "{mutant:?} is caught where nothing is wrong"
        );
    }
}

#[test]
fn the_same_seed_makes_the_same_facts() {
    for seed in 1..6 {
        let (one, other) = (play(&Script::of(seed), None), play(&Script::of(seed), None));
        assert!(one.facts == other.facts, "seed {seed}");
        assert_eq!(
            one.tally.to_string(),
            other.tally.to_string(),
            "seed {seed}"
        );
    }
    let (one, other) = (play(&Script::of(1), None), play(&Script::of(2), None));
    assert!(one.facts != other.facts, "seeds differ");
}

#[test]
fn a_failing_seed_prints_itself_and_a_short_script() {
    let (_, failure) = sweep(1..MUTANT_SEEDS + 1, Some(Mutant::EdgeAcceptsAnything));
    let failure = failure.expect("the mutant is caught");
    let whole = Script::of(failure.script.seed).len();
    let text = failure.to_string();
    assert!(
        text.starts_with(&format!("seed {} ", failure.script.seed)),
        "{text}"
    );
    assert!(text.contains("submit b"), "{text}");
    assert!(failure.script.len() < whole / 4, "{text}");
}
