//! The two queues of entries that may go, and who of them is next.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ages, Ghosts, Policy, Standing, Worth};

/// What part of all bytes may be on probation before the next victim comes from there, as a divisor. Half
/// of what S3-FIFO takes: there is a second way past the probation, by coming back soon.
const PROBATION_DIVISOR: u64 = 20;
/// How many entries may be on probation, however large they are: what has just come would otherwise be the
/// next to go where few entries fit, and nobody could read it.
const PROBATION_ENTRIES_MIN: usize = 1;

/// The entries that may go.
#[derive(Clone, Debug, Default)]
pub struct Queues<K> {
    entries: BTreeMap<K, (Standing, Worth)>,
    probation: Queue<K>,
    proved: Queue<K>,
    ages: Ages,
    ghosts: Ghosts<K>,
}

#[derive(Clone, Debug)]
struct Queue<K> {
    /// By rank; the key breaks ties, so that equal states give equal choices.
    ranks: BTreeSet<(u64, K)>,
    bytes: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ranks: BTreeSet::new(),
            bytes: 0,
        }
    }
}

impl<K: Ord + Clone> Queues<K> {
    /// None yet, in queues that have come so far.
    pub fn new(ages: Ages) -> Self {
        Self {
            entries: BTreeMap::new(),
            probation: Queue::default(),
            proved: Queue::default(),
            ages,
            ghosts: Ghosts::default(),
        }
    }

    /// Adds an entry that stands so.
    pub fn insert(&mut self, key: K, standing: Standing, worth: Worth) {
        self.remove(&key);
        let queue = self.queue(standing.is_proved);
        queue.ranks.insert((standing.rank, key.clone()));
        queue.bytes = queue.bytes.saturating_add(worth.bytes);
        self.entries.insert(key, (standing, worth));
    }

    /// Takes an entry out; gives how it stood.
    pub fn remove(&mut self, key: &K) -> Option<(Standing, Worth)> {
        let (standing, worth) = self.entries.remove(key)?;
        let queue = self.queue(standing.is_proved);
        queue.ranks.remove(&(standing.rank, key.clone()));
        queue.bytes = queue.bytes.saturating_sub(worth.bytes);
        Some((standing, worth))
    }

    /// Takes out the entry that goes next, and says how it stood; `None`: there are no more.
    pub fn pop(&mut self) -> Option<(K, Standing)> {
        let all = self.probation.bytes.saturating_add(self.proved.bytes);
        let is_proved = self.probation.bytes <= all / PROBATION_DIVISOR
            || self.probation.ranks.len() <= PROBATION_ENTRIES_MIN;
        let is_proved = match is_proved {
            true => !self.proved.ranks.is_empty(),
            false => self.probation.ranks.is_empty(),
        };
        let (_, key) = self.queue(is_proved).ranks.first()?.clone();
        let (standing, _) = self.remove(&key)?;
        self.ages = self.ages.after(standing);
        Some((key, standing))
    }

    /// How far the queues have come.
    pub const fn ages(&self) -> Ages {
        self.ages
    }

    fn queue(&mut self, is_proved: bool) -> &mut Queue<K> {
        match is_proved {
            true => &mut self.proved,
            false => &mut self.probation,
        }
    }
}

impl<K: Ord + Clone> Policy<K> for Queues<K> {
    fn put(&mut self, key: &K, worth: Worth) {
        let before = self.entries.get(key).map(|(standing, _)| *standing);
        let is_back = self.ghosts.take(key);
        let standing = Standing::put(worth, self.ages, before, is_back);
        self.insert(key.clone(), standing, worth);
    }

    fn read(&mut self, key: &K) {
        if let Some((standing, worth)) = self.entries.get(key).copied() {
            let standing = standing.read(worth, self.ages);
            self.insert(key.clone(), standing, worth);
        }
    }

    fn evict(&mut self) -> Option<K> {
        let (key, _) = self.pop()?;
        self.ghosts.add(key.clone());
        Some(key)
    }
}
