//! Shares: which team's turn it is.
//!
//! Shares of the farm's slots, equal or by weight: the next unit to begin is of the team that has the fewest
//! leases out for its weight, and among equals of the one that has used the least time of slots for it. What a team did not use while it
//! had nothing to do, it does not get back: one that comes again starts where those are that waited. The
//! leases are in the ledger; the times used are not, and start anew with the coordinator.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{lease::LeaseId, name::Team, time::Time};

/// What decides whose turn it is: the least comes first.
pub(crate) type Share = (u64, u64);

/// How much larger the share of each team is than that of one that is not named here.
pub(crate) type TeamWeights = Arc<BTreeMap<Team, u32>>;

/// What a lease counts for a team of weight 1: much more than the largest weight, so that it divides well.
const LEASE: u64 = 1 << 32;

/// What each team has of the farm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    weights: TeamWeights,
    /// Leases that are out, and time used in microseconds, by team and for its weight; and whether it has
    /// units that wait to begin.
    teams: BTreeMap<Team, (Share, bool)>,
    /// Teams that have units that wait to begin.
    waiting: BTreeSet<(Share, Team)>,
    /// Since when each lease is out, and whose it is.
    leases: BTreeMap<LeaseId, (Team, Time)>,
    /// The time used of the team whose turn it was last.
    level: u64,
}

impl Shares {
    /// Nobody has anything.
    pub(crate) fn new(weights: TeamWeights) -> Self {
        Self {
            weights,
            ..Self::default()
        }
    }

    fn weight(&self, team: &Team) -> u64 {
        let weight = self.weights.get(team).copied();
        weight.map_or(1, |weight| u64::from(weight.max(1)))
    }

    /// A lease is out.
    pub(crate) fn granted(&mut self, lease: LeaseId, team: &Team, now: Time) {
        self.leases.insert(lease, (team.clone(), now));
        let (_, used) = self.of(team);
        self.level = self.level.max(used);
        let lease = LEASE / self.weight(team);
        self.change(team, |(running, _)| *running += lease);
    }

    /// A lease is not out any more.
    pub(crate) fn released(&mut self, lease: LeaseId, now: Time) {
        let Some((team, since)) = self.leases.remove(&lease) else {
            return;
        };
        let micros = u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX);
        let weight = self.weight(&team);
        self.change(&team, |(running, used)| {
            *running = running.saturating_sub(LEASE / weight);
            *used = used.saturating_add(micros / weight);
        });
    }

    /// Takes up whether a team has units that wait to begin.
    pub(crate) fn wait(&mut self, team: &Team, waits: bool) {
        let known = self.teams.get_mut(team);
        if known
            .as_ref()
            .map_or(!waits, |(_, before)| *before == waits)
        {
            return;
        }
        let ((running, used), _) = known.copied().unwrap_or(((0, self.level), false));
        let is_back = waits && running == 0;
        let share = (running, if is_back { used.max(self.level) } else { used });
        self.teams.insert(team.clone(), (share, waits));
        let place = (share, team.clone());
        if waits {
            self.waiting.insert(place);
        } else {
            self.waiting.remove(&place);
            self.forget_idle(team);
        }
    }

    /// How much of the farm a team has.
    pub(crate) fn of(&self, team: &Team) -> Share {
        let known = self.teams.get(team);
        known.map_or((0, self.level), |(share, _)| *share)
    }

    /// The team whose turn it is, of those that have units that wait to begin.
    pub(crate) fn first(&self) -> Option<&Team> {
        self.waiting.first().map(|(_, team)| team)
    }

    fn change(&mut self, team: &Team, with: impl FnOnce(&mut Share)) {
        let new = ((0, self.level), false);
        let known = match self.teams.get_mut(team) {
            Some(known) => known,
            None => self.teams.entry(team.clone()).or_insert(new),
        };
        let before = known.0;
        with(&mut known.0);
        if known.1 {
            let mut place = (before, team.clone());
            self.waiting.remove(&place);
            place.0 = known.0;
            self.waiting.insert(place);
        } else {
            self.forget_idle(team);
        }
    }

    /// A team that has nothing and wants nothing is forgotten, unless it has used more than others.
    fn forget_idle(&mut self, team: &Team) {
        let level = self.level;
        let is_idle =
            |((running, used), waits): &(Share, bool)| *running == 0 && *used <= level && !waits;
        if self.teams.get(team).is_some_and(is_idle) {
            self.teams.remove(team);
        }
    }
}
