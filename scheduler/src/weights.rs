//! What the graphs of builds weigh in memory, and how much of that is taken.

use std::collections::BTreeMap;

use protocol::{build::BuildId, name::Team};

use crate::state::{Build, State};

/// The weights of all graphs that are kept, in bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Weights {
    /// Of builds that have not ended, by team; no team has zero.
    active: BTreeMap<Team, u64>,
    /// Of builds that have ended.
    ended: u64,
}

/// Why a build is not taken, although nothing is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoRoom {
    /// There are too many.
    #[error(
        "{max} builds have not ended, which is as many as are taken; wait until some have, or stop some"
    )]
    Builds {
        /// How many there may be.
        max: usize,
    },
    /// Those of the team are too large together.
    #[error(
        "the builds of team {team} that have not ended take {taken} bytes of the coordinator's memory, and with \
         this one's {weight} more than the {max} that a team may have; wait until some have ended, or stop some"
    )]
    Team {
        /// The team.
        team: Team,
        /// How much they weigh.
        taken: u64,
        /// How much this one weighs.
        weight: u64,
        /// How much they may weigh.
        max: u64,
    },
    /// Those of all teams are too large together.
    #[error(
        "the builds that have not ended take {taken} bytes of the coordinator's memory, and with this one's \
         {weight} more than {max}; wait until some have ended, or stop some"
    )]
    Weight {
        /// How much they weigh.
        taken: u64,
        /// How much this one weighs.
        weight: u64,
        /// How much they may weigh.
        max: u64,
    },
}

/// Whether a build of `team` whose graph has this [weight](protocol::graph::JobGraph::weight) would be taken.
///
/// # Errors
///
/// Why not.
pub fn room(state: &State, team: &Team, weight: u64) -> Result<(), NoRoom> {
    let config = &state.config;
    let ledger = &state.ledger;
    let max = config.active_builds_max;
    if max <= ledger.builds.len() - ledger.index.ended.len() {
        return Err(NoRoom::Builds { max });
    }
    let active = &ledger.index.weights.active;
    let (taken, max) = (
        active.get(team).copied().unwrap_or(0),
        config.team_weight_max,
    );
    if max < taken.saturating_add(weight) {
        let team = team.clone();
        return Err(NoRoom::Team {
            team,
            taken,
            weight,
            max,
        });
    }
    let (taken, max) = (active.values().sum::<u64>(), config.active_weight_max);
    if max < taken.saturating_add(weight) {
        return Err(NoRoom::Weight { taken, weight, max });
    }
    Ok(())
}

/// What the graph of a build that is known weighs, and whose it is.
pub fn weight(state: &State, build: BuildId) -> Option<(Team, u64)> {
    let submission = &state.ledger.builds.get(&build)?.submission;
    Some((submission.team.clone(), submission.graph.weight()))
}

impl Weights {
    /// What builds that have ended weigh.
    pub(crate) const fn ended(&self) -> u64 {
        self.ended
    }

    /// Takes up a build that has not ended.
    pub(crate) fn submit(&mut self, build: &Build) {
        let of_team = self.active.entry(build.submission.team.clone());
        *of_team.or_default() += build.submission.graph.weight();
    }

    /// Takes up that a build has ended.
    pub(crate) fn end(&mut self, build: &Build) {
        self.ended += self.leave(build);
    }

    /// Forgets a build.
    pub(crate) fn remove(&mut self, build: &Build) {
        if build.ended.is_some() {
            let weight = build.submission.graph.weight();
            self.ended = self.ended.saturating_sub(weight);
        } else {
            self.leave(build);
        }
    }

    fn leave(&mut self, build: &Build) -> u64 {
        let weight = build.submission.graph.weight();
        if let Some(active) = self.active.get_mut(&build.submission.team) {
            *active = active.saturating_sub(weight);
            if *active == 0 {
                self.active.remove(&build.submission.team);
            }
        }
        weight
    }
}
