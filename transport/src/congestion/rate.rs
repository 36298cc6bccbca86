//! A congestion controller that goes by the rate at which bytes arrive. Losses that are few say nothing to it,
//! so that a path that loses one datagram in a hundred is used as if it lost none.
//!
//! As much is on its way as arrives in the shortest round trip, and a little more, which waits where the path
//! is narrow. That little has a part that is the same for every sender: of senders that share a path, those
//! with less of it gain more from it, until all have the same. Many losses, which come from queues that are
//! short for those who share them, make it less.

use std::time::{Duration, Instant};

/// How much longer than the shortest one a round trip may take where that keeps the path busy: receivers
/// acknowledge up to 5 ms late.
const SLACK_TIME: Duration = Duration::from_millis(5);
/// What every sender has on its way besides, in bytes: four of them take a quarter of a queue of 1 MB.
const SLACK_BYTES: u64 = 64 * 1024;
/// In how many parts the slack goes and comes back.
const SLACK_PARTS: u64 = 16;
/// From this part of all bytes on losses come from queues that are full, in percent: radio and long cables
/// lose less.
const LOST_PERCENT_MAX: u64 = 5;
/// How many datagrams it takes to judge losses.
const JUDGED_DATAGRAMS: u64 = 100;
/// How many rounds may bring no more than the one before until a start is over.
const STALLED_ROUNDS: u8 = 3;
/// How long the shortest round trip counts. Then less is sent for two rounds: it cannot be seen past a queue
/// that this sender itself keeps filled. The same is done when much is lost: what all who share the path took
/// for the shortest may have been one through a full queue.
const SHORTEST_COUNTS: Duration = Duration::from_secs(10);
/// From this part of the window on a round has used it, though there was nothing to send for a moment: three quarters.
const USED_PARTS: (u64, u64) = (3, 4);
/// The smallest window, in datagrams.
const DATAGRAMS_MIN: u64 = 4;

/// What the controller knows.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    datagram: u64,
    first_flight: u64,
    window: u64,
    phase: Phase,
    /// At which bytes arrive, per second.
    rate: u64,
    shortest: Duration,
    /// When a round trip was as short as that.
    shortest_seen: Option<Instant>,
    round: Round,
    /// How much of the slack is allowed, in [`SLACK_PARTS`].
    slack: u64,
    /// Bytes that arrived and that were lost since losses were judged.
    judged: (u64, u64),
    /// Whether nothing is on its way.
    is_idle: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The window doubles with each round, of which so many have brought nothing.
    Start { stalled: u8 },
    /// The rate is known.
    Steady,
    /// Less is sent, for so many rounds more, so that queues empty.
    Drain { rounds: u8 },
}

/// From a moment until something that was sent after it is acknowledged.
#[derive(Clone, Copy, Debug)]
struct Round {
    start: Option<Instant>,
    /// The window when it began.
    window: u64,
    arrived: u64,
    lost: u64,
    shortest: Duration,
    /// Whether there was nothing to send for a moment.
    had_nothing: bool,
    is_over: bool,
}

impl Round {
    const fn new(start: Option<Instant>, window: u64) -> Self {
        Self {
            start,
            window,
            arrived: 0,
            lost: 0,
            shortest: Duration::MAX,
            had_nothing: false,
            is_over: false,
        }
    }

    /// Whether less was sent than might have been, so that the rate says nothing of the path.
    const fn is_limited(&self) -> bool {
        self.had_nothing && (self.arrived + self.lost) / USED_PARTS.0 < self.window / USED_PARTS.1
    }
}

impl Rate {
    pub(super) fn new(first_flight: u64, datagram: u16) -> Self {
        Self {
            datagram: datagram.into(),
            first_flight,
            window: first_flight,
            phase: Phase::Start { stalled: 0 },
            rate: 0,
            shortest: Duration::MAX,
            shortest_seen: None,
            round: Round::new(None, first_flight),
            slack: SLACK_PARTS,
            judged: (0, 0),
            is_idle: true,
        }
    }

    /// How many bytes may be on their way.
    pub(super) const fn window(&self) -> u64 {
        self.window
    }

    pub(super) fn datagram(&mut self, bytes: u16) {
        self.datagram = bytes.into();
    }

    /// Something was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        if self.is_idle {
            self.is_idle = false;
            // Nothing arrives until a round trip has passed.
            self.round = Round::new(Some(now), self.window);
            self.round.had_nothing = true;
        }
    }

    /// Bytes have arrived that were sent at `sent`.
    pub(super) fn arrived(&mut self, (now, sent): (Instant, Instant), bytes: u64, limited: bool) {
        let trip = now.saturating_duration_since(sent);
        if trip < self.shortest {
            self.shortest = trip;
            self.shortest_seen = Some(now);
        }
        self.round.shortest = self.round.shortest.min(trip);
        self.round.arrived += bytes;
        self.round.had_nothing |= limited;
        self.round.is_over |= self.round.start.is_some_and(|start| start <= sent);
        self.judged.0 += bytes;
        if matches!(self.phase, Phase::Start { .. }) && !limited && !self.is_queued(trip) {
            self.window += bytes;
        }
    }

    /// All that one acknowledgement names has been told; `in_flight` bytes are still on their way.
    pub(super) fn acknowledged(&mut self, now: Instant, in_flight: u64) {
        if self.round.is_over {
            let round = self.round;
            self.end_round(now, round);
            self.round = Round::new(Some(now), self.window);
        } else if self.round.start.is_none() {
            // It is asked for the first time while something is on its way already.
            self.round = Round::new(Some(now), self.window);
            self.round.had_nothing = true;
        }
        self.is_idle = in_flight == 0;
    }

    /// Bytes were lost.
    pub(super) fn lost(&mut self, bytes: u64, is_everything: bool) {
        self.judged.1 += bytes;
        self.round.lost += bytes;
        if is_everything {
            // Whatever the path was, it is another now.
            let window = self.window_min();
            *self = Self {
                datagram: self.datagram,
                window,
                round: Round::new(None, window),
                ..Self::new(self.first_flight, 0)
            };
        }
    }

    fn end_round(&mut self, now: Instant, round: Round) {
        let took = round
            .start
            .map(|start| now.saturating_duration_since(start));
        let rate = per_second(round.arrived, took.unwrap_or_default());
        let before = self.rate;
        let is_steady = self.phase == Phase::Steady;
        if is_steady && !round.is_limited() {
            // Acknowledgements come unevenly.
            self.rate = u64::midpoint(self.rate, rate);
        } else {
            self.rate = self.rate.max(rate);
        }
        let is_crowded = self.judge();
        match self.phase {
            Phase::Start { stalled } => {
                let is_queued = self.is_queued(round.shortest);
                let has_grown = before + before / 4 < self.rate;
                let stalled = match (has_grown, round.is_limited()) {
                    (true, _) => 0,
                    (false, true) => stalled,
                    (false, false) => stalled + 1,
                };
                self.phase = match is_queued || is_crowded || STALLED_ROUNDS <= stalled {
                    true => Phase::Steady,
                    false => Phase::Start { stalled },
                };
            }
            Phase::Steady => {
                let seen = self.shortest_seen.unwrap_or(now);
                if is_crowded || SHORTEST_COUNTS < now.saturating_duration_since(seen) {
                    self.phase = Phase::Drain { rounds: 2 };
                    self.window = (self.in_time(self.shortest) / 2).max(self.window_min());
                    self.shortest = Duration::MAX;
                }
            }
            Phase::Drain { rounds } => {
                self.phase = match rounds {
                    0 | 1 => Phase::Steady,
                    more => Phase::Drain { rounds: more - 1 },
                };
                // What was lost now was sent before.
                self.judged = (0, 0);
            }
        }
        self.set_window();
    }

    /// Whether what took so long waited in a queue.
    fn is_queued(&self, trip: Duration) -> bool {
        SLACK_TIME.max(self.shortest / 4) < trip.saturating_sub(self.shortest)
    }

    /// Whether so much was lost that the path has more than it bears.
    fn judge(&mut self) -> bool {
        let (arrived, lost) = self.judged;
        if arrived + lost < JUDGED_DATAGRAMS * self.datagram {
            return false;
        }
        self.judged = (0, 0);
        let is_crowded = (arrived + lost) / 100 * LOST_PERCENT_MAX < lost;
        self.slack = match is_crowded {
            true => (self.slack / 2).max(1),
            false => (self.slack + 1).min(SLACK_PARTS),
        };
        is_crowded
    }

    fn set_window(&mut self) {
        let window = match self.phase {
            Phase::Start { .. } => return,
            // As small as it was made.
            Phase::Drain { .. } => return,
            Phase::Steady => {
                let slack = self.in_time(SLACK_TIME) + SLACK_BYTES;
                self.in_time(self.shortest) + slack * self.slack / SLACK_PARTS
            }
        };
        self.window = window.max(self.window_min());
    }

    const fn window_min(&self) -> u64 {
        DATAGRAMS_MIN * self.datagram
    }

    /// How much arrives in a time, in bytes.
    fn in_time(&self, time: Duration) -> u64 {
        let bytes = u128::from(self.rate) * time.as_micros() / 1_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

fn per_second(bytes: u64, took: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000 / took.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
