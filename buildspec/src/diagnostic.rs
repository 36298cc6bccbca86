//! What is to be said about a buildspec: each remark with its place and, where one is known, its repair.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The build can run, but surely not as its author meant.
    Warning,
    /// The build cannot run.
    Error,
}

impl Severity {
    /// The word for it, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A run of characters on one line of the source.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column of the first character, from 1, in characters.
    pub column: usize,
    /// How many characters; 0 if only the start is known.
    pub length: usize,
}

impl Place {
    /// The first character of the file.
    pub const START: Self = Self {
        line: 1,
        column: 1,
        length: 0,
    };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A remark about a buildspec.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong: a lower-case fragment without a full stop, free of control characters.
    pub message: String,
    /// How to put it right; `None` if nobody knows.
    pub hint: Option<String>,
    /// What CodeBuild says of it; `None` if that is not known, or nothing.
    pub codebuild: Option<String>,
}

impl Diagnostic {
    /// Something that the build cannot run with.
    pub fn error(place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place,
            message: message.into(),
            hint: None,
            codebuild: None,
        }
    }

    /// Something that the build can run with.
    pub fn warning(place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(place, message)
        }
    }

    /// The same, with advice.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The same, with CodeBuild's own words.
    #[must_use]
    pub fn with_codebuild(self, says: impl Into<String>) -> Self {
        Self {
            codebuild: Some(says.into()),
            ..self
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = self.severity.as_str();
        write!(f, "{severity} at {}: {}", self.place, self.message)
    }
}

/// How much of a text from the file a message repeats, in characters: enough to recognise it.
const QUOTED_CHARS_MAX: usize = 80;

/// `text` from the file in backticks, fit for a message: on one line, short, without control characters
/// (which could do things to a terminal).
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(QUOTED_CHARS_MAX)
        .flat_map(visible)
        .collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// What to show for `c`: itself, or its escape if it is a control character or turns the writing round.
fn visible(c: char) -> impl Iterator<Item = char> {
    let direction =
        matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let hidden = c.is_control() || direction || c == '\u{feff}';
    let escaped = hidden.then(|| c.escape_default());
    let plain = (!hidden).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// How many characters of a source line are shown: what fits on a common terminal with the margin.
const SHOWN_CHARS_MAX: usize = 100;
/// How many characters before the place are shown of a line that is longer.
const SHOWN_CHARS_BEFORE: usize = 40;

/// A remark in full, for people: what, where, the source line with the place underlined, and the advice.
/// `text` is the file that the remark is about, `path` its name. Ends in a newline; has no colours.
pub fn render(text: &str, path: &str, diagnostic: &Diagnostic) -> String {
    let Diagnostic {
        severity,
        place,
        message,
        hint,
        codebuild,
    } = diagnostic;
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let mut shown = format!(
        "{}: {message}\n{margin}--> {path}:{}:{}\n",
        severity.as_str(),
        place.line,
        place.column
    );
    let line = text
        .lines()
        .nth(place.line.saturating_sub(1))
        .filter(|line| !line.trim().is_empty());
    if let Some(line) = line {
        let (excerpt, before) = excerpt(line.trim_start_matches('\u{feff}'), place.column);
        let room = excerpt.chars().count().saturating_sub(before).max(1);
        let underline = "^".repeat(place.length.clamp(1, room));
        let gap = " ".repeat(before);
        shown += &format!(
            "{margin} |\n{number} | {}\n{margin} | {gap}{underline}\n",
            excerpt.trim_end()
        );
    }
    if let Some(hint) = hint {
        shown += &format!("{margin} = hint: {hint}\n");
    }
    if let Some(says) = codebuild {
        shown += &format!("{margin} = CodeBuild says: {says}\n");
    }
    shown
}

/// The part of `line` around the 1-based `column`, each character one cell wide, and how many
/// characters of it come before that column.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    let cell = |c: char| match c {
        '\t' => ' ',
        c if visible(c).count() > 1 => '\u{fffd}',
        c => c,
    };
    let column = column.saturating_sub(1);
    let long = line.chars().nth(SHOWN_CHARS_MAX).is_some();
    let skipped = if long {
        column.saturating_sub(SHOWN_CHARS_BEFORE)
    } else {
        0
    };
    let shown: String = line
        .chars()
        .skip(skipped)
        .take(SHOWN_CHARS_MAX)
        .map(cell)
        .collect();
    let before = (column - skipped).min(shown.chars().count());
    (shown, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize, length: usize) -> Place {
        Place {
            line,
            column,
            length,
        }
    }

    #[test]
    fn a_rendered_remark_underlines_what_it_is_about() {
        let text = "version: 0.2\nphases:\n  build:\n    comands:\n";
        let diagnostic = Diagnostic::error(at(4, 5, 7), "unknown key `comands` in a phase")
            .with_hint("did you mean `commands`?");
        let expected = "\
error: unknown key `comands` in a phase
 --> buildspec.yml:4:5
  |
4 |     comands:
  |     ^^^^^^^
  = hint: did you mean `commands`?
";
        assert_eq!(render(text, "buildspec.yml", &diagnostic), expected);
    }

    #[test]
    fn a_place_outside_the_text_is_named_without_a_source_line() {
        let diagnostic = Diagnostic::error(at(9, 1, 3), "nothing here");
        assert_eq!(
            render("a: b\n", "x", &diagnostic),
            "error: nothing here\n --> x:9:1\n"
        );
    }

    #[test]
    fn the_underline_stays_on_its_line_and_a_long_line_is_cut_to_the_place() {
        let text = format!("{}oops{}", "a".repeat(500), "b".repeat(500));
        let diagnostic = Diagnostic::error(at(1, 501, 4), "oops");
        let shown = render(&text, "x", &diagnostic);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[3].len(), 4 + 100, "{shown}");
        assert_eq!(lines[3].find("oops"), lines[4].find("^^^^"), "{shown}");
        let wide = render("ab\n", "x", &Diagnostic::error(at(1, 2, 1000), "wide"));
        assert!(wide.contains("|  ^\n"), "{wide}");
    }

    #[test]
    fn nothing_from_the_file_can_reach_the_terminal_as_a_control_sequence() {
        let text = "a: \"\u{1b}[2J\u{202e}\"\n";
        let diagnostic = Diagnostic::error(at(1, 4, 3), quoted("\u{1b}[2J\u{202e}\n"));
        let shown = render(text, "x", &diagnostic);
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
        assert!(shown.contains(r"`\u{1b}[2J\u{202e}\n`"), "{shown}");
    }
}
