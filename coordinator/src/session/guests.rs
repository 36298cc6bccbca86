//! How many connections each member has: one member alone must not take the room of all.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::access::Identity;

/// How many connections one member may have at once. A person has some commands that follow builds, a
/// runner of builds a connection for each that it follows.
const CONNECTIONS_MAX: usize = 64;

/// Who is connected, and how often. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Guests(Arc<Mutex<BTreeMap<Identity, usize>>>);

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    guests: Guests,
    identity: Identity,
}

/// A member has as many connections as it may.
#[derive(Debug, thiserror::Error)]
#[error(
    "{identity} has {CONNECTIONS_MAX} connections already, which is as many as one member may have"
)]
pub(super) struct Crowded {
    identity: Identity,
}

impl Guests {
    /// Takes a place for a connection of `identity`.
    ///
    /// # Errors
    ///
    /// If it has as many as it may.
    pub(super) fn admit(&self, identity: &Identity) -> Result<Place, Crowded> {
        let mut guests = self.lock();
        let count = guests.entry(identity.clone()).or_default();
        if CONNECTIONS_MAX <= *count {
            let identity = identity.clone();
            return Err(Crowded { identity });
        }
        *count += 1;
        Ok(Place {
            guests: self.clone(),
            identity: identity.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Identity, usize>> {
        // Each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guests = self.guests.lock();
        if let Some(count) = guests.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                guests.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::access::Role;

    use super::*;

    #[test]
    fn a_member_has_so_many_places_and_who_leaves_makes_room() {
        let guests = Guests::default();
        let identity = |name: &str| Identity {
            team: "red".parse().unwrap(),
            role: Role::Developer,
            name: name.to_owned(),
        };
        let anna = identity("anna");
        let mut places: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| guests.admit(&anna).unwrap())
            .collect();
        let message = guests.admit(&anna).unwrap_err().to_string();
        assert!(message.contains("developer anna"), "{message}");
        let other = guests.admit(&identity("otto")).unwrap();
        places.pop();
        places.push(guests.admit(&anna).unwrap());
        drop((places, other));
        assert!(guests.lock().is_empty());
    }
}
