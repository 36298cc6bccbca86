//! The driver: takes events, gives facts and effects, and says when time matters next.

use std::{sync::Arc, time::Duration};

use protocol::{
    name::WorkerName,
    time::{Time, WallTime},
};

use crate::{
    decide,
    effect::Effect,
    event::{Event, Ignored, Now},
    fact::Fact,
    fold::{FoldError, fold},
    presence::Presence,
    state::{Config, Ledger, State},
};

/// What an event led to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decision {
    /// What was decided, in order. All of them are journalled and synced before the effects leave. If a
    /// crash leaves only the first of them, the next event after the start decides the rest anew.
    pub facts: Vec<Fact>,
    /// What to do about it, in order. Messages to one session are sent in this order.
    pub effects: Vec<Effect>,
    /// What was said and changed nothing, for those who watch over the farm.
    pub ignored: Vec<Ignored>,
}

/// When the scheduler wants to be told the time, with [`Event::Tick`] if nothing else happens.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Deadline {
    /// On the monotonic clock; `None`: never.
    pub time: Option<Time>,
    /// On the wall clock; `None`: never.
    pub wall: Option<WallTime>,
}

impl Deadline {
    /// How long it is until the first of the two; zero if one is over, `None` if there is none.
    pub fn wait(&self, now: Now) -> Option<Duration> {
        let time = self.time.map(|time| time.since(now.time));
        let wall = self.wall.map(|wall| wall.since(now.wall));
        time.into_iter().chain(wall).min()
    }
}

/// The scheduler: one per farm, owned by one task.
#[derive(Clone, Debug)]
pub struct Scheduler {
    state: State,
}

impl Scheduler {
    /// A scheduler that knows nothing.
    pub fn new(config: Config) -> Self {
        Self::restored(config, Ledger::default())
    }

    /// A scheduler that knows what a state snapshot says. Facts that came after it are
    /// [replayed](Self::replay).
    pub fn restored(config: Config, ledger: Ledger) -> Self {
        Self {
            state: State::new(config, ledger),
        }
    }

    /// Takes up a journalled fact. Decides nothing.
    ///
    /// # Errors
    ///
    /// If the fact does not fit those before it: the journal is not what was written.
    pub fn replay(&mut self, fact: &Fact) -> Result<(), FoldError> {
        fold(&mut self.state.ledger, fact)
    }

    /// Ends recovery: nobody is connected, and every live lease gets a full time to live from `now`.
    /// What the facts leave to be decided is decided with the next event.
    pub fn recovered(&mut self, now: Now) {
        let weights = Arc::clone(&self.state.config.shares);
        self.state.presence = Presence::recovered(&self.state.ledger, weights, now);
    }

    /// Decides what follows from `event`. What ended by `now` has ended before it.
    pub fn apply(&mut self, now: Now, event: Event) -> Decision {
        decide::decide(&mut self.state, now, event)
    }

    /// When time matters next.
    pub fn next_deadline(&self) -> Deadline {
        let limits = &self.state.ledger.index.limits;
        Deadline {
            time: self.state.presence.timers.next(),
            wall: limits.first().map(|(limit, _)| *limit),
        }
    }

    /// The state, for queries.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What was decided so far: what a state snapshot of the journal keeps.
    pub fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    /// Whether `worker` is connected.
    pub fn is_connected(&self, worker: &WorkerName) -> bool {
        self.state.presence.session_of(worker).is_some()
    }
}
