//! Decisions: how fast they are with many jobs and many workers, whether teams get their shares, and how
//! long a coordinator takes to remember.

mod fairness;
mod recovery;
mod sample;

use std::collections::VecDeque;

use ::scheduler::{Config, Decision, Event, Fact, Now, Scheduler, SessionId};
use anyhow::{Result, ensure};
use coordinator::record;
use protocol::lease::LeaseId;

use crate::{
    clock::{median, millis, spread, time},
    report::Row,
    scheduler::sample::{joins, result, submission},
};

/// How many jobs are queued.
const JOBS: u32 = 100_000;
/// Of how many teams.
const TEAMS: u32 = 50;
/// How many jobs a build has, each a unit of its own.
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
    let (mut rates, mut slowest) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (rate, worst) = drain_queue()?;
        rates.push(rate);
        slowest.push(worst);
    }
    let mut rows = vec![
        Row {
            name: format!("assignments, {JOBS} jobs, {WORKERS} workers"),
            value: median(rates.clone()),
            unit: "1/s",
            ceiling: Some(FLOOR),
            ratio: None,
            note: format!("to be reached; spread {:.2}", spread(&rates)),
        },
        Row {
            name: "the slowest decision".to_owned(),
            value: median(slowest),
            unit: "ms",
            ceiling: None,
            ratio: None,
            note: "of all events: submissions, joins, results".to_owned(),
        },
    ];
    rows.extend(measure_state()?);
    rows.extend(fairness::measure()?);
    rows.push(recovery::measure()?);
    Ok(rows)
}

/// Takes an image of the state while all jobs are queued, as a coordinator does between two decisions, and
/// encodes it, which it does beside them.
fn measure_state() -> Result<[Row; 2]> {
    let mut scheduler = Scheduler::new(Config::default());
    for build in 0..JOBS / UNITS {
        let submission = submission(build.into(), build % TEAMS, UNITS);
        scheduler.apply(Now::default(), Event::Submit(Box::new(submission)));
    }
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

/// Queues all jobs, lets all workers join, and lets each assignment end as soon as it was made. Gives
/// assignments per second, and the slowest decision in milliseconds.
fn drain_queue() -> Result<(f64, f64)> {
    let mut scheduler = Scheduler::new(Config::default());
    let mut clock = Clock::default();
    for build in 0..JOBS / UNITS {
        let submission = submission(build.into(), build % TEAMS, UNITS);
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
    ensure!(assigned == JOBS as usize, "{assigned} jobs were assigned");
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
