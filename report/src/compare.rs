//! What changed between a former report and this one.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cases::{Case, CaseStatus, TestReport, Totals};
use crate::coverage::{Count, CoverageReport};
use crate::published::Report;

/// A case counts as slower if it takes this many times as long as before …
const SLOWER_FACTOR: u64 = 2;

/// … and by this much longer, in nanoseconds: below, machines differ more than code does.
const SLOWER_BY_MIN: u64 = 100_000_000;

/// A case, by name. Of a name that stands twice, the worst status and the sum of the times count.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct CaseName {
    /// The suite that it is in.
    pub suite: String,
    /// What it has in common with related cases.
    pub prefix: String,
    /// Its own name.
    pub name: String,
}

/// A case that takes longer than it did.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Slower {
    /// Which.
    pub case: CaseName,
    /// How long it took, in nanoseconds.
    pub before: u64,
    /// How long it takes now, in nanoseconds.
    pub after: u64,
}

/// The coverage of a file, before and now. `None` where the file is not in that report.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FileChange {
    /// Its path.
    pub path: String,
    /// Lines before.
    pub before: Option<Count>,
    /// Lines now.
    pub after: Option<Count>,
}

/// Coverage before and now.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct CoverageChange {
    /// Lines of all files, before.
    pub lines_before: Count,
    /// Lines of all files, now.
    pub lines_after: Count,
    /// Branches of all files, before.
    pub branches_before: Count,
    /// Branches of all files, now.
    pub branches_after: Count,
    /// Files whose lines are covered otherwise than before, in order.
    pub files: Vec<FileChange>,
}

/// What changed. Lists are in order of names, the slower ones by how much.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Comparison {
    /// Totals before, of test reports.
    pub totals_before: Totals,
    /// Totals now, of test reports.
    pub totals_after: Totals,
    /// Cases that fail and did not; new ones that fail are among them.
    pub newly_failing: Vec<CaseName>,
    /// Cases that fail, and did before.
    pub still_failing: Vec<CaseName>,
    /// Cases that hold and failed before.
    pub repaired: Vec<CaseName>,
    /// Cases that were not there before.
    #[serde(rename = "new")]
    pub added: Vec<CaseName>,
    /// Cases that are not there any more.
    pub gone: Vec<CaseName>,
    /// Cases that held before and now, and take much longer.
    pub slower: Vec<Slower>,
    /// Of coverage reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<CoverageChange>,
    /// Whether a report does not hold all of its cases or files, so that `new` and `gone` are not known
    /// and left empty.
    pub is_partial: bool,
}

/// What changed from `before` to `after`; `None`, if they are of different kinds.
pub fn compare(before: &Report, after: &Report) -> Option<Comparison> {
    match (before, after) {
        (Report::Test(before), Report::Test(after)) => Some(compare_cases(before, after)),
        (Report::CodeCoverage(before), Report::CodeCoverage(after)) => Some(Comparison {
            coverage: Some(compare_coverage(before, after)),
            is_partial: before.truncated || after.truncated,
            ..Comparison::default()
        }),
        _ => None,
    }
}

/// The worst status and the sum of times of each name.
type ByName<'a> = BTreeMap<(&'a str, &'a str, &'a str), (CaseStatus, u64)>;

fn by_name(report: &TestReport) -> ByName<'_> {
    let mut cases = ByName::new();
    for case in &report.cases {
        let Case {
            suite,
            prefix,
            name,
            ..
        } = case;
        let known = cases
            .entry((suite, prefix, name))
            .or_insert((case.status, 0));
        known.0 = known.0.min(case.status);
        known.1 = known.1.saturating_add(case.nanoseconds);
    }
    cases
}

fn compare_cases(before: &TestReport, after: &TestReport) -> Comparison {
    let mut found = Comparison {
        totals_before: before.totals,
        totals_after: after.totals,
        is_partial: before.truncated || after.truncated,
        ..Comparison::default()
    };
    let (former, present) = (by_name(before), by_name(after));
    for (key, &(status, nanoseconds)) in &present {
        let known = former.get(key).copied();
        let failed = known.is_some_and(|(status, _)| status.is_failing());
        match (failed, status) {
            (false, status) if status.is_failing() => found.newly_failing.push(name(key)),
            (true, status) if status.is_failing() => found.still_failing.push(name(key)),
            (true, CaseStatus::Succeeded) => found.repaired.push(name(key)),
            _ => {}
        }
        match known {
            None => found.added.push(name(key)),
            Some((CaseStatus::Succeeded, before)) if status == CaseStatus::Succeeded => {
                let is_slower = before.saturating_mul(SLOWER_FACTOR) <= nanoseconds
                    && SLOWER_BY_MIN <= nanoseconds.saturating_sub(before)
                    && 0 < before;
                if is_slower {
                    found.slower.push(Slower {
                        case: name(key),
                        before,
                        after: nanoseconds,
                    });
                }
            }
            Some(_) => {}
        }
    }
    let gone = former.keys().filter(|key| !present.contains_key(*key));
    found.gone = gone.map(name).collect();
    if found.is_partial {
        found.added.clear();
        found.gone.clear();
    }
    found
        .slower
        .sort_by_key(|slower| slower.before.abs_diff(slower.after));
    found.slower.reverse();
    found
}

fn name(&(suite, prefix, name): &(&str, &str, &str)) -> CaseName {
    CaseName {
        suite: suite.to_owned(),
        prefix: prefix.to_owned(),
        name: name.to_owned(),
    }
}

fn compare_coverage(before: &CoverageReport, after: &CoverageReport) -> CoverageChange {
    let mut change = CoverageChange {
        lines_before: before.lines,
        lines_after: after.lines,
        branches_before: before.branches,
        branches_after: after.branches,
        files: Vec::new(),
    };
    let mut files = BTreeMap::<&str, (Option<Count>, Option<Count>)>::new();
    for (path, file) in &before.files {
        files.entry(path).or_default().0 = Some(file.lines);
    }
    for (path, file) in &after.files {
        files.entry(path).or_default().1 = Some(file.lines);
    }
    let changed = files
        .into_iter()
        .filter(|(_, (before, after))| before != after);
    change.files = changed
        .map(|(path, (before, after))| FileChange {
            path: path.to_owned(),
            before,
            after,
        })
        .collect();
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, parse};

    /// A report of lines `NAME STATUS MILLISECONDS`.
    fn report(script: &str) -> Report {
        let mut xml = "<testsuite name=\"s\">".to_owned();
        for line in script.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let [name, status, milliseconds] = words[..] else {
                panic!("three words in {line}")
            };
            let child = match status {
                "ok" => String::new(),
                status => format!("<{status}/>"),
            };
            let milliseconds: f64 = milliseconds.parse().unwrap();
            let time = milliseconds / 1e3;
            xml += &format!("<testcase name=\"{name}\" time=\"{time}\">{child}</testcase>");
        }
        parse(Format::JunitXml, (xml + "</testsuite>").as_bytes()).unwrap()
    }

    fn names(cases: &[CaseName]) -> String {
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        names.join(" ")
    }

    #[test]
    fn what_changed_is_said_by_name() {
        let before =
            report("a ok 1\nb failure 1\nc failure 1\nd ok 1\ne error 1\nf ok 1\nh failure 1");
        let after =
            report("a failure 1\nb ok 1\nc error 1\nd ok 1\ne skipped 1\ng ok 1\ni failure 1");
        let found = compare(&before, &after).unwrap();
        assert_eq!(names(&found.newly_failing), "a i");
        assert_eq!(names(&found.still_failing), "c");
        assert_eq!(
            names(&found.repaired),
            "b",
            "what was left out is not repaired"
        );
        assert_eq!(names(&found.added), "g i");
        assert_eq!(names(&found.gone), "f h");
        assert_eq!(found.totals_before.failed, 3);
        assert!(found.slower.is_empty() && !found.is_partial);
    }

    #[test]
    fn slower_is_twice_as_long_and_noticeable() {
        let before = report("a ok 100\nb ok 100\nc ok 1\nd ok 1000\ne ok 0\nf failure 10");
        let after = report("a ok 200\nb ok 190\nc ok 90\nd ok 5000\ne ok 900\nf ok 900");
        let found = compare(&before, &after).unwrap();
        let slower = found.slower.iter().map(|slower| slower.case.name.as_str());
        assert_eq!(slower.collect::<Vec<_>>(), ["d", "a"]);
    }

    #[test]
    fn a_name_that_was_run_again_is_as_bad_as_its_worst_run() {
        let found = compare(&report("a ok 1\na failure 1"), &report("a ok 1\na ok 1")).unwrap();
        assert_eq!(names(&found.repaired), "a");
        assert!(found.added.is_empty() && found.gone.is_empty());
    }

    #[test]
    fn coverage_is_compared_by_file() {
        let clover = |files: &[(&str, u32, u32)]| {
            let mut xml = "<coverage><project>".to_owned();
            for (name, total, covered) in files {
                xml += &format!(
                    "<file name=\"{name}\"><metrics statements=\"{total}\" coveredstatements=\"{covered}\"/></file>"
                );
            }
            parse(
                Format::CloverXml,
                (xml + "</project></coverage>").as_bytes(),
            )
            .unwrap()
        };
        let before = clover(&[("a", 4, 1), ("b", 2, 2), ("c", 1, 0)]);
        let after = clover(&[("a", 4, 3), ("b", 2, 2), ("d", 1, 1)]);
        let found = compare(&before, &after).unwrap().coverage.unwrap();
        assert_eq!(found.lines_before.percentage().unwrap().round(), 43.0);
        assert_eq!(found.lines_after.percentage().unwrap().round(), 86.0);
        let paths: Vec<_> = found.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a", "c", "d"]);
        assert_eq!(found.files[1].after, None);
        assert_eq!(compare(&before, &report("a ok 1")), None);
    }

    #[test]
    fn of_a_partial_report_nobody_knows_what_is_gone() {
        let before = report("a ok 1\nb ok 1");
        let Report::Test(mut partial) = report("a ok 1") else {
            panic!("of tests")
        };
        partial.truncated = true;
        let found = compare(&before, &Report::Test(partial)).unwrap();
        assert!(found.is_partial && found.gone.is_empty());
    }
}
