//! The index: what can be made of the ledger's records at any time, kept up to date for speed.
//!
//! [`Index::of`] makes it anew; tests compare that with what folding kept.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    build::{BuildId, Outcome, Status},
    job::JobId,
    lease::LeaseId,
    name::{ProjectName, Team, WorkerName},
    time::WallTime,
};

use crate::{
    holdings::Holdings,
    outcome::unit_status,
    queue::Queue,
    state::{Build, JobState, Lease, Shared},
    weights::Weights,
};

/// Ways into the ledger.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Index {
    /// Jobs that wait for a worker.
    pub(crate) queue: Queue,
    /// Builds that have not ended, by when they are over their limit.
    pub(crate) limits: BTreeSet<(WallTime, BuildId)>,
    /// Units that have not ended and whose state is on one worker.
    pub(crate) bound: BTreeMap<WorkerName, BTreeSet<(BuildId, u32)>>,
    /// The same units, by build.
    pub(crate) bound_units: BTreeSet<(BuildId, u32)>,
    /// Jobs that cannot run, with the index of what stands in their way.
    pub(crate) doomed: BTreeMap<JobId, u32>,
    /// Jobs that wait to be tried again.
    pub(crate) again: BTreeSet<JobId>,
    /// Builds that have not ended and of which a unit has that counts, otherwise than well.
    pub(crate) fallen: BTreeSet<BuildId>,
    /// For each job of a build that has not ended: which jobs need it.
    pub(crate) dependents: BTreeMap<BuildId, Vec<Vec<u32>>>,
    /// All builds, by project and number; several teams may have a project of one name.
    pub(crate) numbers: BTreeMap<(ProjectName, u64), BTreeMap<Team, BuildId>>,
    /// All builds, by submission.
    pub(crate) orders: BTreeMap<u64, BuildId>,
    /// Builds that have ended, by when.
    pub(crate) ended: BTreeSet<(WallTime, BuildId)>,
    /// The bytes that builds that have ended keep.
    pub(crate) holdings: Holdings,
    /// What the graphs of all builds weigh.
    pub(crate) weights: Weights,
    /// Live leases of each worker that has any.
    pub(crate) leases: BTreeMap<WorkerName, BTreeSet<LeaseId>>,
}

impl Index {
    /// The index of these records.
    pub(crate) fn of(
        builds: &BTreeMap<BuildId, Shared>,
        leases: &BTreeMap<LeaseId, Lease>,
    ) -> Self {
        let mut index = Self::default();
        for (&id, build) in builds {
            index.add(id, build);
            index.weights.submit(build);
            if let Some(ending) = build.ended {
                index.add_ended(id, build, ending.at);
                continue;
            }
            index.add_active(id, build);
        }
        for (id, lease) in leases {
            index.add_lease(lease.worker.clone(), *id);
        }
        index
    }

    /// Takes up a build by its order and its number.
    pub(crate) fn add(&mut self, id: BuildId, build: &Build) {
        self.orders.insert(build.order, id);
        let of = self.numbers.entry(number_of(build)).or_default();
        of.insert(build.submission.team.clone(), id);
    }

    /// Forgets what matters of a build only as long as it has not ended.
    pub(crate) fn close(&mut self, id: BuildId) {
        self.dependents.remove(&id);
        self.fallen.remove(&id);
    }

    /// Forgets a build.
    pub(crate) fn remove(&mut self, id: BuildId, build: &Build) {
        self.orders.remove(&build.order);
        self.weights.remove(build);
        let number = number_of(build);
        if let Some(of) = self.numbers.get_mut(&number) {
            of.remove(&build.submission.team);
            if of.is_empty() {
                self.numbers.remove(&number);
            }
        }
        if let Some(ending) = build.ended {
            self.ended.remove(&(ending.at, id));
            let team = &build.submission.team;
            self.holdings.remove(team, (ending.at, id));
        }
    }

    fn add_active(&mut self, id: BuildId, build: &Build) {
        self.add_dependents(id, build);
        self.limits.extend(build.limit().map(|limit| (limit, id)));
        for (unit, state) in (0..).zip(&build.units) {
            if state.open > 0 {
                self.bind(id, unit, build);
            } else {
                self.add_ended_unit(id, unit, build);
            }
        }
        for (index, job) in (0..).zip(&build.jobs) {
            let at = JobId { build: id, index };
            match job.state {
                JobState::Ready => {
                    self.queue.insert(build, at);
                    if job.is_again() {
                        self.again.insert(at);
                    }
                }
                JobState::Waiting if build.stop.is_none() => {
                    if let Readiness::Never { needs } = readiness(build, index) {
                        self.doomed.insert(at, needs);
                    }
                }
                JobState::Waiting | JobState::Running(_) | JobState::Ended(_) => {}
            }
        }
    }

    /// Takes up a build that has ended.
    pub(crate) fn add_ended(&mut self, id: BuildId, build: &Build, at: WallTime) {
        self.ended.insert((at, id));
        self.weights.end(build);
        let team = &build.submission.team;
        self.holdings.add(team, (at, id), build.bytes());
    }

    /// Takes up who needs whom in a build.
    pub(crate) fn add_dependents(&mut self, id: BuildId, build: &Build) {
        let nodes = &build.submission.graph.jobs;
        let mut dependents = vec![Vec::new(); nodes.len()];
        for (index, node) in (0..).zip(nodes) {
            for edge in &node.needs {
                dependents[edge.job as usize].push(index);
            }
        }
        self.dependents.insert(id, dependents);
    }

    /// Takes up that a unit is bound to its worker, if it is.
    pub(crate) fn bind(&mut self, id: BuildId, unit: u32, build: &Build) {
        if let Some(at) = &build.units[unit as usize].placement
            && at.is_bound()
        {
            let bound = self.bound.entry(at.worker.clone()).or_default();
            bound.insert((id, unit));
            self.bound_units.insert((id, unit));
        }
    }

    /// Takes up how a unit has ended.
    pub(crate) fn add_ended_unit(&mut self, id: BuildId, unit: u32, build: &Build) {
        let counts = !build.submission.graph.units[unit as usize].ignore_failure;
        let status = unit_status(build, &build.units[unit as usize]);
        if counts && status != Status::Ended(Outcome::Succeeded) {
            self.fallen.insert(id);
        }
    }

    /// Forgets that a unit is bound to `worker`.
    pub(crate) fn unbind(&mut self, id: BuildId, unit: u32, worker: &WorkerName) {
        self.bound_units.remove(&(id, unit));
        if let Some(bound) = self.bound.get_mut(worker) {
            bound.remove(&(id, unit));
            if bound.is_empty() {
                self.bound.remove(worker);
            }
        }
    }

    /// Takes up a live lease.
    pub(crate) fn add_lease(&mut self, worker: WorkerName, lease: LeaseId) {
        self.leases.entry(worker).or_default().insert(lease);
    }

    /// Forgets a lease.
    pub(crate) fn remove_lease(&mut self, worker: &WorkerName, lease: LeaseId) {
        if let Some(leases) = self.leases.get_mut(worker) {
            leases.remove(&lease);
            if leases.is_empty() {
                self.leases.remove(worker);
            }
        }
    }
}

fn number_of(build: &Build) -> (ProjectName, u64) {
    (build.submission.project.clone(), build.number)
}

/// Whether a job can run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Readiness {
    /// Now.
    Now,
    /// Something that it needs has not ended.
    Later {
        /// Index of the first such job.
        needs: u32,
    },
    /// Something that it needs has ended otherwise than accepted.
    Never {
        /// Index of the first such job.
        needs: u32,
    },
}

/// Whether a job that has not started can run.
pub(crate) fn readiness(build: &Build, job: u32) -> Readiness {
    let mut readiness = Readiness::Now;
    for edge in &build.node(job).needs {
        match build.jobs[edge.job as usize].outcome() {
            Some(outcome) if edge.accepts.contains(outcome) => {}
            Some(_) => return Readiness::Never { needs: edge.job },
            None if readiness == Readiness::Now => {
                readiness = Readiness::Later { needs: edge.job };
            }
            None => {}
        }
    }
    readiness
}
