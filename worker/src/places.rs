//! Places: the numbered directories of units at level `host`.
//!
//! Programs write absolute paths into what they make: cargo into its fingerprints, a virtual environment
//! into its scripts. So a unit stands where earlier ones stood, not in a directory of its own name, and
//! what was cached there is good here. Places are forgotten with the worker, as the directories are.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use protocol::build::BuildId;

/// Which unit has which place.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: Mutex<BTreeMap<(BuildId, u32), u32>>,
}

impl Places {
    /// The place of a unit, from 0: the one that it has, or the first that is free.
    pub(crate) fn of(&self, build: BuildId, unit: u32) -> u32 {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = taken.get(&(build, unit)) {
            return *place;
        }
        let is_free = |place: &u32| taken.values().all(|other| other != place);
        let place = (0..).find(is_free).unwrap_or(u32::MAX);
        taken.insert((build, unit), place);
        place
    }

    /// Nobody is there any more.
    pub(crate) fn free(&self, place: u32) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, other| *other != place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_keeps_its_place_and_gives_it_to_the_next() {
        let places = Places::default();
        let of = |build, unit| places.of(BuildId(build), unit);
        assert_eq!([of(1, 0), of(1, 1), of(2, 0), of(1, 0)], [0, 1, 2, 0]);
        places.free(1);
        assert_eq!([of(3, 0), of(4, 0), of(2, 0)], [1, 3, 2]);
    }
}
