//! Who is connected, and how often: no member takes the places of all others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{
    access::Identity,
    message::{Refusal, RefusalCode},
};

/// How many connections a member may have: a sixteenth of those of the server. A worker has some for each team whose
/// builds it runs, four at most.
const CONNECTIONS_MAX: usize = 1_024;
/// When somebody who has too many may try again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How many connections each member has.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    counts: Arc<Mutex<BTreeMap<Identity, usize>>>,
}

/// A member's place; it is free again when this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Place {
    members: Members,
    identity: Identity,
}

impl Members {
    /// Takes a place for `identity`, if it has not too many.
    pub(super) fn enter(&self, identity: &Identity) -> Result<Place, Refusal> {
        let mut counts = self.lock();
        let count = counts.entry(identity.clone()).or_default();
        if CONNECTIONS_MAX <= *count {
            let message = format!(
                "{identity} has {count} connections to the cache, at most {CONNECTIONS_MAX} are \
                 allowed: close some, or join under several names"
            );
            let refusal = Refusal::new(RefusalCode::ResourceExhausted, message);
            return Err(refusal.retry_after(RETRY_AFTER));
        }
        *count += 1;
        Ok(Place {
            members: self.clone(),
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
        let mut counts = self.members.lock();
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
    fn who_has_too_many_connections_is_refused_and_others_are_not() {
        let member = |name: &str| Identity {
            team: "red".parse().unwrap(),
            role: Role::Developer,
            name: name.to_owned(),
        };
        let members = Members::default();
        let enter = |name| members.enter(&member(name));
        let mut places: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| enter("greedy").unwrap())
            .collect();
        let refusal = enter("greedy").unwrap_err();
        assert_eq!(refusal.code, RefusalCode::ResourceExhausted);
        assert!(refusal.message.contains("greedy"), "{}", refusal.message);
        let other = enter("other").unwrap();
        places.pop();
        places.push(enter("greedy").unwrap());
        drop((places, other));
        assert!(members.lock().is_empty(), "who has gone is forgotten");
    }
}
