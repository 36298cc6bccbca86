//! How much one connection and one team may have the cache move: bytes per second, and bytes on their way.
//!
//! Who is over the rate waits, and with it whoever sends to them or reads from them; nothing is refused. The
//! bucket is pure: it is told the time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::counter;
use protocol::{name::Team, time::Time};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{WRITE_ROOM_BYTES, session::STALL_TIME};
use crate::clock::Clock;

/// For how long a rate may be exceeded after nothing was moved for as long: two windows of a reader at the
/// far end of a country.
const BURST: Duration = Duration::from_millis(100);
/// What part of the room for chunks that are not durable yet one team may have, as a divisor: one of its
/// connections fills that, and however many more it has, another team finds as much.
const TEAM_WRITES_DIVISOR: u64 = 2;

/// What one connection and one team may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// How many bytes of chunks one connection moves in a second, in both directions together; `None`: as
    /// many as it can.
    pub connection_rate: Option<u64>,
    /// The same of all connections that move chunks of one team.
    pub team_rate: Option<u64>,
    /// How many bytes of chunks of one team may be in the cache on their way to readers, and how many that are
    /// not durable yet: of these never more than half of what there may be of all teams.
    pub team_in_flight: u64,
    /// How long a reader may take for chunks that are sent together, a megabyte or one chunk, before it is cut off.
    pub stall_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connection_rate: None,
            team_rate: None,
            // Of 64 connections that read nothing of what they asked for.
            team_in_flight: 256 << 20,
            stall_time: STALL_TIME,
        }
    }
}

/// A bucket of bytes: it fills at a rate, and who takes more than is in it waits.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// When all that was taken will have been moved.
    paid_until: Time,
}

impl Bucket {
    fn new(rate: u64) -> Self {
        Self {
            rate: rate.max(1),
            paid_until: Time::ZERO,
        }
    }

    /// Takes `bytes`, and says how long to wait before they are moved.
    fn take(&mut self, now: Time, bytes: u64) -> Duration {
        // What was not used long ago is lost.
        let oldest = Time(now.0.saturating_sub(micros(BURST)));
        let cost = u128::from(bytes) * 1_000_000 / u128::from(self.rate);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let start = self.paid_until.max(oldest);
        self.paid_until = Time(start.0.saturating_add(cost));
        self.paid_until.since(now)
    }

    /// Whether it is as full as a new one.
    fn is_full(&self, now: Time) -> bool {
        self.paid_until.0.saturating_add(micros(BURST)) <= now.0
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Slows down whoever moves bytes.
#[derive(Debug)]
pub(super) struct Pace {
    bucket: Option<Mutex<Bucket>>,
    /// Who is slowed down, for metrics.
    by: &'static str,
}

impl Pace {
    fn new(rate: Option<u64>, by: &'static str) -> Self {
        Self {
            bucket: rate.map(|rate| Mutex::new(Bucket::new(rate))),
            by,
        }
    }

    /// Of one connection.
    pub(super) fn of_connection(limits: &Limits) -> Self {
        Self::new(limits.connection_rate, "connection")
    }

    /// Whether nothing was moved for so long that it is forgotten.
    fn is_rested(&self, now: Time) -> bool {
        self.bucket.as_ref().is_none_or(|bucket| {
            let bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.is_full(now)
        })
    }

    /// Waits until `bytes` may be moved.
    pub(super) async fn wait(&self, clock: &Clock, bytes: u64) {
        let Some(bucket) = &self.bucket else { return };
        let wait = {
            // Taking is one step.
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(clock.now(), bytes)
        };
        if wait != Duration::ZERO {
            counter!("grange_cache_paced_millis_total", "by" => self.by)
                .increment(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            tokio::time::sleep(wait).await;
        }
    }
}

/// Room for so many bytes.
#[derive(Debug)]
pub(super) struct Room {
    bytes: Arc<Semaphore>,
    max: u32,
}

impl Room {
    fn new(max: u64) -> Self {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let permits = usize::try_from(max).unwrap_or(usize::MAX);
        Self {
            bytes: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            max,
        }
    }

    /// Waits for room for `bytes`.
    pub(super) async fn reserve(&self, bytes: u64) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // What is more than all there is takes all.
        let permits = bytes.min(self.max);
        let room = Arc::clone(&self.bytes).acquire_many_owned(permits).await;
        room.expect("the semaphore is never closed")
    }

    /// How many bytes of it are taken.
    pub(super) fn taken(&self) -> usize {
        (self.max as usize).saturating_sub(self.bytes.available_permits())
    }

    /// Whether nobody has any of it.
    fn is_free(&self) -> bool {
        self.taken() == 0
    }
}

/// What all connections share that move chunks of one team.
#[derive(Debug)]
pub(super) struct TeamShare {
    pub(super) pace: Pace,
    /// For what is on its way to readers.
    pub(super) reads: Room,
    /// For what is written and not durable yet.
    pub(super) writes: Room,
}

impl TeamShare {
    fn new(limits: &Limits) -> Self {
        let writes_max = WRITE_ROOM_BYTES as u64 / TEAM_WRITES_DIVISOR;
        Self {
            pace: Pace::new(limits.team_rate, "team"),
            reads: Room::new(limits.team_in_flight),
            writes: Room::new(limits.team_in_flight.min(writes_max)),
        }
    }

    /// Whether nothing is on its way any more, and was not for so long that it is forgotten.
    fn is_rested(&self, now: Time) -> bool {
        self.reads.is_free() && self.writes.is_free() && self.pace.is_rested(now)
    }
}

/// The teams whose chunks are being moved.
#[derive(Debug)]
pub(super) struct Teams {
    limits: Limits,
    clock: Clock,
    /// Of teams whose chunks are being moved, or were a moment ago.
    shares: Mutex<BTreeMap<Team, Arc<TeamShare>>>,
}

impl Teams {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            clock: Clock::start(),
            shares: Mutex::default(),
        }
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What a team shares. It lasts for as long as somebody moves its chunks, and then until the rate has
    /// been kept: who asks for a little again and again is slowed down like who asks for all at once.
    pub(super) fn share(&self, team: &Team) -> Arc<TeamShare> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(team) {
            return Arc::clone(share);
        }
        let now = self.clock.now();
        shares.retain(|_, share| 1 < Arc::strong_count(share) || !share.is_rested(now));
        let share = Arc::new(TeamShare::new(&self.limits));
        shares.insert(team.clone(), Arc::clone(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn over_a_while_a_bucket_gives_its_rate_and_a_burst() {
        let mut bucket = Bucket::new(1_000_000);
        let (mut now, mut moved) = (Time(10 * SECOND), 0);
        while now < Time(20 * SECOND) {
            let wait = bucket.take(now, 30_000);
            now = now + wait;
            moved += 30_000;
        }
        // Ten seconds, what was saved up before, and what the last one took.
        assert!((10_000_000..=10_130_000).contains(&moved), "{moved}");
    }

    #[test]
    fn what_is_not_used_is_saved_for_a_moment_only() {
        let mut bucket = Bucket::new(1_000_000);
        assert_eq!(bucket.take(Time(SECOND), 100_000), Duration::ZERO);
        assert_eq!(bucket.take(Time(SECOND), 1_000), Duration::from_millis(1));
        assert_eq!(bucket.take(Time(99 * SECOND), 100_000), Duration::ZERO);
        assert_eq!(
            bucket.take(Time(99 * SECOND), 500_000),
            Duration::from_millis(500)
        );
    }

    #[tokio::test]
    async fn a_team_has_one_share_while_somebody_uses_it() {
        let teams = Teams::new(Limits {
            team_in_flight: 10,
            ..Limits::default()
        });
        let (red, blue) = ("red".parse().unwrap(), "blue".parse().unwrap());
        let share = teams.share(&red);
        assert!(Arc::ptr_eq(&share, &teams.share(&red)));
        let room = share.reads.reserve(1_000).await;
        assert_eq!(room.num_permits(), 10, "more than all is all");
        drop(share);
        drop(teams.share(&blue));
        assert!(
            !teams.share(&red).reads.is_free(),
            "what is on its way is its own still"
        );
        drop(room);
        assert!(teams.share(&red).reads.is_free());
        teams.share(&"green".parse().unwrap());
        assert_eq!(
            teams.shares.lock().unwrap().len(),
            1,
            "others are forgotten"
        );
    }

    #[tokio::test]
    async fn what_one_team_writes_takes_half_of_the_room_at_most_and_no_more_than_is_set() {
        for (team_in_flight, expected) in [(u64::MAX, WRITE_ROOM_BYTES / 2), (1_000, 1_000)] {
            let teams = Teams::new(Limits {
                team_in_flight,
                ..Limits::default()
            });
            let share = teams.share(&"red".parse().unwrap());
            let room = share.writes.reserve(u64::MAX).await;
            assert_eq!(room.num_permits(), expected);
            assert!(share.reads.is_free(), "who reads has room of its own");
        }
    }

    #[test]
    fn a_team_whose_requests_follow_each_other_has_one_rate() {
        let teams = Teams::new(Limits {
            team_rate: Some(1_000),
            ..Limits::default()
        });
        let red: Team = "red".parse().unwrap();
        let took = |bytes| {
            let share = teams.share(&red);
            let mut bucket = share.pace.bucket.as_ref().unwrap().lock().unwrap();
            bucket.take(teams.clock.now(), bytes)
        };
        took(1_000);
        // Somebody else comes between the two, which is when old shares are looked at.
        teams.share(&"blue".parse().unwrap());
        assert!(Duration::from_secs(1) < took(1_000));
        teams.clock.advance(Duration::from_secs(10));
        teams.share(&"green".parse().unwrap());
        assert!(!teams.shares.lock().unwrap().contains_key(&red));
    }
}
