//! What counts, what is old, what is left in peace. Pure.
//!
//! No chunk goes before the last entry that may name it. An entry is written when all its chunks are younger
//! than half the time that things are kept, and goes when it is older than that time; a chunk goes when it is
//! older than twice that time and some days.

use std::time::Duration;

use protocol::{access::Trust, time::Time};

use super::names::Title;

/// How much longer chunks stay: a chunk that was seen is taken for young until the next sweep.
const SLACK: Duration = Duration::from_secs(2 * 24 * 3600);
/// How old the object of an entry is that is written again when the entry is read through: that is how the tier
/// knows what is used.
const RENEWED_AFTER: Duration = Duration::from_secs(24 * 3600);
/// How long nothing is asked of a server that did not answer as it should, at first and at most.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Whether a chunk is so old that it is written anew for an entry that names it, or an entry that is here.
pub(super) fn is_aged(keep: Duration, age: Duration) -> bool {
    keep / 2 < age
}

/// Whether an entry goes.
pub(super) fn is_entry_over(keep: Duration, age: Duration) -> bool {
    keep < age
}

/// Whether a chunk goes.
pub(super) fn is_chunk_over(keep: Duration, age: Duration) -> bool {
    keep.saturating_mul(2).saturating_add(SLACK) < age
}

/// Whether an entry that was read through is written again.
pub(super) fn is_renewed(age: Duration) -> bool {
    RENEWED_AFTER < age
}

/// The one of several objects of one key that counts for who wants so much trust: what is trusted furthest and,
/// of that, the newest.
pub(super) fn best(titles: impl IntoIterator<Item = Title>, trust: Trust) -> Option<Title> {
    let trusted = titles.into_iter().filter(|title| trust <= title.trust);
    trusted.max_by_key(standing)
}

/// Whether an entry takes the place of another object of its key.
pub(super) fn beats(title: &Title, other: &Title) -> bool {
    other.trust <= title.trust && other.written < title.written
}

fn standing(title: &Title) -> (Trust, protocol::time::WallTime) {
    (title.trust, title.written)
}

/// Until when a server is left in peace, which did not answer as it should: twice as long after each failure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    until: Time,
    failures: u32,
}

impl Pause {
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.until <= now
    }

    pub(super) fn failed(&mut self, now: Time) {
        // What fails together is one failure.
        if self.is_over(now) {
            self.until = now + back_off(self.failures);
            self.failures = self.failures.saturating_add(1);
        }
    }

    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }
}

/// How long nothing is tried after so many failures.
pub(super) fn back_off(failures: u32) -> Duration {
    PAUSE
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use protocol::time::WallTime;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn no_chunk_goes_before_the_last_entry_that_may_name_it() {
        for keep in [1, 2, 7, 30, 3650].map(|days| days * DAY) {
            // Seen a day ago, when it was as old as a young chunk may be.
            let chunk_at_writing = keep / 2 + DAY;
            let until_entry_goes = keep;
            assert!(!is_aged(keep, keep / 2));
            assert!(!is_entry_over(keep, until_entry_goes));
            assert!(!is_chunk_over(keep, chunk_at_writing + until_entry_goes));
            assert!(is_chunk_over(keep, 2 * keep + 3 * DAY), "but some day");
        }
        assert!(!is_chunk_over(Duration::MAX, Duration::MAX));
    }

    #[test]
    fn what_is_trusted_furthest_counts_and_of_that_the_newest() {
        let title = |trust, written| Title {
            row: "main/dependency/a".to_owned(),
            trust,
            written: WallTime(written),
            bytes: 1,
            chunks: 1,
        };
        let all = [
            title(Trust::Untrusted, 9),
            title(Trust::Team, 3),
            title(Trust::Team, 5),
            title(Trust::Team, 4),
        ];
        assert_eq!(best(all.clone(), Trust::Untrusted), Some(all[2].clone()));
        assert_eq!(best(all.clone(), Trust::Team), Some(all[2].clone()));
        assert_eq!(best(all.clone(), Trust::Protected), None);
        assert!(beats(&all[2], &all[1]) && !beats(&all[1], &all[2]));
        assert!(!beats(&all[0], &all[1]), "less trust takes no place");
        assert!(!beats(&title(Trust::Protected, 1), &all[1]), "nor does age");
    }

    #[test]
    fn a_server_that_fails_is_left_in_peace_longer_each_time_and_at_most_an_hour() {
        let mut pause = Pause::default();
        let mut now = Time(7);
        let mut pauses = Vec::new();
        assert!(pause.is_over(now));
        for _ in 0..8 {
            pause.failed(now);
            pause.failed(now);
            let start = now;
            while !pause.is_over(now) {
                now = now + Duration::from_secs(10);
            }
            pauses.push(now.since(start).as_secs());
        }
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        pause.answered();
        pause.failed(now);
        assert!(pause.is_over(now + PAUSE));
    }
}
