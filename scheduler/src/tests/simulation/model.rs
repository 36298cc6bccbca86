//! The world around the scheduler: workers that keep the protocol, and all that goes wrong.

mod trouble;
mod truth;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    lease::{LEASE_RENEWAL, LEASE_TTL, LeaseId},
    message::work::{HeldLease, JobInput, RevokeReason},
    worker::{Incarnation, Isolation},
};

use crate::{
    Config, Effect, Event, Fact, Limits, Now, Scheduler, SessionId, assignment,
    tests::{
        sample::{offer, result, submission},
        script::moment,
        simulation::model::worker::{Attempt, Session, Worker},
    },
};

/// When trouble ends, in milliseconds; from then on everybody keeps the protocol.
const TROUBLE_UNTIL: u64 = 600_000;
/// When every build must have ended, long before its limit.
const QUIET_UNTIL: u64 = TROUBLE_UNTIL + 3_600_000;
const WORKERS: usize = 5;
const BUILDS: u64 = 25;

/// Xorshift: small, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// Whether something happens that happens so many times in a hundred.
    fn percent(&mut self, times: u64) -> bool {
        self.below(100) < times
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// Something that will happen.
enum Happening {
    ToCoordinator(Event),
    ToWorker(SessionId, Box<Effect>, Option<HeldLease>, bool),
    Renew(usize, SessionId),
    Ends(usize, LeaseId, &'static str),
    Join(usize),
    Submit(u64),
    Trouble,
}

pub(crate) struct World {
    random: Random,
    now: u64,
    scheduler: Scheduler,
    config: Config,
    pub(crate) facts: Vec<Fact>,
    pub(crate) troubles: BTreeMap<&'static str, u64>,
    workers: Vec<Worker>,
    sessions: BTreeMap<SessionId, Session>,
    happenings: BTreeMap<(u64, u64), Happening>,
    count: u64,
}

impl World {
    pub(crate) fn new(mut random: Random) -> Self {
        // Most seeds have limits that are never reached, so that a build that is stuck shows.
        let run = if random.percent(20) { 120 } else { 36_000 };
        let config = Config {
            limits: Limits {
                queue: Duration::from_secs(36_000),
                run: Duration::from_secs(run),
            },
            ..Config::default()
        };
        let workers = (0..WORKERS).map(|index| {
            let mut offer = offer(&format!("w{index}"));
            offer.capacity = 1 + u32::try_from(random.below(3)).unwrap();
            if random.percent(40) {
                offer.isolation = Isolation::Host;
            }
            Worker {
                offer,
                session: None,
                attempts: BTreeMap::new(),
                local: BTreeSet::new(),
                sequence: 0,
                renewals: BTreeMap::new(),
                answered: 0,
                is_dismissed: false,
                incarnation: u64::try_from(index).unwrap(),
            }
        });
        let workers: Vec<_> = workers.collect();
        let mut world = Self {
            random,
            now: 0,
            scheduler: Scheduler::new(config),
            config,
            facts: Vec::new(),
            troubles: BTreeMap::new(),
            workers,
            sessions: BTreeMap::new(),
            happenings: BTreeMap::new(),
            count: 0,
        };
        for worker in 0..WORKERS {
            world.later(5_000, Happening::Join(worker));
        }
        for build in 1..=BUILDS {
            world.later(TROUBLE_UNTIL, Happening::Submit(build));
        }
        for _ in 0..60 {
            world.later(TROUBLE_UNTIL, Happening::Trouble);
        }
        world
    }

    /// Lets the next thing happen; whether there was one.
    pub(crate) fn advance(&mut self) -> bool {
        let deadline = self.scheduler.next_deadline().wait(self.moment());
        let deadline =
            deadline.map(|wait| self.now + u64::try_from(wait.as_micros().div_ceil(1000)).unwrap());
        let next = self.happenings.first_key_value().map(|((at, _), _)| *at);
        let is_quiet = self.now > TROUBLE_UNTIL
            && crate::active_builds(self.scheduler.state())
                .next()
                .is_none();
        if is_quiet || QUIET_UNTIL < self.now {
            return false;
        }
        match (deadline, next) {
            (Some(deadline), next) if next.is_none_or(|next| deadline < next) => {
                self.now = self.now.max(deadline);
                self.tell(Event::Tick);
            }
            (_, Some(next)) => {
                self.now = self.now.max(next);
                self.kill_lost();
                let (_, happening) = self.happenings.pop_first().unwrap();
                self.happen(happening);
            }
            (_, None) => return false,
        }
        self.kill_lost();
        true
    }

    fn moment(&self) -> Now {
        moment(Duration::from_millis(self.now))
    }

    /// Puts something on the agenda, within so many milliseconds.
    fn later(&mut self, within: u64, happening: Happening) {
        let at = self.now + self.random.below(within);
        self.at(at, happening);
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.count += 1;
        self.happenings.insert((at, self.count), happening);
    }

    fn note(&mut self, trouble: &'static str) {
        *self.troubles.entry(trouble).or_default() += 1;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToCoordinator(event) => self.tell(event),
            Happening::ToWorker(session, effect, held, is_lost) => {
                let is_open = self.sessions.get(&session).is_some_and(|of| of.is_open);
                if is_open {
                    self.obey(session, *effect, held, is_lost);
                }
            }
            Happening::Renew(worker, session) => self.renew(worker, session),
            Happening::Ends(worker, lease, outcome) => {
                let attempt = self.workers[worker].attempts.get_mut(&lease);
                if let Some(attempt) = attempt.filter(|attempt| attempt.result.is_none()) {
                    attempt.result = Some(outcome);
                    self.report(worker);
                }
            }
            Happening::Join(worker) => self.join(worker),
            Happening::Submit(build) => {
                let graphs: [&[&str]; 5] = [
                    &["download,install,build,post_build,upload"],
                    &["a:install,build b:build", "b:build"],
                    &[
                        "a:build,post_build",
                        "b!:install,build",
                        "c:build,post_build>a+b",
                    ],
                    &[
                        "fast-fail",
                        "a:build,post_build",
                        "b:install,build",
                        "c:build>a",
                    ],
                    &[
                        "a:build",
                        "b:build",
                        "c:build",
                        "d:build>a+b+c",
                        "e:build>d",
                    ],
                ];
                let words: Vec<&str> = self
                    .random
                    .pick(&graphs)
                    .iter()
                    .flat_map(|words| words.split(' '))
                    .collect();
                let words = if words.len() == 3 {
                    &words[..2]
                } else {
                    &words[..]
                };
                let submission = submission(&format!("b{build}"), words);
                self.tell(Event::Submit(Box::new(submission)));
            }
            Happening::Trouble => self.trouble(),
        }
    }

    /// Tells the scheduler something and sends on what it says.
    fn tell(&mut self, event: Event) {
        let decision = self.scheduler.apply(self.moment(), event);
        self.facts.extend(decision.facts);
        for effect in decision.effects {
            self.send(effect);
        }
    }

    /// Sends an effect to the worker that it is for. What an assignment says is read when it is sent.
    fn send(&mut self, effect: Effect) {
        let session = match &effect {
            Effect::Assign { session, .. }
            | Effect::Revoke { session, .. }
            | Effect::Renewed { session, .. }
            | Effect::Acknowledge { session, .. }
            | Effect::Joined { session, .. }
            | Effect::GoAhead { session, .. }
            | Effect::Dismiss { session }
            | Effect::Drain { session }
            | Effect::Close { session } => *session,
            _ => return,
        };
        let (mut held, mut is_lost, mut asks_to_begin) = (None, false, false);
        if let Effect::Assign { lease, .. } = effect {
            let wall = self.moment().wall;
            let Some(draft) = assignment(self.scheduler.state(), lease, wall) else {
                return;
            };
            let grant = protocol::access::SignedGrant {
                grant: Vec::new(),
                signature: Vec::new(),
            };
            let assignment = draft.signed(grant);
            let unit = (assignment.job.build, assignment.unit);
            let worker = &mut self.workers[self.sessions[&session].worker];
            is_lost = assignment.input == JobInput::Local && !worker.local.contains(&unit);
            if matches!(assignment.input, JobInput::Source(_))
                && worker.offer.isolation == Isolation::Host
            {
                worker.local.insert(unit);
            }
            asks_to_begin = assignment.asks_to_begin;
            held = Some(HeldLease {
                lease,
                job: assignment.job,
                attempt: assignment.attempt,
            });
        }
        self.deliver(
            session,
            1,
            Happening::ToWorker(session, Box::new(effect), held, is_lost),
        );
        if let Some(held) = held.filter(|_| asks_to_begin && self.random.percent(90)) {
            let lease = held.lease;
            let began = Event::Began { session, lease };
            self.deliver(session, 0, Happening::ToCoordinator(began));
        }
    }

    /// Puts a message on its way; within a session they arrive in order.
    fn deliver(&mut self, session: SessionId, direction: usize, message: Happening) {
        let slow = self.now < TROUBLE_UNTIL && self.random.percent(3);
        let delay = self.random.below(if slow { 30_000 } else { 200 });
        let of = self.sessions.get_mut(&session).unwrap();
        let at = (self.now + delay).max(of.arrives[direction]);
        of.arrives[direction] = at;
        self.at(at, message);
    }

    fn obey(&mut self, session: SessionId, effect: Effect, held: Option<HeldLease>, is_lost: bool) {
        let index = self.sessions[&session].worker;
        let now = self.now;
        let worker = &mut self.workers[index];
        if worker.session != Some(session) {
            return;
        }
        match effect {
            Effect::Assign { lease, .. } => {
                self.assigned(index, lease, held.unwrap(), is_lost);
            }
            Effect::Revoke { lease, reason, .. } => match reason {
                RevokeReason::Lost => {
                    worker.attempts.remove(&lease);
                }
                // Some do not obey while there is trouble.
                _ if now < TROUBLE_UNTIL && self.random.percent(20) => {}
                RevokeReason::Stopped => {
                    self.later(3_000, Happening::Ends(index, lease, "stopped"));
                }
                RevokeReason::TimedOut => {
                    self.later(3_000, Happening::Ends(index, lease, "timed-out"));
                }
            },
            Effect::Renewed {
                sequence, leases, ..
            } => {
                worker.renewed(sequence, &leases);
            }
            Effect::Joined { leases, .. } => {
                worker.joined(&leases);
                self.report(index);
            }
            Effect::Acknowledge { lease, .. } => {
                worker.attempts.remove(&lease);
                self.leave_if_dismissed(index);
            }
            Effect::Dismiss { .. } => {
                worker.is_dismissed = true;
                self.leave_if_dismissed(index);
            }
            Effect::Close { .. } => self.part(index),
            _ => {}
        }
    }

    fn assigned(&mut self, index: usize, lease: LeaseId, held: HeldLease, is_lost: bool) {
        if self.now < TROUBLE_UNTIL && self.random.percent(5) {
            if let Some(session) = self.workers[index].session {
                let declined = Event::Declined { session, lease };
                self.deliver(session, 0, Happening::ToCoordinator(declined));
            }
            return;
        }
        let worker = &mut self.workers[index];
        let attempt = Attempt {
            held,
            counted_from: worker.answered,
            result: None,
        };
        worker.attempts.insert(lease, attempt);
        let running = worker
            .attempts
            .values()
            .filter(|attempt| attempt.result.is_none());
        assert!(
            running.count() <= worker.offer.capacity as usize,
            "more than the capacity"
        );
        let outcomes: &[&str] = match is_lost {
            true => &["fault"],
            false if TROUBLE_UNTIL < self.now => &["ok"],
            false => OUTCOMES,
        };
        let outcome = *self.random.pick(outcomes);
        self.later(40_000, Happening::Ends(index, lease, outcome));
    }

    fn leave_if_dismissed(&mut self, index: usize) {
        let worker = &self.workers[index];
        if worker.is_dismissed && worker.attempts.is_empty() {
            self.note("worker left as it may");
            self.die(index);
        }
    }

    /// Sends all results that were not acknowledged.
    fn report(&mut self, index: usize) {
        let worker = &self.workers[index];
        let Some(session) = worker.session else {
            return;
        };
        let results: Vec<_> = worker
            .attempts
            .iter()
            .filter_map(|(lease, attempt)| Some((*lease, attempt.result?)))
            .collect();
        for (lease, word) in results {
            let event = Event::Finished {
                session,
                lease,
                result: Box::new(result(word)),
            };
            self.deliver(session, 0, Happening::ToCoordinator(event));
        }
    }

    fn renew(&mut self, index: usize, session: SessionId) {
        let worker = &mut self.workers[index];
        if worker.session != Some(session) {
            return;
        }
        worker.sequence += 1;
        let sequence = worker.sequence;
        let leases: Vec<LeaseId> = worker.attempts.keys().copied().collect();
        worker.renewals.insert(sequence, (self.now, leases.clone()));
        let event = Event::Renew {
            session,
            sequence,
            leases,
        };
        self.deliver(session, 0, Happening::ToCoordinator(event));
        self.report(index);
        let interval = u64::try_from(LEASE_RENEWAL.as_millis()).unwrap();
        self.at(self.now + interval, Happening::Renew(index, session));
    }

    fn join(&mut self, index: usize) {
        if self.workers[index].session.is_some() {
            return;
        }
        self.count += 1;
        let session = SessionId(self.count);
        self.sessions.insert(
            session,
            Session {
                worker: index,
                is_open: true,
                arrives: [0; 2],
            },
        );
        let worker = &mut self.workers[index];
        worker.session = Some(session);
        // What was sent over the old connection is not answered any more.
        worker.renewals.clear();
        worker.answered = self.now;
        let event = Event::WorkerJoined {
            session,
            team: "red".parse().unwrap(),
            incarnation: Incarnation(worker.incarnation),
            connection: session.0,
            offer: Box::new(worker.offer.clone()),
            leaving: false,
            holds: worker
                .attempts
                .values()
                .map(|attempt| attempt.held)
                .collect(),
        };
        self.deliver(session, 0, Happening::ToCoordinator(event));
        self.at(self.now + 100, Happening::Renew(index, session));
    }

    /// What every worker does at the end of its leases.
    fn kill_lost(&mut self) {
        let ttl = u64::try_from(LEASE_TTL.as_millis()).unwrap();
        let mut killed = 0;
        for worker in &mut self.workers {
            worker.attempts.retain(|_, attempt| {
                let is_lost = attempt.result.is_none() && attempt.counted_from + ttl <= self.now;
                killed += u64::from(is_lost);
                !is_lost
            });
        }
        *self
            .troubles
            .entry("worker killed what it had lost")
            .or_default() += killed;
    }
}

/// What comes of attempts while there is trouble.
const OUTCOMES: &[&str] = &[
    "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "fail", "fault",
    "bare", "stopped",
];
