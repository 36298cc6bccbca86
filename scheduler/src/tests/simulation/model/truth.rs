//! What must be true of the world at any moment.

use std::collections::BTreeSet;

use protocol::job::JobId;

use crate::tests::simulation::model::World;

impl World {
    /// No job runs on two workers.
    pub(crate) fn check_overlap(&self, seed: u64) {
        let mut running: BTreeSet<JobId> = BTreeSet::new();
        for attempt in self
            .workers
            .iter()
            .flat_map(|worker| worker.attempts.values())
        {
            if attempt.result.is_none() {
                let job = attempt.held.job;
                assert!(
                    running.insert(job),
                    "seed {seed}: {job} runs twice at {} ms",
                    self.now
                );
            }
        }
    }

    /// The facts make the same ledger again.
    pub(crate) fn check_ledger(&self) {
        let replayed = crate::tests::script::replayed(&self.facts);
        assert_eq!(replayed.ledger(), self.scheduler.ledger());
        let kept = serde_json::to_string(self.scheduler.ledger()).unwrap();
        let restored: crate::Ledger = serde_json::from_str(&kept).unwrap();
        assert_eq!(restored, *self.scheduler.ledger());
    }
}
