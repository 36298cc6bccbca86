//! The simulation: a farm in one thread, in which anything may be late, twice, lost or dead, all of it
//! from one seed.
//!
//! What decides is real: the scheduler, the journal with its bytes, the planner, and the worker's rule of
//! leases. What carries it is a model: links, disks, clocks, the cache, commands. Everything that is told,
//! begun or durable is held against what has to be true (`truth`). A seed that fails is made shorter by
//! leaving out lines of its script, as long as it fails.

mod brain;
mod dice;
mod disk;
mod mutant;
mod sample;
mod script;
mod shrink;
mod tally;
mod truth;
mod world;

use std::{
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use self::world::World;
pub use self::{mutant::Mutant, script::Script, shrink::shrunk, tally::Tally};

/// What became of a script.
#[derive(Debug)]
pub struct Run {
    /// How often what happened.
    pub tally: Tally,
    /// All facts, as they stand in the journal.
    pub facts: Vec<Vec<u8>>,
    /// Which rule was broken, and when; `None`: none.
    pub broken: Option<String>,
}

impl Run {
    /// Whether a rule was broken that counts: of a mutant, one of those that it has to break.
    fn is_failure(&self, mutant: Option<Mutant>) -> bool {
        let counts = |broken: &String| {
            mutant.is_none_or(|mutant| mutant.breaks().iter().any(|rule| broken.contains(rule)))
        };
        self.broken.as_ref().is_some_and(counts)
    }
}

/// Plays a script, with something wrong about the scheduler if there is a mutant.
pub fn play(script: &Script, mutant: Option<Mutant>) -> Run {
    let mut world = World::new(script, mutant);
    let played = catch_unwind(AssertUnwindSafe(|| world.play()));
    let broken = match played {
        Ok(played) => played.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("panic: {}", text.unwrap_or("without words")))
        }
    };
    Run {
        facts: world.history().to_vec(),
        tally: world.tally,
        broken,
    }
}

/// A seed that fails, with a script that is as short as was found.
#[derive(Debug)]
pub struct Failure {
    /// The script; its seed is the one that failed.
    pub script: Script,
    /// The rule that the short script breaks.
    pub broken: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} fails {}", self.script.seed, self.broken)?;
        writeln!(f, "it does with these lines of its script:")?;
        self.script.fmt(f)
    }
}

/// Plays the scripts of many seeds, on all processors. Gives the counts of all, and the first failure that
/// was found, made short.
pub fn sweep(seeds: Range<u64>, mutant: Option<Mutant>) -> (Tally, Option<Failure>) {
    let next = AtomicU64::new(seeds.start);
    let has_failed = AtomicBool::new(false);
    let totals = Mutex::new((Tally::default(), None::<u64>));
    let work = || {
        while !has_failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seeds.end <= seed {
                return;
            }
            let run = play(&Script::of(seed), mutant);
            let mut totals = totals.lock().unwrap();
            totals.0.merge(&run.tally);
            if run.is_failure(mutant) {
                has_failed.store(true, Ordering::Relaxed);
                totals.1 = Some(totals.1.map_or(seed, |other| other.min(seed)));
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (tally, failed) = totals.into_inner().unwrap();
    (tally, failed.map(|seed| shrunk(&Script::of(seed), mutant)))
}
