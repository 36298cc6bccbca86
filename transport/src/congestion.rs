//! Which congestion controller a sender has.

mod rate;

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{BbrConfig, Controller, ControllerFactory, CubicConfig};
use quinn_proto::RttEstimator;
use serde::{Deserialize, Serialize};

use self::rate::Rate;

/// From this round trip on a path counts as long: no network of one building has it, and a path across a
/// country has.
const LONG_PATH: Duration = Duration::from_millis(5);

/// How many datagrams it takes to say what a path is like: the first ones wait for the arithmetic of the handshake.
const LOOKED_AT: u8 = 8;

/// How a sender finds out how much it may send.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Congestion {
    /// By the path: `Cubic` on a short one, `ByRate` on a long one, where a loss of one datagram in a hundred
    /// holds CUBIC down to a fraction of the rate.
    #[default]
    ByPath,
    /// CUBIC: losses mean that too much was sent.
    Cubic,
    /// BBR, as quinn has it: the rate at which bytes arrive counts, not losses.
    Bbr,
    /// The same idea, with queues that stay short.
    ByRate,
}

/// Makes the controllers of connections whose first flight has so many bytes.
pub(crate) fn factory(
    congestion: Congestion,
    first_flight: u64,
) -> Arc<dyn ControllerFactory + Send + Sync> {
    let mut cubic = CubicConfig::default();
    cubic.initial_window(first_flight);
    match congestion {
        Congestion::Cubic => Arc::new(cubic),
        Congestion::Bbr => {
            let mut bbr = BbrConfig::default();
            bbr.initial_window(first_flight);
            Arc::new(bbr)
        }
        Congestion::ByRate => Arc::new(Rates { first_flight }),
        Congestion::ByPath => Arc::new(ByPath {
            short: Arc::new(cubic),
            long: Arc::new(Rates { first_flight }),
        }),
    }
}

/// Makes controllers that go by the rate.
#[derive(Debug)]
struct Rates {
    first_flight: u64,
}

impl ControllerFactory for Rates {
    fn build(self: Arc<Self>, _now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(ByRate {
            rate: Rate::new(self.first_flight, mtu),
            first_flight: self.first_flight,
        })
    }
}

/// [`Rate`] as quinn wants it.
#[derive(Clone)]
struct ByRate {
    rate: Rate,
    first_flight: u64,
}

impl Controller for ByRate {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last_packet_number: u64) {
        self.rate.sent(now);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.rate.arrived((now, sent), bytes, app_limited);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        _app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.rate.acknowledged(now, in_flight);
    }

    fn on_congestion_event(
        &mut self,
        _now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.rate.lost(lost_bytes, is_persistent_congestion);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.rate.datagram(new_mtu);
    }

    fn window(&self) -> u64 {
        self.rate.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.first_flight
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Makes controllers that are chosen when the path is known.
#[derive(Debug)]
struct ByPath {
    short: Arc<CubicConfig>,
    long: Arc<Rates>,
}

impl ControllerFactory for ByPath {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Choosing {
            chosen: Arc::clone(&self.short).build(now, mtu),
            long: Some(Arc::clone(&self.long)),
            looked_at: 0,
            shortest: Duration::MAX,
            mtu,
        })
    }
}

/// A controller that is for short paths until the first round trips say what the path is.
struct Choosing {
    chosen: Box<dyn Controller>,
    /// What is taken on a long path; `None`: it is decided.
    long: Option<Arc<Rates>>,
    /// How many round trips were looked at.
    looked_at: u8,
    /// The shortest of them.
    shortest: Duration,
    mtu: u16,
}

impl Choosing {
    /// Takes what the path wants, when enough datagrams have arrived there to say what it is.
    fn look(&mut self, now: Instant, sent: Instant) {
        if self.long.is_none() {
            return;
        }
        let round_trip = now.saturating_duration_since(sent);
        self.shortest = self.shortest.min(round_trip);
        self.looked_at += 1;
        if self.looked_at == LOOKED_AT
            && let Some(long) = self.long.take()
            && LONG_PATH <= self.shortest
        {
            self.chosen = long.build(now, self.mtu);
        }
    }
}

impl Controller for Choosing {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.chosen.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.look(now, sent);
        self.chosen.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.chosen
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.chosen
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.chosen.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.chosen.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            chosen: self.chosen.clone_box(),
            long: self.long.clone(),
            looked_at: self.looked_at,
            shortest: self.shortest,
            mtu: self.mtu,
        })
    }

    fn initial_window(&self) -> u64 {
        self.chosen.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a path whose datagrams take so many milliseconds, one after another, is gone by the rate.
    #[expect(clippy::disallowed_methods, reason = "controllers want a time")]
    fn goes_by_rate(trips: impl IntoIterator<Item = u64>) -> bool {
        let start = Instant::now();
        let mut choosing = Choosing {
            chosen: Arc::new(CubicConfig::default()).build(start, 1200),
            long: Some(Arc::new(Rates { first_flight: 1 })),
            looked_at: 0,
            shortest: Duration::MAX,
            mtu: 1200,
        };
        for trip in trips {
            choosing.look(start + Duration::from_millis(trip), start);
        }
        choosing.chosen.into_any().is::<ByRate>()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "controllers want a time")]
    fn every_controller_begins_with_the_first_flight_that_it_is_given() {
        for congestion in [
            Congestion::ByPath,
            Congestion::Cubic,
            Congestion::Bbr,
            Congestion::ByRate,
        ] {
            let controller = factory(congestion, 256 * 1024).build(Instant::now(), 1200);
            let windows = (controller.initial_window(), controller.window());
            assert_eq!(windows, (256 * 1024, 256 * 1024), "{congestion:?}");
        }
    }

    #[test]
    fn the_shortest_of_the_first_round_trips_decides_once() {
        let late = [80; 7];
        assert!(goes_by_rate([40; 8]));
        assert!(goes_by_rate(late.into_iter().chain([6])));
        assert!(!goes_by_rate(late.into_iter().chain([1])), "the handshake");
        assert!(!goes_by_rate([1; 8].into_iter().chain([80; 100])));
        assert!(!goes_by_rate(late), "nothing is decided yet");
    }
}
