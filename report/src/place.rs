//! Where a test failed, out of the trace that its tool printed: Python's, .NET's, the JVM's, JavaScript's.
//!
//! Only the forms that these tools print are known; of anything else there is no place.

use crate::cases::{NAME_CHARACTERS_MAX, Place};
use crate::text::cut;

/// How many lines of a trace are looked at: the place is near its begin, or at its very end.
const LINES_MAX: usize = 200;

/// Frames that are of a test tool or a standard library, so that the test is further down.
const FOREIGN: &[&str] = &[
    "org.testng.",
    "org.junit.",
    "junit.framework.",
    "org.hamcrest.",
    "org.assertj.",
    "org.opentest4j.",
    "org.mockito.",
    "java.",
    "javax.",
    "jdk.",
    "sun.",
    "kotlin.",
    "scala.",
    "node_modules/",
    "node:",
    "<anonymous>",
];

/// The place that a trace names first, or last where tools say it last.
pub(crate) fn in_trace(trace: &str) -> Option<Place> {
    let lines = || trace.lines().map(str::trim).filter(|line| !line.is_empty());
    // pytest ends with where the innermost assertion stands.
    if let Some(place) = lines().next_back().and_then(pytest) {
        return Some(place);
    }
    let frames = lines().take(LINES_MAX);
    let mut own = frames.filter(|line| !FOREIGN.iter().any(|foreign| line.contains(foreign)));
    own.find_map(|line| {
        dotnet(line)
            .or_else(|| parenthesised(line))
            .or_else(|| bare(line))
    })
}

/// `tests/test_stack.py:11: AssertionError`
fn pytest(line: &str) -> Option<Place> {
    let (file, rest) = line.split_once(".py:")?;
    let (number, _) = rest.split_once(": ")?;
    place(&format!("{file}.py"), number)
}

/// `at Barn.Tests.Full() in C:\src\Barn Tests.cs:line 12`
fn dotnet(line: &str) -> Option<Place> {
    let (file, number) = line.rsplit_once(":line ")?;
    let (_, file) = file.rsplit_once(" in ")?;
    place(file, number)
}

/// `at barn.BarnTest.oneTooMany(BarnTest.java:24)`, `at Object.toBe (/src/barn.test.js:5:53)`
fn parenthesised(line: &str) -> Option<Place> {
    let line = line.strip_prefix("at ")?;
    let (_, rest) = line.rsplit_once('(')?;
    numbered(rest.strip_suffix(')')?)
}

/// `at /src/barn.test.js:5:53`, `at Context.<fn> file:///src/barn.test.js:5:53`
fn bare(line: &str) -> Option<Place> {
    let line = line.strip_prefix("at ")?;
    numbered(line.rsplit(' ').next()?)
}

/// `FILE:LINE` or `FILE:LINE:COLUMN`.
fn numbered(text: &str) -> Option<Place> {
    let text = text.strip_prefix("file://").unwrap_or(text);
    let (rest, last) = text.rsplit_once(':')?;
    match rest.rsplit_once(':') {
        Some((file, line)) if line.parse::<u32>().is_ok() => place(file, line),
        _ => place(rest, last),
    }
}

fn place(file: &str, line: &str) -> Option<Place> {
    let line = line.trim().parse().ok()?;
    let is_file = !file.is_empty() && file.contains('.');
    is_file.then(|| Place {
        file: cut(file, NAME_CHARACTERS_MAX).to_owned(),
        line: Some(line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(trace: &str, expected: Option<(&str, u32)>) {
        let found = in_trace(trace);
        let expected = expected.map(|(file, line)| Place {
            file: file.to_owned(),
            line: Some(line),
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn each_language_says_the_place_in_its_way() {
        check(
            "def test():\n>  assert False\nE  assert False\n\ntests/test_a.py:11: AssertionError\n",
            Some(("tests/test_a.py", 11)),
        );
        check(
            "   at Barn.Tests.Full() in C:\\src\\Barn Tests.cs:line 12\r\n",
            Some(("C:\\src\\Barn Tests.cs", 12)),
        );
        check(
            "java.lang.AssertionError: x\n\tat org.testng.Assert.fail(Assert.java:99)\n\
             \tat barn.BarnTest.full(BarnTest.java:24)",
            Some(("BarnTest.java", 24)),
        );
        check(
            "Error: x\n    at new Promise (<anonymous>)\n    at Object.toBe (/src/a.test.js:5:53)",
            Some(("/src/a.test.js", 5)),
        );
        check("at file:///src/a.mjs:7:1", Some(("/src/a.mjs", 7)));
    }

    #[test]
    fn what_is_no_trace_has_no_place() {
        for text in [
            "",
            "expected 5: got 6",
            "at noon: 12",
            "at (x:1:2)",
            ":line 4",
            "at .:x",
        ] {
            check(text, None);
        }
    }
}
