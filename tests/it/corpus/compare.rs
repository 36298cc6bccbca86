//! What the parser found, against what was expected.

use std::fmt::Debug;

use super::{
    expected::{Expected, Reason},
    found::{Facts, Found, Remark},
};

/// A line for each difference.
pub(super) fn differences(expected: &Expected, found: &Found) -> Vec<String> {
    let mut differences = Vec::new();
    match (expected.is_refused(), &found.facts) {
        (true, None) => mistake(expected, &found.errors, &mut differences),
        (true, Some(_)) => differences.push(format!(
            "has to be refused at line {:?} for {:?}, and is accepted",
            expected.line, expected.key
        )),
        (false, None) => differences.push(format!("is refused: {}", first(&found.errors))),
        (false, Some(facts)) => {
            contents(expected, facts, &mut differences);
            warnings(expected, &found.warnings, &mut differences);
        }
    }
    differences
}

fn first(errors: &[Remark]) -> String {
    errors
        .first()
        .map_or_else(|| "without an error".to_owned(), shown)
}

fn shown(remark: &Remark) -> String {
    format!("{}:{} {}", remark.line, remark.column, remark.text)
}

/// Whether the first error is where and what it has to be.
fn mistake(expected: &Expected, errors: &[Remark], differences: &mut Vec<String>) {
    let Some(error) = errors.first() else {
        differences.push("is refused without an error".to_owned());
        return;
    };
    if !expected.line.contains(&error.line) {
        differences.push(format!(
            "the first mistake is at line {:?}, found {}",
            expected.line,
            shown(error)
        ));
    }
    if expected.column.is_some_and(|column| column != error.column) {
        differences.push(format!(
            "the first mistake is at column {:?}, found {}",
            expected.column,
            shown(error)
        ));
    }
    // What is not YAML has no keys to name.
    let key = expected.key.as_deref().unwrap_or_default();
    let word = match expected.reason {
        Some(Reason::Yaml) | None => "",
        Some(Reason::Command) => "command",
        Some(_) => key.rsplit('.').next().unwrap_or_default(),
    };
    if !error.text.contains(word) {
        differences.push(format!("the error has to name {word}: {}", shown(error)));
    }
}

/// Whether an accepted file has what it has to have.
fn contents(expected: &Expected, facts: &Facts, differences: &mut Vec<String>) {
    let mut check = |what: &str, expected: &dyn Debug, found: &dyn Debug| {
        let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
        if expected != found {
            differences.push(format!("{what}: expected {expected}, found {found}"));
        }
    };
    check(
        "version",
        &expected.version.as_deref(),
        &Some(facts.version),
    );
    check("commands", &expected.commands, &facts.commands);
    check("finally", &expected.finally, &facts.finally);
    check("on-failure", &expected.on_failure, &facts.on_failure);
    check("variables", &expected.variables, &facts.variables);
    check(
        "parameter-store",
        &expected.parameter_store,
        &facts.parameter_store,
    );
    check(
        "secrets-manager",
        &expected.secrets_manager,
        &facts.secrets_manager,
    );
    let shell = expected.shell.as_deref().unwrap_or("/bin/sh");
    check("shell", &shell, &facts.shell);
    check("artifacts", &expected.artifacts, &facts.artifacts);
    check("cache paths", &expected.cache_paths, &facts.cache_paths);
    if let Some(found) = &facts.runtimes {
        check("runtimes", &expected.runtimes, found);
    }
    if let Some(found) = &facts.exported {
        check("exported variables", &expected.exported, found);
    }
    if let Some(found) = &facts.secondary {
        check("secondary artifacts", &expected.secondary, found);
    }
    if let Some(found) = &facts.reports {
        check("reports", &expected.reports, found);
    }
    let kind = expected.batch.as_ref().map(|batch| batch.kind.as_str());
    check(
        "batch",
        &kind,
        &facts.batch.as_ref().map(|batch| batch.kind),
    );
    if let Some(found) = facts.batch.as_ref().and_then(|batch| batch.tasks) {
        let tasks = expected.batch.as_ref().map(|batch| batch.tasks);
        check("tasks of the batch", &tasks, &Some(found));
    }
}

/// Whether all that is surely a mistake is warned about, and nothing else.
fn warnings(expected: &Expected, found: &[Remark], differences: &mut Vec<String>) {
    for warning in &expected.warnings {
        let there =
            |remark: &&Remark| remark.line == warning.line && remark.text.contains(&warning.key);
        if !found.iter().any(|remark| there(&remark)) {
            differences.push(format!(
                "no warning at line {} about {}",
                warning.line, warning.key
            ));
        }
    }
    for remark in found {
        let due = expected.warnings.iter().any(|due| due.line == remark.line);
        if !due && !expected.may_warn.contains(&remark.line) {
            differences.push(format!("an undue warning: {}", shown(remark)));
        }
    }
}
