//! Each statement of the language's reference has a test that shows it, or a reason why none could:
//! `tests/conformance/statements.toml`. The tests below it are of statements that no other test shows.

mod artifacts;
mod building;
mod caching;
mod environment;
mod exports;
mod fanout;
mod language;
mod log;
mod phases;
mod reports;
mod runtimes;
mod shell;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde::Deserialize;

/// The statements.
const STATEMENTS: &str = include_str!("../conformance/statements.toml");

/// The parts of the reference that the table is of.
const PARTS: &[&str] = &["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    statement: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    id: String,
    says: String,
    evidence: Evidence,
    place: String,
    /// The test that shows it: the path of its file with `::` for `/`, and the name of its function.
    test: Option<String>,
    status: Option<Status>,
    no_test: Option<String>,
}

#[derive(Deserialize)]
enum Evidence {
    D,
    O,
    #[serde(rename = "DO")]
    Both,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// The test exists.
    Shown,
    /// The test is still to be written, under about this name.
    Expected,
}

fn table() -> Vec<Statement> {
    toml::from_str::<Table>(STATEMENTS).unwrap().statement
}

/// What is wrong with a row by itself.
fn mistake(statement: &Statement) -> Option<&'static str> {
    let Statement {
        test,
        status,
        no_test,
        says,
        place,
        ..
    } = statement;
    let written = [Some(says), Some(place), test.as_ref(), no_test.as_ref()];
    if written.into_iter().flatten().any(|text| text.is_empty()) {
        return Some("something is empty");
    }
    match (test, status, no_test) {
        (Some(_), Some(_), None) | (None, None, Some(_)) => None,
        (Some(_), None, None) => Some("its test has no status"),
        (None, None, None) => Some("it has neither a test nor a reason"),
        _ => Some("it has a reason beside a test or a status"),
    }
}

/// Whether the function is there and a test. Whether it shows the statement, only a reader can tell.
fn exists(test: &str) -> bool {
    let Some((file, name)) = test.rsplit_once("::") else {
        return false;
    };
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let text = fs::read_to_string(format!("{root}/{}.rs", file.replace("::", "/")));
    let Ok(text) = text else { return false };
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else {
        return false;
    };
    // Right above it are its attributes and comments, and nothing else is.
    let (before, _) = before.rsplit_once('\n').unwrap_or_default();
    let lines = before.lines().rev().map(str::trim_start);
    let mut above = lines.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    above.any(|line| {
        matches!(line, "#[test]" | "#[tokio::test]") || line.starts_with("#[tokio::test(")
    })
}

#[test]
fn each_statement_has_a_test_or_a_reason() {
    let table = table();
    let mut broken = Vec::new();
    let mut ids = BTreeSet::new();
    for statement in &table {
        let id = &statement.id;
        if !ids.insert(id) {
            broken.push(format!("{id}: the id is there twice"));
        }
        let part = id.split('.').next().unwrap_or_default();
        let ordinal = id.rsplit('-').next().unwrap_or_default();
        if !PARTS.contains(&part) || ordinal.parse::<u32>().is_err() {
            broken.push(format!("{id}: it does not name a part and an ordinal"));
        }
        if let Some(mistake) = mistake(statement) {
            broken.push(format!("{id}: {mistake}"));
        }
        let shown = statement.status == Some(Status::Shown);
        let test = statement.test.as_deref().unwrap_or_default();
        if shown && !exists(test) {
            broken.push(format!("{id}: there is no test `{test}`"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_ordinal_is_missing() {
    let mut ordinals: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for statement in table() {
        let (section, ordinal) = statement.id.rsplit_once('-').unwrap();
        let section = ordinals.entry(section.to_owned()).or_default();
        section.push(ordinal.parse().unwrap());
    }
    for part in PARTS {
        let mut sections = ordinals.keys();
        assert!(
            sections.any(|section| section.starts_with(part)),
            "{part} has no statements"
        );
    }
    for (section, found) in ordinals {
        let all: Vec<_> = (1..).take(found.len()).collect();
        assert_eq!(found, all, "{section}");
    }
}

#[test]
fn every_statement_has_its_test_or_a_reason_why_not() {
    let table = table();
    let count = |status| {
        table
            .iter()
            .filter(|row| row.status == Some(status))
            .count()
    };
    let (shown, expected) = (count(Status::Shown), count(Status::Expected));
    let observed = |row: &&Statement| matches!(row.evidence, Evidence::O | Evidence::Both);
    testkit::tell(&format!(
        "{} statements, {} of them observed: {shown} shown, {expected} still to be shown, {} with a \
         reason why not",
        table.len(),
        table.iter().filter(observed).count(),
        table.len() - shown - expected,
    ));
    assert_eq!(expected, 0, "statements that have no test yet");
}
