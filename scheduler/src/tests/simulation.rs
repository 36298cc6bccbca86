//! The simulation: a farm in which anything may be late, twice, lost or dead, from one seed.
//!
//! The scheduler is the real one. After each step it is checked that no job runs twice at once, that
//! nothing runs before what it needs, that what is stored never runs again, and at the end that every
//! build has ended once and that the facts make the same ledger again. A failing seed prints itself.

mod model;

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    build::{BuildId, Outcome},
    job::JobId,
};

use crate::{
    ATTEMPTS_MAX, Fact, RestartCause,
    tests::simulation::model::{Random, World},
};

/// How many seeds a normal run tries: enough for each kind of trouble to meet each other kind, in some
/// seconds.
const SEEDS: u64 = 150;

#[test]
fn whatever_happens_every_build_ends_once_and_nothing_runs_twice_at_once() {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 1..=SEEDS {
        let mut world = World::new(Random(seed));
        while world.advance() {
            world.check_overlap(seed);
        }
        let ended = check_facts(seed, &world.facts);
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
    println!("{totals:#?}");
    for what in EXPECTED {
        let times = totals.get(what).copied().unwrap_or(0);
        assert!(100 <= times, "{what} happened {times} times only");
    }
}

/// What has to have happened, at least a hundred times each.
const EXPECTED: &[&str] = &[
    "attempt faulted",
    "build ended",
    "coordinator crashed",
    "coordinator crashed in the middle of a decision",
    "connection broke",
    "forged message",
    "job given up",
    "job skipped",
    "lease lost",
    "stop requested",
    "unit restarted",
    "worker died",
    "worker drained",
    "worker killed what it had lost",
];

/// Checks the story that the facts tell; gives how many builds ended.
fn check_facts(seed: u64, facts: &[Fact]) -> usize {
    let mut graphs = BTreeMap::new();
    let mut ended: BTreeMap<JobId, Outcome> = BTreeMap::new();
    let mut live: BTreeSet<JobId> = BTreeSet::new();
    let mut leases = BTreeSet::new();
    let mut tries: BTreeMap<JobId, u32> = BTreeMap::new();
    let mut builds: BTreeMap<BuildId, Outcome> = BTreeMap::new();
    for fact in facts {
        match fact {
            Fact::BuildSubmitted { submission, .. } => {
                graphs.insert(submission.build, submission.graph.clone());
            }
            Fact::LeaseGranted { lease, job, .. } => {
                assert!(leases.insert(*lease), "seed {seed}: {lease} is given twice");
                assert!(live.insert(*job), "seed {seed}: {job} has two live leases");
                assert!(
                    !ended.contains_key(job),
                    "seed {seed}: {job} runs after its end"
                );
                for edge in &graphs[&job.build].jobs[job.index as usize].needs {
                    let needed = JobId {
                        build: job.build,
                        index: edge.job,
                    };
                    let outcome = ended.get(&needed);
                    let is_accepted =
                        outcome.is_some_and(|outcome| edge.accepts.contains(*outcome));
                    assert!(is_accepted, "seed {seed}: {job} runs before {needed}");
                }
                let tried = tries.entry(*job).or_default();
                *tried += 1;
                assert!(
                    *tried <= ATTEMPTS_MAX,
                    "seed {seed}: {job} is tried too often"
                );
            }
            Fact::LeaseLost { job, .. } | Fact::AttemptFaulted { job, .. } => {
                assert!(live.remove(job), "seed {seed}: {job} did not run");
            }
            Fact::JobEnded { job, outcome, .. } => {
                assert!(live.remove(job), "seed {seed}: {job} did not run");
                assert_eq!(
                    ended.insert(*job, *outcome),
                    None,
                    "seed {seed}: {job} ends twice"
                );
            }
            Fact::JobSkipped { job, .. } => {
                assert!(!live.contains(job), "seed {seed}: {job} runs");
                let before = ended.insert(*job, Outcome::Skipped);
                assert_eq!(before, None, "seed {seed}: {job} ends twice");
            }
            Fact::JobGivenUp { job, outcome, .. } => {
                assert!(!live.contains(job), "seed {seed}: {job} runs");
                assert_eq!(
                    ended.insert(*job, *outcome),
                    None,
                    "seed {seed}: {job} ends twice"
                );
            }
            Fact::UnitRestarted {
                build, unit, cause, ..
            } => {
                for (index, _) in graphs[build].jobs_of(*unit) {
                    let job = JobId {
                        build: *build,
                        index,
                    };
                    assert!(!live.contains(&job), "seed {seed}: {job} runs in a restart");
                    let outcome = ended.remove(&job).unwrap_or(Outcome::Succeeded);
                    assert_eq!(outcome, Outcome::Succeeded, "seed {seed}: {job} is final");
                    if *cause == RestartCause::WorkerLeaves {
                        tries.remove(&job);
                    }
                }
            }
            Fact::BuildEnded { build, outcome, .. } => {
                let before = builds.insert(*build, *outcome);
                assert_eq!(before, None, "seed {seed}: {build} ends twice");
                let open = graphs[build].jobs.len();
                let has_ended = ended.keys().filter(|job| job.build == *build).count();
                assert_eq!(open, has_ended, "seed {seed}: {build} ends before its jobs");
            }
            Fact::StopRequested { build, .. } => {
                assert!(
                    !builds.contains_key(build),
                    "seed {seed}: {build} stops after its end"
                );
            }
            Fact::BuildDeleted { .. }
            | Fact::WorkerDraining { .. }
            | Fact::WorkerDrained { .. } => {}
        }
    }
    builds.len()
}

fn kind(fact: &Fact) -> &'static str {
    match fact {
        Fact::BuildSubmitted { .. } => "build submitted",
        Fact::LeaseGranted { .. } => "lease granted",
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
