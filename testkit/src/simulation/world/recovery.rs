//! The coordinator's death, and its start from what the disk gives back.

use std::collections::{BTreeMap, BTreeSet};

use coordinator::{Journal, Replayed, record};
use scheduler::{Fact, LEASE_FENCE};

use super::{
    Clock, Happening, IDLE_MAX, World, coordinator::Up, hearing::Hearing, standing::Standing,
};
use crate::simulation::{
    brain::Brain,
    disk::{Fuse, Torn},
    script::{Micros, Power, SECOND},
    truth::Broken,
};

impl World {
    /// The coordinator dies, with all that it did not write down.
    pub(super) fn coordinator_dies(&mut self, power: Power, lasts: Micros) {
        let of = &mut self.coordinator;
        let Some(up) = of.up.take() else { return };
        drop(up);
        of.life += 1;
        of.armed = None;
        of.state_wanted = false;
        of.asleep_until = 0;
        let (life, dice) = (of.life, self.dice);
        for torn in of.disk.restart(power, dice, life) {
            self.tally.add(match torn {
                Torn::Short => "tail of the journal torn off",
                Torn::Zeros => "tail of the journal never written",
            });
        }
        of.logs.restart(power, dice, life);
        for link in 0..self.links.len() {
            if self.links[link].at_coordinator {
                self.links[link].at_coordinator = false;
                let keys = [link as u64, life];
                let longest = self.dice.pick("seen", &keys, &[SECOND / 10, 20 * SECOND]);
                let notices = self.dice.below("seen after", &keys, longest);
                self.break_link(link, (notices, 0));
            }
        }
        self.clients_cut_off();
        self.after(SECOND / 2 + lasts, Happening::CoordinatorStarts(life));
    }

    /// The coordinator starts from what its disk gives back.
    pub(super) fn coordinator_starts(&mut self, life: u64) {
        if self.coordinator.life != life || self.coordinator.up.is_some() {
            return;
        }
        let start_fuse = self.coordinator.start_fuse.take();
        if let Some((operation, _)) = start_fuse {
            self.coordinator.disk.set_fuse(Fuse::At(operation));
        }
        let (mut states, mut records) = (Vec::new(), Vec::new());
        let journal = Journal::open_on(Box::new(self.coordinator.disk.clone()), &mut |replayed| {
            match replayed {
                Replayed::State(bytes) => states.push(bytes.to_vec()),
                Replayed::Record(line) => records.push(line.trim_ascii_end().to_vec()),
            }
            Ok(())
        });
        let is_blown = self.coordinator.disk.is_blown();
        self.coordinator.disk.set_fuse(Fuse::None);
        if let Some((_, power)) = start_fuse
            && is_blown
        {
            self.tally.add("coordinator dies while it starts");
            self.coordinator.disk.restart(power, self.dice, self.now);
            self.after(SECOND, Happening::CoordinatorStarts(life));
            return;
        }
        match journal {
            Ok(journal) => self.recover(journal, states.pop(), records),
            Err(_) if self.coordinator.disk.is_full() => {
                self.tally.add("start refused, the disk is full");
                self.after(SECOND, Happening::CoordinatorStarts(life));
            }
            Err(error) => self.require(Err(format!("the journal refuses to open: {error}"))),
        }
    }

    fn recover(&mut self, journal: Journal, state: Option<Vec<u8>>, records: Vec<Vec<u8>>) {
        let new = self.new_records(state.as_deref(), &records);
        let new = match new {
            Ok(new) => new,
            Err(broken) => return self.require(Err(broken)),
        };
        let config = self.coordinator.config.clone();
        let mut brain = match state {
            Some(state) => {
                let ledger = record::decode_state(&state).unwrap();
                Brain::restored(config, ledger, self.mutant)
            }
            None => Brain::new(config, self.mutant),
        };
        for line in &records {
            let fact = record::decode(line).unwrap();
            if let Err(error) = brain.replay(&fact) {
                return self.require(Err(format!("the facts do not fit each other: {error}")));
            }
        }
        let life = self.coordinator.life;
        self.coordinator.clock = Clock::of(self.dice, &[u64::MAX, life]);
        let facts: Vec<Fact> = new
            .iter()
            .map(|line| record::decode(line).unwrap())
            .collect();
        self.durable(&new, &facts);
        let now = self.coordinator.clocks(self.now);
        brain.recovered(now);
        let leases = self.truth.leases();
        let fences = leases.map(|(lease, _)| (lease, now.time + LEASE_FENCE));
        let fences = fences.collect();
        let active: BTreeSet<_> = scheduler::active_builds(brain.scheduler().state()).collect();
        self.coordinator.up = Some(Up {
            brain,
            journal: Some(journal),
            sessions: BTreeMap::new(),
            next_session: 0,
            inbox: Vec::new(),
            is_called: false,
            group: None,
            fences,
            standing: Standing::started(&self.coordinator.standing, now.time),
            hearing: Hearing::started(self.truth.leases(), self.truth.stopping(), now.time),
        });
        for build in self.cache.builds() {
            if !active.contains(&build) {
                self.after(SECOND / 10, Happening::Tidy(life, build));
            }
        }
    }

    /// Checks that a start got back all that was durable and nothing that was never written; gives what
    /// was not known to be durable.
    fn new_records(
        &mut self,
        state: Option<&[u8]>,
        records: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, Broken> {
        let uncertain = std::mem::take(&mut self.coordinator.uncertain);
        // Two states may be the same, and which of them came back only what follows says.
        let from: Vec<usize> = match state {
            None => vec![0],
            Some(state) => {
                let states = self.coordinator.states.iter();
                let same = states.filter(|(bytes, _)| bytes == state);
                same.map(|(_, before)| *before).collect()
            }
        };
        let history = &self.coordinator.history;
        let known = from.iter().map(|from| &history[*from..]);
        let mut known = known.filter(|known| records.starts_with(known));
        let is_new = |known: &&[Vec<u8>]| {
            let new = &records[known.len()..];
            new.is_empty() || new == uncertain
        };
        let known = known.find(is_new).ok_or_else(|| {
            let (kept, known) = (records.len(), history.len());
            format!("of {known} durable records {kept} come back since states {from:?}, or others")
        })?;
        let new = &records[known.len()..];
        if !new.is_empty() {
            self.tally.add("decision durable, and nobody heard of it");
        }
        Ok(new.to_vec())
    }

    /// A machine sleeps: nothing on it runs, and its clock goes on.
    pub(super) fn coordinator_sleeps(&mut self, lasts: Micros) {
        if !self.coordinator.is_there(self.now) {
            return;
        }
        self.coordinator.asleep_until = self.now + lasts;
        if IDLE_MAX < lasts {
            for link in 0..self.links.len() {
                if self.links[link].at_coordinator {
                    self.break_link(link, (IDLE_MAX, lasts));
                }
            }
        }
        self.after(lasts, Happening::CoordinatorWakes);
    }

    pub(super) fn coordinator_wakes(&mut self) {
        self.call();
    }
}
