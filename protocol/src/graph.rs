//! The graph of jobs that a build becomes.
//!
//! A unit (a whole build, or one task of a batch) is a chain of jobs, one per phase; tasks that depend
//! on each other join their chains. A job may run when everything it needs has ended in an outcome that
//! the edge accepts; it is skipped as soon as one of them has ended otherwise.

use serde::{Deserialize, Serialize};

use crate::{
    build::{Outcome, Phase},
    cache_spec::CacheSpec,
    job::Task,
};

/// How many tasks a batch may have: ten times the largest that CodeBuild's default quota allows (100 builds).
pub const TASKS_MAX: usize = 1_000;

/// How many jobs a build may have: the six phases of each task of the largest batch.
pub const JOBS_MAX: usize = 6 * TASKS_MAX;

/// A set of outcomes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct OutcomeSet(u8);

impl OutcomeSet {
    /// Only success.
    pub const SUCCEEDED: Self = Self::of(&[Outcome::Succeeded]);
    /// The commands ran to their end, well or not.
    pub const RAN: Self = Self::of(&[Outcome::Succeeded, Outcome::Failed]);
    /// However it ended, but for a stop of the whole build.
    pub const ENDED: Self = Self::of(&[
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Fault,
        Outcome::TimedOut,
        Outcome::Skipped,
    ]);

    /// The set of `outcomes`.
    pub const fn of(outcomes: &[Outcome]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < outcomes.len() {
            bits |= 1 << outcomes[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether `outcome` is in the set.
    pub const fn contains(self, outcome: Outcome) -> bool {
        self.0 & 1 << outcome as u8 != 0
    }
}

/// That a job needs another.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Edge {
    /// Index of the job that has to end first.
    pub job: u32,
    /// The outcomes in which it may end for the needing job to run.
    pub accepts: OutcomeSet,
}

/// One phase of one unit.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct JobNode {
    /// Index into [`JobGraph::units`].
    pub unit: u32,
    /// Which phase.
    pub phase: Phase,
    /// What is to be done.
    pub task: Task,
    /// What has to end first; indices below this job's own, ascending.
    pub needs: Vec<Edge>,
    /// The job of the same unit whose snapshot this one starts from; `None` for the first of a unit.
    pub input: Option<u32>,
}

/// A whole build, or one task of a batch.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UnitNode {
    /// The task's identifier; `None` for a build that is no batch.
    pub identifier: Option<String>,
    /// Whether the build can succeed although this unit did not.
    pub ignore_failure: bool,
    /// Which part of the tests it runs, if it is one of a `build-fanout`.
    #[serde(default)]
    pub shard: Option<Shard>,
    /// Whether it pauses at breakpoints, whatever holds for its build.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub debug: bool,
}

/// One of several equal units that have the tests among them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Shard {
    /// Which one, from 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

/// The jobs of a build. Every edge leads to a lower index, so there are no cycles.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct JobGraph {
    /// The units, in the order of the buildspec.
    pub units: Vec<UnitNode>,
    /// The jobs; those of one unit are in the order of their phases.
    pub jobs: Vec<JobNode>,
    /// Whether the first failed unit stops the others.
    pub fast_fail: bool,
}

impl JobGraph {
    /// The jobs of a unit, with their indices, in the order of their phases.
    pub fn jobs_of(&self, unit: u32) -> impl Iterator<Item = (u32, &JobNode)> {
        (0..)
            .zip(&self.jobs)
            .filter(move |(_, job)| job.unit == unit)
    }

    /// About how many bytes of memory whoever keeps it and follows its jobs needs. Never less than a small
    /// part of the truth, and cheap to find out, so that sums of it can be limited.
    pub fn weight(&self) -> u64 {
        let jobs = self.jobs.iter().map(|job| {
            let edges = EDGE_BYTES * job.needs.len();
            JOB_BYTES + edges + text_bytes_of(&job.task)
        });
        jobs.sum::<usize>() as u64
    }
}

/// About what a job takes with its state, its attempts and its result, in bytes.
const JOB_BYTES: usize = 1024;
/// About what an edge takes, with the way back.
const EDGE_BYTES: usize = 32;
/// About what a text takes besides its bytes.
const TEXT_BYTES: usize = 64;

const fn text_bytes(text: &str) -> usize {
    text.len() + TEXT_BYTES
}

fn texts_of_cache(cache: Option<&CacheSpec>) -> impl Iterator<Item = &String> {
    let cache = cache.into_iter();
    cache.flat_map(|cache| {
        let keys = cache.key.iter().chain(&cache.fallback_keys);
        cache.paths.iter().chain(keys)
    })
}

/// About what the texts of a task take in memory, in bytes.
pub fn text_bytes_of(task: &Task) -> usize {
    texts_of(task).map(|text| text_bytes(text)).sum()
}

/// All texts of a task.
fn texts_of(task: &Task) -> Box<dyn Iterator<Item = &String> + '_> {
    match task {
        Task::DownloadSource {
            variables,
            cache,
            preface,
            secrets,
            ..
        } => {
            let variables = variables.iter().chain(&preface.runtimes);
            let variables = variables.flat_map(|(name, value)| [name, value]);
            let secrets = secrets.iter().flat_map(|secret| {
                let names = [&secret.variable, &secret.id].into_iter();
                let version = secret.stage.iter().chain(&secret.version);
                names.chain(&secret.json_key).chain(version)
            });
            let own = variables.chain(secrets).chain([&preface.buildspec]);
            Box::new(own.chain(texts_of_cache(cache.as_ref())))
        }
        Task::Commands(phase) => {
            let commands = phase.commands.iter().chain(&phase.finally);
            let commands = commands.chain(&phase.run_as).chain(&phase.exported);
            let patterns = phase.retry.iter().map(|retry| &retry.pattern);
            let own = commands.chain(patterns);
            Box::new(own.chain(texts_of_cache(phase.save_cache.as_ref())))
        }
        Task::UploadArtifacts {
            artifacts,
            reports,
            secondary,
            ..
        } => {
            let identifiers = secondary.keys();
            let artifacts = artifacts.iter().chain(secondary.values());
            let artifacts = artifacts.flat_map(|spec| {
                let patterns = spec.files.iter().chain(&spec.exclude_paths);
                patterns.chain(&spec.name).chain(&spec.base_directory)
            });
            let reports = reports.iter().flat_map(|spec| {
                let names = [&spec.group, &spec.format].into_iter();
                names.chain(&spec.files).chain(&spec.base_directory)
            });
            Box::new(artifacts.chain(reports).chain(identifiers))
        }
        Task::FetchSources(of) => {
            let named = of.secondary.iter();
            let named =
                named.flat_map(|(name, git)| [name, &git.url].into_iter().chain(&git.version));
            let primary = of.primary.iter();
            Box::new(
                named.chain(primary.flat_map(|git| [&git.url].into_iter().chain(&git.version))),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::PhaseCommands;

    #[test]
    fn a_graph_weighs_its_jobs_texts_and_edges_empty_ones_too() {
        let job = |commands: usize, needs: usize| JobNode {
            unit: 0,
            phase: Phase::Build,
            task: Task::Commands(PhaseCommands {
                commands: vec![String::new(); commands],
                ..PhaseCommands::default()
            }),
            needs: vec![
                Edge {
                    job: 0,
                    accepts: OutcomeSet::RAN
                };
                needs
            ],
            input: None,
        };
        let weight = |jobs: Vec<JobNode>| {
            let graph = JobGraph {
                jobs,
                ..JobGraph::default()
            };
            graph.weight()
        };
        let one = weight(vec![job(0, 0)]);
        assert_eq!(weight(vec![job(0, 0), job(0, 0)]), 2 * one);
        assert_eq!(weight(vec![job(1_000, 0)]), one + 64_000);
        assert_eq!(weight(vec![job(0, 1_000)]), one + 32_000);
    }

    #[test]
    fn an_outcome_set_holds_what_it_was_made_of() {
        for outcome in Outcome::ALL {
            assert!(OutcomeSet::of(&[outcome]).contains(outcome));
            assert!(!OutcomeSet::default().contains(outcome));
        }
        assert!(!OutcomeSet::RAN.contains(Outcome::Skipped));
        assert!(!OutcomeSet::ENDED.contains(Outcome::Stopped));
    }
}
