//! JUnit's XML: `<testsuites>` or `<testsuite>`, suites in suites, `<testcase>`.
//!
//! Counts in attributes are not believed, the cases are counted: the attributes of real tools differ in
//! what they include.

use crate::cases::{Case, CaseStatus, Gathering, MESSAGE_BYTES_MAX, Place, TestReport};
use crate::parse::ParseError;
use crate::read::{joined, locate, nanoseconds};
use crate::xml::{Element, Xml};

pub(crate) fn junit(text: &str) -> Result<TestReport, ParseError> {
    let mut xml = Xml::new(text);
    let root = xml.root(&["testsuite", "testsuites"])?;
    let mut reading = Reading {
        xml,
        gathering: Gathering::new(),
    };
    let scope = Scope::default();
    let scope = match root.is("testsuite") {
        true => scope.inside(&root),
        false => scope,
    };
    reading.suite(&scope)?;
    Ok(reading.gathering.finish())
}

/// What cases have from the suites that they are in.
#[derive(Clone, Default)]
struct Scope {
    suite: String,
    file: Option<String>,
}

impl Scope {
    fn inside(&self, suite: &Element<'_>) -> Self {
        let name = suite.text_of("name");
        let file = suite
            .attribute("file")
            .or_else(|| suite.attribute("filepath"));
        Self {
            suite: if name.trim().is_empty() {
                self.suite.clone()
            } else {
                name.into_owned()
            },
            file: file
                .map(std::borrow::Cow::into_owned)
                .or_else(|| self.file.clone()),
        }
    }
}

struct Reading<'a> {
    xml: Xml<'a>,
    gathering: Gathering,
}

impl Reading<'_> {
    /// The open suite. Its depth is bounded by that of elements.
    fn suite(&mut self, scope: &Scope) -> Result<(), ParseError> {
        while let Some(element) = self.xml.child()? {
            match element.name() {
                "testsuite" => self.suite(&scope.inside(&element))?,
                "testcase" => self.case(scope, &element)?,
                _ => self.xml.skip()?,
            }
        }
        Ok(())
    }

    fn case(&mut self, scope: &Scope, element: &Element<'_>) -> Result<(), ParseError> {
        let mut case = Case::new(
            &scope.suite,
            &element.text_of("classname"),
            &element.text_of("name"),
        );
        case.nanoseconds = nanoseconds(&element.text_of("time"));
        let file = element
            .attribute("file")
            .or_else(|| element.attribute("filepath"));
        let file = file.map(std::borrow::Cow::into_owned);
        case.place = file.or_else(|| scope.file.clone()).map(|file| Place {
            file,
            line: element.number("line").or_else(|| element.number("lineno")),
        });
        // GoogleTest and CTest say by an attribute that a case did not run.
        if ["notrun", "skipped", "disabled"].contains(&&*element.text_of("status")) {
            case.worsen(CaseStatus::Skipped, "", "");
        }
        while let Some(child) = self.xml.child()? {
            let status = match child.name() {
                "failure" => CaseStatus::Failed,
                "error" => CaseStatus::Error,
                "skipped" | "skip" => CaseStatus::Skipped,
                // Surefire's <flakyFailure> was repaired by a rerun, <rerunFailure> repeats a <failure>.
                _ => {
                    self.xml.skip()?;
                    continue;
                }
            };
            let text = self.xml.text(MESSAGE_BYTES_MAX)?;
            let message = joined(&child.text_of("message"), &text);
            case.worsen(status, &child.text_of("type"), &message);
            locate(&mut case, &text);
        }
        self.gathering.add(case);
        Ok(())
    }
}
