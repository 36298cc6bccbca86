//! Test cases, what came of them, and their totals.

use std::collections::BTreeMap;
use std::{fmt, mem};

use serde::{Deserialize, Serialize};

use crate::text::{cut, filled};

/// How many cases a report keeps. Past it the ones that went well are let go first, and the totals
/// still count all. Comparing with a former report needs all of them, so this is as many as real
/// suites have; the text of those that fail is bounded by itself.
pub const CASES_MAX: usize = 100_000;

/// How many cases `CodeBuild` shows of a report, the failed ones first.
pub const REPORTED_CASES_MAX: usize = 500;

/// How many characters of a name are kept: `CodeBuild`'s limit.
pub(crate) const NAME_CHARACTERS_MAX: usize = 1_000;

/// How many characters of a message are kept: `CodeBuild`'s limit.
pub(crate) const MESSAGE_CHARACTERS_MAX: usize = 5_000;

/// How many bytes of a message are read: enough for as many characters as are kept, and spaces.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 * MESSAGE_CHARACTERS_MAX;

/// How many bytes all messages of a report may have together. Past it, cases are kept without.
const MESSAGES_BYTES_MAX: usize = 64 << 20;

/// How many suites are counted by themselves: past it, cases count for the whole report only.
const SUITES_MAX: usize = 10_000;

/// What came of a test case, worst first: this is the order in which cases are kept.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaseStatus {
    /// What it checks does not hold.
    Failed,
    /// It could not be carried out to its end.
    Error,
    /// The tool says something that is neither good nor bad, such as inconclusive.
    Unknown,
    /// It was not run.
    Skipped,
    /// It holds.
    Succeeded,
}

impl CaseStatus {
    /// Whether it makes the report a failed one.
    pub const fn is_failing(self) -> bool {
        matches!(self, Self::Failed | Self::Error)
    }

    /// As in messages and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "FAILED",
            Self::Error => "ERROR",
            Self::Unknown => "UNKNOWN",
            Self::Skipped => "SKIPPED",
            Self::Succeeded => "SUCCEEDED",
        }
    }
}

/// Where a case failed, as far as its report says.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Place {
    /// The file, as the tool names it.
    pub file: String,
    /// The line, from 1; `None`, if only the file is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// One test case. Ordered by suite, prefix and name.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Case {
    /// The suite that it is in; empty, if it is in none.
    pub suite: String,
    /// What it has in common with related cases: its class, feature or file. May be empty.
    pub prefix: String,
    /// Its own name.
    pub name: String,
    /// What came of it.
    pub status: CaseStatus,
    /// How long it took, in nanoseconds; 0, if the report does not say.
    pub nanoseconds: u64,
    /// The type of the failure, such as an exception's class.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What the tool says about it: the failure's message and text, or why it was skipped. Cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where it failed, or where it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl Case {
    /// A case that went well in no time.
    pub(crate) fn new(suite: &str, prefix: &str, name: &str) -> Self {
        Self {
            suite: cut(suite, NAME_CHARACTERS_MAX).to_owned(),
            prefix: cut(prefix, NAME_CHARACTERS_MAX).to_owned(),
            name: cut(name, NAME_CHARACTERS_MAX).to_owned(),
            status: CaseStatus::Succeeded,
            nanoseconds: 0,
            kind: None,
            message: None,
            place: None,
        }
    }

    /// Takes the worse of two statuses, with the kind and message that belong to it.
    pub(crate) fn worsen(&mut self, status: CaseStatus, kind: &str, message: &str) {
        if status < self.status {
            self.status = status;
            self.kind = filled(kind, NAME_CHARACTERS_MAX);
            self.message = filled(message, MESSAGE_CHARACTERS_MAX);
        }
    }
}

/// How many cases there are of each status, and how long they took.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// All cases.
    pub tests: u64,
    /// Those that hold.
    pub succeeded: u64,
    /// Those that do not.
    pub failed: u64,
    /// Those that could not be carried out.
    pub errors: u64,
    /// Those that were not run.
    pub skipped: u64,
    /// Those of which nobody knows.
    pub unknown: u64,
    /// The times of all cases together; of shards that ran beside each other, the longest such sum.
    pub nanoseconds: u64,
}

impl Totals {
    fn count(&mut self, case: &Case) {
        let counter = match case.status {
            CaseStatus::Failed => &mut self.failed,
            CaseStatus::Error => &mut self.errors,
            CaseStatus::Unknown => &mut self.unknown,
            CaseStatus::Skipped => &mut self.skipped,
            CaseStatus::Succeeded => &mut self.succeeded,
        };
        *counter += 1;
        self.tests += 1;
        self.nanoseconds = self.nanoseconds.saturating_add(case.nanoseconds);
    }

    fn add(&mut self, other: &Self) {
        self.tests = self.tests.saturating_add(other.tests);
        self.succeeded = self.succeeded.saturating_add(other.succeeded);
        self.failed = self.failed.saturating_add(other.failed);
        self.errors = self.errors.saturating_add(other.errors);
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.unknown = self.unknown.saturating_add(other.unknown);
        self.nanoseconds = self.nanoseconds.saturating_add(other.nanoseconds);
    }
}

impl fmt::Display for Totals {
    /// `12 tests: 9 succeeded, 2 failed, 1 skipped`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.tests == 1 { "test" } else { "tests" };
        write!(f, "{} {noun}", self.tests)?;
        let counts = [
            (self.succeeded, "succeeded"),
            (self.failed, "failed"),
            (self.errors, "in error"),
            (self.skipped, "skipped"),
            (self.unknown, "unknown"),
        ];
        let there = counts.into_iter().filter(|(count, _)| 0 < *count);
        for (at, (count, word)) in there.enumerate() {
            let before = if at == 0 { ": " } else { ", " };
            write!(f, "{before}{count} {word}")?;
        }
        Ok(())
    }
}

/// The test cases of a report.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TestReport {
    /// Of all cases, those that are not kept included.
    pub totals: Totals,
    /// The totals of each suite that has a name.
    pub suites: BTreeMap<String, Totals>,
    /// The cases, in order. A name may stand twice, if the tool ran it twice.
    pub cases: Vec<Case>,
    /// Whether cases or messages were left out.
    pub truncated: bool,
}

impl TestReport {
    /// Cases that fail, worst first, then in order.
    pub fn failing(&self) -> Vec<&Case> {
        let failing = self.cases.iter().filter(|case| case.status.is_failing());
        let mut failing: Vec<_> = failing.collect();
        failing.sort_by_key(|case| case.status);
        failing
    }

    /// At most `cases_max` cases that took the longest, longest first.
    pub fn slowest(&self, cases_max: usize) -> Vec<&Case> {
        let timed = self.cases.iter().filter(|case| 0 < case.nanoseconds);
        let mut timed: Vec<_> = timed.collect();
        timed.sort_by(|a, b| b.nanoseconds.cmp(&a.nanoseconds).then(a.cmp(b)));
        timed.truncate(cases_max);
        timed
    }

    /// At most `cases_max` cases, the failed ones first, as `CodeBuild` lists them.
    pub fn reported(&self, cases_max: usize) -> Vec<&Case> {
        let mut cases: Vec<_> = self.cases.iter().collect();
        cases.sort_by_key(|case| case.status);
        cases.truncate(cases_max);
        cases
    }

    /// Adds what another file of the same build says.
    pub fn absorb_file(&mut self, other: Self) {
        self.absorb(other);
    }

    /// Adds what a shard says that ran beside the others: counts add up, the time is the longest.
    pub fn absorb_shard(&mut self, other: Self) {
        let nanoseconds = self.totals.nanoseconds.max(other.totals.nanoseconds);
        self.absorb(other);
        self.totals.nanoseconds = nanoseconds;
    }

    fn absorb(&mut self, other: Self) {
        self.totals.add(&other.totals);
        for (suite, totals) in &other.suites {
            if let Some(totals_of) = self.suite(suite) {
                totals_of.add(totals);
            }
        }
        self.truncated |= other.truncated;
        let mut gathering = Gathering::of(mem::take(self));
        for case in other.cases {
            gathering.keep(case);
        }
        *self = gathering.finish();
    }

    fn suite(&mut self, name: &str) -> Option<&mut Totals> {
        if name.is_empty() || (SUITES_MAX <= self.suites.len() && !self.suites.contains_key(name)) {
            return None;
        }
        Some(self.suites.entry(name.to_owned()).or_default())
    }
}

/// A report that takes in one case after another, in bounded memory.
pub(crate) struct Gathering {
    report: TestReport,
    message_bytes: usize,
}

impl Gathering {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::of(TestReport::default())
    }

    fn of(report: TestReport) -> Self {
        let messages = report.cases.iter().filter_map(|case| case.message.as_ref());
        let message_bytes = messages.map(String::len).sum();
        Self {
            report,
            message_bytes,
        }
    }

    /// Counts a case and keeps it.
    pub(crate) fn add(&mut self, case: Case) {
        self.report.totals.count(&case);
        if let Some(totals) = self.report.suite(&case.suite) {
            totals.count(&case);
        }
        self.keep(case);
    }

    fn keep(&mut self, mut case: Case) {
        let bytes = case.message.as_ref().map_or(0, String::len);
        if MESSAGES_BYTES_MAX < self.message_bytes + bytes {
            case.message = None;
            self.report.truncated = true;
        } else {
            self.message_bytes += bytes;
        }
        self.report.cases.push(case);
        // At twice the limit, so that sorting is paid by as many cases.
        if 2 * CASES_MAX <= self.report.cases.len() {
            self.prune();
        }
    }

    /// The report, in order.
    pub(crate) fn finish(mut self) -> TestReport {
        self.prune();
        self.report.cases.sort();
        self.report
    }

    fn prune(&mut self) {
        if self.report.cases.len() <= CASES_MAX {
            return;
        }
        self.report.truncated = true;
        self.report
            .cases
            .sort_by(|a, b| a.status.cmp(&b.status).then(a.cmp(b)));
        self.report.cases.truncate(CASES_MAX);
        *self = Self::of(mem::take(&mut self.report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, status: CaseStatus) -> Case {
        let mut case = Case::new("suite", "", name);
        case.worsen(status, "", "why");
        case.nanoseconds = 10;
        case
    }

    #[test]
    fn past_the_limit_what_went_well_is_let_go_and_still_counted() {
        let mut gathering = Gathering::new();
        for at in 0..2 * CASES_MAX + 10 {
            let status = match at % 1_000 {
                999 => CaseStatus::Failed,
                _ => CaseStatus::Succeeded,
            };
            gathering.add(case(&format!("{at:07}"), status));
        }
        let report = gathering.finish();
        assert_eq!(report.cases.len(), CASES_MAX);
        assert!(report.truncated);
        assert_eq!(report.totals.tests, 200_010);
        assert_eq!(report.failing().len(), 200, "each that failed is there");
        assert_eq!(report.suites["suite"], report.totals);
        let first = report.reported(REPORTED_CASES_MAX);
        assert_eq!(first.len(), 500);
        assert!(first[..200].iter().all(|case| case.status.is_failing()));
    }

    #[test]
    fn messages_are_cut_and_bounded_together() {
        let mut gathering = Gathering::new();
        for at in 0..5_000 {
            let mut case = case(&format!("{at:07}"), CaseStatus::Succeeded);
            case.worsen(CaseStatus::Failed, "", &"\u{1F33E}".repeat(6_000));
            gathering.add(case);
        }
        let report = gathering.finish();
        let messages = report.cases.iter().filter_map(|case| case.message.as_ref());
        let bytes: usize = messages.map(String::len).sum();
        assert!(bytes <= MESSAGES_BYTES_MAX && MESSAGES_BYTES_MAX / 2 < bytes);
        assert_eq!(
            report.cases[0].message.as_ref().unwrap().chars().count(),
            5_000
        );
        assert!(report.truncated);
    }

    #[test]
    fn shards_add_up_and_take_as_long_as_the_longest() {
        let of = |names: &[&str]| {
            let mut gathering = Gathering::new();
            for name in names {
                gathering.add(case(name, CaseStatus::Succeeded));
            }
            gathering.finish()
        };
        let whole = of(&["a", "b", "c"]);
        let mut merged = of(&["b", "c"]);
        merged.absorb_shard(of(&["a"]));
        assert_eq!(merged.totals.nanoseconds, 20);
        assert_eq!(merged.cases, whole.cases);
        assert_eq!(merged.suites, whole.suites);
        let mut merged = of(&["c"]);
        merged.absorb_file(of(&["b", "a"]));
        assert_eq!(merged, whole);
    }

    #[test]
    fn the_slowest_come_first_and_the_untimed_do_not_come() {
        let mut gathering = Gathering::new();
        for (name, nanoseconds) in [("a", 5), ("b", 0), ("c", 7), ("d", 7)] {
            let mut case = Case::new("", "", name);
            case.nanoseconds = nanoseconds;
            gathering.add(case);
        }
        let report = gathering.finish();
        let names: Vec<_> = report
            .slowest(3)
            .iter()
            .map(|case| &case.name[..])
            .collect();
        assert_eq!(names, ["c", "d", "a"]);
    }
}
