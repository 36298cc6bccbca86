//! TestNG's own XML: suites, tests, classes, methods. Methods that only configure are not tests.

use crate::cases::{Case, CaseStatus, Gathering, MESSAGE_BYTES_MAX, TestReport};
use crate::parse::ParseError;
use crate::read::{joined, locate};
use crate::xml::{Element, Xml};

pub(crate) fn testng(text: &str) -> Result<TestReport, ParseError> {
    let mut xml = Xml::new(text);
    xml.root(&["testng-results"])?;
    let mut reading = Reading {
        xml,
        gathering: Gathering::new(),
    };
    reading.level("", "")?;
    Ok(reading.gathering.finish())
}

struct Reading<'a> {
    xml: Xml<'a>,
    gathering: Gathering,
}

impl Reading<'_> {
    fn level(&mut self, suite: &str, class: &str) -> Result<(), ParseError> {
        while let Some(element) = self.xml.child()? {
            match element.name() {
                "suite" => self.level(&element.text_of("name"), class)?,
                "test" => self.level(suite, class)?,
                "class" => self.level(suite, &element.text_of("name"))?,
                "test-method" if element.text_of("is-config") != "true" => {
                    self.method(suite, class, &element)?;
                }
                _ => self.xml.skip()?,
            }
        }
        Ok(())
    }

    fn method(
        &mut self,
        suite: &str,
        class: &str,
        element: &Element<'_>,
    ) -> Result<(), ParseError> {
        let mut parameters = Vec::new();
        let (mut kind, mut message, mut trace) = (String::new(), String::new(), String::new());
        while let Some(child) = self.xml.child()? {
            match child.name() {
                "params" => {
                    while let Some(_parameter) = self.xml.child()? {
                        parameters.push(self.xml.text(PARAMETER_BYTES_MAX)?.trim().to_owned());
                    }
                }
                "exception" => {
                    kind = child.text_of("class").into_owned();
                    while let Some(part) = self.xml.child()? {
                        let text = self.xml.text(MESSAGE_BYTES_MAX)?;
                        match part.name() {
                            "message" => message = text,
                            "full-stacktrace" | "short-stacktrace" => trace = text,
                            _ => {}
                        }
                    }
                }
                _ => self.xml.skip()?,
            }
        }
        let mut name = element.text_of("name").into_owned();
        if !parameters.is_empty() {
            parameters.truncate(PARAMETERS_MAX);
            name = format!("{name}({})", parameters.join(", "));
        }
        let mut case = Case::new(suite, class, &name);
        let milliseconds: u64 = element.number("duration-ms").unwrap_or(0);
        case.nanoseconds = milliseconds.saturating_mul(1_000_000);
        let status = match &*element.text_of("status") {
            "PASS" => CaseStatus::Succeeded,
            "FAIL" => CaseStatus::Failed,
            "SKIP" => CaseStatus::Skipped,
            _ => CaseStatus::Unknown,
        };
        case.worsen(status, &kind, &joined(&message, &trace));
        locate(&mut case, &trace);
        self.gathering.add(case);
        Ok(())
    }
}

/// How many parameters become part of a case's name: a name that is longer is cut anyway.
const PARAMETERS_MAX: usize = 50;

/// How many bytes of a parameter are read, for the same reason.
const PARAMETER_BYTES_MAX: usize = 1_000;
