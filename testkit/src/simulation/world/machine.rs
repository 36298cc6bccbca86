//! Workers' machines: they die, start, sleep and wake.

use protocol::{job::JobId, lease::LeaseId};
use worker::{departure::Departure, leases::Leases};

use super::{Happening, IDLE_MAX, World, attempt::Stage};
use crate::simulation::script::{Micros, SECOND};

impl World {
    /// A worker dies with all that it runs, and starts again.
    pub(super) fn worker_dies(&mut self, worker: usize, lasts: Micros) {
        let of = &mut self.workers[worker];
        if !of.is_alive {
            return;
        }
        of.is_alive = false;
        of.life += 1;
        of.leases = Leases::default();
        of.running.clear();
        of.ended.clear();
        of.killed.clear();
        of.links = 0;
        of.departure = Departure::default();
        of.local.clear();
        of.said.clear();
        of.asleep_until = 0;
        let (life, link) = (of.life, of.link.take());
        self.truth.all_cease(worker);
        if let Some(link) = link {
            let keys = [worker as u64, life];
            let notices = self
                .dice
                .pick("seen at once", &keys, &[SECOND / 10, 25 * SECOND]);
            let notices = self.dice.below("death is seen", &keys, notices);
            self.break_link(link, (0, notices));
        }
        self.after(SECOND + lasts, Happening::WorkerStarts(worker, life));
    }

    pub(super) fn worker_starts(&mut self, worker: usize, life: u64) {
        let of = &mut self.workers[worker];
        if of.life == life {
            of.is_alive = true;
            of.link = None;
            self.connect(worker);
        }
    }

    /// A machine sleeps: nothing on it runs, and its clock goes on.
    pub(super) fn worker_sleeps(&mut self, worker: usize, lasts: Micros) {
        let of = &mut self.workers[worker];
        if !of.is_alive || self.now < of.asleep_until {
            return;
        }
        of.asleep_until = self.now + lasts;
        let (life, link) = (of.life, of.link);
        self.truth.all_cease(worker);
        if let Some(link) = link
            && IDLE_MAX < lasts
        {
            self.break_link(link, (lasts, IDLE_MAX));
        }
        self.after(lasts, Happening::WorkerWakes(worker, life));
    }

    /// The first thing that a machine does when it wakes up is to look at its clock.
    pub(super) fn worker_wakes(&mut self, worker: usize, life: u64) {
        if self.workers[worker].life != life {
            return;
        }
        self.worker_tick(worker);
        let of = &self.workers[worker];
        let killed: Vec<LeaseId> = of
            .running
            .iter()
            .filter(|(_, running)| running.stage == Stage::Killed)
            .map(|(lease, _)| *lease)
            .collect();
        for lease in killed {
            self.killed(worker, lease);
        }
        let of = &self.workers[worker];
        let goes_on: Vec<(LeaseId, JobId)> = of
            .running
            .iter()
            .map(|(lease, running)| (*lease, running.start.job))
            .collect();
        for (lease, job) in goes_on {
            let runs = self.truth.runs(worker, lease, job);
            self.require(runs);
        }
    }
}
