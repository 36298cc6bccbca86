//! Retention: which builds are forgotten, and when.

use std::{collections::BTreeSet, time::Duration};

use protocol::{build::BuildId, time::WallTime};

use crate::{holdings::TeamHoldings, state::State};

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
/// How large logs and artifacts are is what workers say. The newest of a team stays whatever its size, or a
/// large build's artifacts could never be fetched, and counts against the team's older builds only; where
/// those of all teams are too large together, whoever has most of them gives. So a worker that says too much
/// costs no other team more than what was due to its team anyway; and there is no more than the limit and the
/// newest build of each team.
pub fn overdue(state: &State, now: WallTime, policy: &RetentionPolicy) -> Vec<BuildId> {
    let index = &state.ledger.index;
    let mut builds = index.ended.len();
    let mut weight = index.weights.ended();
    let mut overdue = BTreeSet::new();
    let mut in_order = Vec::new();
    for (ended, id) in &index.ended {
        let is_old = policy.age <= now.since(*ended);
        let is_over = policy.builds_max < builds || policy.weight_max < weight && 1 < builds;
        if !is_old && !is_over {
            break;
        }
        overdue.insert(*id);
        in_order.push(*id);
        builds -= 1;
        if let Some(build) = state.ledger.builds.get(id) {
            weight = weight.saturating_sub(build.submission.graph.weight());
        }
    }
    in_order.extend(too_large(state, &overdue, policy.bytes_max.into()));
    in_order
}

/// What a team has, without those of its builds that go.
struct Kept<'a> {
    newest: u128,
    older: u128,
    /// Those that may go yet, oldest first.
    rest: Box<dyn Iterator<Item = (BuildId, u128)> + 'a>,
}

impl<'a> Kept<'a> {
    fn new(of: &'a TeamHoldings, gone: &'a BTreeSet<BuildId>) -> Self {
        let left = of.olders().filter(|(id, _)| gone.contains(id));
        let left: u128 = left.map(|(_, bytes)| bytes).sum();
        Self {
            newest: of.newest(),
            older: of.older().saturating_sub(left),
            rest: Box::new(of.olders().filter(|(id, _)| !gone.contains(id))),
        }
    }

    /// Gives up the oldest.
    fn give(&mut self) -> Option<BuildId> {
        let (id, bytes) = self.rest.next()?;
        self.older = self.older.saturating_sub(bytes);
        Some(id)
    }
}

/// The builds that go because of their bytes, where `gone` go anyway.
fn too_large(state: &State, gone: &BTreeSet<BuildId>, bytes_max: u128) -> Vec<BuildId> {
    let holdings = &state.ledger.index.holdings;
    let mut large = Vec::new();
    if holdings.sum() <= bytes_max {
        return large;
    }
    let teams = holdings.teams().map(|(_, of)| Kept::new(of, gone));
    let mut teams: Vec<Kept<'_>> = teams.collect();
    for of in &mut teams {
        while bytes_max < of.older.saturating_add(of.newest) {
            let Some(id) = of.give() else { break };
            large.push(id);
        }
    }
    let sum = |teams: &[Kept<'_>]| {
        teams
            .iter()
            .map(|of| of.older)
            .fold(0, u128::saturating_add)
    };
    while bytes_max < sum(&teams) {
        let most = teams.iter_mut().max_by_key(|of| of.older);
        let Some(id) = most.and_then(Kept::give) else {
            break;
        };
        large.push(id);
    }
    large
}
