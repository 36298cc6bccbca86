//! Cucumber's JSON: a list of features, their scenarios, their steps with results in nanoseconds.
//!
//! A scenario is as bad as its worst step, hooks included. Steps that nobody defined, or several, are
//! errors: Cucumber's own run fails on them.

use crate::cases::{Case, CaseStatus, Gathering, Place, TestReport};
use crate::json::{self, Json};
use crate::parse::ParseError;
use crate::read::locate;

pub(crate) fn cucumber(text: &str) -> Result<TestReport, ParseError> {
    let json = json::parse(text)?;
    let Json::List(features) = &json else {
        return Err(unexpected("the file", "a list of features", &json));
    };
    let mut gathering = Gathering::new();
    for (at, feature) in features.iter().enumerate() {
        let Json::Object(_) = feature else {
            return Err(unexpected(&format!("[{at}]"), "a feature", feature));
        };
        let elements = feature.of("elements");
        let (Json::List(_) | Json::Null) = elements else {
            let path = format!("[{at}].elements");
            return Err(unexpected(&path, "a list of scenarios", elements));
        };
        let mut background: &[Json] = &[];
        for element in elements.list() {
            // Ruby's Cucumber writes the background as an element of its own before each scenario.
            if element.of("type").text() == "background" {
                background = element.of("steps").list();
            } else {
                gathering.add(scenario(feature, background, element));
                background = &[];
            }
        }
    }
    Ok(gathering.finish())
}

fn unexpected(path: &str, expected: &'static str, found: &Json) -> ParseError {
    ParseError::UnexpectedValue {
        path: path.to_owned(),
        expected,
        found: found.kind(),
    }
}

fn scenario(feature: &Json, background: &[Json], scenario: &Json) -> Case {
    let (suite, name) = (feature.of("name").text(), scenario.of("name").text());
    let mut case = Case::new(suite, "", name);
    let uri = feature.of("uri").text();
    let line = |element: &Json| {
        let line = element.of("line").number()?;
        format!("{line}").parse::<u32>().ok()
    };
    if !uri.is_empty() {
        case.place = Some(Place {
            file: uri.to_owned(),
            line: line(scenario),
        });
    }
    let before = scenario.of("before").list().iter();
    let steps = before
        .chain(background)
        .chain(scenario.of("steps").list())
        .chain(scenario.of("after").list());
    let mut seconds = 0.0;
    for step in steps {
        let result = step.of("result");
        seconds += result.of("duration").number().unwrap_or(0.0).max(0.0) / 1e9;
        let message = result.of("error_message").text();
        let before = case.status;
        case.worsen(status(result.of("status").text()), "", &said(step, message));
        if case.status < before && case.status.is_failing() {
            if let (Some(place), Some(line)) = (&mut case.place, line(step)) {
                place.line = Some(line);
            }
            // The step in the feature file is where a reader looks first; without one, the trace.
            if case.place.is_none() {
                locate(&mut case, message);
            }
        }
    }
    case.nanoseconds = super::nanoseconds(&seconds.to_string());
    case
}

fn said(step: &Json, message: &str) -> String {
    let (keyword, name) = (step.of("keyword").text(), step.of("name").text());
    format!("{keyword}{name}\n{message}")
}

fn status(text: &str) -> CaseStatus {
    match text.to_ascii_lowercase().as_str() {
        "passed" => CaseStatus::Succeeded,
        "failed" => CaseStatus::Failed,
        "ambiguous" | "undefined" => CaseStatus::Error,
        "pending" | "skipped" => CaseStatus::Skipped,
        _ => CaseStatus::Unknown,
    }
}
