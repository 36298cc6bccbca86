//! What the fixtures say: totals as their tools print them, and single cases in full.

use crate::cases::CaseStatus;
use crate::coverage::Count;
use crate::discover::{detect, is_candidate};
use crate::published::Report;

use super::{FIXTURES, count, coverage_of, line, parse, tests_of};

/// Tests, succeeded, failed, errors, skipped, unknown.
#[track_caller]
fn check(name: &str, expected: [u64; 6]) {
    let report = tests_of(name);
    let totals = report.totals;
    let found = [
        totals.tests,
        totals.succeeded,
        totals.failed,
        totals.errors,
        totals.skipped,
        totals.unknown,
    ];
    assert_eq!(found, expected, "{name}");
    assert_eq!(u64::try_from(report.cases.len()).unwrap(), totals.tests);
    assert_eq!(
        count(&report, CaseStatus::Failed),
        usize::try_from(totals.failed).unwrap()
    );
}

/// Lines covered and in all, branches covered and in all.
#[track_caller]
fn check_coverage(name: &str, [covered, lines, taken, branches]: [u64; 4]) {
    let report = coverage_of(name);
    assert_eq!(report.lines, Count::of(covered, lines), "{name}");
    assert_eq!(report.branches, Count::of(taken, branches), "{name}");
}

#[test]
fn test_totals_are_what_the_tools_print() {
    // pytest: 1 failed, 8 passed, 1 skipped, 1 xfailed, 2 errors. One test passed and then failed in its
    // teardown: two words for pytest, one case with an error in its file (`tests="12" errors="2"`).
    check("made/pytest.xml", [12, 7, 1, 2, 2, 0]);
    check("made/pytest-xunit1.xml", [12, 7, 1, 2, 2, 0]);
    check("made/pytest-shard-1.xml", [6, 5, 1, 0, 0, 0]);
    check("made/pytest-shard-2.xml", [6, 2, 0, 2, 2, 0]);
    // total="12" passed="8" failed="3" skipped="1": pytest-nunit calls an xfail passed.
    check("made/pytest-nunit3.xml", [12, 8, 3, 0, 1, 0]);
    // mocha: 3 passing, 2 pending, 1 failing.
    check("made/mocha.xml", [6, 3, 1, 0, 2, 0]);
    // jest: 1 failed, 1 skipped, 1 todo, 2 passed, 5 total. jest-junit writes its todo as it does what
    // passed.
    check("made/jest.xml", [5, 3, 1, 0, 1, 0]);
    check("made/jest.trx", [5, 2, 1, 0, 2, 0]);
    // cucumber-js: 7 scenarios (1 failed, 1 undefined, 1 pending, 1 skipped, 3 passed).
    check("made/cucumber.json", [7, 3, 1, 1, 2, 0]);
    // The root elements' own counters, of files in the form of the formats' documentation. NUnit 2
    // counts what it could not run apart, here it is an error.
    check("written/nunit2.xml", [7, 2, 1, 2, 1, 1]);
    check("written/nunit3.xml", [7, 3, 1, 1, 1, 1]);
    check("written/testng-results.xml", [6, 4, 1, 0, 1, 0]);
    check("written/vstest.trx", [7, 3, 1, 1, 1, 1]);
}

#[test]
fn coverage_totals_are_what_the_tools_print() {
    // coverage.py: 13 statements, 2 missed, 6 branches; lines-covered="11" branches-covered="5".
    check_coverage("made/coverage-py.xml", [11, 13, 5, 6]);
    // nyc: Lines 8/9, Branches 5/6.
    check_coverage("made/nyc-clover.xml", [8, 9, 5, 6]);
    check_coverage("made/nyc-cobertura.xml", [8, 9, 5, 6]);
    // The root elements' own counters.
    check_coverage("written/clover-phpunit.xml", [4, 6, 0, 0]);
    check_coverage("written/cobertura-java.xml", [3, 5, 1, 2]);
    check_coverage("written/jacoco.xml", [6, 11, 4, 6]);
    // Two commands that ran the two ways of one condition: SimpleCov merges them to both.
    check_coverage("written/simplecov.resultset.json", [7, 9, 2, 2]);
    check_coverage("written/simplecov.coverage.json", [4, 5, 1, 2]);
}

/// A fixture, a case in it, and what is said of that.
const CASES: &[(&str, &str, &str)] = &[
    (
        "made/pytest.xml",
        "test_too_many",
        "FAILED | pytest | tests.test_stack | tests/test_stack.py:11 |  | AssertionError: one bale too few",
    ),
    (
        "made/pytest.xml",
        "test_with_scale",
        "ERROR | pytest | tests.test_weigh.TestWeigh | tests/test_weigh.py:10 |  | \
             failed on setup with \"RuntimeError: no scale & no <weights>\"",
    ),
    (
        "made/pytest.xml",
        "test_hay",
        "SKIPPED | pytest | tests.test_weigh.TestWeigh |  | pytest.skip | /src/python/tests/test_weigh.py:33: no hay yet",
    ),
    (
        "made/pytest-xunit1.xml",
        "test_all_fit",
        "SUCCEEDED | pytest | tests.test_stack | tests/test_stack.py:5 |  | ",
    ),
    (
        "written/nunit2.xml",
        "OneTooMany",
        "FAILED | Barn.Tests.dll | Barn.StackTests | C:\\src\\Barn.Tests\\StackTests.cs:22 |  | Expected: 6",
    ),
    (
        "written/nunit2.xml",
        "Room(2.5)",
        "SUCCEEDED | Barn.Tests.dll | Barn.StackTests |  |  | ",
    ),
    (
        "written/nunit3.xml",
        "NoScale",
        "ERROR | Barn.Tests.dll | Barn.StackTests | /src/Barn/Scale.cs:7 |  | \
             System.InvalidOperationException : no scale",
    ),
    (
        "written/testng-results.xml",
        "oneTooMany",
        "FAILED | Surefire suite | barn.BarnTest | BarnTest.java:25 | java.lang.AssertionError | \
             java.lang.AssertionError: one bale <too> few expected [6] but found [5]",
    ),
    (
        "written/testng-results.xml",
        "room(2)",
        "SUCCEEDED | Surefire suite | barn.BarnTest |  |  | ",
    ),
    (
        "written/vstest.trx",
        "OneTooMany",
        "FAILED | Barn.Tests.dll | Barn.Tests.StackTests | C:\\src\\Barn.Tests\\StackTests.cs:22 |  | \
             Assert.AreEqual failed. Expected:<6>. Actual:<5>.",
    ),
    (
        "written/vstest.trx",
        "AllFit",
        "SUCCEEDED | Barn.Tests.dll | Barn.Tests.StackTests |  |  | ",
    ),
    (
        "made/cucumber.json",
        "one too many",
        "FAILED | stacking bales |  | features/barn.feature:12 |  | Then 6 bales are stacked",
    ),
    (
        "made/jest.trx",
        "stack / stops when full",
        "FAILED | barn.test.js | stack | /src/node/jest/barn.test.js:5 |  | \
             Error: expect(received).toBe(expected) // Object.is equality",
    ),
];

#[test]
fn a_failure_has_its_message_type_and_place() {
    for (name, case, expected) in CASES {
        assert_eq!(line(&tests_of(name), case), *expected, "{name}");
    }
}

#[test]
fn times_are_in_nanoseconds_whatever_the_format_counts_in() {
    let nanoseconds = |name: &str, case: &str| {
        let report = tests_of(name);
        let case = report.cases.into_iter().find(|of| of.name == case).unwrap();
        case.nanoseconds
    };
    assert_eq!(
        nanoseconds("written/vstest.trx", "OneTooMany"),
        1_500_000_000
    );
    assert_eq!(nanoseconds("written/vstest.trx", "AllFit"), 12_345_600);
    assert_eq!(
        nanoseconds("written/testng-results.xml", "oneTooMany"),
        14_000_000
    );
    assert_eq!(nanoseconds("written/nunit2.xml", "OneTooMany"), 31_000_000);
    assert_eq!(nanoseconds("written/nunit3.xml", "OneTooMany"), 31_000_000);
    let report = tests_of("made/pytest.xml");
    assert_eq!(report.slowest(1)[0].name, "test_slow");
    assert!(50_000_000 <= report.slowest(1)[0].nanoseconds);
}

#[test]
fn coverage_says_which_lines_were_missed() {
    let report = coverage_of("made/coverage-py.xml");
    assert_eq!(report.files["barn.py"].missed_lines.to_string(), "15, 22");
    let report = coverage_of("written/jacoco.xml");
    let file = &report.files["barn/Barn.java"];
    assert_eq!(file.missed_lines.to_string(), "19-20, 22, 25, 27");
    assert_eq!(file.line_branches[&19], Count::of(0, 2));
    let report = coverage_of("written/simplecov.resultset.json");
    assert_eq!(
        report.files["/src/lib/barn.rb"].missed_lines.to_string(),
        "11"
    );
    let report = coverage_of("made/nyc-clover.xml");
    assert_eq!(
        report.files["/src/node/src/barn.js"]
            .missed_lines
            .to_string(),
        "19"
    );
}

#[test]
fn shards_merged_are_the_report_of_an_unsharded_run() {
    let untimed = |name: &str| {
        let mut report = tests_of(name);
        report.totals.nanoseconds = 0;
        for totals in report.suites.values_mut() {
            totals.nanoseconds = 0;
        }
        for case in &mut report.cases {
            case.nanoseconds = 0;
        }
        report
    };
    let whole = untimed("made/pytest.xml");
    let (first, second) = ("made/pytest-shard-1.xml", "made/pytest-shard-2.xml");
    let mut shards = untimed(second);
    shards.absorb_shard(untimed(first));
    assert_eq!(shards, whole);
    let mut files = untimed(first);
    files.absorb_file(untimed(second));
    assert_eq!(files, whole);
    assert_ne!(untimed(first), whole);
}

#[test]
fn every_fixture_is_discovered_as_what_it_is() {
    for (name, format, bytes) in FIXTURES {
        // SimpleCov's file is known by its name, which the fixture has after a dot.
        let name = name.replace("simplecov.resultset", "/.resultset");
        assert!(is_candidate(&name, 1), "{name}");
        assert_eq!(detect(&name, bytes), Some(*format), "{name}");
    }
}

#[test]
fn a_report_in_utf_16_is_the_same_report() {
    for (name, format, bytes) in FIXTURES {
        let text = std::str::from_utf8(bytes).unwrap();
        let units = text.encode_utf16();
        let little: Vec<u8> = units.clone().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = units.flat_map(u16::to_be_bytes).collect();
        let expected: Report = parse(*format, bytes).unwrap();
        for other in [
            [&[0xFF, 0xFE], &little[..]].concat(),
            [&[0xFE, 0xFF], &big[..]].concat(),
            [&[0xEF, 0xBB, 0xBF], *bytes].concat(),
            little,
            big,
        ] {
            assert_eq!(parse(*format, &other).unwrap(), expected, "{name}");
        }
    }
}

#[test]
fn fixtures_do_not_say_where_they_were_made() {
    for (name, _, bytes) in FIXTURES {
        let text = String::from_utf8_lossy(bytes);
        for word in ["/home/", "/root", "localhost", "/work", "/var/"] {
            assert!(!text.contains(word), "{name} says {word}");
        }
        for (attribute, value) in [("hostname=\"", "host\""), ("computerName=\"", "HOST\"")] {
            let mut said = text.split(attribute).skip(1);
            assert!(
                said.all(|rest| rest.starts_with(value)),
                "{name} says {attribute}"
            );
        }
    }
}
