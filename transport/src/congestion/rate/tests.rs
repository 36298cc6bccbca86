//! The controller on a simulated path: a narrow place with a queue before it, and losses.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;

const DATAGRAM: u64 = 1_452;
const MICROS: u64 = 1_000_000;

/// A path that senders share.
#[derive(Clone, Copy)]
struct Path {
    bytes_per_second: u64,
    queue_bytes: u64,
    /// Of an empty path, in microseconds.
    round_trip: u64,
    /// One datagram of so many is lost; 0: none.
    lost_one_of: u64,
    /// One acknowledgement of so many comes when there was nothing to send for a moment; 0: none.
    limited_one_of: u64,
}

/// The path of the benchmark: 200 Mbit/s, 40 ms.
const LONG: Path = Path {
    bytes_per_second: 25_000_000,
    queue_bytes: 1_000_000,
    round_trip: 40_000,
    lost_one_of: 100,
    limited_one_of: 0,
};

/// Something happens to a sender at a time, in microseconds.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Happens {
    at: u64,
    number: u64,
    sender: usize,
    what: What,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum What {
    Acknowledged { sent: u64 },
    Lost,
    MaySend,
}

struct Sender {
    rate: Rate,
    in_flight: u64,
    arrived: u64,
    /// When pacing lets it send again.
    next: u64,
    smoothed: u64,
}

/// What came of some senders in some seconds.
struct Outcome {
    /// Bytes of each.
    arrived: Vec<u64>,
    /// Datagrams.
    sent: u64,
    dropped: u64,
}

struct Simulation {
    path: Path,
    base: Instant,
    senders: Vec<Sender>,
    events: BinaryHeap<Reverse<Happens>>,
    /// When the narrow place has let all through.
    free_at: u64,
    number: u64,
    outcome: Outcome,
}

impl Simulation {
    fn run(path: Path, senders: usize, seconds: u64) -> Outcome {
        #[expect(
            clippy::disallowed_methods,
            reason = "controllers want some time to begin at"
        )]
        let base = Instant::now();
        let sender = |_| Sender {
            rate: Rate::new(256 * 1024, 1_452),
            in_flight: 0,
            arrived: 0,
            next: 0,
            smoothed: path.round_trip,
        };
        let mut simulation = Self {
            path,
            base,
            senders: (0..senders).map(sender).collect(),
            events: BinaryHeap::new(),
            free_at: 0,
            number: 0,
            outcome: Outcome {
                arrived: Vec::new(),
                sent: 0,
                dropped: 0,
            },
        };
        for sender in 0..senders {
            // Each begins when the one before has filled the path.
            simulation.push(sender as u64 * 400_000, sender, What::MaySend);
        }
        while let Some(Reverse(event)) = simulation.events.pop() {
            if seconds * MICROS < event.at {
                break;
            }
            simulation.happen(event);
        }
        let senders = simulation.senders;
        Outcome {
            arrived: senders.iter().map(|sender| sender.arrived).collect(),
            ..simulation.outcome
        }
    }

    fn push(&mut self, at: u64, sender: usize, what: What) {
        self.number += 1;
        self.events.push(Reverse(Happens {
            at,
            number: self.number,
            sender,
            what,
        }));
    }

    fn happen(&mut self, event: Happens) {
        let now = self.base + Duration::from_micros(event.at);
        let sender = &mut self.senders[event.sender];
        match event.what {
            What::Acknowledged { sent } => {
                let trip = event.at - sent;
                sender.smoothed = (7 * sender.smoothed + trip) / 8;
                sender.in_flight -= DATAGRAM;
                sender.arrived += DATAGRAM;
                let sent = self.base + Duration::from_micros(sent);
                let one_of = self.path.limited_one_of;
                let is_limited = one_of != 0 && event.number.is_multiple_of(one_of);
                sender.rate.arrived((now, sent), DATAGRAM, is_limited);
                sender.rate.acknowledged(now, sender.in_flight);
            }
            What::Lost => {
                sender.in_flight -= DATAGRAM;
                sender.rate.lost(DATAGRAM, false);
            }
            What::MaySend => {}
        }
        self.send(event.at, event.sender);
    }

    /// Sends what the window and pacing allow.
    fn send(&mut self, at: u64, number: usize) {
        let now = self.base + Duration::from_micros(at);
        loop {
            let sender = &mut self.senders[number];
            if sender.rate.window() < sender.in_flight + DATAGRAM || at < sender.next {
                return;
            }
            sender.in_flight += DATAGRAM;
            sender.rate.sent(now);
            let step = DATAGRAM * sender.smoothed * 4 / 5 / sender.rate.window();
            sender.next = sender.next.max(at.saturating_sub(2_000)) + step;
            let (next, sent) = (sender.next, self.outcome.sent);
            self.outcome.sent += 1;
            if at < next {
                self.push(next, number, What::MaySend);
            }
            self.travel(at, number, sent);
        }
    }

    fn travel(&mut self, at: u64, sender: usize, number: u64) {
        let path = self.path;
        let waits = self.free_at.saturating_sub(at);
        let queued = waits * path.bytes_per_second / MICROS;
        let late = at + waits + path.round_trip * 9 / 8;
        if path.queue_bytes < queued + DATAGRAM {
            self.outcome.dropped += 1;
            return self.push(late, sender, What::Lost);
        }
        self.free_at = self.free_at.max(at) + DATAGRAM * MICROS / path.bytes_per_second;
        // A sequence that has no pattern (Knuth's multiplicative hash).
        let chance = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        if path.lost_one_of != 0 && chance.is_multiple_of(path.lost_one_of) {
            return self.push(late, sender, What::Lost);
        }
        let arrives = self.free_at + path.round_trip;
        self.push(arrives, sender, What::Acknowledged { sent: at });
    }
}

fn percent(part: u64, all: u64) -> u64 {
    100 * part / all
}

#[test]
fn a_long_path_that_loses_something_is_used() {
    let outcome = Simulation::run(LONG, 1, 8);
    let share = percent(outcome.arrived[0], 8 * LONG.bytes_per_second);
    assert!(90 <= share, "{share} %");
    let dropped = percent(outcome.dropped, outcome.sent);
    assert!(dropped <= 1, "{dropped} % of {}", outcome.sent);
}

#[test]
fn those_who_share_a_queue_share_it_evenly_and_do_not_overrun_it() {
    let outcome = Simulation::run(LONG, 4, 20);
    let all = outcome.arrived.iter().sum::<u64>();
    assert!(92 <= percent(all, 20 * LONG.bytes_per_second));
    for arrived in &outcome.arrived {
        let share = percent(*arrived, all);
        assert!((17..=34).contains(&share), "{:?}", outcome.arrived);
    }
    let dropped = 1_000 * outcome.dropped / outcome.sent;
    assert!(dropped <= 20, "{dropped} of 1,000");
}

#[test]
fn senders_that_often_have_nothing_to_send_for_a_moment_do_not_overrun_it_either() {
    let path = Path {
        limited_one_of: 100,
        ..LONG
    };
    let outcome = Simulation::run(path, 4, 20);
    let all = outcome.arrived.iter().sum::<u64>();
    assert!(90 <= percent(all, 20 * path.bytes_per_second));
    for arrived in &outcome.arrived {
        let share = percent(*arrived, all);
        assert!((15..=40).contains(&share), "{:?}", outcome.arrived);
    }
    let dropped = 1_000 * outcome.dropped / outcome.sent;
    assert!(dropped <= 30, "{dropped} of 1,000");
}

#[test]
fn a_queue_that_is_too_short_for_all_is_not_overrun_for_long() {
    let short = Path {
        queue_bytes: 150_000,
        lost_one_of: 0,
        ..LONG
    };
    let outcome = Simulation::run(short, 8, 20);
    let all = outcome.arrived.iter().sum::<u64>();
    let used = percent(all, 20 * short.bytes_per_second);
    let dropped = percent(outcome.dropped, outcome.sent);
    assert!(75 <= used && dropped <= 6, "{used} %, {dropped} % dropped");
}

#[test]
fn slow_and_quick_paths_are_used() {
    for (bytes_per_second, round_trip) in [(1_000_000, 100_000), (125_000_000, 10_000)] {
        let path = Path {
            bytes_per_second,
            round_trip,
            ..LONG
        };
        let outcome = Simulation::run(path, 1, 12);
        let share = percent(outcome.arrived[0], 12 * bytes_per_second);
        assert!(85 <= share, "{share} % of {bytes_per_second}");
    }
}

#[test]
fn one_that_has_nothing_to_send_keeps_what_it_knows() {
    #[expect(
        clippy::disallowed_methods,
        reason = "controllers want some time to begin at"
    )]
    let base = Instant::now();
    let mut rate = Rate::new(100_000, 1_452);
    let at = |millis| base + Duration::from_millis(millis);
    for round in 0..40 {
        rate.sent(at(40 * round));
        let bytes = rate.window().min(500_000);
        rate.arrived((at(40 * round + 40), at(40 * round)), bytes, false);
        rate.acknowledged(at(40 * round + 40), 100_000);
    }
    assert_eq!(rate.phase, Phase::Steady);
    let known = rate.window();
    for second in 2..9 {
        rate.sent(at(1_000 * second));
        rate.arrived((at(1_000 * second + 40), at(1_000 * second)), 1_000, true);
        rate.acknowledged(at(1_000 * second + 40), 0);
    }
    assert!(
        known * 9 / 10 <= rate.window(),
        "{} of {known}",
        rate.window()
    );
}

#[test]
fn who_hears_nothing_any_more_begins_anew() {
    let mut rate = Rate::new(256 * 1024, 1_452);
    rate.lost(100_000, true);
    assert_eq!(rate.window(), 4 * 1_452);
    assert!(matches!(rate.phase, Phase::Start { .. }));
}

#[test]
fn who_begins_while_something_is_on_its_way_counts_rounds_all_the_same() {
    #[expect(
        clippy::disallowed_methods,
        reason = "controllers want some time to begin at"
    )]
    let base = Instant::now();
    let at = |millis| base + Duration::from_millis(millis);
    let mut rate = Rate::new(100_000, 1_452);
    // What was sent before anybody asked it, and it is never idle.
    for round in 1..40 {
        rate.arrived((at(40 * round), at(40 * (round - 1))), 200_000, false);
        rate.acknowledged(at(40 * round), 100_000);
    }
    assert_eq!(rate.phase, Phase::Steady);
    let known = rate.in_time(Duration::from_secs(1));
    assert!((4_000_000..6_000_000).contains(&known), "{known} of 5 MB/s");
}
