//! A worker that keeps the protocol, and its connections.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{build::BuildId, lease::LeaseId, message::work::HeldLease, worker::WorkerOffer};

use crate::SessionId;

#[derive(Default)]
pub(super) struct Session {
    pub(super) worker: usize,
    pub(super) is_open: bool,
    /// When the last message arrives, in each direction: a stream keeps their order.
    pub(super) arrives: [u64; 2],
}

pub(super) struct Attempt {
    pub(super) held: HeldLease,
    /// From when the worker counts the lease.
    pub(super) counted_from: u64,
    /// What came of it, until that is acknowledged.
    pub(super) result: Option<&'static str>,
}

pub(super) struct Worker {
    pub(super) offer: WorkerOffer,
    pub(super) session: Option<SessionId>,
    pub(super) attempts: BTreeMap<LeaseId, Attempt>,
    /// Units whose state is here.
    pub(super) local: BTreeSet<(BuildId, u32)>,
    pub(super) sequence: u64,
    /// Renewals that were not answered: when they were sent, and for what.
    pub(super) renewals: BTreeMap<u64, (u64, Vec<LeaseId>)>,
    /// When the last message was sent that was answered.
    pub(super) answered: u64,
    /// Whether nothing is left for it to do, once nothing of it runs.
    pub(super) is_dismissed: bool,
    /// Which process it is.
    pub(super) incarnation: u64,
}

impl Worker {
    /// Takes the answer to a renewal: what is not in it is lost.
    pub(super) fn renewed(&mut self, sequence: u64, leases: &[LeaseId]) {
        let Some((sent, asked)) = self.renewals.remove(&sequence) else {
            return;
        };
        self.answered = self.answered.max(sent);
        for lease in asked {
            match self.attempts.get_mut(&lease) {
                Some(attempt) if leases.contains(&lease) => attempt.counted_from = sent,
                Some(_) => drop(self.attempts.remove(&lease)),
                None => {}
            }
        }
    }

    /// Takes the answer to a join: what is not in it is lost.
    pub(super) fn joined(&mut self, leases: &[LeaseId]) {
        let sent = self.answered;
        self.attempts.retain(|lease, attempt| {
            let is_mine = leases.contains(lease);
            if is_mine {
                attempt.counted_from = sent;
            }
            // A result is sent all the same, and acknowledged.
            is_mine || attempt.result.is_some()
        });
    }
}
