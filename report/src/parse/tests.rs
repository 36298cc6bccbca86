//! Files of real tools and of every format's documentation, and what is wrong with bad ones.
//!
//! The figures are those that the tools printed (`fixtures/README.md`), not ours.

mod bad;
mod fixtures;

use crate::cases::{CaseStatus, TestReport};
use crate::coverage::CoverageReport;
use crate::format::Format;
use crate::published::Report;

use super::parse;

macro_rules! fixture {
    ($name:literal, $format:ident) => {
        (
            $name,
            Format::$format,
            include_bytes!(concat!("../../fixtures/", $name)),
        )
    };
}

/// All fixtures, with their formats.
const FIXTURES: &[(&str, Format, &[u8])] = &[
    fixture!("made/coverage-py.xml", CoberturaXml),
    fixture!("made/cucumber.json", CucumberJson),
    fixture!("made/jest.trx", VisualStudioTrx),
    fixture!("made/jest.xml", JunitXml),
    fixture!("made/mocha.xml", JunitXml),
    fixture!("made/nyc-clover.xml", CloverXml),
    fixture!("made/nyc-cobertura.xml", CoberturaXml),
    fixture!("made/pytest-nunit3.xml", Nunit3Xml),
    fixture!("made/pytest-shard-1.xml", JunitXml),
    fixture!("made/pytest-shard-2.xml", JunitXml),
    fixture!("made/pytest-xunit1.xml", JunitXml),
    fixture!("made/pytest.xml", JunitXml),
    fixture!("written/clover-phpunit.xml", CloverXml),
    fixture!("written/cobertura-java.xml", CoberturaXml),
    fixture!("written/jacoco.xml", JacocoXml),
    fixture!("written/nunit2.xml", NunitXml),
    fixture!("written/nunit3.xml", Nunit3Xml),
    fixture!("written/simplecov.coverage.json", Simplecov),
    fixture!("written/simplecov.resultset.json", Simplecov),
    fixture!("written/testng-results.xml", TestngXml),
    fixture!("written/vstest.trx", VisualStudioTrx),
];

fn bytes(name: &str) -> (Format, &'static [u8]) {
    let mut all = FIXTURES.iter();
    let (_, format, bytes) = all.find(|(of, _, _)| *of == name).unwrap();
    (*format, bytes)
}

fn tests_of(name: &str) -> TestReport {
    let (format, bytes) = bytes(name);
    match parse(format, bytes).unwrap() {
        Report::Test(report) => report,
        Report::CodeCoverage(_) => panic!("{name} says coverage"),
    }
}

fn coverage_of(name: &str) -> CoverageReport {
    let (format, bytes) = bytes(name);
    match parse(format, bytes).unwrap() {
        Report::CodeCoverage(report) => report,
        Report::Test(_) => panic!("{name} says tests"),
    }
}

/// What is said of one case, on a line: status, suite, prefix, name, place, type, first line.
fn line(report: &TestReport, name: &str) -> String {
    let case = report.cases.iter().find(|case| case.name == name).unwrap();
    let place = case.place.as_ref().map_or_else(String::new, |place| {
        let line = place
            .line
            .map_or_else(String::new, |line| format!(":{line}"));
        format!("{}{line}", place.file)
    });
    let first = case.message.as_deref().and_then(|text| text.lines().next());
    [
        case.status.as_str(),
        &case.suite,
        &case.prefix,
        &place,
        case.kind.as_deref().unwrap_or_default(),
        first.unwrap_or_default(),
    ]
    .join(" | ")
}

fn count(report: &TestReport, status: CaseStatus) -> usize {
    let cases = report.cases.iter();
    cases.filter(|case| case.status == status).count()
}
