//! What is to be said about buildspecs, with colours and as JSON.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use buildspec::{Diagnostic, Severity};
use serde_json::json;

use super::{json_line, line, out};
use crate::error::CommandError;

/// Remarks about the file `path` with this text, as talk.
pub(crate) fn remarks(path: &str, text: &str, diagnostics: &[Diagnostic]) {
    if !diagnostics.is_empty() {
        out::talk(all(path, text, diagnostics).trim_end());
    }
}

/// A file that was checked: all remarks, or that there are none.
///
/// # Errors
///
/// If standard output does not take it; so for [`checked_json`].
pub(crate) fn checked(
    path: &str,
    text: &str,
    diagnostics: &[Diagnostic],
) -> Result<(), CommandError> {
    if diagnostics.is_empty() {
        return line(&format!("{path}: nothing is wrong with it"));
    }
    out::print(&(all(path, text, diagnostics) + "\n"))
}

/// The same as an object on a line.
pub(crate) fn checked_json(path: &str, diagnostics: &[Diagnostic]) -> Result<(), CommandError> {
    let is_error = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
    json_line(&json!({
        "file": path,
        "ok": !diagnostics.iter().any(is_error),
        "diagnostics": diagnostics,
    }))
}

/// All remarks, an empty line between two.
fn all(path: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    let mut shown = String::new();
    for (at, diagnostic) in diagnostics.iter().enumerate() {
        if at > 0 {
            shown.push('\n');
        }
        let severity = diagnostic.severity.as_str();
        let color = match diagnostic.severity {
            Severity::Error => AnsiColor::Red,
            Severity::Warning => AnsiColor::Yellow,
        };
        let style = Style::new().fg_color(Some(color.into())).bold();
        let plain = buildspec::render(text, path, diagnostic);
        let rest = plain.strip_prefix(severity).unwrap_or(&plain);
        let _infallible = write!(shown, "{style}{severity}{style:#}{rest}");
    }
    shown
}
