//! The queue: jobs that wait for a worker, in the order in which they get one.
//!
//! Jobs that need the same kind of worker and are of one team stand in one line, so that finding who is
//! next takes a look at the heads of lines and not at every job. Which team's turn it is say its
//! [`Shares`](crate::shares::Shares); what comes first in a line is all in [`Ticket`]'s order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    environment::Selection,
    job::{JobId, Task},
    name::{Team, WorkerName},
    runtime::Wanted,
};

use crate::{fact::Platform, state::Build};

/// What a step of priority is worth: a build is served as if it had been submitted so much earlier for
/// each. So one that waits gains a step in this time against what is submitted later, and none starves.
pub const PRIORITY_STEP: Duration = Duration::from_secs(10 * 60);

/// A job's place in its line; the least is served first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ticket {
    /// When its build was submitted, in milliseconds, put earlier by its priority.
    pub(crate) rank: i64,
    /// The build's place in the order of submissions.
    pub(crate) order: u64,
    /// The job.
    pub(crate) job: JobId,
}

impl Ticket {
    fn of(build: &Build, job: JobId) -> Self {
        let submitted = i64::try_from(build.submitted.0).unwrap_or(i64::MAX);
        let step = i64::try_from(PRIORITY_STEP.as_millis()).unwrap_or(i64::MAX);
        let earlier = step.saturating_mul(i64::from(build.submission.priority));
        Self {
            rank: submitted.saturating_sub(earlier),
            order: build.order,
            job,
        }
    }
}

/// Which workers can run a job.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Requirement {
    /// All that serve its team: the unit has not begun.
    Any,
    /// Those of them that serve this: the same, of a unit that selects among them.
    Selected(Selection),
    /// Those with this platform: the unit has begun on one.
    Platform(Platform),
    /// Only this one, on this platform: the unit's state is there.
    Worker(WorkerName, Platform),
}

impl Requirement {
    /// Which workers can run the job `index` of `build`.
    pub(crate) fn of(build: &Build, index: u32) -> Self {
        match &build.unit_of(index).placement {
            None => selection_of(build, index).map_or(Self::Any, Self::Selected),
            Some(at) if at.is_bound() => Self::Worker(at.worker.clone(), at.platform.clone()),
            Some(at) => Self::Platform(at.platform.clone()),
        }
    }
}

/// Jobs of one team that need the same kind of worker.
pub(crate) type Line = BTreeSet<Ticket>;

/// The lines of all teams whose jobs need the same kind of worker.
pub(crate) type Lines = BTreeMap<Team, Line>;

/// Where a job stands.
type Place = (Requirement, Team, Ticket);

/// Jobs that wait for a worker.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Queue {
    /// The first jobs of units that any worker can begin.
    fresh: Lines,
    /// The first jobs of units that only workers can begin that serve this.
    wanting: BTreeMap<Team, BTreeMap<Selection, Line>>,
    /// Jobs of units that have begun and can go on wherever the platform is.
    travelling: BTreeMap<Platform, Lines>,
    /// Jobs of units whose state is on one worker.
    bound: BTreeMap<WorkerName, BTreeMap<Platform, Lines>>,
    /// Boxed, because most of them stand in large nodes.
    places: BTreeMap<JobId, Box<Place>>,
}

impl Queue {
    /// Puts a job into the line that it belongs to now.
    pub(crate) fn insert(&mut self, build: &Build, job: JobId) {
        self.remove(job);
        let ticket = Ticket::of(build, job);
        let requirement = Requirement::of(build, job.index);
        let team = build.submission.team.clone();
        let place = (&team, ticket);
        match &requirement {
            Requirement::Any => enter(&mut self.fresh, place),
            Requirement::Selected(wanted) => {
                let of = self.wanting.entry(team.clone()).or_default();
                of.entry(wanted.clone()).or_default().insert(ticket);
            }
            Requirement::Platform(platform) => {
                let lines = self.travelling.entry(platform.clone()).or_default();
                enter(lines, place);
            }
            Requirement::Worker(worker, platform) => {
                let of = self.bound.entry(worker.clone()).or_default();
                enter(of.entry(platform.clone()).or_default(), place);
            }
        }
        let place = Box::new((requirement, team, ticket));
        self.places.insert(job, place);
    }

    /// Takes a job out, if it is there.
    pub(crate) fn remove(&mut self, job: JobId) {
        let Some(place) = self.places.remove(&job) else {
            return;
        };
        let (requirement, team, ticket) = *place;
        match requirement {
            Requirement::Any => leave(&mut self.fresh, &team, ticket),
            Requirement::Selected(wanted) => {
                if let Some(of) = self.wanting.get_mut(&team) {
                    leave(of, &wanted, ticket);
                    if of.is_empty() {
                        self.wanting.remove(&team);
                    }
                }
            }
            Requirement::Platform(platform) => {
                if let Some(lines) = self.travelling.get_mut(&platform) {
                    leave(lines, &team, ticket);
                    if lines.is_empty() {
                        self.travelling.remove(&platform);
                    }
                }
            }
            Requirement::Worker(worker, platform) => {
                let Some(of) = self.bound.get_mut(&worker) else {
                    return;
                };
                if let Some(lines) = of.get_mut(&platform) {
                    leave(lines, &team, ticket);
                    if lines.is_empty() {
                        of.remove(&platform);
                    }
                }
                if of.is_empty() {
                    self.bound.remove(&worker);
                }
            }
        }
    }

    /// The first jobs of units of a team that any worker can begin; `None`: there are none.
    pub(crate) fn fresh(&self, team: &Team) -> Option<&Line> {
        self.fresh.get(team)
    }

    /// Whether units of a team wait to begin.
    pub(crate) fn has_fresh(&self, team: &Team) -> bool {
        self.fresh.contains_key(team) || self.wanting.contains_key(team)
    }

    /// The teams that have units that wait to begin.
    pub(crate) fn fresh_teams(&self) -> BTreeSet<&Team> {
        self.fresh.keys().chain(self.wanting.keys()).collect()
    }

    /// Units that wait to begin where what they select is served: by team and selection, no line empty.
    pub(crate) fn wanting(&self) -> &BTreeMap<Team, BTreeMap<Selection, Line>> {
        &self.wanting
    }

    /// The lines of jobs that can go on wherever a platform is, none of them empty.
    pub(crate) fn travelling(&self) -> impl Iterator<Item = (&Platform, &Lines)> {
        self.travelling.iter()
    }

    /// The workers that jobs wait for that can go on nowhere else.
    pub(crate) fn awaited(&self) -> &BTreeMap<WorkerName, BTreeMap<Platform, Lines>> {
        &self.bound
    }

    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}

/// What a unit selects whose first job this is; `None`: nothing, or the job is another.
fn selection_of(build: &Build, index: u32) -> Option<Selection> {
    let Task::DownloadSource { preface, .. } = &build.node(index).task else {
        return None;
    };
    let selection = Selection {
        runtimes: match preface.selects_runtimes {
            true => preface.runtimes.clone(),
            false => Wanted::new(),
        },
        environment: preface.environment.clone(),
    };
    (selection != Selection::default()).then_some(selection)
}

fn enter(lines: &mut Lines, (team, ticket): (&Team, Ticket)) {
    match lines.get_mut(team) {
        Some(line) => drop(line.insert(ticket)),
        None => drop(lines.insert(team.clone(), Line::from([ticket]))),
    }
}

fn leave<K: Ord>(lines: &mut BTreeMap<K, Line>, of: &K, ticket: Ticket) {
    if let Some(line) = lines.get_mut(of) {
        line.remove(&ticket);
        if line.is_empty() {
            lines.remove(of);
        }
    }
}
