//! The coordinator: the real scheduler and the real journal, on a disk that can stop at any step.

use std::{collections::BTreeMap, time::Duration};

use coordinator::{AppendError, Journal, record};
use protocol::{
    job::JobId,
    lease::LeaseId,
    time::{Time, WallTime},
};
use scheduler::{Config, Effect, Event, Fact, LEASE_FENCE, Limits, Now, SessionId};

use super::{
    Clock, Happening, World,
    hearing::Hearing,
    logs::Logs,
    standing::{Joins, Standing},
};
use crate::simulation::{
    brain::Brain,
    dice::Dice,
    disk::{Disk, Fuse},
    mutant::Mutant,
    script::{Micros, Moment, Power, SECOND, Script},
    truth::{Broken, check},
};

/// What the wall clock shows at the start.
const EPOCH: WallTime = WallTime(1_700_000_000_000);

/// The coordinator's machine.
#[derive(Debug)]
pub(super) struct Coordinator {
    /// Counts its starts.
    pub(super) life: u64,
    /// The program, if it runs.
    pub(super) up: Option<Up>,
    pub(super) disk: Disk,
    pub(super) logs: Logs,
    pub(super) asleep_until: Micros,
    pub(super) slow_until: Micros,
    /// How far the wall clock is off, in milliseconds.
    pub(super) wall_off: i64,
    pub(super) state_wanted: bool,
    /// How it dies with what it decides next.
    pub(super) armed: Option<(Moment, Power, Micros)>,
    /// At which operation on the disk its next start ends.
    pub(super) start_fuse: Option<(u64, Power)>,
    pub(super) clock: Clock,
    pub(super) config: Config,
    /// All records that are durable.
    pub(super) history: Vec<Vec<u8>>,
    /// States that were put beside the journal, or may have been, and how many records came before.
    pub(super) states: Vec<(Vec<u8>, usize)>,
    /// What was being written when it died.
    pub(super) uncertain: Vec<Vec<u8>>,
    /// The attempts that leases are, or were, for.
    attempts: BTreeMap<LeaseId, (JobId, u32)>,
    /// Results that were taken: attempts and how many bytes their logs have.
    pub(super) stored: Vec<(JobId, u32, u64)>,
    /// How workers stand, as the facts that are durable have it.
    pub(super) standing: Standing,
}

/// The program.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) brain: Brain,
    pub(super) journal: Option<Journal>,
    pub(super) sessions: BTreeMap<SessionId, usize>,
    pub(super) next_session: u64,
    pub(super) inbox: Vec<Order>,
    pub(super) is_called: bool,
    pub(super) group: Option<Group>,
    /// When each live lease ends, if nothing puts it off.
    pub(super) fences: BTreeMap<LeaseId, Time>,
    pub(super) standing: Standing,
    pub(super) hearing: Hearing,
}

/// What waits in the queue.
#[derive(Debug)]
pub(super) enum Order {
    /// Something happened; somebody may want to know what became of it.
    Event(Event, Option<Question>),
    /// Somebody wants to know how things stand.
    Ask(Question),
}

/// Who wants to know, over which of its connections.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    /// Whether its build was taken.
    Taken(u64, u64),
    /// How its build stands.
    Look(u64, u64),
}

/// What one sync is to cover, and what follows it.
#[derive(Debug, Default)]
pub(super) struct Group {
    records: Vec<Vec<u8>>,
    facts: Vec<Fact>,
    effects: Vec<Effect>,
    questions: Vec<Question>,
}

impl Coordinator {
    pub(super) fn new(script: &Script) -> Self {
        let config = Config {
            limits: Limits {
                queue: Duration::from_secs(36_000),
                run: Duration::from_secs(script.run_limit),
            },
            ..Config::default()
        };
        Self {
            life: 0,
            up: None,
            disk: Disk::default(),
            logs: Logs::default(),
            asleep_until: 0,
            slow_until: 0,
            wall_off: 0,
            state_wanted: false,
            armed: None,
            start_fuse: None,
            clock: Clock::of(Dice(script.seed), &[u64::MAX]),
            config,
            history: Vec::new(),
            states: Vec::new(),
            uncertain: Vec::new(),
            attempts: BTreeMap::new(),
            stored: Vec::new(),
            standing: Standing::default(),
        }
    }

    pub(super) fn history(&self) -> &[Vec<u8>] {
        &self.history
    }

    /// Whether it answers who connects.
    pub(super) fn is_there(&self, now: Micros) -> bool {
        self.up.is_some() && self.asleep_until <= now
    }

    /// What its clocks show.
    pub(super) fn clocks(&self, now: Micros) -> Now {
        let wall = EPOCH.0 + now / 1_000;
        Now {
            time: self.clock.time(now),
            wall: WallTime(wall.saturating_add_signed(self.wall_off)),
        }
    }

    /// When its wall clock shows `wall`.
    fn real_of_wall(&self, wall: WallTime) -> Micros {
        let since = wall.0.saturating_sub(EPOCH.0);
        since.saturating_add_signed(-self.wall_off) * 1_000
    }
}

impl World {
    /// When the coordinator has something to decide by itself.
    pub(super) fn coordinator_deadline(&self) -> Option<Micros> {
        let of = &self.coordinator;
        let up = of.up.as_ref().filter(|up| up.group.is_none())?;
        let deadline = up.brain.next_deadline();
        let time = deadline.time.map(|time| of.clock.real(time));
        let wall = deadline.wall.map(|wall| of.real_of_wall(wall));
        let first = time.into_iter().chain(wall).min()?;
        Some(first.max(of.asleep_until).max(self.now))
    }

    /// Puts something into the queue.
    pub(super) fn order(&mut self, order: Order) {
        let Some(up) = &mut self.coordinator.up else {
            return;
        };
        up.inbox.push(order);
        self.call();
    }

    /// Has the queue looked at soon.
    pub(super) fn call(&mut self) {
        let life = self.coordinator.life;
        let Some(up) = &mut self.coordinator.up else {
            return;
        };
        if up.is_called || up.group.is_some() || up.inbox.is_empty() {
            return;
        }
        up.is_called = true;
        let wait = self.dice.below("dispatch", &[self.now], 3_000);
        let at = (self.now + wait).max(self.coordinator.asleep_until);
        self.at(at, Happening::Dispatch(life));
    }

    /// Decides about all that is in the queue, or about the time that has passed.
    pub(super) fn dispatch(&mut self) {
        if self.now < self.coordinator.asleep_until {
            let life = self.coordinator.life;
            self.at(self.coordinator.asleep_until, Happening::Dispatch(life));
            return;
        }
        let Some(up) = &mut self.coordinator.up else {
            return;
        };
        if up.group.is_some() {
            return;
        }
        up.is_called = false;
        let mut orders = std::mem::take(&mut up.inbox);
        if orders.is_empty() {
            orders.push(Order::Event(Event::Tick, None));
        }
        let mut group = Group::default();
        for order in orders {
            match order {
                Order::Ask(question) => group.questions.push(question),
                Order::Event(event, question) => {
                    self.decide(event, &mut group);
                    group.questions.extend(question);
                }
            }
        }
        if self.mutant == Some(Mutant::EffectBeforeSync) {
            for effect in std::mem::take(&mut group.effects) {
                self.carry_out(effect);
            }
        }
        if group.records.is_empty() && self.coordinator.armed.is_none() {
            self.settle(group);
            return;
        }
        let longest = match self.now < self.coordinator.slow_until {
            true => 4 * SECOND,
            false => SECOND / 50,
        };
        if let Some(up) = &mut self.coordinator.up {
            up.group = Some(group);
            let wait = self.dice.below("sync", &[self.now], longest);
            self.after(wait, Happening::Append(self.coordinator.life));
        }
    }

    fn decide(&mut self, event: Event, group: &mut Group) {
        let now = self.coordinator.clocks(self.now);
        let Some(up) = &mut self.coordinator.up else {
            return;
        };
        if let Event::WorkerLeft { session } = &event {
            up.sessions.remove(session);
        }
        up.standing.hears(&event, now);
        let joins = Joins::of(&event);
        let asked = up.hearing.hears(&event);
        let decision = up.brain.apply(now, event);
        let stands = up.standing.decides(joins, &decision, (now, &self.truth));
        for _ in 0..up.hearing.lost_unheard(&decision, now.time) {
            self.tally.add("lease lost, nothing was heard");
        }
        let heard = up.hearing.decides(asked, &decision, now.time);
        let fenced = fence(&mut up.fences, now, &decision.facts, &decision.effects);
        self.require(fenced);
        self.require(stands);
        self.require(heard);
        for ignored in &decision.ignored {
            self.tally.add_ignored(*ignored);
        }
        for fact in &decision.facts {
            self.tally.add_fact(fact);
            if let Fact::LeaseLost { lease, .. } | Fact::LeaseReturned { lease, .. } = fact {
                self.check_lost(*lease);
            }
        }
        group
            .records
            .extend(decision.facts.iter().map(record::encode));
        group.facts.extend(decision.facts);
        group.effects.extend(decision.effects);
    }

    /// A lease that the coordinator gives up has ended where its attempt runs.
    fn check_lost(&mut self, lease: LeaseId) {
        for worker in 0..self.workers.len() {
            let of = &self.workers[worker];
            let Some(end) = of.leases.end(lease) else {
                continue;
            };
            let end = of.clock.real(end);
            let is_over = end <= self.now;
            self.require(check(is_over, || {
                let micros = end - self.now;
                format!("{lease} is given up, and w{worker} goes by it for {micros} µs more")
            }));
        }
    }

    /// Writes down what was decided; dies on the way, if it is to.
    pub(super) fn append(&mut self) {
        let Some(up) = &mut self.coordinator.up else {
            return;
        };
        let Some(group) = up.group.take() else { return };
        let armed = self.coordinator.armed;
        let armed = armed.filter(|(moment, ..)| !matches!(moment, Moment::PuttingState(_)));
        let armed = armed.filter(|_| !group.records.is_empty());
        let fuse = match armed.map(|(moment, ..)| moment) {
            Some(Moment::Writing) => Fuse::At(0),
            Some(Moment::Written) => Fuse::At(1),
            _ => Fuse::None,
        };
        let is_decided = armed.is_some_and(|(moment, ..)| moment == Moment::Decided);
        self.coordinator.disk.set_fuse(fuse);
        let journal = up.journal.as_mut().expect("it is only away in between");
        let appended = match is_decided {
            true => None,
            false => Some(journal.append(&group.records)),
        };
        if is_decided || self.coordinator.disk.is_blown() {
            let (_, power, lasts) = armed.expect("the disk stops only then");
            self.coordinator.uncertain = match is_decided {
                true => Vec::new(),
                false => group.records,
            };
            self.tally.add("decision lost, or not known to be durable");
            self.coordinator_dies(power, lasts);
            return;
        }
        if let Some(Err(AppendError::NotWritten { .. })) = appended {
            self.tally.add("journal refused");
            up.group = Some(group);
            self.after(SECOND, Happening::Append(self.coordinator.life));
            return;
        }
        if let Some(Err(error)) = appended {
            self.require(Err(format!("the journal is lost: {error}")));
            return;
        }
        self.durable(&group.records, &group.facts);
        if let Some((moment @ (Moment::Synced | Moment::Telling), power, lasts)) = armed {
            let told = match moment {
                Moment::Synced => 0,
                _ => group.effects.len() / 2,
            };
            for effect in group.effects.into_iter().take(told) {
                self.carry_out(effect);
            }
            self.tally.add("effects lost");
            self.coordinator_dies(power, lasts);
            return;
        }
        self.settle(group);
    }

    /// What was decided is durable: the world may know.
    fn settle(&mut self, group: Group) {
        for effect in group.effects {
            self.carry_out(effect);
        }
        for question in group.questions {
            self.answer(question);
        }
        if self.coordinator.state_wanted {
            self.put_state();
        }
        self.call();
    }

    /// Records are in the journal for good.
    pub(super) fn durable(&mut self, records: &[Vec<u8>], facts: &[Fact]) {
        self.coordinator.history.extend_from_slice(records);
        for fact in facts {
            if let Fact::LeaseGranted {
                lease,
                job,
                attempt,
                ..
            } = fact
            {
                self.coordinator.attempts.insert(*lease, (*job, *attempt));
            }
            if let Fact::JobEnded { lease, result, .. } = fact
                && let Some((job, attempt)) = self.coordinator.attempts.get(lease).copied()
            {
                self.coordinator
                    .stored
                    .push((job, attempt, result.log_bytes));
                let kept = self.coordinator.logs.check(job, attempt, result.log_bytes);
                self.require(kept);
            }
            if let Fact::BuildDeleted { build, .. } = fact {
                self.coordinator
                    .stored
                    .retain(|(job, ..)| job.build != *build);
            }
            self.coordinator.standing.learn(fact, &self.truth);
            let told = self.truth.tell(fact);
            self.require(told);
        }
    }

    /// Puts the state beside the journal; dies on the way, if it is to.
    fn put_state(&mut self) {
        self.coordinator.state_wanted = false;
        let armed = self.coordinator.armed;
        let armed = armed.and_then(|(moment, power, lasts)| match moment {
            Moment::PuttingState(operation) => Some((operation, power, lasts)),
            _ => None,
        });
        let Some(up) = &mut self.coordinator.up else {
            return;
        };
        let state = record::encode_state(&up.brain.ledger().image()).unwrap();
        let before = self.coordinator.history.len();
        self.coordinator.states.push((state.clone(), before));
        if let Some((operation, ..)) = armed {
            self.coordinator.disk.set_fuse(Fuse::At(operation));
        }
        let journal = up.journal.as_mut().expect("it is only away in between");
        // That it fails is no harm: the journal is only longer.
        let put = journal.put_state(&state);
        self.tally.add(match put {
            Ok(()) => "state put",
            Err(_) => "state not put, or not to the end",
        });
        let is_blown = self.coordinator.disk.is_blown();
        self.coordinator.disk.set_fuse(Fuse::None);
        if let Some((_, power, lasts)) = armed
            && is_blown
        {
            self.coordinator_dies(power, lasts);
        }
    }
}

/// Follows when leases end at the coordinator: one that was neither granted nor renewed for that long is
/// over.
fn fence(
    fences: &mut BTreeMap<LeaseId, Time>,
    now: Now,
    facts: &[Fact],
    effects: &[Effect],
) -> Result<(), Broken> {
    let fence = now.time + LEASE_FENCE;
    for fact in facts {
        match fact {
            Fact::LeaseLost { lease, .. }
            | Fact::LeaseReturned { lease, .. }
            | Fact::AttemptFaulted { lease, .. }
            | Fact::JobEnded { lease, .. } => {
                fences.remove(lease);
            }
            _ => {}
        }
    }
    let late = fences.iter().find(|(_, end)| **end <= now.time);
    check(late.is_none(), || {
        format!("{late:?} is out, and it is {now:?}")
    })?;
    for fact in facts {
        if let Fact::LeaseGranted { lease, .. } = fact {
            fences.insert(*lease, fence);
        }
    }
    for effect in effects {
        if let Effect::Renewed { leases, .. } | Effect::Joined { leases, .. } = effect {
            for lease in leases {
                if let Some(end) = fences.get_mut(lease) {
                    *end = fence;
                }
            }
        }
    }
    Ok(())
}
