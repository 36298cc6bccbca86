//! How often and for how long the database has held up writes, because flushes or compactions do not keep up.

use super::{
    Shared, lock,
    rocks::{Column, Rocks},
};

/// How often writes were held up, of a column; and, among other things, for how long, of all.
const COUNTS: &str = "rocksdb.cf-write-stall-stats";
const TIMES: &str = "rocksdb.dbstats";

/// What a database has held up since it was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Stalls {
    /// How often writes were slowed down.
    delays: u64,
    /// How often they were stopped.
    stops: u64,
    /// For how long they waited, in milliseconds.
    millis: u64,
}

impl Rocks {
    /// What was held up since the database was opened; `None`: it does not say so in words that are known
    /// here.
    fn stalls(&self) -> Result<Option<Stalls>, rocksdb::Error> {
        let mut stalls = Stalls::default();
        for column in Column::ALL {
            let said = self.db.property_value_cf(self.column(column), COUNTS)?;
            let said = said.unwrap_or_default();
            let counts = (
                count(&said, "total-delays: "),
                count(&said, "total-stops: "),
            );
            let (Some(delays), Some(stops)) = counts else {
                return Ok(None);
            };
            stalls.delays += delays;
            stalls.stops += stops;
        }
        let said = self.db.property_value(TIMES)?.unwrap_or_default();
        Ok(millis(&said).map(|millis| Stalls { millis, ..stalls }))
    }
}

impl Shared {
    /// Counts what was held up since this was asked last.
    pub(super) fn count_stalls(&self) {
        let Ok(Ok(Some(now))) = self.rocks().map(|rocks| rocks.stalls()) else {
            return;
        };
        let before = std::mem::replace(&mut *lock(&self.stalls), now);
        let since = now.since(before);
        metrics::counter!("grange_cache_writes_stalled_total", "how" => "delayed")
            .increment(since.delays);
        metrics::counter!("grange_cache_writes_stalled_total", "how" => "stopped")
            .increment(since.stops);
        metrics::counter!("grange_cache_writes_stalled_millis_total").increment(since.millis);
    }
}

impl Stalls {
    /// What has come since `before`; a database that was opened again counts from nothing.
    fn since(self, before: Self) -> Self {
        let is_another =
            self.delays < before.delays || self.stops < before.stops || self.millis < before.millis;
        let before = if is_another { Self::default() } else { before };
        Self {
            delays: self.delays - before.delays,
            stops: self.stops - before.stops,
            millis: self.millis - before.millis,
        }
    }
}

/// The number behind `name`.
fn count(said: &str, name: &str) -> Option<u64> {
    let (_, behind) = said.split_once(name)?;
    let end = behind.find(|found: char| !found.is_ascii_digit());
    behind[..end.unwrap_or(behind.len())].parse().ok()
}

/// How long writes have waited, as the database says that: `Cumulative stall: 00:00:1.234 H:M:S`.
fn millis(said: &str) -> Option<u64> {
    let (_, behind) = said.split_once("Cumulative stall: ")?;
    let (time, _) = behind.split_once(" H:M:S")?;
    let mut parts = time.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (whole, thousandths) = seconds.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    let minutes = minutes.parse::<u64>().ok()? + 60 * hours.parse::<u64>().ok()?;
    Some((60 * minutes + whole) * 1_000 + thousandths.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{place::Place, rocks::Care, sizes::Sizes};

    #[test]
    fn a_database_says_what_it_has_held_up() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::found(folder.path()).unwrap();
        let rocks = Rocks::open(&place, Sizes::of(u64::MAX), Care::Usual).unwrap();
        assert_eq!(rocks.stalls().unwrap(), Some(Stalls::default()));
    }

    #[test]
    fn what_the_database_says_is_understood() {
        let said = "Write Stall (count): l0-file-count-limit-delays: 4, total-delays: 5, total-stops: 17\n";
        assert_eq!(count(said, "total-delays: "), Some(5));
        assert_eq!(count(said, "total-stops: "), Some(17));
        assert_eq!(count(said, "total-something: "), None);
        let said = "Cumulative WAL: 1\nCumulative stall: 01:02:3.450 H:M:S, 0.1 percent\n";
        assert_eq!(millis(said), Some(3_723_450));
        assert_eq!(millis(""), None);
    }

    #[test]
    fn a_database_that_was_opened_again_counts_from_nothing() {
        let of = |delays, millis| Stalls {
            delays,
            stops: 0,
            millis,
        };
        assert_eq!(of(7, 70).since(of(5, 50)), of(2, 20));
        assert_eq!(of(1, 10).since(of(5, 50)), of(1, 10));
    }
}
