//! What builds that have ended keep of logs, artifacts and reports, by team: kept up to date, because it is
//! looked at whenever a build ends.

use std::collections::BTreeMap;

use protocol::{build::BuildId, name::Team, time::WallTime};

/// The bytes of all builds that have ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Holdings {
    /// No team has none.
    teams: BTreeMap<Team, TeamHoldings>,
    /// Of all builds together.
    sum: u128,
}

/// The bytes of a team's builds that have ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TeamHoldings {
    /// Of each, by when it ended.
    builds: BTreeMap<(WallTime, BuildId), u128>,
    sum: u128,
}

impl Holdings {
    /// Takes up a build.
    pub(crate) fn add(&mut self, team: &Team, ended: (WallTime, BuildId), bytes: u128) {
        let of = self.teams.entry(team.clone()).or_default();
        of.sum = of.sum.saturating_add(bytes);
        self.sum = self.sum.saturating_add(bytes);
        of.builds.insert(ended, bytes);
    }

    /// Forgets a build.
    pub(crate) fn remove(&mut self, team: &Team, ended: (WallTime, BuildId)) {
        let Some(of) = self.teams.get_mut(team) else {
            return;
        };
        let bytes = of.builds.remove(&ended).unwrap_or(0);
        of.sum = of.sum.saturating_sub(bytes);
        self.sum = self.sum.saturating_sub(bytes);
        if of.builds.is_empty() {
            self.teams.remove(team);
        }
    }

    /// What all have together.
    pub(crate) const fn sum(&self) -> u128 {
        self.sum
    }

    /// What each team has, by name.
    pub(crate) fn teams(&self) -> impl Iterator<Item = (&Team, &TeamHoldings)> {
        self.teams.iter()
    }
}

impl TeamHoldings {
    /// The bytes of the build that ended last.
    pub(crate) fn newest(&self) -> u128 {
        let last = self.builds.last_key_value();
        last.map_or(0, |(_, bytes)| *bytes)
    }

    /// The bytes of all others.
    pub(crate) fn older(&self) -> u128 {
        self.sum.saturating_sub(self.newest())
    }

    /// The builds but the one that ended last, oldest first.
    pub(crate) fn olders(&self) -> impl Iterator<Item = (BuildId, u128)> {
        let all = self.builds.iter().map(|((_, id), bytes)| (*id, *bytes));
        all.take(self.builds.len().saturating_sub(1))
    }
}
