//! How a worker leaves: whether the coordinator knows that it does, and when it is done.
//!
//! It knows no clock and no connection. Both the session and the simulation go by it.

use protocol::time::Time;

/// Whether a worker is with the coordinator, and whether it is about to leave.
#[derive(Clone, Debug, Default)]
pub struct Departure {
    is_joined: bool,
    is_leaving: bool,
    is_dismissed: bool,
    hands_over_until: Option<Time>,
}

impl Departure {
    /// There is no connection, or one on which the coordinator has not answered yet.
    pub const fn disconnected(&mut self) {
        self.is_joined = false;
    }

    /// The coordinator has taken the worker. Whether it has to be told that the worker leaves: that may have
    /// been decided after the worker said that it joins.
    #[must_use]
    pub const fn joined(&mut self) -> bool {
        self.is_joined = true;
        self.is_leaving
    }

    /// The worker is to leave. Whether the coordinator is to be told now; `None`: it leaves already.
    #[must_use]
    pub const fn leave(&mut self) -> Option<bool> {
        if self.is_leaving {
            return None;
        }
        self.is_leaving = true;
        Some(self.is_joined)
    }

    /// The worker gives its jobs back, and waits until `until` for the coordinator to take them.
    pub const fn hand_over(&mut self, until: Time) {
        self.hands_over_until = Some(until);
    }

    /// The coordinator has said that nothing is left to do.
    pub const fn dismissed(&mut self) {
        self.is_dismissed = true;
    }

    /// Whether the coordinator has taken the worker over the present connection.
    pub const fn is_joined(&self) -> bool {
        self.is_joined
    }

    /// Whether the worker is about to leave.
    pub const fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Until when it waits for the coordinator to take its jobs over; `None`: they may end.
    pub const fn hands_over_until(&self) -> Option<Time> {
        self.hands_over_until
    }

    /// Whether the worker may end at `now`; `is_empty`: it has nothing under way. Without a coordinator it
    /// does not wait to be let go.
    pub fn is_done(&self, now: Time, is_empty: bool) -> bool {
        let is_late = self.hands_over_until.is_some_and(|end| end <= now);
        let is_let = self.is_dismissed || !self.is_joined;
        self.is_leaving && (is_late || is_empty && is_let)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coordinator_is_told_once_it_has_answered_if_the_worker_was_told_meanwhile() {
        let mut departure = Departure::default();
        assert!(!departure.joined(), "there is nothing to say");
        departure.disconnected();
        assert_eq!(departure.leave(), Some(false), "nobody is there to be told");
        assert_eq!(departure.leave(), None);
        assert!(departure.joined(), "the coordinator does not know yet");
        assert!(!departure.is_done(Time(0), true), "nobody has let it go");
        departure.dismissed();
        assert!(departure.is_done(Time(0), true));
        assert!(!departure.is_done(Time(0), false), "an attempt runs");
    }

    #[test]
    fn a_worker_that_hands_over_does_not_wait_for_ever_and_one_alone_not_at_all() {
        let mut departure = Departure::default();
        let _nothing_to_say = departure.joined();
        assert_eq!(departure.leave(), Some(true));
        departure.hand_over(Time(5));
        assert!(!departure.is_done(Time(4), true));
        assert!(departure.is_done(Time(5), false));
        let mut alone = Departure::default();
        assert!(!alone.is_done(Time(9), true), "it is to work");
        let _told = alone.leave();
        assert!(alone.is_done(Time(0), true));
    }
}
