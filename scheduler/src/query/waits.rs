//! Why a phase waits, in words.

use std::{collections::BTreeMap, fmt::Write as _};

use protocol::{
    environment::{Selection, select},
    name::{Team, WorkerName},
    runtime::{has_all, mistake},
    time::Time,
};

use crate::{
    event::Now,
    fact::Platform,
    index::{Readiness, readiness},
    placement::waits_for_preferred,
    queue::Requirement,
    state::{Build, JobState, State},
    timer::Timer,
};

/// Says why phases of one build wait. What it found out about the farm's workers it says again for the
/// next phase: a build may have thousands, and the farm too.
pub(crate) struct Waits<'a> {
    state: &'a State,
    build: &'a Build,
    now: Now,
    crowded: BTreeMap<Option<Platform>, String>,
}

impl<'a> Waits<'a> {
    /// For the phases of `build`.
    pub(crate) const fn new(state: &'a State, build: &'a Build, now: Now) -> Self {
        Self {
            state,
            build,
            now,
            crowded: BTreeMap::new(),
        }
    }

    /// Why the job `index` waits; `None`: it does not.
    pub(crate) fn reason(&mut self, index: u32) -> Option<String> {
        let (state, build) = (self.state, self.build);
        match build.jobs[index as usize].state {
            JobState::Running(_) | JobState::Ended(_) => None,
            JobState::Waiting => match readiness(build, index) {
                Readiness::Later { needs } => Some(needed(build, index, needs)),
                Readiness::Now | Readiness::Never { .. } => None,
            },
            JobState::Ready => Some(match Requirement::of(build, index) {
                Requirement::Worker(worker, _) => bound(state, &worker, self.now),
                Requirement::Any => self.crowded(None),
                Requirement::Selected(wanted) => match not_served(state, &wanted) {
                    Some(why) => why,
                    None => self.crowded(None),
                },
                Requirement::Platform(platform) => {
                    let unit = build.node(index).unit;
                    let worker = build.unit_of(index).placement.as_ref().map(|at| &at.worker);
                    match worker {
                        Some(worker) if waits_for_preferred(state, build, unit) => {
                            format!("waits a moment for worker {worker}, which holds its layers")
                        }
                        _ => self.crowded(Some(platform)),
                    }
                }
            }),
        }
    }

    fn crowded(&mut self, platform: Option<Platform>) -> String {
        let (state, team) = (self.state, &self.build.submission.team);
        let text = self.crowded.entry(platform);
        let text = text.or_insert_with_key(|platform| crowded(state, platform.as_ref(), team));
        text.clone()
    }
}

/// Why no worker will do that is there; `None`: one will, once it is free.
fn not_served(state: &State, wanted: &Selection) -> Option<String> {
    let workers = state.presence.workers();
    let offers: Vec<_> = workers.map(|(_, worker)| &worker.offer).collect();
    let mut each = offers.iter();
    if each.any(|offer| wanted.is_served(&offer.runtimes, &offer.labels)) {
        return None;
    }
    let runtimes = offers.iter().map(|offer| &offer.runtimes);
    let has_runtimes =
        wanted.runtimes.is_empty() || runtimes.clone().any(|of| has_all(of, &wanted.runtimes));
    let labels = offers.iter().map(|offer| &offer.labels);
    let why = match (has_runtimes, select(labels, &wanted.environment)) {
        (false, _) => {
            let why = mistake(runtimes, &wanted.runtimes);
            why.unwrap_or_else(|| "none offers runtimes".to_owned())
        }
        (true, Err(why)) => why,
        (true, Ok(selected)) => match selected.not.first_key_value() {
            Some((key, value)) => format!("none serves {key} `{value}`"),
            None => "none serves all of it together".to_owned(),
        },
    };
    Some(format!("no connected worker will do: {why}"))
}

fn needed(build: &Build, index: u32, needs: u32) -> String {
    let (node, other) = (build.node(index), build.node(needs));
    let units = &build.submission.graph.units;
    match &units[other.unit as usize].identifier {
        Some(identifier) if other.unit != node.unit => {
            format!("waits for {} of {identifier}", other.phase)
        }
        _ => format!("waits for {}", other.phase),
    }
}

/// Why a job waits that only one worker can run.
fn bound(state: &State, worker: &WorkerName, now: Now) -> String {
    let presence = &state.presence;
    if presence.get(worker).is_some() {
        return match presence.timers.get(&Timer::Bench(worker.clone())) {
            Some(until) => format!(
                "its worker {worker} is put aside after a fault, for {}",
                seconds(until, now)
            ),
            None => format!("its worker {worker} has no free slot"),
        };
    }
    let gone = presence.timers.get(&Timer::Gone(worker.clone()));
    let left = gone.map_or_else(|| "a while".to_owned(), |until| seconds(until, now));
    format!(
        "its worker {worker} is gone; waits {left} for it to come back, then starts again elsewhere"
    )
}

fn seconds(until: Time, now: Now) -> String {
    let left = until.since(now.time);
    format!("{} s", left.as_millis().div_ceil(1000))
}

/// Why a job of `team` waits that any worker (of that platform) can run.
fn crowded(state: &State, platform: Option<&Platform>, team: &Team) -> String {
    let (mut connected, mut fitting, mut others) = (0_u32, 0_u32, 0_u32);
    let (mut busy, mut draining, mut aside) = (0_u32, 0_u32, 0_u32);
    for (name, worker) in state.presence.workers() {
        connected += 1;
        if platform.is_some_and(|platform| worker.platform != *platform) {
            continue;
        }
        if platform.is_none() && worker.platform.is_bound() && worker.team != *team {
            others += 1;
            continue;
        }
        fitting += 1;
        if worker.is_leaving || state.ledger.draining.contains_key(name) {
            draining += 1;
        } else if state.presence.is_benched(name) {
            aside += 1;
        } else {
            busy += 1;
        }
    }
    if connected == 0 {
        return "no worker of the farm is connected".to_owned();
    }
    if fitting == 0 && 0 < others {
        return format!(
            "no worker serves team {team} ({others} connected that have isolation level host and serve \
             another team)"
        );
    }
    if fitting == 0 {
        return format!("no worker has the base that the unit started on ({connected} connected)");
    }
    let mut text = format!("no worker with a free slot ({fitting} connected, ");
    if busy == fitting && others == 0 {
        text.push_str("all busy)");
        return text;
    }
    let counts = [
        (busy, "busy"),
        (draining, "draining"),
        (aside, "put aside after faults"),
        (others, "more for other teams only"),
    ];
    let mut separator = "";
    for (count, what) in counts.into_iter().filter(|(count, _)| 0 < *count) {
        let _infallible = write!(text, "{separator}{count} {what}");
        separator = ", ";
    }
    text.push(')');
    text
}
