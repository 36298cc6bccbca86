//! Scripts: what people do and what goes wrong, drawn up front from a seed.

use std::fmt;

use protocol::worker::Isolation;
use scheduler::REVOKE_GRACE;

use super::dice::Dice;

/// Real time, in microseconds since the start of the simulation. Nobody in it can read this clock.
pub(super) type Micros = u64;

/// A second.
pub(super) const SECOND: Micros = 1_000_000;
/// When trouble ends; from then on everything works.
pub(super) const TROUBLE_UNTIL: Micros = 240 * SECOND;
/// How many workers there are.
pub(super) const WORKERS: u64 = 4;
/// How many builds are submitted.
const BUILDS: u64 = 7;
/// How many troubles there are.
const TROUBLES: u64 = 28;

/// A seed's world, and what happens to it.
#[derive(Clone, Debug)]
pub struct Script {
    /// Where all of it comes from.
    pub seed: u64,
    /// How long builds may run, in seconds.
    pub(super) run_limit: u64,
    pub(super) lines: Vec<Line>,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) at: Micros,
    /// Which line of the whole script it is: what follows from it is drawn by this number.
    pub(super) number: u64,
    pub(super) what: What,
}

/// What happens. Workers and builds are numbers; times are how long it lasts, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Submit {
        build: u64,
        shape: u64,
    },
    Retry {
        build: u64,
        retry: u64,
    },
    Stop {
        build: u64,
    },
    Delete {
        build: u64,
    },
    Drain {
        worker: u64,
    },
    Leaves {
        worker: u64,
    },
    HandsOver {
        worker: u64,
    },
    LinkBreaks {
        worker: u64,
        lasts: Micros,
    },
    LinkStalls {
        worker: u64,
        lasts: Micros,
    },
    WorkerDies {
        worker: u64,
        lasts: Micros,
    },
    WorkerSleeps {
        worker: u64,
        lasts: Micros,
    },
    WorkerRepeats {
        worker: u64,
    },
    WorkerForges {
        worker: u64,
    },
    CoordinatorDies {
        when: Moment,
        power: Power,
        lasts: Micros,
    },
    CoordinatorSleeps {
        lasts: Micros,
    },
    DiskFull {
        lasts: Micros,
    },
    DiskSlow {
        lasts: Micros,
    },
    StatePut,
    WallJumps {
        millis: i64,
    },
    CacheDies {
        lasts: Micros,
    },
    Evicts,
    CacheLoses,
    ClientLost {
        build: u64,
        lasts: Micros,
    },
    AllDie {
        lasts: Micros,
    },
}

/// At which step of a decision the coordinator dies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Moment {
    /// Between two.
    Between,
    /// It has decided, and written nothing.
    Decided,
    /// It has written a part.
    Writing,
    /// It has written all, and not synced.
    Written,
    /// It has synced, and told nobody.
    Synced,
    /// It has told half of those who are to hear of it.
    Telling,
    /// At this operation on the disk while it puts its state beside the journal.
    PuttingState(u64),
    /// Between two, and again at this operation on the disk of its next start.
    Starting(u64),
}

/// How a machine or a program ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Power {
    /// The program is killed; what it wrote is there.
    Killed,
    /// The power is cut; what was not synced may be there in part.
    Cut,
}

impl Script {
    /// The script of a seed.
    pub fn of(seed: u64) -> Self {
        let dice = Dice(seed);
        let mut lines = Vec::new();
        for build in 0..BUILDS {
            lines.push((
                dice.below("submitted at", &[build], TROUBLE_UNTIL * 9 / 10),
                What::Submit {
                    build,
                    shape: dice.number("shape", &[build]),
                },
            ));
        }
        for trouble in 0..TROUBLES {
            lines.push((
                dice.below("trouble at", &[trouble], TROUBLE_UNTIL),
                trouble_of(dice, trouble),
            ));
        }
        let stops: Vec<Micros> = lines
            .iter()
            .filter(|(_, what)| matches!(what, What::Stop { .. }))
            .map(|(at, _)| *at)
            .collect();
        for (stop, at) in (0..).zip(stops) {
            lines.extend(near_grace(dice, stop, at));
        }
        lines.sort_by_key(|(at, _)| *at);
        let lines = (0..).zip(lines);
        Self {
            seed,
            // Most seeds have a limit that is never reached, so that a build that is stuck shows.
            run_limit: match dice.percent("run limit", &[], 20) {
                true => 60,
                false => 36_000,
            },
            lines: lines
                .map(|(number, (at, what))| Line { at, number, what })
                .collect(),
        }
    }

    /// How many lines it has.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The same world with only those lines that `keeps` says, by their place.
    #[must_use]
    pub fn kept(&self, keeps: impl Fn(usize) -> bool) -> Self {
        let lines = self.lines.iter().enumerate();
        Self {
            lines: lines
                .filter(|(place, _)| keeps(*place))
                .map(|(_, line)| *line)
                .collect(),
            ..self.clone()
        }
    }

    /// How many slots a worker has, and at which level it runs phases.
    pub(super) fn worker(&self, worker: u64) -> (u32, Isolation) {
        let dice = Dice(self.seed);
        let slots = 1 + dice.below("slots", &[worker], 3);
        let isolation = match dice.percent("host", &[worker], 35) {
            true => Isolation::Host,
            false => Isolation::Namespace,
        };
        (u32::try_from(slots).unwrap(), isolation)
    }
}

fn trouble_of(dice: Dice, trouble: u64) -> What {
    let worker = dice.below("which worker", &[trouble], WORKERS);
    let build = dice.below("which build", &[trouble], BUILDS);
    // Shorter than a lease, or longer.
    let longest = dice.pick("how long at most", &[trouble], &[2, 15, 60]);
    let lasts = dice.below("how long", &[trouble], longest * SECOND);
    match dice.below("what", &[trouble], 34) {
        0..3 => What::LinkBreaks { worker, lasts },
        3..6 => What::LinkStalls { worker, lasts },
        6..8 => What::WorkerDies { worker, lasts },
        8..10 => What::WorkerSleeps { worker, lasts },
        10 => What::WorkerRepeats { worker },
        11 => What::WorkerForges { worker },
        12..16 => coordinator_dies(dice, trouble, lasts),
        16 => What::CoordinatorSleeps { lasts },
        17 => What::DiskFull { lasts },
        18 => What::DiskSlow { lasts },
        19 => What::StatePut,
        20 => What::WallJumps {
            millis: i64::try_from(dice.below("jump", &[trouble], 600_000)).unwrap() - 300_000,
        },
        21 => What::CacheDies { lasts },
        22 | 23 => What::Evicts,
        24 => What::ClientLost { build, lasts },
        25 => What::AllDie { lasts },
        26 => What::Stop { build },
        27 => What::Retry {
            build,
            retry: BUILDS + trouble,
        },
        28 => What::Delete { build },
        29 => What::Drain { worker },
        30 => What::HandsOver { worker },
        31 | 32 => What::CacheLoses,
        _ => What::Leaves { worker },
    }
}

/// Links that break about when a build that was stopped at `at` has had its grace. By chance alone the two
/// would hardly ever meet.
fn near_grace(dice: Dice, stop: u64, at: Micros) -> impl Iterator<Item = (Micros, What)> {
    let grace = u64::try_from(REVOKE_GRACE.as_micros()).unwrap();
    (0..WORKERS).filter_map(move |worker| {
        let keys = [stop, worker];
        let early = dice.below("early", &keys, 8 * SECOND);
        let lasts = dice.below("near grace", &keys, 14 * SECOND);
        let at = at + grace - early;
        (at < TROUBLE_UNTIL).then_some((at, What::LinkBreaks { worker, lasts }))
    })
}

fn coordinator_dies(dice: Dice, trouble: u64, lasts: Micros) -> What {
    let operation = dice.below("operation", &[trouble], 6);
    let when = dice.pick(
        "moment",
        &[trouble],
        &[
            Moment::Between,
            Moment::Decided,
            Moment::Writing,
            Moment::Written,
            Moment::Synced,
            Moment::Telling,
            Moment::PuttingState(operation),
            Moment::Starting(operation),
        ],
    );
    let power = dice.pick("power", &[trouble], &[Power::Killed, Power::Cut]);
    What::CoordinatorDies { when, power, lasts }
}

impl What {
    /// What it is counted as; `None`: it is no trouble.
    pub(super) const fn trouble(self) -> Option<&'static str> {
        Some(match self {
            Self::Submit { .. } => return None,
            Self::Retry { .. } => "build retried",
            Self::Stop { .. } => "build stopped",
            Self::Delete { .. } => "build deleted",
            Self::Drain { .. } => "worker told to leave",
            Self::Leaves { .. } => "worker leaves",
            Self::HandsOver { .. } => "worker hands over",
            Self::LinkBreaks { .. } => "link breaks",
            Self::LinkStalls { .. } => "link stalls",
            Self::WorkerDies { .. } => "worker dies",
            Self::WorkerSleeps { .. } => "worker's machine sleeps",
            Self::WorkerRepeats { .. } => "worker repeats itself",
            Self::WorkerForges { .. } => "worker forges messages",
            Self::CoordinatorDies { power, .. } => match power {
                Power::Killed => "coordinator is killed",
                Power::Cut => "coordinator loses power",
            },
            Self::CoordinatorSleeps { .. } => "coordinator's machine sleeps",
            Self::DiskFull { .. } => "coordinator's disk is full",
            Self::DiskSlow { .. } => "coordinator's disk is slow",
            Self::StatePut => "state put beside the journal",
            Self::WallJumps { .. } => "wall clock jumps",
            Self::CacheDies { .. } => "cache dies",
            Self::Evicts => "cache evicts",
            Self::CacheLoses => "cache loses what it holds",
            Self::ClientLost { .. } => "client is cut off",
            Self::AllDie { .. } => "all die together",
        })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |lasts: Micros| format!("for {}", Seconds(lasts));
        match *self {
            Self::Submit { build, shape } => {
                write!(f, "submit b{build} {}", super::sample::shape_name(shape))
            }
            Self::Retry { build, retry } => write!(f, "retry b{build} as b{retry}"),
            Self::Stop { build } => write!(f, "stop b{build}"),
            Self::Delete { build } => write!(f, "delete b{build}"),
            Self::Drain { worker } => write!(f, "drain w{worker}"),
            Self::Leaves { worker } => write!(f, "w{worker} leaves"),
            Self::HandsOver { worker } => write!(f, "w{worker} hands over"),
            Self::LinkBreaks { worker, lasts } => {
                write!(f, "link of w{worker} breaks {}", seconds(lasts))
            }
            Self::LinkStalls { worker, lasts } => {
                write!(f, "link of w{worker} stalls {}", seconds(lasts))
            }
            Self::WorkerDies { worker, lasts } => write!(f, "w{worker} dies {}", seconds(lasts)),
            Self::WorkerSleeps { worker, lasts } => {
                write!(f, "w{worker} sleeps {}", seconds(lasts))
            }
            Self::WorkerRepeats { worker } => write!(f, "w{worker} repeats itself"),
            Self::WorkerForges { worker } => write!(f, "w{worker} forges messages"),
            Self::CoordinatorDies { when, power, lasts } => write!(
                f,
                "coordinator dies ({when:?}, {power:?}) {}",
                seconds(lasts)
            ),
            Self::CoordinatorSleeps { lasts } => write!(f, "coordinator sleeps {}", seconds(lasts)),
            Self::DiskFull { lasts } => write!(f, "disk full {}", seconds(lasts)),
            Self::DiskSlow { lasts } => write!(f, "disk slow {}", seconds(lasts)),
            Self::StatePut => f.write_str("put state"),
            Self::WallJumps { millis } => write!(f, "wall clock jumps by {millis} ms"),
            Self::CacheDies { lasts } => write!(f, "cache dies {}", seconds(lasts)),
            Self::Evicts => f.write_str("cache evicts"),
            Self::CacheLoses => f.write_str("cache loses what it holds"),
            Self::ClientLost { build, lasts } => {
                write!(f, "client of b{build} is cut off {}", seconds(lasts))
            }
            Self::AllDie { lasts } => write!(f, "all die {}", seconds(lasts)),
        }
    }
}

/// A time in seconds, for people.
struct Seconds(Micros);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0 / 1_000;
        write!(f, "{}.{:03}s", millis / 1_000, millis % 1_000)
    }
}

/// A line each, with the time at which it happens.
impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for worker in 0..WORKERS {
            let (slots, isolation) = self.worker(worker);
            writeln!(f, "  {:>9} w{worker} slots {slots} {isolation}", "")?;
        }
        writeln!(f, "  {:>9} builds may run {}s", "", self.run_limit)?;
        for line in &self.lines {
            writeln!(f, "  {:>9} {}", Seconds(line.at).to_string(), line.what)?;
        }
        Ok(())
    }
}
