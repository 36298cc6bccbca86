//! What teams get in an hour in which all of them want more than there is, with phases of different
//! lengths.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use ::scheduler::{Config, Decision, Event, Fact, Now, Scheduler, SessionId};
use anyhow::Result;
use protocol::{
    build::BuildId,
    lease::{LEASE_RENEWAL, LeaseId},
    time::{Time, WallTime},
};

use super::{
    TEAMS, WORKERS,
    sample::{joins, result, session, submission},
};
use crate::report::Row;

/// How long the farm is watched.
const HOUR: Duration = Duration::from_secs(3_600);
/// How many jobs each team has: more than it gets done.
const JOBS_PER_TEAM: u32 = 5_900;

/// Plays the hour on a farm with many slots for each team, and on one with fewer slots than teams.
///
/// # Errors
///
/// None so far.
pub(super) fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for workers in [WORKERS, TEAMS / 2] {
        let used = Hour::new(workers).play();
        let due = HOUR.as_secs_f64() * f64::from(workers) / f64::from(TEAMS);
        let shares = used.values().map(|used| used.as_secs_f64() / due);
        let (least, most) = shares.fold((f64::MAX, 0.0_f64), |(least, most), share| {
            (least.min(share), most.max(share))
        });
        for (name, value) in [("smallest", least), ("largest", most)] {
            rows.push(Row {
                name: format!("{name} share after an hour, {workers} workers"),
                value,
                unit: "x",
                ceiling: None,
                ratio: None,
                note: format!("of what is due to each of {TEAMS} teams; phases of 15 s to 5 min"),
            });
        }
    }
    Ok(rows)
}

/// Something that will happen.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Happening {
    Ends(SessionId, LeaseId),
    Renew(SessionId),
}

struct Hour {
    scheduler: Scheduler,
    now: Duration,
    agenda: BinaryHeap<Reverse<(Duration, Happening)>>,
    /// What each worker runs: the lease, for which team, and since when.
    runs: BTreeMap<SessionId, (LeaseId, u32, Duration)>,
    renewals: u64,
    used: BTreeMap<u32, Duration>,
}

impl Hour {
    fn new(workers: u32) -> Self {
        let mut hour = Self {
            scheduler: Scheduler::new(Config::default()),
            now: Duration::ZERO,
            agenda: BinaryHeap::new(),
            runs: BTreeMap::new(),
            renewals: 0,
            used: (0..TEAMS).map(|team| (team, Duration::ZERO)).collect(),
        };
        for team in 0..TEAMS {
            let submission = submission(team.into(), team, JOBS_PER_TEAM);
            hour.apply(Event::Submit(Box::new(submission)));
        }
        for join in joins(workers) {
            hour.apply(join);
        }
        hour
    }

    /// Gives the time of slots that each team has used.
    fn play(mut self) -> BTreeMap<u32, Duration> {
        while let Some(Reverse((at, happening))) = self.agenda.pop() {
            if HOUR <= at {
                break;
            }
            self.now = at;
            match happening {
                Happening::Ends(session, lease) => self.end(session, lease),
                Happening::Renew(session) => self.renew(session),
            }
        }
        self.now = HOUR;
        let running: Vec<_> = self.runs.keys().copied().collect();
        for session in running {
            self.count(session);
        }
        self.used
    }

    fn end(&mut self, session: SessionId, lease: LeaseId) {
        self.count(session);
        let result = Box::new(result());
        self.apply(Event::Finished {
            session,
            lease,
            result,
        });
    }

    fn renew(&mut self, session: SessionId) {
        self.renewals += 1;
        let leases = self.runs.get(&session).map(|(lease, ..)| *lease);
        self.apply(Event::Renew {
            session,
            sequence: self.renewals,
            leases: leases.into_iter().collect(),
        });
        let next = self.now + LEASE_RENEWAL * 2;
        self.agenda.push(Reverse((next, Happening::Renew(session))));
    }

    fn count(&mut self, session: SessionId) {
        if let Some((_, team, since)) = self.runs.remove(&session) {
            *self.used.entry(team).or_default() += self.now - since;
        }
    }

    fn apply(&mut self, event: Event) {
        let now = Now {
            time: Time::ZERO + self.now,
            wall: WallTime(1) + self.now,
        };
        let starts = matches!(event, Event::WorkerJoined { .. });
        let Decision { facts, .. } = self.scheduler.apply(now, event);
        let mut granted = Vec::new();
        for fact in facts {
            let Fact::LeaseGranted {
                lease, job, worker, ..
            } = fact
            else {
                continue;
            };
            granted.push(lease);
            let session = session(&worker);
            let team = team_of(job.build);
            self.runs.insert(session, (lease, team, self.now));
            let ends = self.now + length_of(team);
            self.agenda
                .push(Reverse((ends, Happening::Ends(session, lease))));
            if starts {
                let next = self.now + LEASE_RENEWAL;
                self.agenda.push(Reverse((next, Happening::Renew(session))));
            }
        }
        // Each attempt begins with a line of its log.
        for lease in granted {
            self.apply(Event::Heard { lease });
        }
    }
}

fn team_of(build: BuildId) -> u32 {
    u32::try_from(build.0).expect("each team has one build, of its own number")
}

/// How long a team's phases take.
fn length_of(team: u32) -> Duration {
    Duration::from_secs(15) * (team % 20 + 1)
}
