//! JaCoCo's XML: counters by source file, and its lines.

use std::collections::BTreeMap;

use crate::coverage::{Count, CoverageReport, FileCoverage};
use crate::parse::ParseError;
use crate::xml::{Element, Xml};

pub(crate) fn jacoco(text: &str) -> Result<CoverageReport, ParseError> {
    let mut xml = Xml::new(text);
    xml.root(&["report"])?;
    let mut reading = Reading {
        xml,
        report: CoverageReport::default(),
    };
    reading.level("", "")?;
    Ok(reading.report)
}

struct Reading<'a> {
    xml: Xml<'a>,
    report: CoverageReport,
}

impl Reading<'_> {
    /// Groups hold groups and packages; packages hold source files. Files of groups that are modules
    /// may have one name, so the group's is before it.
    fn level(&mut self, group: &str, package: &str) -> Result<(), ParseError> {
        while let Some(element) = self.xml.child()? {
            let name = element.text_of("name");
            match element.name() {
                "group" => self.level(&under(group, &name), package)?,
                "package" => self.level(group, &name)?,
                "sourcefile" => {
                    let path = under(&under(group, package), &name);
                    let file = self.source_file()?;
                    self.report.insert(&path, file);
                }
                _ => self.xml.skip()?,
            }
        }
        Ok(())
    }

    fn source_file(&mut self) -> Result<FileCoverage, ParseError> {
        let mut counters = BTreeMap::new();
        let (mut covered, mut missed) = (Vec::new(), Vec::new());
        let mut file = FileCoverage::default();
        while let Some(element) = self.xml.child()? {
            match element.name() {
                "line" => {
                    let number: u32 = element.number("nr").unwrap_or(0);
                    match element.number::<u64>("ci").unwrap_or(0) {
                        0 => missed.push(number),
                        _ => covered.push(number),
                    }
                    let branches = count(&element, "cb", "mb");
                    if 0 < branches.total() {
                        file.line_branches.insert(number, branches);
                    }
                }
                "counter" => {
                    let kind = element.text_of("type").into_owned();
                    // Only these are looked for, so no others are held.
                    if kind == "LINE" || kind == "BRANCH" {
                        counters.insert(kind, count(&element, "covered", "missed"));
                    }
                }
                _ => {}
            }
            self.xml.skip()?;
        }
        file.lines = counters.remove("LINE").unwrap_or_default();
        file.branches = counters.remove("BRANCH").unwrap_or_default();
        file.covered_lines = covered.into_iter().collect();
        file.missed_lines = missed.into_iter().collect();
        Ok(file)
    }
}

fn count(element: &Element<'_>, covered: &str, missed: &str) -> Count {
    Count {
        covered: element.number(covered).unwrap_or(0),
        missed: element.number(missed).unwrap_or(0),
    }
}

fn under(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", name) => name.to_owned(),
        (directory, "") => directory.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}
