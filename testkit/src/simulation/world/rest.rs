//! The end: everything has come to rest, and all of it is as it has to be.

use coordinator::record;

use super::{World, client::Client, worker::Worker};
use crate::simulation::{
    brain::Brain,
    truth::{Broken, check},
};

impl World {
    /// Whether all builds have ended and nothing is left to be decided.
    pub(super) fn is_at_rest(&self) -> bool {
        let Some(up) = self.coordinator.up.as_ref().filter(|_| !self.is_troubled()) else {
            return false;
        };
        let mut active = scheduler::active_builds(up.brain.scheduler().state());
        let is_idle = up.group.is_none() && up.inbox.is_empty();
        let leaves = |worker: &Worker| worker.is_alive && worker.departure.is_leaving();
        is_idle
            && !self.workers.iter().any(leaves)
            && active.next().is_none()
            && self.clients.values().all(Client::is_done)
    }

    pub(super) fn check_rest(&self) -> Result<(), Broken> {
        let rests = self.truth.check_rest();
        rests.map_err(|broken| format!("{broken}; {}", self.waits()))?;
        for worker in &self.workers {
            let leaves = worker.is_alive && worker.departure.is_leaving();
            check(!leaves, || {
                format!("{} is to leave, and is there for ever", worker.offer.name)
            })?;
        }
        for (build, client) in &self.clients {
            check(client.is_done(), || {
                format!("the client of b{build} never hears its end")
            })?;
        }
        for (job, attempt, bytes) in &self.coordinator.stored {
            self.coordinator.logs.check(*job, *attempt, *bytes)?;
        }
        let mut again = Brain::new(self.coordinator.config.clone(), None);
        for line in &self.coordinator.history {
            let fact = record::decode(line).unwrap();
            let folded = again.replay(&fact);
            folded.map_err(|error| format!("the facts do not fit each other: {error}"))?;
        }
        let live = self.coordinator.up.as_ref();
        let live = live.map(|up| up.brain.scheduler().ledger());
        check(live == Some(again.scheduler().ledger()), || {
            "the facts make another ledger".to_owned()
        })
    }

    /// What phases wait for, in words.
    fn waits(&self) -> String {
        let Some(up) = &self.coordinator.up else {
            return "the coordinator is down".to_owned();
        };
        let state = up.brain.scheduler().state();
        let now = self.coordinator.clocks(self.now);
        let active = scheduler::active_builds(state);
        let details = active.filter_map(|build| scheduler::build_detail(state, build, now));
        let phases = details
            .flat_map(|detail| detail.units)
            .flat_map(|unit| unit.phases);
        let waits = phases.filter_map(|phase| Some(format!("{}: {}", phase.phase, phase.waits?)));
        waits.collect::<Vec<_>>().join("; ")
    }
}
