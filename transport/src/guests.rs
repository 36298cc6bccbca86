//! How many connections each member has: one member alone must not take the places of all.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::access::Identity;

/// Who is connected to a server, and how often. Clones share it.
#[derive(Clone, Debug)]
pub struct Guests {
    counts: Arc<Mutex<BTreeMap<Identity, usize>>>,
    most: usize,
}

/// The place of one connection; it is free again when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Place {
    guests: Guests,
    identity: Identity,
}

/// A member has as many connections as it may: it has to close some, or wait.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{identity} has {most} connections already, which is as many as one member may have")]
pub struct Crowded {
    /// Who.
    pub identity: Identity,
    /// How many it may have.
    pub most: usize,
}

impl Guests {
    /// Nobody yet; each may have at most `most` connections.
    pub fn new(most: usize) -> Self {
        Self {
            counts: Arc::default(),
            most,
        }
    }

    /// Takes a place for a connection of `identity`.
    ///
    /// # Errors
    ///
    /// If it has as many as it may.
    pub fn admit(&self, identity: &Identity) -> Result<Place, Crowded> {
        let mut counts = self.lock();
        let count = counts.entry(identity.clone()).or_default();
        if self.most <= *count {
            return Err(Crowded {
                identity: identity.clone(),
                most: self.most,
            });
        }
        *count += 1;
        Ok(Place {
            guests: self.clone(),
            identity: identity.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Identity, usize>> {
        // Every change is one step.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.guests.lock();
        if let Some(count) = counts.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.identity);
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
        const MOST: usize = 64;
        let guests = Guests::new(MOST);
        let identity = |name: &str| Identity {
            team: "red".parse().unwrap(),
            role: Role::Developer,
            name: name.to_owned(),
        };
        let anna = identity("anna");
        let mut places: Vec<_> = (0..MOST).map(|_| guests.admit(&anna).unwrap()).collect();
        let message = guests.admit(&anna).unwrap_err().to_string();
        assert!(message.contains("developer anna"), "{message}");
        let other = guests.admit(&identity("otto")).unwrap();
        places.pop();
        places.push(guests.admit(&anna).unwrap());
        drop((places, other));
        assert!(guests.lock().is_empty(), "who has gone is forgotten");
    }
}
