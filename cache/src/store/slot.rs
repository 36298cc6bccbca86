//! The place of the open database: who reads takes it from here, and who closes it waits until all have
//! given it back.
//!
//! From the moment closing begins nobody gets the database any more, so that reads that keep coming
//! cannot hold the closing up; those that go on are asked to end after a while.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Trouble, lock, rocks::Rocks};
use crate::clock::Clock;

/// How often a closing looks whether all have given the database back.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the open database is.
#[derive(Debug)]
pub(super) struct Slot {
    open: RwLock<Option<Open>>,
    /// The database that is being closed while others still read from it. No other may be opened until
    /// it is gone: the files are the same.
    closing: Mutex<Option<Open>>,
}

#[derive(Clone, Debug)]
struct Open {
    rocks: Arc<Rocks>,
    retired: CancellationToken,
}

impl Open {
    fn new(rocks: Rocks) -> Self {
        Self {
            rocks: Arc::new(rocks),
            retired: CancellationToken::new(),
        }
    }
}

impl Slot {
    /// With this database in it.
    pub(super) fn new(rocks: Rocks) -> Self {
        Self {
            open: RwLock::new(Some(Open::new(rocks))),
            closing: Mutex::new(None),
        }
    }

    /// The open database.
    pub(super) fn rocks(&self) -> Result<Arc<Rocks>, Trouble> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let rocks = open.as_ref().map(|open| Arc::clone(&open.rocks));
        rocks.ok_or(Trouble::Closed)
    }

    /// Ends when those who hold values of the database that is open now have to give them back.
    pub(super) fn retired(&self) -> Result<CancellationToken, Trouble> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let retired = open.as_ref().map(|open| open.retired.clone());
        retired.ok_or(Trouble::Closed)
    }

    /// Puts in a database that was just opened; the one before has been closed.
    pub(super) fn put(&self, rocks: Rocks) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        *open = Some(Open::new(rocks));
    }

    /// Closes the database; says whether that was done within `patience`. If not, nobody can read any
    /// more, and the next call goes on. After half of the time those who still read are asked to end.
    pub(super) fn close(&self, patience: Duration, clock: &Clock) -> bool {
        let mut closing = lock(&self.closing);
        let taken = {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            open.take()
        };
        let Some(mut left) = taken.or_else(|| closing.take()) else {
            return true;
        };
        let start = clock.now();
        loop {
            left.rocks = match Arc::try_unwrap(left.rocks) {
                Ok(_last) => return true,
                Err(rocks) => rocks,
            };
            let waited = clock.now().since(start);
            if patience / 2 <= waited {
                left.retired.cancel();
            }
            if patience <= waited {
                *closing = Some(left);
                return false;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
