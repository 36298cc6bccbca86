//! Visual Studio's test results: `<TestRun>` with results, and definitions that say their classes.

use std::collections::BTreeMap;

use crate::cases::{Case, CaseStatus, Gathering, MESSAGE_BYTES_MAX, TestReport};
use crate::parse::ParseError;
use crate::read::{joined, locate, nanoseconds};
use crate::xml::{Element, Xml};

pub(crate) fn trx(text: &str) -> Result<TestReport, ParseError> {
    let classes = classes(text)?;
    let mut xml = Xml::new(text);
    xml.root(&["TestRun"])?;
    let mut reading = Reading {
        xml,
        classes,
        gathering: Gathering::new(),
    };
    while let Some(section) = reading.xml.child()? {
        match section.name() {
            "Results" => {
                reading.results()?;
            }
            _ => reading.xml.skip()?,
        }
    }
    Ok(reading.gathering.finish())
}

/// Where a test is defined.
#[derive(Default)]
struct Definition {
    assembly: String,
    class: String,
}

/// The definitions by their id. They may stand after the results, so the file is read twice.
fn classes(text: &str) -> Result<BTreeMap<String, Definition>, ParseError> {
    let mut xml = Xml::new(text);
    let mut classes = BTreeMap::new();
    xml.root(&["TestRun"])?;
    while let Some(section) = xml.child()? {
        if !section.is("TestDefinitions") {
            xml.skip()?;
            continue;
        }
        while let Some(test) = xml.child()? {
            let mut definition = Definition::default();
            while let Some(part) = xml.child()? {
                if part.is("TestMethod") {
                    // Some loggers write the assembly's full name after the class.
                    let class = part.text_of("className");
                    let class = class.split(',').next().unwrap_or_default();
                    definition.class = class.to_owned();
                    let code = part.text_of("codeBase");
                    let file = code.rsplit(['/', '\\']).next().unwrap_or_default();
                    definition.assembly = file.to_owned();
                }
                xml.skip()?;
            }
            classes.insert(test.text_of("id").into_owned(), definition);
        }
    }
    Ok(classes)
}

struct Reading<'a> {
    xml: Xml<'a>,
    classes: BTreeMap<String, Definition>,
    gathering: Gathering,
}

impl Reading<'_> {
    /// The results that are open; how many there were.
    fn results(&mut self) -> Result<usize, ParseError> {
        let mut results = 0;
        while let Some(element) = self.xml.child()? {
            if element.name().ends_with("Result") || element.is("TestResultAggregation") {
                self.result(&element)?;
                results += 1;
            } else {
                self.xml.skip()?;
            }
        }
        Ok(results)
    }

    fn result(&mut self, element: &Element<'_>) -> Result<(), ParseError> {
        let unknown = Definition::default();
        let definition = self.classes.get(&*element.text_of("testId"));
        let definition = definition.unwrap_or(&unknown);
        let full = element.text_of("testName");
        let name = full
            .strip_prefix(&*definition.class)
            .and_then(|name| name.strip_prefix('.'))
            .unwrap_or(&full);
        let mut case = Case::new(&definition.assembly, &definition.class, name);
        case.nanoseconds = clock(&element.text_of("duration"));
        let status = match &*element.text_of("outcome") {
            "Passed" | "PassedButRunAborted" | "Completed" | "Warning" => CaseStatus::Succeeded,
            "Failed" => CaseStatus::Failed,
            "Error" | "Timeout" | "Aborted" | "NotRunnable" | "Disconnected" => CaseStatus::Error,
            "NotExecuted" | "Skipped" | "Pending" | "InProgress" => CaseStatus::Skipped,
            // The schema's default is that the runner could not carry the test out.
            "" => CaseStatus::Error,
            _ => CaseStatus::Unknown,
        };
        let (mut message, mut trace) = (String::new(), String::new());
        let mut rows = 0;
        while let Some(child) = self.xml.child()? {
            match child.name() {
                "Output" => (message, trace) = self.output()?,
                "InnerResults" => rows += self.results()?,
                _ => self.xml.skip()?,
            }
        }
        // A test over rows is as many cases as it has rows, and not one more for all of them.
        if rows == 0 {
            case.worsen(status, "", &joined(&message, &trace));
            let whole = format!("{trace}\n{message}");
            locate(&mut case, &whole);
            self.gathering.add(case);
        }
        Ok(())
    }

    /// The message and trace of an open `<Output>`.
    fn output(&mut self) -> Result<(String, String), ParseError> {
        let (mut message, mut trace) = (String::new(), String::new());
        while let Some(child) = self.xml.child()? {
            if !child.is("ErrorInfo") {
                self.xml.skip()?;
                continue;
            }
            while let Some(part) = self.xml.child()? {
                let text = self.xml.text(MESSAGE_BYTES_MAX)?;
                match part.name() {
                    "Message" => message = text,
                    "StackTrace" => trace = text,
                    _ => {}
                }
            }
        }
        Ok((message, trace))
    }
}

/// Nanoseconds of `hh:mm:ss.fffffff`; 0, if it is none.
fn clock(text: &str) -> u64 {
    let mut parts = text.trim().rsplit(':');
    let seconds = nanoseconds(parts.next().unwrap_or_default());
    let whole = |part: Option<&str>| part.and_then(|part| part.parse::<u64>().ok()).unwrap_or(0);
    let minutes = whole(parts.next());
    let minutes = whole(parts.next())
        .saturating_mul(60)
        .saturating_add(minutes);
    minutes
        .saturating_mul(60_000_000_000)
        .saturating_add(seconds)
}

#[cfg(test)]
mod tests {
    use super::clock;

    #[test]
    fn durations_are_read_as_clocks() {
        assert_eq!(clock("00:00:00.0060000"), 6_000_000);
        assert_eq!(clock("01:02:03.5"), 3_723_500_000_000);
        assert_eq!(clock(""), 0);
        assert_eq!(clock("soon"), 0);
        assert_eq!(
            clock("99999999999999999999:99:99"),
            99 * 60_000_000_000 + 99_000_000_000
        );
    }
}
