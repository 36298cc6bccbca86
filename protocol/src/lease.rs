//! Leases: a worker's time-limited right to one attempt at a job.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// How long a lease lives after it was granted or last renewed: three renewals, so that one may be lost
/// and one late.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// How often a worker renews its leases.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(5);
/// How much longer than [`LEASE_TTL`] the coordinator waits before it gives a job to somebody else. The
/// worker counts from when it *sent* a renewal and has killed the attempt by then; this covers what the
/// two clocks may drift and the killing takes.
pub const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// Names one lease of one coordinator, never given twice.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease-{}", self.0)
    }
}
