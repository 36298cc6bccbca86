//! The queue: jobs that wait for a worker, in the order in which they get one.
//!
//! Jobs that need the same kind of worker stand in one line, so that finding who is next takes a look
//! at the head of each line and not at every job. What comes first is all in [`Ticket`]'s order.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{job::JobId, name::WorkerName};

use crate::{fact::Platform, state::Build};

/// A job's place in the queue; the least is served first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ticket {
    /// What has begun is ended before something else begins, so that little is half done.
    pub(crate) standing: Standing,
    /// The build's place in the order of submissions.
    pub(crate) order: u64,
    /// The job.
    pub(crate) job: JobId,
}

/// Whether a job's unit has begun.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Standing {
    /// Another phase of its unit has run.
    Continuing,
    /// It is its unit's first.
    Fresh,
}

/// Which workers can run a job.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Requirement {
    /// All.
    Any,
    /// Those with this platform: the unit has begun on one.
    Platform(Platform),
    /// Only this one, on this platform: the unit's state is there.
    Worker(WorkerName, Platform),
}

impl Requirement {
    /// Which workers can run the job `index` of `build`.
    pub(crate) fn of(build: &Build, index: u32) -> Self {
        match &build.unit_of(index).placement {
            None => Self::Any,
            Some(at) if at.platform.is_bound() => {
                Self::Worker(at.worker.clone(), at.platform.clone())
            }
            Some(at) => Self::Platform(at.platform.clone()),
        }
    }
}

/// Jobs that wait for a worker.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Queue {
    lines: BTreeMap<Requirement, BTreeSet<Ticket>>,
    places: BTreeMap<JobId, (Requirement, Ticket)>,
}

impl Queue {
    /// Puts a job into the line that it belongs to now.
    pub(crate) fn insert(&mut self, build: &Build, job: JobId) {
        let standing = match build.unit_of(job.index).placement {
            Some(_) => Standing::Continuing,
            None => Standing::Fresh,
        };
        let ticket = Ticket {
            standing,
            order: build.order,
            job,
        };
        let requirement = Requirement::of(build, job.index);
        self.remove(job);
        self.lines
            .entry(requirement.clone())
            .or_default()
            .insert(ticket);
        self.places.insert(job, (requirement, ticket));
    }

    /// Takes a job out, if it is there.
    pub(crate) fn remove(&mut self, job: JobId) {
        let Some((requirement, ticket)) = self.places.remove(&job) else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&requirement) {
            line.remove(&ticket);
            if line.is_empty() {
                self.lines.remove(&requirement);
            }
        }
    }

    /// The lines, none of them empty.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&Requirement, &BTreeSet<Ticket>)> {
        self.lines.iter()
    }

    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}
