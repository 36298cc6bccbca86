//! One direction of a path, as arithmetic: when a datagram arrives that goes in at some time, or whether it
//! does at all. Neither clock nor sockets.

use std::time::Duration;

use crate::random::Random;

/// What a path is like in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkPlan {
    /// How many bytes go through in a second; `None`: as many as come.
    pub bytes_per_second: Option<u64>,
    /// How many bytes wait where it is narrow; what comes when that is full is dropped.
    pub queue_bytes: u64,
    /// How long a datagram travels, besides waiting and going through.
    pub delay: Duration,
    /// How many of a million datagrams are lost on the way, whatever the queue is like.
    pub lost_of_million: u64,
    /// How many of a million datagrams travel longer than others, so that later ones overtake them.
    pub late_of_million: u64,
    /// How much longer those travel.
    pub late_by: Duration,
    /// The largest datagram that gets through, in bytes of its content.
    pub datagram_bytes_max: usize,
}

impl Default for LinkPlan {
    /// As good as a path can be, for datagrams of an ordinary network.
    fn default() -> Self {
        Self {
            bytes_per_second: None,
            queue_bytes: 1 << 20,
            delay: Duration::ZERO,
            lost_of_million: 0,
            late_of_million: 0,
            late_by: Duration::ZERO,
            // 1,500 bytes without the headers of IP and UDP.
            datagram_bytes_max: 1_472,
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It arrives at this time.
    Arrives(Duration),
    /// It is lost on the way.
    Lost,
    /// The queue was full.
    Dropped,
    /// It does not fit on the path.
    TooLarge,
}

/// One direction of a path; all that goes through shares one queue.
#[derive(Debug)]
pub struct Link {
    plan: LinkPlan,
    random: Random,
    /// When the last datagram that was taken has left the queue.
    free_at: Duration,
}

impl Link {
    /// A link with an empty queue, whose chances come from `seed`.
    pub fn new(plan: LinkPlan, seed: u64) -> Self {
        Self {
            plan,
            random: Random::new(seed),
            free_at: Duration::ZERO,
        }
    }

    /// What becomes of a datagram of `bytes` that goes in at `now`, which never goes back.
    pub fn send(&mut self, now: Duration, bytes: usize) -> Fate {
        if self.plan.datagram_bytes_max < bytes {
            return Fate::TooLarge;
        }
        // Both are asked for each datagram, so that the fate of one says nothing of those behind it.
        let is_lost = self.happens(self.plan.lost_of_million);
        let is_late = self.happens(self.plan.late_of_million);
        let through = self.passage(bytes as u64);
        let start = self.free_at.max(now);
        let waiting = self.bytes_in(start.saturating_sub(now));
        if through != Duration::ZERO && self.plan.queue_bytes < waiting + bytes as u64 {
            return Fate::Dropped;
        }
        self.free_at = start + through;
        if is_lost {
            return Fate::Lost;
        }
        let late = if is_late {
            self.plan.late_by
        } else {
            Duration::ZERO
        };
        Fate::Arrives(self.free_at + self.plan.delay + late)
    }

    fn happens(&mut self, of_million: u64) -> bool {
        self.random.below(1_000_000) < of_million
    }

    /// How long so many bytes take to go through.
    fn passage(&self, bytes: u64) -> Duration {
        match self.plan.bytes_per_second {
            Some(rate) => Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1)),
            None => Duration::ZERO,
        }
    }

    /// How many bytes go through in a time.
    fn bytes_in(&self, time: Duration) -> u64 {
        let rate = u128::from(self.plan.bytes_per_second.unwrap_or(0));
        let bytes = time.as_nanos() * rate / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn narrow() -> LinkPlan {
        LinkPlan {
            // A datagram of 1,000 bytes in a millisecond.
            bytes_per_second: Some(1_000_000),
            queue_bytes: 10_000,
            delay: 20 * MILLI,
            ..LinkPlan::default()
        }
    }

    #[test]
    fn datagrams_go_through_one_behind_the_other_and_then_travel() {
        let mut link = Link::new(narrow(), 1);
        assert_eq!(link.send(MILLI, 1_000), Fate::Arrives(22 * MILLI));
        assert_eq!(link.send(MILLI, 1_000), Fate::Arrives(23 * MILLI));
        assert_eq!(
            link.send(10 * MILLI, 500),
            Fate::Arrives(30 * MILLI + MILLI / 2)
        );
    }

    #[test]
    fn what_finds_the_queue_full_is_dropped_and_takes_no_place() {
        let mut link = Link::new(narrow(), 1);
        let fates: Vec<Fate> = (0..14).map(|_| link.send(Duration::ZERO, 1_000)).collect();
        let dropped = fates.iter().filter(|fate| **fate == Fate::Dropped).count();
        assert_eq!((dropped, fates[9]), (4, Fate::Arrives(30 * MILLI)));
        assert_eq!(
            link.send(MILLI, 1_000),
            Fate::Arrives(31 * MILLI),
            "one has left"
        );
    }

    #[test]
    fn as_many_are_lost_and_late_as_the_plan_says_and_the_same_ones_each_time() {
        let plan = LinkPlan {
            lost_of_million: 10_000,
            late_of_million: 100_000,
            late_by: 5 * MILLI,
            ..LinkPlan::default()
        };
        let fates = |seed| {
            let mut link = Link::new(plan.clone(), seed);
            (0..100_000)
                .map(|_| link.send(MILLI, 100))
                .collect::<Vec<Fate>>()
        };
        let first = fates(7);
        let count = |wanted: Fate| first.iter().filter(|fate| **fate == wanted).count();
        let (lost, late) = (count(Fate::Lost), count(Fate::Arrives(6 * MILLI)));
        assert!((900..1_100).contains(&lost), "{lost}");
        assert!((9_500..10_300).contains(&late), "{late}");
        assert_eq!(first, fates(7));
        assert_ne!(first, fates(8));
    }

    #[test]
    fn what_does_not_fit_does_not_get_through() {
        let mut link = Link::new(LinkPlan::default(), 1);
        assert_eq!(link.send(MILLI, 1_473), Fate::TooLarge);
        assert_eq!(link.send(MILLI, 1_472), Fate::Arrives(MILLI));
    }
}
