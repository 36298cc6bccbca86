//! Clover's XML: files with metrics and lines, in packages or straight in the project.
//!
//! The metrics of a file are what its tool prints. Lines say which, and count where metrics are missing.

use crate::coverage::{Count, CoverageReport, FileCoverage};
use crate::lines::Lines;
use crate::parse::ParseError;
use crate::xml::{Element, Xml};

pub(crate) fn clover(text: &str) -> Result<CoverageReport, ParseError> {
    let mut xml = Xml::new(text);
    xml.root(&["coverage"])?;
    let mut reading = Reading {
        xml,
        report: CoverageReport::default(),
    };
    reading.level()?;
    Ok(reading.report)
}

struct Reading<'a> {
    xml: Xml<'a>,
    report: CoverageReport,
}

impl Reading<'_> {
    fn level(&mut self) -> Result<(), ParseError> {
        while let Some(element) = self.xml.child()? {
            match element.name() {
                "project" | "package" => self.level()?,
                // Cobertura's, whose first element has the same name.
                "packages" => {
                    return Err(ParseError::Unexpected {
                        at: self.xml.place_of(&element),
                        expected: "<project>",
                        found: "<packages>".to_owned(),
                    });
                }
                "file" => {
                    let path = element.attribute("path");
                    let path = path.unwrap_or_else(|| element.text_of("name"));
                    let file = self.file()?;
                    self.report.insert(&path, file);
                }
                // What tests themselves cover is not what they cover of the project.
                _ => self.xml.skip()?,
            }
        }
        Ok(())
    }

    fn file(&mut self) -> Result<FileCoverage, ParseError> {
        let mut metrics = None;
        let mut file = FileCoverage::default();
        let (mut covered, mut missed) = (Vec::new(), Vec::new());
        while let Some(element) = self.xml.child()? {
            match element.name() {
                "metrics" => metrics = Some(counts(&element)),
                "line" => {
                    let number: u32 = element.number("num").unwrap_or(0);
                    let kind = element.text_of("type");
                    let branches = match &*kind {
                        "cond" => Count {
                            covered: element.number("truecount").unwrap_or(0),
                            missed: element.number("falsecount").unwrap_or(0),
                        },
                        _ => Count::default(),
                    };
                    // A condition that was evaluated ran; Clover itself counts only its two ways.
                    let hits: u64 = element.number("count").unwrap_or(branches.covered);
                    match (&*kind, hits) {
                        ("method", _) => {}
                        (_, 0) => missed.push(number),
                        _ => covered.push(number),
                    }
                    if 0 < branches.total() {
                        file.line_branches.insert(number, branches);
                    }
                }
                _ => {}
            }
            self.xml.skip()?;
        }
        file.covered_lines = covered.into_iter().collect();
        // A line with several statements ran if one of them did.
        let missed: Lines = missed.into_iter().collect();
        file.missed_lines = missed.without(&file.covered_lines);
        let counted = Count {
            covered: file.covered_lines.count(),
            missed: file.missed_lines.count(),
        };
        (file.lines, file.branches) = metrics.unwrap_or_else(|| (counted, Count::default()));
        Ok(file)
    }
}

/// Statements and conditions.
fn counts(metrics: &Element<'_>) -> (Count, Count) {
    let count = |covered, total| {
        let covered = metrics.number(covered).unwrap_or(0);
        Count::of(covered, metrics.number(total).unwrap_or(0))
    };
    (
        count("coveredstatements", "statements"),
        count("coveredconditionals", "conditionals"),
    )
}
