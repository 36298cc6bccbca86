//! Reports: totals, what failed and where, what was slow, what is not covered, what changed.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use protocol::arn;
use report::{
    Case, CaseName, Comparison, Count, CoverageChange, CoverageReport, Report, TestReport,
};
use serde_json::json;

use super::{json_line, out, text::span};
use crate::{command::reports::Shown, error::CommandError};

/// How many failures are shown, and how many names of what changed.
const CASES_SHOWN: usize = 50;
/// How many lines of a failure's message are shown: the rest is in the JSON.
const MESSAGE_LINES_SHOWN: usize = 12;
/// How many of the slowest cases are shown.
const SLOWEST_SHOWN: usize = 5;
/// How many files are shown, the least covered first.
const FILES_SHOWN: usize = 20;

/// `grange reports`: one of them.
pub(crate) fn report(shown: &Shown, json: bool) -> Result<(), CommandError> {
    let published = &shown.published;
    if json {
        let since = shown.since.as_ref();
        return json_line(&json!({
            "arn": arn::of_report(&published.group, shown.build),
            "group_arn": arn::of_report_group(&published.group),
            "report": published,
            "unit": shown.unit,
            "before": since.map(|(build, _)| build), "changes": since.map(|(_, changes)| changes),
        }));
    }
    let color = match published.report.has_failed() {
        true => AnsiColor::Red,
        false => AnsiColor::Green,
    };
    let style = Style::new().fg_color(Some(color.into())).bold();
    let unit = shown.unit.iter().map(|unit| format!("{unit}: "));
    let mut text = format!(
        "{}{style}{}{style:#} ({}) {}\n",
        unit.collect::<String>(),
        plain(&published.group),
        published.format,
        published.report.summary()
    );
    match &published.report {
        Report::Test(report) => text += &tests(report),
        Report::CodeCoverage(report) => text += &coverage(report),
    }
    if let Some((build, changes)) = &shown.since {
        text += &format!("  since {build}: {}", changed(changes));
    }
    out::print(&text)
}

fn tests(report: &TestReport) -> String {
    let mut text = String::new();
    let failing = report.failing();
    for case in failing.iter().take(CASES_SHOWN) {
        text += &failure(case);
    }
    text += &left_out(failing.len(), CASES_SHOWN, "that fail");
    let slowest = report.slowest(SLOWEST_SHOWN);
    if !slowest.is_empty() {
        text += "  slowest:\n";
    }
    for case in slowest {
        let time = span(Duration::from_nanos(case.nanoseconds));
        text += &format!("    {time:>8}  {}\n", named(&case.prefix, &case.name));
    }
    if report.truncated {
        text += "  not all cases are kept; the totals count all\n";
    }
    text
}

fn failure(case: &Case) -> String {
    let place = case.place.as_ref().map(|place| match place.line {
        Some(line) => format!(" ({}:{line})", plain(&place.file)),
        None => format!(" ({})", plain(&place.file)),
    });
    let mut text = format!(
        "  {} {}{}\n",
        case.status.as_str(),
        named(&case.prefix, &case.name),
        place.unwrap_or_default()
    );
    let message = case.message.as_deref().unwrap_or_default();
    for line in message.lines().take(MESSAGE_LINES_SHOWN) {
        text += &format!("      {}\n", plain(line));
    }
    if MESSAGE_LINES_SHOWN < message.lines().count() {
        text += "      …\n";
    }
    text
}

fn coverage(report: &CoverageReport) -> String {
    let mut files: Vec<_> = report.files.iter().collect();
    files.retain(|(_, file)| 0 < file.lines.missed);
    files.sort_by_key(|(_, file)| std::cmp::Reverse(file.lines.missed));
    let mut text = String::new();
    for (path, file) in files.iter().take(FILES_SHOWN) {
        let missed = match file.missed_lines.is_empty() {
            true => String::new(),
            false => format!("  missed {}", file.missed_lines),
        };
        text += &format!("  {:>7}  {}{missed}\n", share(&file.lines), plain(path));
    }
    text + &left_out(files.len(), FILES_SHOWN, "with lines that were missed")
}

/// What changed, on a line and then by name.
fn changed(changes: &Comparison) -> String {
    if let Some(coverage) = &changes.coverage {
        return coverage_changed(coverage);
    }
    let lists: [(&str, &[CaseName]); 5] = [
        ("newly failing", &changes.newly_failing),
        ("still failing", &changes.still_failing),
        ("repaired", &changes.repaired),
        ("new", &changes.added),
        ("gone", &changes.gone),
    ];
    let mut counts: Vec<_> = lists
        .iter()
        .filter(|(_, cases)| !cases.is_empty())
        .map(|(word, cases)| format!("{} {word}", cases.len()))
        .collect();
    if !changes.slower.is_empty() {
        counts.push(format!("{} slower", changes.slower.len()));
    }
    if counts.is_empty() {
        return "nothing changed\n".to_owned();
    }
    let mut text = format!("{}\n", counts.join(", "));
    for (word, cases) in lists {
        for case in cases.iter().take(CASES_SHOWN) {
            text += &format!("    {word}: {}\n", named(&case.prefix, &case.name));
        }
        text += &left_out(cases.len(), CASES_SHOWN, word);
    }
    for slower in changes.slower.iter().take(SLOWEST_SHOWN) {
        let name = named(&slower.case.prefix, &slower.case.name);
        let (before, after) = (slower.before, slower.after);
        let [before, after] = [before, after].map(|time| span(Duration::from_nanos(time)));
        text += &format!("    slower: {name}: {before}, now {after}\n");
    }
    text
}

fn coverage_changed(changes: &CoverageChange) -> String {
    let pair = |what: &str, before: &Count, after: &Count| match before == after {
        true => format!("{what} as before"),
        false => format!("{what} {}, now {}", share(before), share(after)),
    };
    let lines = pair("lines", &changes.lines_before, &changes.lines_after);
    let branches = pair(
        "branches",
        &changes.branches_before,
        &changes.branches_after,
    );
    let mut text = format!("{lines}; {branches}\n");
    for file in changes.files.iter().take(FILES_SHOWN) {
        let of = |count: &Option<Count>| count.as_ref().map_or_else(|| "none".to_owned(), share);
        let (before, after) = (of(&file.before), of(&file.after));
        text += &format!("    {}: {before}, now {after}\n", plain(&file.path));
    }
    text + &left_out(changes.files.len(), FILES_SHOWN, "that changed")
}

fn share(count: &Count) -> String {
    let percentage = count.percentage();
    percentage.map_or_else(|| "nothing".to_owned(), |share| format!("{share:.1} %"))
}

fn left_out(count: usize, shown: usize, what: &str) -> String {
    match count.saturating_sub(shown) {
        0 => String::new(),
        more => format!("  … and {more} more {what}\n"),
    }
}

fn named(prefix: &str, name: &str) -> String {
    match prefix.is_empty() {
        true => plain(name),
        false => format!("{} {}", plain(prefix), plain(name)),
    }
}

/// Text of a report without what a terminal would act on.
fn plain(text: &str) -> String {
    let shown = |character: char| match character {
        '\t' => ' ',
        character if character.is_control() => '\u{FFFD}',
        character => character,
    };
    text.chars().map(shown).collect()
}
