//! Which attempts have a way in for people, and how many may be there.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use protocol::{
    lease::LeaseId,
    message::terminal::{TERMINALS_OF_ATTEMPT_MAX, TERMINALS_OF_WORKER_MAX},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{attempt::Interrupt, secrets::Patterns};

/// How many people may be served at once: all that have terminals, and as many that ask for one or are refused.
pub(crate) const ATTACHING_MAX: usize = 2 * TERMINALS_OF_WORKER_MAX;

/// What is said of an attempt without a way in.
pub(super) const NOT_PAUSED: &str = "the build is not at a breakpoint";

/// Where the attempts that are debugged can be found.
#[derive(Debug)]
pub(crate) struct Terminals {
    doors: Mutex<BTreeMap<LeaseId, Arc<Place>>>,
    /// One for each terminal of the worker, also of attempts that are over.
    seats: Arc<Semaphore>,
}

/// Where the helper commands of an attempt meet.
#[derive(Clone, Debug)]
pub(crate) struct Meeting {
    /// A directory that the build cannot replace, as the worker sees it.
    pub(crate) root: PathBuf,
    /// The directory below it in which they meet.
    pub(crate) below: PathBuf,
}

/// An attempt that people can get into.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) meeting: Meeting,
    /// What must not be shown.
    pub(super) patterns: Option<Arc<Patterns>>,
    /// Why the attempt is broken off, if it is.
    pub(super) interrupt: OnceLock<Interrupt>,
    /// The attempt is over.
    pub(super) closed: CancellationToken,
    /// One for each of its terminals.
    seats: Arc<Semaphore>,
}

/// The place of one terminal.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) place: Arc<Place>,
    _of_attempt: OwnedSemaphorePermit,
    _of_worker: OwnedSemaphorePermit,
}

impl Default for Terminals {
    fn default() -> Self {
        Self {
            doors: Mutex::default(),
            seats: Arc::new(Semaphore::new(TERMINALS_OF_WORKER_MAX)),
        }
    }
}

impl Place {
    /// An attempt that has just begun.
    pub(super) fn new(meeting: Meeting, patterns: Option<Arc<Patterns>>) -> Self {
        Self {
            meeting,
            patterns,
            interrupt: OnceLock::new(),
            closed: CancellationToken::new(),
            seats: Arc::new(Semaphore::new(TERMINALS_OF_ATTEMPT_MAX)),
        }
    }

    /// The attempt is over, because of `interrupt` or by itself.
    pub(super) fn close(&self, interrupt: Option<Interrupt>) {
        if let Some(interrupt) = interrupt {
            // A door closes once.
            let _is_first = self.interrupt.set(interrupt);
        }
        self.closed.cancel();
    }
}

impl Terminals {
    /// The sandbox of an attempt is up, and its helper commands meet at `meeting`.
    pub(crate) fn open(&self, lease: LeaseId, meeting: Meeting, patterns: Option<Arc<Patterns>>) {
        let place = Arc::new(Place::new(meeting, patterns));
        if let Some(before) = self.lock().insert(lease, place) {
            before.close(None);
        }
    }

    /// An attempt is over: all that it runs is about to end, because of `interrupt` or by itself.
    pub(crate) fn close(&self, lease: LeaseId, interrupt: Option<Interrupt>) {
        if let Some(place) = self.lock().remove(&lease) {
            place.close(interrupt);
        }
    }

    /// Takes a seat in an attempt.
    ///
    /// # Errors
    ///
    /// What to tell the person, if there is none.
    pub(super) fn enter(&self, lease: LeaseId) -> Result<Seat, &'static str> {
        let place = self.lock().get(&lease).map(Arc::clone).ok_or(NOT_PAUSED)?;
        let of_attempt = Arc::clone(&place.seats)
            .try_acquire_owned()
            .map_err(|_| "as many terminals are open in the build as may be; leave one")?;
        let of_worker = Arc::clone(&self.seats)
            .try_acquire_owned()
            .map_err(|_| "as many terminals are open on the worker as may be; try again later")?;
        Ok(Seat {
            place,
            _of_attempt: of_attempt,
            _of_worker: of_worker,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LeaseId, Arc<Place>>> {
        // Nothing is done under the lock that could leave the map half done.
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
