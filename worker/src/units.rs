//! The directories of units at isolation level `host`: when they are made, and when they go.
//!
//! A unit's directory stays with its worker from its first phase to its last. It goes when the result of
//! the last one is acknowledged, when the first one failed, or when the time limit of its build is over:
//! nobody says that a build has failed meanwhile.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cache::ongoing;
use protocol::{lease::LeaseId, time::WallTime};
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::{
    clock,
    ground::{HOME, TEMPORARY},
    layers::remove,
    places::Places,
    site::Site,
};

/// When a unit's directory is of no use any more, below it: milliseconds since 1970.
const EXPIRES: &str = "expires";

/// How often to look for units whose builds are over: they only take room.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long after the time limit of its build a unit goes: its last attempt may still be ending.
const GRACE: Duration = Duration::from_secs(60);

/// Units whose last phase has ended, by its lease: they go when its result is acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Units {
    ended: Mutex<BTreeMap<LeaseId, u32>>,
}

impl Units {
    /// The last phase of the unit at `place` has ended, under this lease.
    pub(crate) fn ended(&self, lease: LeaseId, place: u32) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // An earlier try at the phase had the same place.
        ended.retain(|_, other| *other != place);
        ended.insert(lease, place);
    }

    /// The place to clear now that the result of a lease is acknowledged; `None`: none.
    pub(crate) fn acknowledged(&self, lease: LeaseId) -> Option<u32> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.remove(&lease)
    }
}

/// Makes the directory of a unit anew; it may go after `expires`. Blocks.
///
/// # Errors
///
/// If it cannot be made.
pub(crate) fn make(unit: &Path, expires: WallTime) -> io::Result<()> {
    remove(unit)?;
    if ongoing::is_given_up() {
        // Its place may be another's by now.
        return Err(io::Error::other("nobody wants the unit any more"));
    }
    for directory in [HOME, TEMPORARY] {
        fs::create_dir_all(unit.join(directory))?;
    }
    fs::write(unit.join(EXPIRES), expires.0.to_string())
}

/// Removes the unit at `place`, and gives its place free if it is gone.
pub(crate) async fn clear(site: Arc<Site>, place: u32) {
    let unit = site.directory.units().join(place.to_string());
    let cleared = spawn_blocking(move || clear_now(&unit, &site.places, place));
    // It does not panic; and if the worker ends first, the next start does it.
    let _cleared = cleared.await;
}

fn clear_now(unit: &Path, places: &Places, place: u32) {
    match remove(unit) {
        Ok(()) => places.free(place),
        // A later sweep tries again.
        Err(error) => warn!(unit = %unit.display(), %error, "the directory of a unit stays"),
    }
}

/// Removes units whose builds are over, again and again, for ever.
pub(crate) async fn keep_swept(site: Arc<Site>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let site = Arc::clone(&site);
        let now = clock::wall();
        let swept = spawn_blocking(move || sweep(&site.directory.units(), &site.places, now));
        // It does not panic; the next one does it otherwise.
        let _swept = swept.await;
    }
}

fn sweep(units: &Path, places: &Places, now: WallTime) {
    for entry in fs::read_dir(units).into_iter().flatten().flatten() {
        let unit = entry.path();
        let name = entry.file_name();
        let place = name.to_str().and_then(|name| name.parse().ok());
        if let Some(place) = place
            && is_over(&unit, now)
        {
            clear_now(&unit, places, place);
        }
    }
}

/// Whether the build of a unit has ended by its time limit, so that no phase of it follows.
fn is_over(unit: &Path, now: WallTime) -> bool {
    let expires = fs::read_to_string(unit.join(EXPIRES)).ok();
    let expires = expires.and_then(|text| text.parse().ok());
    expires.is_some_and(|expires| WallTime(expires) + GRACE < now)
}

#[cfg(test)]
mod tests {
    use protocol::build::BuildId;

    use super::*;

    #[test]
    fn a_unit_whose_build_is_over_goes_and_gives_its_place_free() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::default();
        let minute = |minute: u64| WallTime(minute * 60_000);
        for (build, expires) in [(1, minute(10)), (2, minute(20))] {
            let place = places.of(BuildId(build), 0);
            make(&folder.path().join(place.to_string()), expires).unwrap();
        }
        sweep(folder.path(), &places, minute(11));
        assert!(folder.path().join("0").exists(), "its end is a minute off");
        sweep(folder.path(), &places, minute(12));
        assert!(!folder.path().join("0").exists());
        assert!(folder.path().join("1").exists());
        assert_eq!(places.of(BuildId(3), 0), 0);
    }

    #[test]
    fn a_unit_goes_when_the_last_try_at_its_last_phase_is_acknowledged() {
        let units = Units::default();
        units.ended(LeaseId(1), 7);
        units.ended(LeaseId(2), 7);
        assert_eq!(units.acknowledged(LeaseId(1)), None);
        assert_eq!(units.acknowledged(LeaseId(2)), Some(7));
        assert_eq!(units.acknowledged(LeaseId(2)), None);
    }
}
