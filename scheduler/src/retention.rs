//! Retention: which builds are forgotten, and when.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use protocol::{build::BuildId, name::Team, time::WallTime};

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

/// The builds that are to be deleted now: those that are too old, and as many as it takes for the others to
/// fit. Where they are too many, or their graphs too large, those go that ended first, and the newest of all
/// stays whatever its graph takes.
///
/// Where logs and artifacts are too large, whoever has most of them gives: how large they are is what
/// workers say, and one that says too much of its team's builds costs no other team's. The newest of a team
/// stays whatever its size, or a large build's artifacts could never be fetched; no more of it counts than
/// the team's share.
pub fn overdue(state: &State, now: WallTime, policy: &RetentionPolicy) -> Vec<BuildId> {
    let index = &state.ledger.index;
    let mut builds = index.ended.len();
    let mut weight = index.weights.ended();
    let mut overdue = Vec::new();
    for (ended, id) in &index.ended {
        let is_old = policy.age <= now.since(*ended);
        let is_over = policy.builds_max < builds || policy.weight_max < weight && 1 < builds;
        if !is_old && !is_over {
            break;
        }
        overdue.push(*id);
        builds -= 1;
        if let Some(build) = state.ledger.builds.get(id) {
            weight = weight.saturating_sub(build.submission.graph.weight());
        }
    }
    let large = too_large(state, overdue.len(), policy.bytes_max.into());
    overdue.extend(large);
    overdue
}

/// Of the builds after the first `gone`, those that go because of their bytes.
fn too_large(state: &State, gone: usize, bytes_max: u128) -> Vec<BuildId> {
    let ledger = &state.ledger;
    if ledger.index.ended_bytes <= bytes_max {
        return Vec::new();
    }
    let mut teams: BTreeMap<&Team, VecDeque<(BuildId, u128)>> = BTreeMap::new();
    for (_, id) in ledger.index.ended.iter().skip(gone) {
        if let Some(build) = ledger.builds.get(id) {
            let of = teams.entry(&build.submission.team).or_default();
            of.push_back((*id, build.bytes()));
        }
    }
    let share = bytes_max / teams.len().max(1) as u128;
    let counted = |of: &VecDeque<(BuildId, u128)>| {
        let all: u128 = of.iter().map(|(_, bytes)| bytes).sum();
        let newest = of.back().map_or(0, |(_, bytes)| *bytes);
        all - newest + newest.min(share)
    };
    let mut sums: BTreeMap<&Team, u128> =
        teams.iter().map(|(of, had)| (*of, counted(had))).collect();
    let mut large = Vec::new();
    // Whoever has most has more than its share as long as all have too much, and so more than one build.
    while bytes_max < sums.values().sum::<u128>() {
        let most = sums.iter_mut().max_by_key(|(_, bytes)| **bytes);
        let Some((of, sum)) = most else { break };
        let builds = teams.get_mut(*of).filter(|builds| 1 < builds.len());
        let Some((id, bytes)) = builds.and_then(VecDeque::pop_front) else {
            break;
        };
        *sum -= bytes;
        large.push(id);
    }
    large
}
