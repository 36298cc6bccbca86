//! What follows a fault: how often a job is tried, and how long a worker that faults is put aside.

use std::time::Duration;

use protocol::build::Phase;

/// How often a job is tried before its fault is its outcome. One fault is bad luck, two may have one
/// cause; a third says that trying on costs more than it brings.
pub const ATTEMPTS_MAX: u32 = 3;

/// Why a phase does not run again whose first command has started, and what to do.
pub(crate) fn not_again(phase: Phase) -> String {
    format!(
        "The first command of {phase} had started, and what it published must not be published twice, so \
         the phase does not run again by itself. Look at what it did; `grange retry` runs the whole build \
         again, and `grange build --rerun {}=always` says that the phase may be repeated.",
        phase.as_str().to_lowercase()
    )
}

/// How long a worker is put aside after its first fault in a row: long enough for another one to take
/// the job, short enough not to matter where there is no other.
pub const BENCH_FIRST: Duration = Duration::from_secs(1);

/// The longest that a worker is put aside at once: what an owner who has mended it may have to wait.
pub const BENCH_MAX: Duration = Duration::from_secs(300);

/// Whether a job, or a unit that stays on one worker, is tried again after `faults` faults.
pub(crate) const fn is_tried_again(faults: u32) -> bool {
    faults < ATTEMPTS_MAX
}

/// How long a worker is put aside after `faults` faults in a row, at least one: doubled each time.
pub(crate) fn bench_time(faults: u32) -> Duration {
    let doublings = faults.saturating_sub(1).min(16);
    (BENCH_FIRST * 2_u32.pow(doublings)).min(BENCH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_put_aside_for_longer_each_time_up_to_a_limit() {
        let seconds: Vec<_> = (1..=11)
            .map(|faults| bench_time(faults).as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(bench_time(u32::MAX), BENCH_MAX);
    }
}
