//! What is known of a worker while it is there, and while it is away.

use std::collections::BTreeSet;

use protocol::{
    environment::Labels,
    lease::LeaseId,
    name::Team,
    runtime::Offered,
    time::Time,
    worker::{Incarnation, WorkerOffer},
};

use crate::{
    event::{Now, SessionId},
    fact::Platform,
};

/// What is known of a worker that is away.
#[derive(Clone, Debug)]
pub(super) struct Away {
    /// Its process.
    pub(super) incarnation: Incarnation,
    /// The runtimes that it offered.
    pub(super) runtimes: Offered,
    /// What its owner said of it.
    pub(super) labels: Labels,
}

/// A worker that is there.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub(crate) session: SessionId,
    pub(crate) team: Team,
    pub(crate) incarnation: Incarnation,
    /// Which connection of that process it is.
    pub(crate) connection: u64,
    pub(crate) offer: Box<WorkerOffer>,
    pub(crate) platform: Platform,
    /// Whether it said that it leaves.
    pub(crate) is_leaving: bool,
    /// Whether it has given up what it keeps of units.
    pub(crate) has_handed_over: bool,
    /// When it came.
    pub(super) since: Time,
    /// The leases whose results it has brought, the latest few of them.
    pub(super) taken: BTreeSet<LeaseId>,
    /// The last renewal's number.
    pub(super) sequence: Option<u64>,
    /// The load under which it stands among the free ones; `None`: it does not.
    pub(super) listed: Option<u32>,
}

impl Connected {
    /// A worker that has just come.
    pub(crate) fn new(
        (session, team): (SessionId, Team),
        (incarnation, connection): (Incarnation, u64),
        offer: Box<WorkerOffer>,
        now: Now,
    ) -> Self {
        Self {
            session,
            team,
            incarnation,
            connection,
            platform: Platform::of(&offer),
            offer,
            is_leaving: false,
            has_handed_over: false,
            since: now.time,
            taken: BTreeSet::new(),
            sequence: None,
            listed: None,
        }
    }
}
