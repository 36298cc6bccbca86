//! Coverage: which lines and branches tests reached, in total and by file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cases::NAME_CHARACTERS_MAX;
use crate::lines::Lines;
use crate::text::cut;

/// How many files a report keeps. Past it, files count for the totals only.
pub const FILES_MAX: usize = 100_000;

/// How much of something was reached.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Count {
    /// What was.
    pub covered: u64,
    /// What was not.
    pub missed: u64,
}

impl Count {
    /// From what was reached and what there is. Tools that count more reached than there is are
    /// believed about the second.
    pub(crate) fn of(covered: u64, total: u64) -> Self {
        let covered = covered.min(total);
        Self {
            covered,
            missed: total - covered,
        }
    }

    /// All there is.
    pub fn total(&self) -> u64 {
        self.covered.saturating_add(self.missed)
    }

    /// Covered of a hundred; `None`, if there is nothing to cover.
    pub fn percentage(&self) -> Option<f64> {
        (0 < self.total()).then(|| self.covered as f64 * 100.0 / self.total() as f64)
    }

    fn add(&mut self, other: Self) {
        self.covered = self.covered.saturating_add(other.covered);
        self.missed = self.missed.saturating_add(other.missed);
    }
}

/// The coverage of one file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct FileCoverage {
    /// Lines that could run.
    pub lines: Count,
    /// Ways that conditions could go.
    pub branches: Count,
    /// Which lines ran; empty, if the report does not say.
    #[serde(default, skip_serializing_if = "Lines::is_empty")]
    pub covered_lines: Lines,
    /// Which lines did not; empty, if there are none or the report does not say.
    #[serde(default, skip_serializing_if = "Lines::is_empty")]
    pub missed_lines: Lines,
    /// The branches of each line that has some.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub line_branches: BTreeMap<u32, Count>,
}

impl FileCoverage {
    /// Whether the lines that are named are those that are counted.
    fn is_detailed(&self) -> bool {
        let mut branches = Count::default();
        for count in self.line_branches.values() {
            branches.add(*count);
        }
        self.lines.covered == self.covered_lines.count()
            && self.lines.missed == self.missed_lines.count()
            && self.branches == branches
    }

    /// What two reports know of one file together. Which of a line's branches ran is not known, so of
    /// each line the better count stands.
    fn union(self, other: Self) -> Self {
        if !self.is_detailed() || !other.is_detailed() {
            return self.better(other);
        }
        let covered_lines = self.covered_lines.union(&other.covered_lines);
        let known = self.missed_lines.union(&other.missed_lines);
        let missed_lines = known.without(&covered_lines);
        let mut line_branches = self.line_branches;
        for (line, count) in other.line_branches {
            let known = line_branches.entry(line).or_default();
            let covered = known.covered.max(count.covered);
            *known = Count::of(covered, known.total().max(count.total()));
        }
        let mut branches = Count::default();
        for count in line_branches.values() {
            branches.add(*count);
        }
        Self {
            lines: Count {
                covered: covered_lines.count(),
                missed: missed_lines.count(),
            },
            branches,
            covered_lines,
            missed_lines,
            line_branches,
        }
    }

    /// The one with the better share of lines, then of branches; the first of equals.
    fn better(self, other: Self) -> Self {
        let share = |file: &Self| {
            let lines = file.lines.percentage().unwrap_or(0.0);
            (lines, file.branches.percentage().unwrap_or(0.0))
        };
        if share(&self) < share(&other) {
            other
        } else {
            self
        }
    }
}

/// The coverage of a report's files.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CoverageReport {
    /// Of all files.
    pub lines: Count,
    /// Of all files.
    pub branches: Count,
    /// By path, as the tool names it.
    pub files: BTreeMap<String, FileCoverage>,
    /// Whether files were left out.
    pub truncated: bool,
}

impl CoverageReport {
    /// Adds what another file of the same build says: a line that ran in either ran.
    pub fn absorb_file(&mut self, other: Self) {
        self.absorb(other, FileCoverage::union);
    }

    /// Adds what a shard says: of each file, the shard with the better share of lines (then of
    /// branches) stands, which is `CodeBuild`'s rule.
    pub fn absorb_shard(&mut self, other: Self) {
        self.absorb(other, FileCoverage::better);
    }

    fn absorb(&mut self, other: Self, choose: fn(FileCoverage, FileCoverage) -> FileCoverage) {
        self.truncated |= other.truncated;
        for (path, file) in other.files {
            self.add(&path, file, choose);
        }
        if !self.truncated {
            self.recount();
        }
    }

    /// Adds a file that a report says twice by the better of the two.
    pub(crate) fn insert(&mut self, path: &str, file: FileCoverage) {
        self.add(cut(path, NAME_CHARACTERS_MAX), file, FileCoverage::better);
    }

    fn add(
        &mut self,
        path: &str,
        file: FileCoverage,
        choose: fn(FileCoverage, FileCoverage) -> FileCoverage,
    ) {
        if FILES_MAX <= self.files.len() && !self.files.contains_key(path) {
            self.truncated = true;
            self.lines.add(file.lines);
            self.branches.add(file.branches);
            return;
        }
        let known = self.files.remove(path);
        let file = match known {
            Some(known) => {
                self.discount(&known);
                choose(known, file)
            }
            None => file,
        };
        self.lines.add(file.lines);
        self.branches.add(file.branches);
        self.files.insert(path.to_owned(), file);
    }

    fn discount(&mut self, file: &FileCoverage) {
        for (sum, part) in [
            (&mut self.lines, file.lines),
            (&mut self.branches, file.branches),
        ] {
            sum.covered = sum.covered.saturating_sub(part.covered);
            sum.missed = sum.missed.saturating_sub(part.missed);
        }
    }

    fn recount(&mut self) {
        self.lines = Count::default();
        self.branches = Count::default();
        for file in self.files.values() {
            self.lines.add(file.lines);
            self.branches.add(file.branches);
        }
    }
}

/// Coverage that is gathered line by line: what formats say that name a line more than once.
#[derive(Default)]
pub(crate) struct LineByLine {
    files: BTreeMap<String, BTreeMap<u32, LineCoverage>>,
}

#[derive(Default)]
struct LineCoverage {
    is_covered: bool,
    branches: Count,
}

impl LineByLine {
    /// Makes a file known, even if none of its lines can run.
    pub(crate) fn file(&mut self, path: &str) {
        self.files
            .entry(cut(path, NAME_CHARACTERS_MAX).to_owned())
            .or_default();
    }

    /// Adds a line that could run. Said twice, it ran if it ran once.
    pub(crate) fn line(&mut self, path: &str, line: u32, is_covered: bool) {
        self.entry(path, line).is_covered |= is_covered;
    }

    /// Adds branches of a line. Said twice, the better count stands.
    pub(crate) fn branches(&mut self, path: &str, line: u32, branches: Count) {
        let known = &mut self.entry(path, line).branches;
        let covered = known.covered.max(branches.covered);
        *known = Count::of(covered, known.total().max(branches.total()));
    }

    /// Adds all that another knows.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (path, lines) in other.files {
            for (number, line) in lines {
                self.line(&path, number, line.is_covered);
                self.branches(&path, number, line.branches);
            }
        }
    }

    fn entry(&mut self, path: &str, line: u32) -> &mut LineCoverage {
        let path = cut(path, NAME_CHARACTERS_MAX);
        if !self.files.contains_key(path) {
            self.files.insert(path.to_owned(), BTreeMap::new());
        }
        let file = self.files.get_mut(path).expect("it was just put there");
        file.entry(line).or_default()
    }

    /// The report.
    pub(crate) fn finish(self) -> CoverageReport {
        let mut report = CoverageReport::default();
        for (path, lines) in self.files {
            let of = |covered: bool| {
                let lines = lines.iter();
                let lines = lines.filter(move |(_, line)| line.is_covered == covered);
                lines.map(|(number, _)| *number).collect::<Lines>()
            };
            let (covered_lines, missed_lines) = (of(true), of(false));
            let mut file = FileCoverage {
                lines: Count {
                    covered: covered_lines.count(),
                    missed: missed_lines.count(),
                },
                covered_lines,
                missed_lines,
                ..FileCoverage::default()
            };
            for (number, line) in lines {
                if 0 < line.branches.total() {
                    file.branches.add(line.branches);
                    file.line_branches.insert(number, line.branches);
                }
            }
            report.insert(&path, file);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[(&str, u32, bool)]) -> CoverageReport {
        let mut gathered = LineByLine::default();
        for (path, line, is_covered) in lines {
            gathered.line(path, *line, *is_covered);
            let covered = u64::from(*is_covered);
            gathered.branches(path, *line, Count::of(covered, 2));
        }
        gathered.finish()
    }

    #[test]
    fn files_of_one_build_are_merged_line_by_line() {
        let mut merged = report(&[("a", 1, true), ("a", 2, false), ("a", 3, false)]);
        merged.absorb_file(report(&[
            ("a", 1, false),
            ("a", 2, true),
            ("a", 3, false),
            ("b", 1, true),
        ]));
        let whole = report(&[
            ("a", 1, true),
            ("a", 2, true),
            ("a", 3, false),
            ("b", 1, true),
        ]);
        assert_eq!(merged, whole);
        assert_eq!(merged.files["a"].missed_lines.to_string(), "3");
    }

    #[test]
    fn of_shards_the_better_one_stands_for_a_file() {
        let mut merged = report(&[("a", 1, true), ("a", 2, false), ("a", 3, false)]);
        let better = report(&[("a", 1, false), ("a", 2, true), ("a", 3, true)]);
        merged.absorb_shard(better.clone());
        assert_eq!(merged, better);
    }

    #[test]
    fn a_share_of_nothing_is_unknown() {
        assert_eq!(Count::default().percentage(), None);
        assert_eq!(Count::of(3, 4).percentage(), Some(75.0));
        assert_eq!(
            Count::of(9, 4),
            Count {
                covered: 4,
                missed: 0
            }
        );
    }
}
