//! Decisions: how fast they are with many jobs and many workers, whether teams get their shares, and how
//! long a coordinator takes to remember.

mod fairness;
mod recovery;
mod sample;

use std::collections::VecDeque;

use ::scheduler::{Config, Decision, Event, Fact, LEASE_FENCE, Now, Scheduler, SessionId};
use anyhow::{Result, ensure};
use coordinator::record;
use protocol::lease::LeaseId;

use crate::{
    clock::{median, millis, spread, time},
    report::Row,
    scheduler::sample::{ALL_PHASES, joins, phased, result},
};

/// How many jobs are queued.
const JOBS: u32 = 100_000;
/// How many jobs the build has that is stopped at once.
const STOPPED: u32 = 6_000;
/// Of how many teams.
const TEAMS: u32 = 50;
/// How many units a build has.
const UNITS: u32 = 10;
/// How many workers there are, of one slot each.
const WORKERS: u32 = 1_000;
/// Assignments per second that are to be reached.
const FLOOR: f64 = 50_000.0;

/// Measures all of it.
///
/// # Errors
///
/// If a journal cannot be written or read, or jobs are left over.
pub(crate) fn measure(runs: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    // A real build is mostly next phases, which go to who has their layers if they can.
    for phases in [1, ALL_PHASES] {
        rows.extend(measure_queue(phases, runs)?);
    }
    rows.extend(measure_masses(runs)?);
    rows.extend(measure_state()?);
    rows.extend(fairness::measure()?);
    rows.push(recovery::measure()?);
    Ok(rows)
}

/// How fast units of so many phases are assigned, and the slowest decision on the way.
fn measure_queue(phases: u32, runs: u32) -> Result<[Row; 2]> {
    let (mut rates, mut slowest) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (rate, worst) = drain_queue(phases)?;
        rates.push(rate);
        slowest.push(worst);
    }
    let of = match phases {
        1 => "units of one phase".to_owned(),
        _ => format!("units of {phases} phases"),
    };
    Ok([
        Row {
            name: format!("assignments, {JOBS} jobs, {of}"),
            value: median(rates.clone()),
            unit: "1/s",
            ceiling: Some(FLOOR),
            ratio: None,
            note: format!(
                "to be reached on {WORKERS} workers; spread {:.2}",
                spread(&rates)
            ),
        },
        Row {
            name: format!("the slowest decision, {of}"),
            value: median(slowest),
            unit: "ms",
            ceiling: None,
            ratio: None,
            note: "of all events: submissions, joins, results".to_owned(),
        },
    ])
}

/// How long a decision takes that concerns very much at once: all workers are lost in one moment, or a
/// large build is stopped.
fn measure_masses(runs: u32) -> Result<[Row; 2]> {
    let (mut losing, mut stopping) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let mut scheduler = queued(ALL_PHASES);
        let assigned: usize = joins(WORKERS)
            .map(|join| granted(&scheduler.apply(Now::default(), join)).len())
            .sum();
        ensure!(assigned == WORKERS as usize, "{assigned} workers have jobs");
        let later = Now {
            time: Now::default().time + LEASE_FENCE,
            ..Now::default()
        };
        let (took, decision) = time(|| scheduler.apply(later, Event::Tick));
        let is_loss = |fact: &&Fact| matches!(fact, Fact::LeaseLost { .. });
        let lost = decision.facts.iter().filter(is_loss).count();
        ensure!(lost == assigned, "{lost} leases are lost");
        losing.push(millis(took));
        let large = phased(u128::MAX, 0, (STOPPED / ALL_PHASES, ALL_PHASES));
        let build = large.build;
        scheduler.apply(later, Event::Submit(Box::new(large)));
        let (took, decision) = time(|| scheduler.apply(later, Event::Stop { build }));
        let ended = decision.facts.len();
        ensure!(STOPPED as usize <= ended, "{ended} jobs end");
        stopping.push(millis(took));
    }
    let row = |name: String, took| Row {
        name,
        value: median(took),
        unit: "ms",
        ceiling: None,
        ratio: None,
        note: "one decision".to_owned(),
    };
    Ok([
        row(format!("{WORKERS} workers are lost at once"), losing),
        row(format!("a build of {STOPPED} jobs is stopped"), stopping),
    ])
}

/// A scheduler with all jobs in its queue, or a few more.
fn queued(phases: u32) -> Scheduler {
    let mut scheduler = Scheduler::new(Config::default());
    for build in 0..builds(phases) {
        let submission = phased(build.into(), build % TEAMS, (UNITS, phases));
        scheduler.apply(Now::default(), Event::Submit(Box::new(submission)));
    }
    scheduler
}

/// How many builds have all jobs together.
const fn builds(phases: u32) -> u32 {
    JOBS.div_ceil(UNITS * phases)
}

/// Takes an image of the state while all jobs are queued, as a coordinator does between two decisions, and
/// encodes it, which it does beside them.
fn measure_state() -> Result<[Row; 2]> {
    let scheduler = queued(1);
    let (imaged, image) = time(|| scheduler.ledger().image());
    let (encoded, state) = time(|| record::encode_state(&image));
    let row = |name: &str, took, note: String| Row {
        name: format!("{name}, {JOBS} jobs"),
        value: millis(took),
        unit: "ms",
        ceiling: None,
        ratio: None,
        note,
    };
    let bytes = state?.len();
    Ok([
        row(
            "an image of the state",
            imaged,
            "between two decisions".to_owned(),
        ),
        row(
            "encoding it",
            encoded,
            format!("{bytes} bytes, beside the decisions"),
        ),
    ])
}

/// Queues all jobs, in units of so many phases, lets all workers join, and lets each assignment end as soon as it
/// was made. Gives assignments per second, and the slowest decision in milliseconds.
fn drain_queue(phases: u32) -> Result<(f64, f64)> {
    let mut scheduler = Scheduler::new(Config::default());
    let mut clock = Clock::default();
    for build in 0..builds(phases) {
        let submission = phased(build.into(), build % TEAMS, (UNITS, phases));
        clock.apply(&mut scheduler, Event::Submit(Box::new(submission)));
    }
    clock.decided = 0.0;
    let mut leases = VecDeque::new();
    for join in joins(WORKERS) {
        let decision = clock.apply(&mut scheduler, join);
        leases.extend(granted(&decision));
    }
    let mut assigned = leases.len();
    while let Some((session, lease)) = leases.pop_front() {
        let result = Box::new(result());
        let finished = Event::Finished {
            session,
            lease,
            result,
        };
        let decision = clock.apply(&mut scheduler, finished);
        let next = granted(&decision);
        assigned += next.len();
        leases.extend(next);
    }
    let all = builds(phases) * UNITS * phases;
    ensure!(assigned == all as usize, "{assigned} jobs were assigned");
    let assigned = f64::from(u32::try_from(assigned)?);
    Ok((assigned / clock.decided, clock.slowest))
}

/// Counts what decisions take.
#[derive(Default)]
struct Clock {
    now: Now,
    /// In seconds.
    decided: f64,
    /// In milliseconds.
    slowest: f64,
}

impl Clock {
    fn apply(&mut self, scheduler: &mut Scheduler, event: Event) -> Decision {
        let (took, decision) = time(|| scheduler.apply(self.now, event));
        self.decided += took.as_secs_f64();
        self.slowest = self.slowest.max(millis(took));
        decision
    }
}

/// The leases that were granted, each with its worker's session.
fn granted(decision: &Decision) -> Vec<(SessionId, LeaseId)> {
    let granted = decision.facts.iter().filter_map(|fact| match fact {
        Fact::LeaseGranted { lease, worker, .. } => Some((sample::session(worker), *lease)),
        _ => None,
    });
    granted.collect()
}
