//! Quantities as people read them.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::{Timestamp, Unit};
use protocol::time::WallTime;

/// A number of bytes, like `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    ByteSize::b(count).to_string()
}

/// How long something took: `0.42 s`, `12.3 s`, `4m 12s`.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.2} s", time.as_secs_f64()),
        10..60 => format!("{:.1} s", time.as_secs_f64()),
        _ => humantime::format_duration(Duration::from_secs(time.as_secs())).to_string(),
    }
}

/// A moment in UTC, to the second.
pub(super) fn at(moment: WallTime) -> String {
    let millis = i64::try_from(moment.0).unwrap_or(i64::MAX);
    let stamp = Timestamp::from_millisecond(millis).and_then(|stamp| stamp.round(Unit::Second));
    stamp.map_or_else(|_| "at no time".to_owned(), |stamp| stamp.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_three_digits_at_most() {
        let check = |millis, expected| assert_eq!(span(Duration::from_millis(millis)), expected);
        check(420, "0.42 s");
        check(12_345, "12.3 s");
        check(252_000, "4m 12s");
    }

    #[test]
    fn moments_are_in_utc() {
        assert_eq!(at(WallTime(1_500)), "1970-01-01T00:00:02Z");
    }
}
