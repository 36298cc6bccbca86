//! The story that facts tell, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    build::{BuildId, Outcome},
    graph::JobGraph,
    job::JobId,
    lease::LeaseId,
};

use crate::{ATTEMPTS_MAX, Fact, RestartCause};

/// What was told so far.
#[derive(Default)]
pub(crate) struct Story {
    seed: u64,
    graphs: BTreeMap<BuildId, JobGraph>,
    ended: BTreeMap<JobId, Outcome>,
    live: BTreeSet<JobId>,
    begun: BTreeSet<JobId>,
    leases: BTreeSet<LeaseId>,
    tries: BTreeMap<JobId, u32>,
    builds: BTreeMap<BuildId, Outcome>,
}

impl Story {
    /// Checks the story that `facts` tell; gives how many builds ended.
    pub(crate) fn check(seed: u64, facts: &[Fact]) -> usize {
        let mut story = Self {
            seed,
            ..Self::default()
        };
        for fact in facts {
            story.tell(fact);
        }
        story.builds.len()
    }

    fn tell(&mut self, fact: &Fact) {
        let seed = self.seed;
        match fact {
            Fact::BuildSubmitted { submission, .. } => {
                self.graphs
                    .insert(submission.build, submission.graph.clone());
            }
            Fact::LeaseGranted { lease, job, .. } => self.granted(*lease, *job),
            Fact::LeaseLost { job, .. } | Fact::AttemptFaulted { job, .. } => {
                assert!(self.live.remove(job), "seed {seed}: {job} did not run");
            }
            Fact::AttemptBegan { job, .. } => {
                assert!(self.live.contains(job), "seed {seed}: {job} does not run");
                self.begun.insert(*job);
            }
            Fact::LeaseReturned { job, .. } => {
                assert!(self.live.remove(job), "seed {seed}: {job} did not run");
                *self.tries.get_mut(job).unwrap() -= 1;
            }
            Fact::JobEnded { job, outcome, .. } => {
                assert!(self.live.remove(job), "seed {seed}: {job} did not run");
                self.end(*job, *outcome);
            }
            Fact::JobSkipped { job, .. } => self.end(*job, Outcome::Skipped),
            Fact::JobGivenUp { job, outcome, .. } => self.end(*job, *outcome),
            Fact::UnitRestarted {
                build, unit, cause, ..
            } => self.restarted(*build, *unit, *cause),
            Fact::BuildEnded { build, outcome, .. } => {
                let before = self.builds.insert(*build, *outcome);
                assert_eq!(before, None, "seed {seed}: {build} ends twice");
                let jobs = self.graphs[build].jobs.len();
                let ended = self.ended.keys().filter(|job| job.build == *build);
                assert_eq!(
                    jobs,
                    ended.count(),
                    "seed {seed}: {build} ends before its jobs"
                );
            }
            Fact::StopRequested { build, .. } => {
                let has_ended = self.builds.contains_key(build);
                assert!(!has_ended, "seed {seed}: {build} stops after its end");
            }
            Fact::BuildDeleted { .. }
            | Fact::WorkerDraining { .. }
            | Fact::WorkerDrained { .. } => {}
        }
    }

    fn granted(&mut self, lease: LeaseId, job: JobId) {
        let seed = self.seed;
        assert!(
            self.leases.insert(lease),
            "seed {seed}: {lease} is given twice"
        );
        assert!(
            self.live.insert(job),
            "seed {seed}: {job} has two live leases"
        );
        let has_ended = self.ended.contains_key(&job);
        assert!(!has_ended, "seed {seed}: {job} runs after its end");
        let has_begun = self.begun.contains(&job);
        assert!(!has_begun, "seed {seed}: {job} runs again");
        for edge in &self.graphs[&job.build].jobs[job.index as usize].needs {
            let needed = JobId {
                build: job.build,
                index: edge.job,
            };
            let outcome = self.ended.get(&needed);
            let is_accepted = outcome.is_some_and(|outcome| edge.accepts.contains(*outcome));
            assert!(is_accepted, "seed {seed}: {job} runs before {needed}");
        }
        let tried = self.tries.entry(job).or_default();
        *tried += 1;
        assert!(
            *tried <= ATTEMPTS_MAX,
            "seed {seed}: {job} is tried too often"
        );
    }

    fn end(&mut self, job: JobId, outcome: Outcome) {
        let seed = self.seed;
        assert!(
            !self.live.contains(&job),
            "seed {seed}: {job} ends while it runs"
        );
        let before = self.ended.insert(job, outcome);
        assert_eq!(before, None, "seed {seed}: {job} ends twice");
    }

    fn restarted(&mut self, build: BuildId, unit: u32, cause: RestartCause) {
        let seed = self.seed;
        for (index, _) in self.graphs[&build].jobs_of(unit) {
            let job = JobId { build, index };
            assert!(
                !self.live.contains(&job),
                "seed {seed}: {job} runs in a restart"
            );
            let outcome = self.ended.remove(&job).unwrap_or(Outcome::Succeeded);
            assert_eq!(outcome, Outcome::Succeeded, "seed {seed}: {job} is final");
            if cause == RestartCause::WorkerLeaves {
                self.tries.remove(&job);
            }
        }
    }
}
