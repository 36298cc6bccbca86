//! NUnit's XML: `<test-results>` of version 2, `<test-run>` of version 3.

use crate::cases::{Case, CaseStatus, Gathering, MESSAGE_BYTES_MAX, TestReport};
use crate::parse::ParseError;
use crate::read::{locate, nanoseconds};
use crate::xml::{Element, Xml};

/// Version 2: suites hold `<results>`, which hold suites and cases.
pub(crate) fn nunit2(text: &str) -> Result<TestReport, ParseError> {
    let mut xml = Xml::new(text);
    xml.root(&["test-results"])?;
    let mut reading = Reading {
        xml,
        gathering: Gathering::new(),
        status: status2,
    };
    reading.suite("", "")?;
    Ok(reading.gathering.finish())
}

/// Version 3: suites hold suites and cases.
pub(crate) fn nunit3(text: &str) -> Result<TestReport, ParseError> {
    let mut xml = Xml::new(text);
    xml.root(&["test-run"])?;
    let mut reading = Reading {
        xml,
        gathering: Gathering::new(),
        status: status3,
    };
    reading.suite("", "")?;
    Ok(reading.gathering.finish())
}

fn status2(case: &Element<'_>) -> CaseStatus {
    match &*case.text_of("result") {
        "Success" => CaseStatus::Succeeded,
        "Failure" => CaseStatus::Failed,
        "Error" | "NotRunnable" | "Cancelled" => CaseStatus::Error,
        "Ignored" | "Skipped" => CaseStatus::Skipped,
        // Before 2.5 there was no `result`, only whether it ran and whether it went well.
        "" if case.text_of("executed") == "False" => CaseStatus::Skipped,
        "" if case.text_of("success") == "True" => CaseStatus::Succeeded,
        "" if case.text_of("success") == "False" => CaseStatus::Failed,
        _ => CaseStatus::Unknown,
    }
}

fn status3(case: &Element<'_>) -> CaseStatus {
    match (&*case.text_of("result"), &*case.text_of("label")) {
        // A warning does not make NUnit's own run fail.
        ("Passed" | "Warning", _) => CaseStatus::Succeeded,
        ("Failed", "Error" | "Invalid" | "Cancelled") => CaseStatus::Error,
        ("Failed", _) => CaseStatus::Failed,
        ("Skipped", _) => CaseStatus::Skipped,
        _ => CaseStatus::Unknown,
    }
}

struct Reading<'a> {
    xml: Xml<'a>,
    gathering: Gathering,
    status: fn(&Element<'_>) -> CaseStatus,
}

impl Reading<'_> {
    /// The open suite: cases go by the assembly that they are in and by their class.
    fn suite(&mut self, assembly: &str, class: &str) -> Result<(), ParseError> {
        while let Some(element) = self.xml.child()? {
            match element.name() {
                "test-suite" => {
                    let name = element.text_of("fullname");
                    let name = match name.is_empty() {
                        true => element.text_of("name"),
                        false => name,
                    };
                    let is_first = assembly.is_empty();
                    let assembly = if is_first { short(&name) } else { assembly };
                    match is_first {
                        true => self.suite(assembly, class)?,
                        false => self.suite(assembly, &name)?,
                    }
                }
                "results" => self.suite(assembly, class)?,
                "test-case" => self.case(assembly, class, &element)?,
                _ => self.xml.skip()?,
            }
        }
        Ok(())
    }

    fn case(
        &mut self,
        assembly: &str,
        suite: &str,
        element: &Element<'_>,
    ) -> Result<(), ParseError> {
        let full = element.text_of("name");
        let class = element.attribute("classname");
        // Version 2 has the class in the name only, which may have dots in its arguments.
        let stem = full.split(['(', '"']).next().unwrap_or_default();
        let (class, name) = match (class, stem.rfind('.')) {
            (Some(class), _) => (class.into_owned(), &*full),
            (None, Some(dot)) if element.attribute("fullname").is_none() => {
                (full[..dot].to_owned(), &full[dot + 1..])
            }
            (None, _) => (suite.to_owned(), &*full),
        };
        let mut case = Case::new(assembly, &class, name);
        let time = element
            .attribute("duration")
            .or_else(|| element.attribute("time"));
        case.nanoseconds = nanoseconds(&time.unwrap_or_default());
        let status = (self.status)(element);
        let (mut message, mut trace) = (String::new(), String::new());
        while let Some(child) = self.xml.child()? {
            if !child.is("failure") && !child.is("reason") {
                self.xml.skip()?;
                continue;
            }
            while let Some(part) = self.xml.child()? {
                let text = self.xml.text(MESSAGE_BYTES_MAX)?;
                match part.name() {
                    "message" if message.trim().is_empty() => message = text,
                    "stack-trace" => trace = text,
                    _ => {}
                }
            }
        }
        let both = format!("{}\n{}", message.trim(), trace.trim());
        case.worsen(status, "", &both);
        locate(&mut case, &both);
        self.gathering.add(case);
        Ok(())
    }
}

/// An assembly without the directory that it was built in.
fn short(path: &str) -> &str {
    let is_library = [".dll", ".exe"].iter().any(|end| path.ends_with(end));
    match path.rfind(['/', '\\']) {
        Some(at) if is_library => &path[at + 1..],
        _ => path,
    }
}
