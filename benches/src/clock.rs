//! How long things take, and what the middle of many measurements is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::time::WallTime;

/// Runs `work` and says how long it took.
pub(crate) fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}

/// Runs from when it is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts one.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it has run.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// What the clock on the wall says.
#[expect(clippy::disallowed_methods, reason = "certificates have dates")]
pub(crate) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO).as_millis();
    WallTime(u64::try_from(since).unwrap_or(u64::MAX))
}

/// The median; of an even number of values the lower of the two in the middle.
///
/// # Panics
///
/// If there are no values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// How far values are apart: the largest over the smallest, after the first, which warms up.
///
/// # Panics
///
/// If there are fewer than two values.
pub(crate) fn spread(values: &[f64]) -> f64 {
    let warm = &values[1..];
    let largest = warm
        .iter()
        .copied()
        .max_by(f64::total_cmp)
        .expect("two values at least");
    let smallest = warm
        .iter()
        .copied()
        .min_by(f64::total_cmp)
        .expect("two values at least");
    largest / smallest
}

/// A duration in milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_leaves_the_first_out() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((spread(&[100.0, 2.0, 3.0]) - 1.5).abs() < 1e-9);
    }
}
