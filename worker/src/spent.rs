//! How long the phases of a unit have run on this worker: what its dependency cache saves the next build.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::build::{BuildId, Phase};

/// How many units are remembered: many more than run at once.
const UNITS_MAX: usize = 1024;

/// How long phases have run, by unit.
#[derive(Debug, Default)]
pub(crate) struct Spent(Mutex<BTreeMap<(BuildId, u32), Duration>>);

impl Spent {
    /// A phase of a unit of a build has run so long. What runs after the build's own commands is not made
    /// quicker by a dependency cache, and does not count.
    pub(crate) fn add(&self, (build, unit): (BuildId, u32), phase: Phase, time: Duration) {
        if !matches!(phase, Phase::Install | Phase::PreBuild | Phase::Build) {
            return;
        }
        let mut units = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if units.len() >= UNITS_MAX {
            // Builds have random names, so this is any: a hint is lost.
            units.pop_first();
        }
        *units.entry((build, unit)).or_default() += time;
    }

    /// How long those of the unit have run so far, in milliseconds. Zero: elsewhere.
    pub(crate) fn so_far(&self, build: BuildId, unit: u32) -> u64 {
        let units = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let time = units.get(&(build, unit)).copied().unwrap_or_default();
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_of_a_unit_add_up_but_for_the_last() {
        let spent = Spent::default();
        let second = Duration::from_secs(1);
        spent.add((BuildId(1), 0), Phase::Install, second);
        spent.add((BuildId(1), 0), Phase::Build, second);
        spent.add((BuildId(1), 0), Phase::PostBuild, second);
        spent.add((BuildId(1), 1), Phase::Build, second);
        assert_eq!(spent.so_far(BuildId(1), 0), 2_000);
        assert_eq!(spent.so_far(BuildId(2), 0), 0);
    }
}
