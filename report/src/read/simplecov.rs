//! SimpleCov: `.resultset.json` (results by command name), or the `coverage.json` of its own JSON
//! formatter. Results of several commands are merged line by line.

use std::collections::BTreeMap;

use crate::coverage::{Count, CoverageReport, LineByLine};
use crate::json::{self, Json};
use crate::parse::{ParseError, quoted};

pub(crate) fn simplecov(text: &str) -> Result<CoverageReport, ParseError> {
    let json = json::parse(text)?;
    let Json::Object(entries) = &json else {
        return Err(unexpected("the file", "an object", &json));
    };
    let mut reading = Reading::default();
    if let Json::Object(_) = json.of("coverage")
        && let Json::Object(_) = json.of("meta")
    {
        reading.read(json.of("coverage"), "coverage")?;
        return Ok(reading.finish());
    }
    for (command, result) in entries {
        let path = format!("{}.coverage", quoted(command));
        reading.read(result.of("coverage"), &path)?;
    }
    Ok(reading.finish())
}

fn unexpected(path: &str, expected: &'static str, found: &Json) -> ParseError {
    ParseError::UnexpectedValue {
        path: path.to_owned(),
        expected,
        found: found.kind(),
    }
}

#[derive(Default)]
struct Reading<'a> {
    files: LineByLine,
    ways: BTreeMap<&'a str, Ways>,
}

impl<'a> Reading<'a> {
    /// Files and what is known of them: a list of hits by line, or an object with one under `lines`.
    fn read(&mut self, coverage: &'a Json, path: &str) -> Result<(), ParseError> {
        let Json::Object(entries) = coverage else {
            return Err(unexpected(path, "an object with lines by file", coverage));
        };
        for (file, found) in entries {
            let lines = match found {
                Json::Object(_) => found.of("lines"),
                other => other,
            };
            let Json::List(lines) = lines else {
                let path = format!("{path}.{}", quoted(file));
                return Err(unexpected(&path, "a list of lines", lines));
            };
            self.files.file(file);
            for (hits, number) in lines.iter().zip(1_u32..) {
                // Lines that cannot run are null, those that are left out on purpose a text.
                if let Some(hits) = hits.number() {
                    self.files.line(file, number, 0.0 < hits);
                }
            }
            branches(found.of("branches"), self.ways.entry(file).or_default());
        }
        Ok(())
    }

    fn finish(mut self) -> CoverageReport {
        for (file, ways) in self.ways {
            let mut lines = BTreeMap::<u32, Count>::new();
            for ((line, _), ran) in ways {
                let count = lines.entry(line).or_default();
                match ran {
                    true => count.covered += 1,
                    false => count.missed += 1,
                }
            }
            for (line, count) in lines {
                self.files.branches(file, line, count);
            }
        }
        self.files.finish()
    }
}

/// Which of a file's branches ran, by their line and by what distinguishes them: of several commands,
/// each may have run another.
type Ways = BTreeMap<(u32, String), bool>;

/// Branches are by condition in a result set, `"[:if, 0, 3, 4, 3, 20]": {"[:then, …]": 1, …}`, and a
/// flat list with their lines in the formatter's file.
fn branches(found: &Json, ways: &mut Ways) {
    let mut add = |line: Option<u32>, way: String, hits: &Json| {
        if let (Some(line), Some(hits)) = (line, hits.number()) {
            *ways.entry((line, way)).or_default() |= 0.0 < hits;
        }
    };
    for (condition, found) in found.entries() {
        let line = condition.split(',').nth(2);
        let line = line.and_then(|line| line.trim().parse().ok());
        for (way, hits) in found.entries() {
            add(line, format!("{condition} {way}"), hits);
        }
    }
    for (at, branch) in found.list().iter().enumerate() {
        let line = branch.of("report_line").number();
        let line = line.or_else(|| branch.of("start_line").number());
        let line = line.and_then(|line| format!("{line}").parse().ok());
        add(line, at.to_string(), branch.of("coverage"));
    }
}
