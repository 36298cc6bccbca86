//! What has to be true, whatever happens.
//!
//! It knows what was submitted, hears of every fact when it is durable, and sees every attempt begin and
//! end where it runs. Nothing here asks the scheduler.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    build::{BuildId, Outcome},
    graph::JobGraph,
    job::JobId,
    lease::LeaseId,
};
use scheduler::{ATTEMPTS_MAX, Fact, RestartCause};

/// A rule that was broken, in words.
pub(super) type Broken = String;

/// What is known to be so.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// As they were submitted.
    graphs: BTreeMap<BuildId, JobGraph>,
    /// Builds that somebody was told are taken.
    promised: BTreeSet<BuildId>,
    builds: BTreeMap<BuildId, Option<Outcome>>,
    deleted: BTreeSet<BuildId>,
    jobs: BTreeMap<JobId, Job>,
    /// Leases that are out.
    leases: BTreeMap<LeaseId, JobId>,
    /// Every lease there ever was.
    granted: BTreeSet<LeaseId>,
    /// Units whose state is on one worker.
    bound: BTreeSet<(BuildId, u32)>,
    /// Builds that somebody or something stops.
    stopping: BTreeSet<BuildId>,
    /// Units of whose state the cache has lost a part.
    stateless: BTreeSet<(BuildId, u32)>,
    /// Units that have started again.
    restarted: BTreeSet<(BuildId, u32)>,
    /// Jobs of phases that must not run twice, and whose commands have started.
    started: BTreeSet<JobId>,
    /// Attempts that run, wherever that is.
    running: BTreeMap<JobId, Attempt>,
}

/// A job, as the facts have it.
#[derive(Debug, Default)]
struct Job {
    lease: Option<LeaseId>,
    ended: Option<Outcome>,
    faults: u32,
}

/// An attempt that runs.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    worker: usize,
    lease: LeaseId,
}

impl Truth {
    /// A build will be submitted.
    pub(super) fn submits(&mut self, build: BuildId, graph: JobGraph) {
        self.graphs.insert(build, graph);
    }

    /// Somebody wants a build again.
    pub(super) fn retries(&mut self, build: BuildId, retry: BuildId) {
        if let Some(graph) = self.graphs.get(&build).cloned() {
            self.graphs.insert(retry, graph);
        }
    }

    /// Somebody was told that a build is taken.
    pub(super) fn promised(&mut self, build: BuildId) -> Result<(), Broken> {
        self.promised.insert(build);
        check(
            self.builds.contains_key(&build) || self.deleted.contains(&build),
            || format!("{build} is said to be taken, and is not durable"),
        )
    }

    /// Somebody was told how a build ended.
    pub(super) fn told_end(&self, build: BuildId, outcome: Outcome) -> Result<(), Broken> {
        let known = self.builds.get(&build).copied().flatten();
        let is_so = known == Some(outcome) || self.deleted.contains(&build);
        check(is_so, || {
            format!("{build} is said to have ended {outcome}, and durable is {known:?}")
        })
    }

    /// Whether all of a build is over, or it is not known.
    pub(super) fn is_over(&self, build: BuildId) -> bool {
        self.builds.get(&build).is_none_or(Option::is_some)
    }

    /// Whether the unit of a job has started again, so that its phases may stand otherwise than before.
    pub(super) fn has_restarted(&self, job: JobId) -> bool {
        let unit = self.unit_of(job);
        unit.is_some_and(|unit| self.restarted.contains(&unit))
    }

    /// The unit of a job; `None`: nobody submitted such a job.
    pub(super) fn unit_of(&self, job: JobId) -> Option<(BuildId, u32)> {
        let node = self.graphs.get(&job.build)?.jobs.get(job.index as usize)?;
        Some((job.build, node.unit))
    }

    /// Whether a build was forgotten.
    pub(super) fn is_deleted(&self, build: BuildId) -> bool {
        self.deleted.contains(&build)
    }

    fn stops(&mut self, build: BuildId) -> Result<(), Broken> {
        self.stopping.insert(build);
        check(!self.is_over(build), || {
            format!("{build} stops, and has ended or is not known")
        })
    }

    /// The builds that stop, or were stopped.
    pub(super) fn stopping(&self) -> BTreeSet<BuildId> {
        self.stopping.clone()
    }

    /// The leases that are out.
    pub(super) fn leases(&self) -> impl Iterator<Item = (LeaseId, JobId)> {
        self.leases.iter().map(|(lease, job)| (*lease, *job))
    }

    /// An attempt begins to run.
    pub(super) fn begins(
        &mut self,
        worker: usize,
        lease: LeaseId,
        job: JobId,
    ) -> Result<(), Broken> {
        check(self.leases.get(&lease) == Some(&job), || {
            format!("w{worker} begins {job} under {lease}, which is not out")
        })?;
        let known = self.jobs.entry(job).or_default();
        let ended = known.ended;
        check(ended.is_none(), || {
            format!("w{worker} begins {job}, which has ended {ended:?}")
        })?;
        self.check_needs(job)?;
        self.runs(worker, lease, job)
    }

    /// The first command starts of an attempt at a phase that must not run twice.
    pub(super) fn starts_once(&mut self, worker: usize, job: JobId) -> Result<(), Broken> {
        let is_first = self.started.insert(job);
        check(is_first, || {
            format!("w{worker} starts the commands of {job}, which must not run twice, again")
        })
    }

    /// An attempt runs, or runs again because its machine woke up.
    pub(super) fn runs(&mut self, worker: usize, lease: LeaseId, job: JobId) -> Result<(), Broken> {
        let before = self.running.insert(job, Attempt { worker, lease });
        check(before.is_none(), || {
            format!("{job} runs on w{worker} under {lease}, and still as {before:?}")
        })
    }

    /// An attempt does not run any more.
    pub(super) fn ceases(&mut self, worker: usize, lease: LeaseId, job: JobId) {
        let is_it = |attempt: &Attempt| attempt.worker == worker && attempt.lease == lease;
        if self.running.get(&job).is_some_and(is_it) {
            self.running.remove(&job);
        }
    }

    /// An attempt finds that the cache has lost a part of the state of its unit.
    pub(super) fn state_lost(&mut self, unit: (BuildId, u32)) {
        self.stateless.insert(unit);
    }

    /// All of a machine ceases to run.
    pub(super) fn all_cease(&mut self, worker: usize) {
        self.running.retain(|_, attempt| attempt.worker != worker);
    }

    fn check_needs(&self, job: JobId) -> Result<(), Broken> {
        let Some(graph) = self.graphs.get(&job.build) else {
            return Err(format!("{job} is of a build that nobody submitted"));
        };
        for edge in &graph.jobs[job.index as usize].needs {
            let needed = JobId {
                build: job.build,
                index: edge.job,
            };
            let outcome = self.jobs.get(&needed).and_then(|needed| needed.ended);
            let is_accepted = outcome.is_some_and(|outcome| edge.accepts.contains(outcome));
            check(is_accepted, || {
                format!("{job} is to run, but {needed} has ended as {outcome:?}")
            })?;
        }
        Ok(())
    }

    /// A fact is durable.
    pub(super) fn tell(&mut self, fact: &Fact) -> Result<(), Broken> {
        match fact {
            Fact::BuildSubmitted { submission, .. } => {
                let build = submission.build;
                let is_new = self.builds.insert(build, None).is_none();
                let is_new = is_new && !self.deleted.contains(&build);
                check(is_new, || format!("{build} is taken twice"))
            }
            Fact::LeaseGranted {
                lease,
                job,
                platform,
                ..
            } => {
                self.is_granted(*lease, *job)?;
                if platform.is_bound() {
                    let unit = self.graphs[&job.build].jobs[job.index as usize].unit;
                    self.bound.insert((job.build, unit));
                }
                Ok(())
            }
            Fact::AttemptBegan { lease, job, .. } => {
                check(self.leases.get(lease) == Some(job), || {
                    format!("{job} is to start its commands under {lease}, which is not out")
                })
            }
            Fact::LeaseReturned { lease, job, .. } => {
                let running = self.running.get(job);
                check(running.is_none(), || {
                    format!("{lease} is given back, and runs as {running:?}")
                })?;
                self.release(*lease, *job)
            }
            Fact::LeaseLost { lease, job, .. } | Fact::AttemptFaulted { lease, job, .. } => {
                self.release(*lease, *job)?;
                self.jobs.entry(*job).or_default().faults += 1;
                Ok(())
            }
            Fact::JobEnded {
                lease,
                job,
                outcome,
                ..
            } => {
                self.release(*lease, *job)?;
                self.end(*job, *outcome)
            }
            Fact::JobSkipped { job, .. } => self.end(*job, Outcome::Skipped),
            Fact::JobGivenUp { job, outcome, .. } => self.end(*job, *outcome),
            Fact::UnitRestarted {
                build, unit, cause, ..
            } => self.restarts(*build, *unit, *cause),
            Fact::StopRequested { build, .. } => self.stops(*build),
            Fact::BuildEnded { build, outcome, .. } => self.build_ends(*build, *outcome),
            Fact::BuildDeleted { build, .. } => {
                check(self.is_over(*build), || {
                    format!("{build} is deleted and runs")
                })?;
                self.builds.remove(build);
                let is_new = self.deleted.insert(*build);
                check(is_new, || format!("{build} is deleted twice"))
            }
            Fact::WorkerDraining { .. }
            | Fact::WorkerDrained { .. }
            | Fact::ProjectSaved { .. }
            | Fact::ProjectDeleted { .. }
            | Fact::CachesInvalidated { .. } => Ok(()),
            Fact::SourcesFetched { job, .. } => not_fetched(*job),
        }
    }

    fn is_granted(&mut self, lease: LeaseId, job: JobId) -> Result<(), Broken> {
        let is_new = self.granted.insert(lease);
        check(is_new, || format!("{lease} is granted twice"))?;
        self.check_needs(job)?;
        self.leases.insert(lease, job);
        let known = self.jobs.entry(job).or_default();
        check(known.ended.is_none(), || {
            format!("{job} has ended, and is to run")
        })?;
        check(known.faults < ATTEMPTS_MAX, || {
            format!("{job} is tried too often")
        })?;
        let before = known.lease.replace(lease);
        check(before.is_none(), || {
            format!("{job} has two leases, {lease} and {before:?}")
        })
    }

    /// A lease is over, once.
    fn release(&mut self, lease: LeaseId, job: JobId) -> Result<(), Broken> {
        let of = self.leases.remove(&lease);
        check(of == Some(job), || {
            format!("{lease} ends for {job}, and was out for {of:?}")
        })?;
        self.jobs.entry(job).or_default().lease = None;
        Ok(())
    }

    fn end(&mut self, job: JobId, outcome: Outcome) -> Result<(), Broken> {
        let running = self.running.get(&job);
        check(running.is_none(), || {
            format!("{job} ends {outcome}, and still runs as {running:?}")
        })?;
        let known = self.jobs.entry(job).or_default();
        check(known.lease.is_none(), || {
            format!("{job} ends, and has a lease")
        })?;
        let before = known.ended.replace(outcome);
        check(before.is_none(), || {
            format!("{job} ends {before:?} and {outcome}")
        })
    }

    /// What is stored may run again only where its unit's state was on one worker and is lost with it, or
    /// where the cache has lost it.
    fn restarts(&mut self, build: BuildId, unit: u32, cause: RestartCause) -> Result<(), Broken> {
        let is_lost = match cause {
            RestartCause::WorkerLost | RestartCause::WorkerLeaves => {
                self.bound.contains(&(build, unit))
            }
            RestartCause::StateLost => self.stateless.remove(&(build, unit)),
        };
        check(is_lost, || {
            format!("unit {unit} of {build} starts again, and its snapshots are there")
        })?;
        self.bound.remove(&(build, unit));
        self.restarted.insert((build, unit));
        let Some(graph) = self.graphs.get(&build) else {
            return Err(format!(
                "{build} has a unit that starts again, and is not known"
            ));
        };
        let jobs: Vec<JobId> = graph
            .jobs_of(unit)
            .map(|(index, _)| JobId { build, index })
            .collect();
        for job in jobs {
            let known = self.jobs.entry(job).or_default();
            let is_final = known.ended.is_some_and(|ended| ended != Outcome::Succeeded);
            check(known.lease.is_none() && !is_final, || {
                format!("unit {unit} of {build} starts again, and {job} is {known:?}")
            })?;
            *known = Job::default();
        }
        Ok(())
    }

    fn build_ends(&mut self, build: BuildId, outcome: Outcome) -> Result<(), Broken> {
        let before = self.builds.insert(build, Some(outcome));
        check(before == Some(None), || {
            format!("{build} ends {outcome}, and was {before:?}")
        })?;
        let jobs = self.graphs.get(&build).map_or(0, |graph| graph.jobs.len());
        for index in (0..).take(jobs) {
            let job = JobId { build, index };
            let ended = self.jobs.get(&job).and_then(|job| job.ended);
            check(ended.is_some(), || format!("{build} ends before {job}"))?;
        }
        Ok(())
    }

    /// When everything has come to rest.
    pub(super) fn check_rest(&self) -> Result<(), Broken> {
        for (build, ended) in &self.builds {
            check(ended.is_some(), || format!("{build} never ends"))?;
        }
        for build in &self.promised {
            let is_known = self.builds.contains_key(build) || self.deleted.contains(build);
            check(is_known, || format!("{build} was taken, and is gone"))?;
        }
        check(self.leases.is_empty(), || {
            format!("leases are out and nothing runs: {:?}", self.leases)
        })
    }
}

/// Sources of simulated builds are uploaded.
fn not_fetched(job: JobId) -> Result<(), Broken> {
    check(false, || {
        format!("{job} has fetched sources, and all were uploaded")
    })
}

/// An error with the words of `why`, unless it `is_so`.
pub(super) fn check(is_so: bool, why: impl FnOnce() -> Broken) -> Result<(), Broken> {
    if is_so { Ok(()) } else { Err(why()) }
}
