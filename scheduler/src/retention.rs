//! Retention: which builds are forgotten, and when.

use std::time::Duration;

use protocol::{build::BuildId, time::WallTime};

use crate::state::State;

/// How long builds that have ended are kept, and how many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetentionPolicy {
    /// From when a build ended.
    pub age: Duration,
    /// How many at most.
    pub builds_max: usize,
    /// The most bytes of logs and artifacts that they may have together.
    pub bytes_max: u64,
    /// The most bytes of memory that their graphs may take together.
    pub weight_max: u64,
}

/// The builds that are to be deleted now, those that ended first at the front: all that are too old,
/// and as many as it takes for the others to fit. The newest stays whatever its size, or a large
/// build's artifacts could never be fetched.
pub fn overdue(state: &State, now: WallTime, policy: &RetentionPolicy) -> Vec<BuildId> {
    let index = &state.ledger.index;
    let (mut builds, mut bytes) = (index.ended.len(), index.ended_bytes);
    let mut weight = index.weights.ended();
    let mut overdue = Vec::new();
    for (ended, id) in &index.ended {
        let is_old = policy.age <= now.since(*ended);
        let is_large = policy.bytes_max < bytes || policy.weight_max < weight;
        let is_over = policy.builds_max < builds || (is_large && 1 < builds);
        if !is_old && !is_over {
            break;
        }
        overdue.push(*id);
        builds -= 1;
        if let Some(build) = state.ledger.builds.get(id) {
            bytes = bytes.saturating_sub(build.bytes());
            weight = weight.saturating_sub(build.submission.graph.weight());
        }
    }
    overdue
}
