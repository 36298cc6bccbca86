//! Input that is broken, hostile or of another format: an error that names the place, in bounded time.

use crate::format::{Format, Kind};
use crate::parse::{FILE_BYTES_MAX, ParseError};
use crate::published::Report;

use super::{FIXTURES, parse};

#[track_caller]
fn check(format: Format, text: &str, expected: &str) {
    let error = parse(format, text.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_report_of_another_format_is_refused_in_the_words_of_the_reference() {
    let junit = Format::JunitXml;
    check(
        junit,
        "<coverage/>",
        "expected element type <testsuite> but have <coverage>",
    );
    let clover = "<coverage>\n<project/></coverage>";
    let cobertura = "<coverage>\n<packages/></coverage>";
    check(
        Format::CoberturaXml,
        clover,
        "line 2, column 1: expected <packages> but have <project>",
    );
    check(
        Format::CloverXml,
        cobertura,
        "line 2, column 1: expected <project> but have <packages>",
    );
    for (name, of, bytes) in FIXTURES {
        for format in Format::ALL.into_iter().filter(|format| format != of) {
            assert!(parse(format, bytes).is_err(), "{name} is no {format}");
        }
    }
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let junit = Format::JunitXml;
    check(junit, " \n", "the file is empty");
    check(
        junit,
        "All tests passed.",
        "line 1, column 18: expected an XML element but have `All tests passed.`",
    );
    check(
        junit,
        "<!-- nothing -->",
        "line 1, column 17: expected an XML element but have the end of the file",
    );
    check(
        junit,
        "<testsuite>\n  <testcase name='a'>\n    <failure>x",
        "line 3, column 15: the file ends inside <failure>",
    );
    let error = parse(junit, b"<testsuite>\n <testcase></testsuite>").unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("line 2, column 12: not well-formed XML: "),
        "{text}"
    );
    check(
        Format::CucumberJson,
        "{\"elements\": []}",
        "the file: expected a list of features but have an object",
    );
    check(
        Format::CucumberJson,
        "[{}, 7]",
        "[1]: expected a feature but have a number",
    );
    check(
        Format::Simplecov,
        "{\"RSpec\": {\"coverage\": {\"a.rb\": {\"lines\": 7}}}}",
        "RSpec.coverage.a.rb: expected a list of lines but have a number",
    );
    check(
        Format::Simplecov,
        "{\"timestamp\": 1}",
        "timestamp.coverage: expected an object with lines by file but have null",
    );
    check(
        junit,
        "<?xml version=\"1.0\" encoding=\"klingon\"?><testsuite/>",
        "unknown encoding `klingon`",
    );
}

#[test]
fn files_over_the_limit_are_not_read() {
    let long = vec![b' '; FILE_BYTES_MAX + 1];
    let error = parse(Format::JunitXml, &long).unwrap_err();
    assert!(matches!(error, ParseError::TooLong { .. }));
}

#[test]
fn entities_do_not_grow() {
    let mut bomb = "<!DOCTYPE testsuite [<!ENTITY a0 \"ha\">".to_owned();
    for at in 1..60 {
        let before = at - 1;
        bomb += &format!("<!ENTITY a{at} \"&a{before};&a{before};\">");
    }
    bomb += "]><testsuite name='&a59;'><testcase name='a'><failure>&a59; &lt;&#x41;</failure></testcase></testsuite>";
    let Report::Test(report) = parse(Format::JunitXml, bomb.as_bytes()).unwrap() else {
        panic!("of tests")
    };
    assert_eq!(report.cases[0].message.as_deref(), Some("&a59; <A"));
    assert_eq!(report.cases[0].suite, "&a59;");
    let outside = "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><testsuite><testcase name='&x;'/></testsuite>";
    let Report::Test(report) = parse(Format::JunitXml, outside.as_bytes()).unwrap() else {
        panic!("of tests")
    };
    assert_eq!(report.cases[0].name, "&x;");
}

#[test]
fn depth_is_bounded() {
    for format in Format::ALL {
        let element = match format {
            Format::JunitXml => "testsuite",
            Format::NunitXml => "test-results",
            Format::Nunit3Xml => "test-run",
            Format::TestngXml => "testng-results",
            Format::VisualStudioTrx => "TestRun",
            Format::JacocoXml => "report",
            Format::CloverXml | Format::CoberturaXml => "coverage",
            Format::CucumberJson | Format::Simplecov => {
                assert!(parse(format, "[".repeat(1 << 20).as_bytes()).is_err());
                assert!(parse(format, "{\"a\":".repeat(1 << 20).as_bytes()).is_err());
                continue;
            }
        };
        let deep = format!("<{element}>") + &"<testsuite>".repeat(1 << 18);
        let error = parse(format, deep.as_bytes()).unwrap_err();
        assert!(
            matches!(error, ParseError::TooDeep { .. }),
            "{format}: {error}"
        );
    }
}

#[test]
fn long_runs_of_one_thing_take_linear_time() {
    let many = 200_000;
    let attributes: String = (0..many).map(|at| format!(" a{at}='1'")).collect();
    for text in [
        format!("<testsuite{attributes}><testcase{attributes}/></testsuite>"),
        format!("<testsuite>{}</testsuite>", "<testcase/>".repeat(many)),
        format!("<testsuite>{}</testsuite>", "<!-- -->".repeat(many)),
        format!("<testsuite>{}</testsuite>", "&amp;".repeat(many)),
        format!(
            "<testsuite><testcase><failure>{}</failure></testcase></testsuite>",
            "x<a/>".repeat(many)
        ),
        format!("<testsuite name='{}'/>", "&quot;".repeat(many)),
        format!("<testsuite>{}", "<".repeat(many)),
        format!("<testsuite>{}", "&".repeat(many)),
    ] {
        // An error is as good as a report, as long as it comes.
        let _outcome = parse(Format::JunitXml, text.as_bytes());
    }
    let zeros = "0,".repeat(many);
    let set = format!("{{\"a\": {{\"coverage\": {{\"a.rb\": [{zeros}0]}}}}}}");
    assert!(parse(Format::Simplecov, set.as_bytes()).is_ok());
}

/// A generator of numbers, so that a failing seed can be played again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let limit = u64::try_from(limit.max(1)).unwrap();
        usize::try_from(self.0 % limit).unwrap()
    }
}

/// What mutations put in.
const SCRAPS: &[&[u8]] = &[
    b"<",
    b">",
    b"&",
    b"]]>",
    b"<![CDATA[",
    b"<!--",
    b"\"",
    b"'",
    b"=",
    b"\0",
    b"\xFF\xFE",
    b"\xC3",
    b"<testsuite>",
    b"</testsuite>",
    b"<a/>",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"NaN",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"null",
    b"&#x110000;",
    b"&#0;",
    b"(1/0)",
    b":",
    b"%",
];

fn mutated(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + numbers.below(40)).min(bytes.len());
        match numbers.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let scrap = SCRAPS[numbers.below(SCRAPS.len())];
                drop(bytes.splice(at..at, scrap.iter().copied()));
            }
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = numbers.below(bytes.len() + 1);
                drop(bytes.splice(to..to, copy));
            }
            4 => {
                let scrap = SCRAPS[numbers.below(SCRAPS.len())];
                drop(bytes.splice(at..end, scrap.iter().copied()));
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = u8::try_from(numbers.below(256)).unwrap();
                }
            }
        }
    }
    bytes
}

#[test]
fn whatever_is_broken_in_a_file_there_is_a_report_or_an_error() {
    for seed in 1..=150_u64 {
        let mut numbers = Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for (name, format, bytes) in FIXTURES {
            let bytes = mutated(bytes, &mut numbers);
            let outcome = std::panic::catch_unwind(|| parse(*format, &bytes));
            let outcome = outcome.unwrap_or_else(|_| panic!("seed {seed}, {name}"));
            if let Ok(report) = outcome {
                let is_of_its_kind = (report.kind() == Kind::Test) == (format.kind() == Kind::Test);
                assert!(is_of_its_kind, "seed {seed}, {name}");
                if let Report::Test(report) = report {
                    let cases = u64::try_from(report.cases.len()).unwrap();
                    assert_eq!(cases, report.totals.tests, "seed {seed}, {name}");
                }
            }
            let _format = crate::discover::detect(name, &bytes);
        }
    }
}
