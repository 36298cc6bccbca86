//! What a bar says of a transfer: how far it is, what was moved and how fast, and what was skipped. Pure.

use std::{collections::VecDeque, time::Duration};

use cache::progress::ProgressNow;

use super::text::bytes;

/// How far back a speed looks: long enough to be read, short enough to follow a network that changes.
const WINDOW: Duration = Duration::from_secs(3);

/// What a bar shows at a moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Shown {
    /// What is being done.
    pub(super) name: &'static str,
    /// In bytes.
    pub(super) done: u64,
    /// In bytes; `None`: nobody knows yet how much there is.
    pub(super) total: Option<u64>,
    /// What stands beside it.
    pub(super) text: String,
}

/// The counters at a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Since the first.
    at: Duration,
    done: u64,
    moved: u64,
}

/// Makes of the counters of one transfer what its bar shows.
#[derive(Debug)]
pub(super) struct Meter {
    what: &'static str,
    /// Oldest first; only the first is older than [`WINDOW`].
    samples: VecDeque<Sample>,
}

impl Meter {
    /// Of a transfer that is called so.
    pub(super) const fn new(what: &'static str) -> Self {
        Self {
            what,
            samples: VecDeque::new(),
        }
    }

    /// What the bar shows at the moment `at`, counted from any beginning.
    pub(super) fn shown(&mut self, at: Duration, now: &ProgressNow) -> Shown {
        let name = self.what;
        if now.bytes_total == 0 {
            return Shown {
                name,
                done: 0,
                total: None,
                text: "looking at what there is".to_owned(),
            };
        }
        // While files are read, what there is to do is an estimate.
        let (total, moved) = (now.bytes_total, now.bytes_moved);
        let done = now.bytes_done.min(total);
        self.add(Sample { at, done, moved });
        let speed = self.per_second(|sample| sample.moved);
        let mut parts = vec![format!("{} of {}", bytes(done), bytes(total))];
        if 0 < moved {
            parts.push(format!("{} moved at {}/s", bytes(moved), bytes(speed)));
        }
        if 0 < now.bytes_skipped {
            parts.push(format!("{} skipped", bytes(now.bytes_skipped)));
        }
        let pace = self.per_second(|sample| sample.done);
        if let Some(seconds) = (total - done).checked_div(pace) {
            let left = humantime::format_duration(Duration::from_secs(seconds));
            parts.push(format!("{left} left"));
        }
        Shown {
            name,
            done,
            total: Some(total),
            text: parts.join(", "),
        }
    }

    fn add(&mut self, sample: Sample) {
        self.samples.push_back(sample);
        let is_old = |second: &Sample| second.at + WINDOW <= sample.at;
        while self.samples.get(1).is_some_and(is_old) {
            self.samples.pop_front();
        }
    }

    /// How much a counter has grown of late, per second.
    fn per_second(&self, counter: impl Fn(&Sample) -> u64) -> u64 {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        let grown = counter(last).saturating_sub(counter(first));
        let millis = last.at.saturating_sub(first.at).as_millis();
        let speed = (u128::from(grown) * 1000).checked_div(millis);
        speed.map_or(0, |speed| u64::try_from(speed).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const NOTHING: ProgressNow = ProgressNow {
        files_total: 0,
        bytes_total: 0,
        bytes_done: 0,
        bytes_skipped: 0,
        bytes_moved: 0,
    };

    const fn moving((done, skipped, moved): (u64, u64, u64)) -> ProgressNow {
        ProgressNow {
            bytes_total: 400 * MIB,
            bytes_done: done * MIB,
            bytes_skipped: skipped * MIB,
            bytes_moved: moved * MIB,
            ..NOTHING
        }
    }

    #[track_caller]
    fn check(meter: &mut Meter, (millis, now): (u64, ProgressNow), expected: &str) {
        let shown = meter.shown(Duration::from_millis(millis), &now);
        assert_eq!(format!("{} {}", shown.name, shown.text), expected);
    }

    #[test]
    fn a_bar_tells_what_is_moved_and_what_was_skipped() {
        let mut meter = Meter::new("putting");
        let meter = &mut meter;
        check(meter, (0, NOTHING), "putting looking at what there is");
        // What is skipped at once is no speed of anything.
        let skipped = "putting 300.0 MiB of 400.0 MiB, 300.0 MiB skipped";
        check(meter, (2_000, moving((300, 300, 0))), skipped);
        check(
            meter,
            (4_000, moving((340, 300, 10))),
            "putting 340.0 MiB of 400.0 MiB, 10.0 MiB moved at 5.0 MiB/s, 300.0 MiB skipped, 3s left",
        );
        check(
            meter,
            (5_000, moving((400, 360, 10))),
            "putting 400.0 MiB of 400.0 MiB, 10.0 MiB moved at 3.3 MiB/s, 360.0 MiB skipped, 0s left",
        );
    }

    #[test]
    fn a_speed_is_that_of_the_last_seconds_and_a_transfer_that_hangs_has_none() {
        let mut meter = Meter::new("getting");
        for second in 0..=10 {
            let now = moving((second * 20, 0, second * 20));
            meter.shown(Duration::from_secs(second), &now);
        }
        for second in 11..20 {
            meter.shown(Duration::from_secs(second), &moving((200, 0, 200)));
        }
        let hanging = "getting 200.0 MiB of 400.0 MiB, 200.0 MiB moved at 0 B/s";
        check(&mut meter, (20_000, moving((200, 0, 200))), hanging);
        assert!(meter.samples.len() <= 5, "{:?}", meter.samples);
    }

    #[test]
    fn what_turns_out_to_be_more_than_was_estimated_is_not_more_than_all() {
        let mut meter = Meter::new("putting");
        let shown = meter.shown(Duration::ZERO, &moving((420, 0, 0)));
        assert_eq!((shown.done, shown.total), (400 * MIB, Some(400 * MIB)));
        assert_eq!(meter.shown(Duration::ZERO, &NOTHING).total, None);
    }
}
