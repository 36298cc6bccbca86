//! The world: what happens when, the links between the machines, and the clocks.

mod attempt;
mod cache;
mod client;
mod coordinator;
mod effects;
mod hearing;
mod logs;
mod machine;
mod recovery;
mod rest;
mod session;
mod standing;
mod trouble;
mod worker;

use std::collections::BTreeMap;

use protocol::{
    lease::LeaseId,
    message::work::{CoordinatorMessage, LogStart, WorkerMessage},
    time::Time,
};
use scheduler::SessionId;

use self::{
    attempt::Step,
    cache::Cache,
    client::{Client, News},
    coordinator::Coordinator,
    worker::Worker,
};
use super::{
    dice::Dice,
    mutant::Mutant,
    script::{Line, Micros, Power, SECOND, Script, TROUBLE_UNTIL, WORKERS},
    tally::Tally,
    truth::{Broken, Truth},
};

/// When all must have come to rest, long before any limit of those builds that have none to reach.
const REST_UNTIL: Micros = TROUBLE_UNTIL + 2 * 3_600 * SECOND;
/// How long a connection stands on which nothing arrives.
const IDLE_MAX: Micros = 20 * SECOND;

/// A machine's clock: it has a start of its own, and its own idea of how long a second is.
#[derive(Clone, Copy, Debug)]
struct Clock {
    offset: u64,
    /// In thousandths of the real pace. Leases have to stand a tenth.
    pace: u64,
}

impl Clock {
    fn of(dice: Dice, keys: &[u64]) -> Self {
        Self {
            offset: dice.below("offset", keys, 1_000 * SECOND),
            pace: 920 + dice.below("pace", keys, 161),
        }
    }

    /// What it shows.
    const fn time(self, real: Micros) -> Time {
        Time(self.offset + real * self.pace / 1_000)
    }

    /// When it shows `time` first.
    const fn real(self, time: Time) -> Micros {
        (time.0.saturating_sub(self.offset) * 1_000).div_ceil(self.pace)
    }
}

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    /// A line of the script.
    Line(Line),
    /// A worker tries to connect.
    Connect(usize),
    /// A message arrives, of this number in its lane.
    Arrives(usize, Lane, u64, Box<Payload>),
    /// A worker sees that a link is broken.
    WorkerNotices(usize),
    /// The coordinator does.
    CoordinatorNotices(usize),
    /// The coordinator takes what is in its queue.
    Dispatch(u64),
    /// What it decided comes to the disk.
    Append(u64),
    /// A log comes to the disk.
    LogSync(u64, usize, LogStart),
    /// The coordinator does what a build that has ended leaves to be done.
    Tidy(u64, protocol::build::BuildId),
    /// An attempt goes on, on a worker in this life.
    Step(usize, u64, LeaseId, u64, Step),
    WorkerStarts(usize, u64),
    WorkerWakes(usize, u64),
    CoordinatorStarts(u64),
    CoordinatorWakes,
    /// It dies as it was to, though nothing was decided meanwhile.
    CoordinatorDies(u64, Power, Micros),
    CacheStarts,
    DiskHasRoom,
    ClientTries(u64, u64),
    ClientHears(u64, u64, Box<News>),
}

/// A direction of a stream. In one lane messages keep their order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lane {
    SessionUp,
    SessionDown,
    LogUp,
    LogDown,
}

impl Lane {
    const fn is_up(self) -> bool {
        matches!(self, Self::SessionUp | Self::LogUp)
    }
}

/// What is said.
#[derive(Clone, Debug)]
enum Payload {
    Worker(WorkerMessage),
    Coordinator(CoordinatorMessage),
    LogStart(LogStart),
    LogPiece(LogStart, u64, Vec<u8>),
    LogAck(LeaseId, u64),
    /// The stream of a log is reset.
    LogRefused(LeaseId),
}

/// A connection between a worker and the coordinator.
#[derive(Debug)]
struct Link {
    worker: usize,
    /// Which life of the worker.
    life: u64,
    /// Which one of its links.
    number: u64,
    /// Whether the worker takes it to be up.
    at_worker: bool,
    /// Whether the coordinator does.
    at_coordinator: bool,
    is_broken: bool,
    session: Option<SessionId>,
    /// When nothing arrives before.
    stalled_until: Micros,
    lanes: [Traffic; 4],
}

/// How far a lane is.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    sent: u64,
    arrived: u64,
    /// How many arrive at all, of those that were sent before the link broke.
    arriving: u64,
    last_at: Micros,
}

/// All there is.
#[derive(Debug)]
pub(super) struct World {
    dice: Dice,
    mutant: Option<Mutant>,
    now: Micros,
    agenda: BTreeMap<(Micros, u64), Happening>,
    count: u64,
    links: Vec<Link>,
    workers: Vec<Worker>,
    coordinator: Coordinator,
    cache: Cache,
    clients: BTreeMap<u64, Client>,
    truth: Truth,
    pub(super) tally: Tally,
    broken: Option<Broken>,
}

impl World {
    /// The world of a script before anything has happened.
    pub(super) fn new(script: &Script, mutant: Option<Mutant>) -> Self {
        let dice = Dice(script.seed);
        let workers = (0..WORKERS).map(|worker| Worker::new(script, worker));
        let mut world = Self {
            dice,
            mutant,
            now: 0,
            agenda: BTreeMap::new(),
            count: 0,
            links: Vec::new(),
            workers: workers.collect(),
            coordinator: Coordinator::new(script),
            cache: Cache::default(),
            clients: BTreeMap::new(),
            truth: Truth::default(),
            tally: Tally::default(),
            broken: None,
        };
        world.at(0, Happening::CoordinatorStarts(0));
        for worker in 0..world.workers.len() {
            let at = dice.below("first connect", &[worker as u64], 5 * SECOND);
            world.at(at, Happening::Connect(worker));
        }
        for line in &script.lines {
            world.at(line.at, Happening::Line(*line));
        }
        world
    }

    /// Lets all happen, until everything has come to rest.
    ///
    /// # Errors
    ///
    /// If a rule is broken; when, and which.
    pub(super) fn play(&mut self) -> Result<(), Broken> {
        while !self.is_at_rest() && self.now < REST_UNTIL && self.broken.is_none() {
            self.advance();
        }
        if self.broken.is_none() {
            let rest = self.check_rest();
            self.require(rest);
        }
        match self.broken.take() {
            None => Ok(()),
            Some(broken) => {
                let seconds = self.now / SECOND;
                let millis = self.now % SECOND / 1_000;
                Err(format!("at {seconds}.{millis:03}s: {broken}"))
            }
        }
    }

    /// All facts, as they stand in the journal.
    pub(super) fn history(&self) -> &[Vec<u8>] {
        self.coordinator.history()
    }

    fn advance(&mut self) {
        let next = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let next = next.unwrap_or(REST_UNTIL);
        let decides = self.coordinator_deadline().unwrap_or(REST_UNTIL);
        let ticks = (0..self.workers.len()).filter_map(|worker| {
            let at = self.worker_deadline(worker)?;
            Some((at, worker))
        });
        let (ticks, worker) = ticks.min().unwrap_or((REST_UNTIL, 0));
        let first = next.min(decides).min(ticks);
        self.now = self.now.max(first);
        if REST_UNTIL <= first {
        } else if first == next {
            let (_, happening) = self.agenda.pop_first().expect("it was looked at");
            self.happen(happening);
        } else if first == ticks {
            self.worker_tick(worker);
        } else {
            self.dispatch();
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Line(line) => self.line(line),
            Happening::Connect(worker) => self.connect(worker),
            Happening::Arrives(link, lane, number, payload) => {
                self.arrives(link, lane, number, payload);
            }
            Happening::WorkerNotices(link) => self.worker_notices(link),
            Happening::CoordinatorNotices(link) => self.coordinator_notices(link),
            Happening::Dispatch(life) => {
                if life == self.coordinator.life {
                    self.dispatch();
                }
            }
            Happening::Append(life) => {
                if life == self.coordinator.life {
                    self.append();
                }
            }
            Happening::LogSync(life, link, start) => self.log_sync(life, link, start),
            Happening::Tidy(life, build) => self.tidy(life, build),
            Happening::Step(worker, life, lease, epoch, step) => {
                self.step(worker, life, lease, (epoch, step));
            }
            Happening::WorkerStarts(worker, life) => self.worker_starts(worker, life),
            Happening::WorkerWakes(worker, life) => self.worker_wakes(worker, life),
            Happening::CoordinatorStarts(life) => self.coordinator_starts(life),
            Happening::CoordinatorWakes => self.coordinator_wakes(),
            Happening::CoordinatorDies(life, power, lasts) => {
                if life == self.coordinator.life {
                    self.coordinator_dies(power, lasts);
                }
            }
            Happening::CacheStarts => self.cache.is_up = true,
            Happening::DiskHasRoom => self.coordinator.disk.set_full(false),
            Happening::ClientTries(client, connection) => self.client_tries(client, connection),
            Happening::ClientHears(client, connection, news) => {
                self.client_hears(client, connection, *news);
            }
        }
    }

    /// Takes note of a rule that is broken; the first counts.
    fn require(&mut self, held: Result<(), Broken>) {
        if let Err(broken) = held
            && self.broken.is_none()
        {
            self.broken = Some(broken);
        }
    }

    fn at(&mut self, at: Micros, happening: Happening) {
        self.count += 1;
        self.agenda.insert((at, self.count), happening);
    }

    fn after(&mut self, wait: Micros, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    /// Whether anything may still go wrong.
    const fn is_troubled(&self) -> bool {
        self.now < TROUBLE_UNTIL
    }

    /// Says something over a link, if the one who says it takes it to be up.
    fn say(&mut self, link: usize, lane: Lane, payload: Payload) {
        let is_troubled = self.is_troubled();
        let of = &mut self.links[link];
        let is_up = match lane.is_up() {
            true => of.at_worker,
            false => of.at_coordinator,
        };
        if !is_up {
            return;
        }
        let traffic = &mut of.lanes[lane as usize];
        let number = traffic.sent;
        traffic.sent += 1;
        if of.is_broken {
            self.tally.add("message into a broken link");
            return;
        }
        let keys = [of.worker as u64, of.life, of.number, lane as u64, number];
        let is_slow = is_troubled && self.dice.percent("slow", &keys, 4);
        let longest = if is_slow { 8 * SECOND } else { SECOND / 20 };
        let delay = self.dice.below("delay", &keys, longest);
        let at = (self.now + delay)
            .max(traffic.last_at)
            .max(of.stalled_until);
        traffic.last_at = at;
        if is_slow || self.now < of.stalled_until {
            self.tally.add("message delayed");
        }
        self.at(
            at,
            Happening::Arrives(link, lane, number, Box::new(payload)),
        );
    }

    fn arrives(&mut self, link: usize, lane: Lane, number: u64, payload: Box<Payload>) {
        let wakes = match lane.is_up() {
            true => self.coordinator.asleep_until,
            false => self.workers[self.links[link].worker].asleep_until,
        };
        if self.now < wakes {
            self.at(wakes, Happening::Arrives(link, lane, number, payload));
            return;
        }
        let of = &mut self.links[link];
        let traffic = &mut of.lanes[lane as usize];
        if of.is_broken && traffic.arriving <= number {
            self.tally.add("message lost with its link");
            return;
        }
        traffic.arrived = number + 1;
        match lane.is_up() {
            true if of.at_coordinator => self.coordinator_hears(link, *payload),
            false if of.at_worker => self.worker_hears(link, *payload),
            _ => self.tally.add("message that nobody reads"),
        }
    }

    /// Breaks a link. Each side notices later; of what is under way a part arrives.
    fn break_link(&mut self, link: usize, (worker_after, coordinator_after): (Micros, Micros)) {
        let now = self.now;
        let of = &mut self.links[link];
        if of.is_broken {
            return;
        }
        of.is_broken = true;
        let keys = [of.worker as u64, of.life, of.number];
        for (lane, traffic) in (0..).zip(&mut of.lanes) {
            let keys = [&keys[..], &[lane]].concat();
            let under_way = traffic.sent - traffic.arrived;
            traffic.arriving = traffic.arrived + self.dice.below("arriving", &keys, under_way + 1);
        }
        // What has arrived is read before it is seen that no more comes.
        let up = of.lanes[Lane::SessionUp as usize].last_at;
        let up = up.max(of.lanes[Lane::LogUp as usize].last_at);
        let down = of.lanes[Lane::SessionDown as usize].last_at;
        let down = down.max(of.lanes[Lane::LogDown as usize].last_at);
        let (worker_at, coordinator_at) = (now + worker_after, now + coordinator_after);
        self.at(
            worker_at.max(down.min(worker_at + IDLE_MAX)),
            Happening::WorkerNotices(link),
        );
        self.at(
            coordinator_at.max(up.min(coordinator_at + IDLE_MAX)),
            Happening::CoordinatorNotices(link),
        );
    }
}
