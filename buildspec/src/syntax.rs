//! What is wrong with a text that is no YAML, in words that name the repair.
//!
//! A YAML parser notices a mistake where it can no longer go on, and says so in terms of its own states.
//! Here the line (and the one before it) is looked at again for what people really get wrong; only if
//! nothing is found there, the parser's own words are passed on.

use crate::{
    advice::{in_quotes, missing_space},
    diagnostic::{Diagnostic, Place, quoted},
    yaml::SyntaxError,
};

/// The one error that a text gets that is no YAML.
pub(crate) fn diagnose(text: &str, error: &SyntaxError) -> Diagnostic {
    let lines: Vec<&str> = text.lines().collect();
    let at = error
        .place
        .line
        .saturating_sub(1)
        .min(lines.len().saturating_sub(1));
    let line = Line::of(&lines, at);
    let before = (0..at).rev().find(|&at| !is_blank(lines[at]));
    let before = before.and_then(|at| Line::of(&lines, at));
    let found = unclosed(error)
        .or_else(|| tab_below(error, &lines, at))
        .or_else(|| line.as_ref().and_then(Line::own_mistake))
        .or_else(|| before.as_ref().and_then(Line::missing_space))
        .or_else(|| too_deep(line.as_ref()?, before.as_ref()?))
        .or_else(|| stray_line(error, line.as_ref(), before.as_ref())?.stray_text())
        .or_else(|| line.as_ref().and_then(|line| line.out_of_line(error)));
    found.unwrap_or_else(|| {
        let message = format!("this is no YAML: {}", error.problem);
        let is_mapping = error.problem.contains("mapping values");
        let has_colon = is_mapping && line.is_some_and(|line| has_colon(line.text));
        let hint = has_colon.then(|| "a text with `: ` in it has to be in quotes".to_owned());
        Diagnostic {
            hint,
            ..Diagnostic::error(error.place, message)
        }
    })
}

fn is_blank(line: &str) -> bool {
    let text = line.trim();
    text.is_empty() || text.starts_with('#')
}

/// A line that is to blame, perhaps.
#[derive(Debug)]
struct Line<'a> {
    number: usize,
    indent: usize,
    /// All after the indentation, with neither a comment nor spaces at its end.
    text: &'a str,
    /// What comes before the value: `- `, `key: ` or both, or nothing.
    lead: &'a str,
    /// The value: what is after `- ` and `key: `.
    value: &'a str,
    tab: Option<usize>,
}

impl<'a> Line<'a> {
    fn of(lines: &[&'a str], at: usize) -> Option<Self> {
        let line = lines.get(at)?;
        let text = line.trim_start();
        let white = &line[..line.len() - text.len()];
        let value = value_of(text);
        Some(Self {
            number: at + 1,
            indent: white.chars().count(),
            text: text.trim_end(),
            lead: &text[..text.len() - value.len()],
            value: value.trim_end(),
            tab: white.chars().position(|c| c == '\t'),
        })
    }

    fn is_entry(&self) -> bool {
        !self.lead.is_empty()
    }

    /// The place of the value.
    fn value_place(&self) -> Place {
        Place {
            line: self.number,
            column: self.indent + self.lead.chars().count() + 1,
            length: self.value.chars().count(),
        }
    }

    /// The place of all but the indentation.
    fn text_place(&self) -> Place {
        Place {
            line: self.number,
            column: self.indent + 1,
            length: self.text.chars().count(),
        }
    }

    /// An error about the value that quotes would mend.
    fn to_be_quoted(&self, message: &str) -> Diagnostic {
        let hint = in_quotes(self.lead.trim_end(), self.value);
        Diagnostic::error(self.value_place(), message).with_hint(hint)
    }

    /// What is wrong with this line, whatever is around it.
    fn own_mistake(&self) -> Option<Diagnostic> {
        if let Some(tab) = self.tab {
            let place = Place {
                line: self.number,
                column: tab + 1,
                length: 1,
            };
            let message = "this line is indented with a tab, and YAML takes only spaces";
            return Some(
                Diagnostic::error(place, message)
                    .with_hint("put spaces in place of the tab")
                    .with_codebuild(no_token(self.number)),
            );
        }
        let first = self.value.chars().next()?;
        match first {
            '*' => Some(self.to_be_quoted("a value that starts with `*` is an alias in YAML")),
            '`' | '@' | '%' => {
                let sign = if first == '`' {
                    "a backtick".to_owned()
                } else {
                    format!("`{first}`")
                };
                let message = format!("no value in YAML can start with {sign}");
                Some(
                    self.to_be_quoted(&message)
                        .with_codebuild(no_token(self.number)),
                )
            }
            '[' | '{' => self.after_bracket(first),
            '"' | '\'' => self.after_quote(first),
            '|' | '>' => self.after_block_sign(first),
            '-' if self.lead.ends_with(": ") && self.value.starts_with("- ") => {
                let message = "a list cannot start on the line of its key";
                let hint = "write the `- ` on a line of its own below, indented";
                Some(Diagnostic::error(self.value_place(), message).with_hint(hint))
            }
            _ if self.is_entry() && has_colon(self.value) => {
                Some(self.to_be_quoted(
                    "the `: ` in this value makes YAML read it as a key and its value",
                ))
            }
            _ => None,
        }
    }

    /// `[ -z "$X" ] && echo`: text after what YAML reads as a list or a mapping.
    fn after_bracket(&self, open: char) -> Option<Diagnostic> {
        let close = if open == '[' { ']' } else { '}' };
        let mut depth = 0_usize;
        let closed = self.value.char_indices().find(|&(_, c)| {
            depth += usize::from(c == open);
            depth -= usize::from(c == close);
            depth == 0
        });
        let rest = closed.map_or("", |(at, _)| &self.value[at + 1..]);
        let what = if open == '[' { "list" } else { "mapping" };
        let message = format!(
            "a value that starts with `{open}` is a {what} in YAML, and nothing can follow its `{close}`"
        );
        (!rest.trim().is_empty() && !rest.trim_start().starts_with([',', '#']))
            .then(|| self.to_be_quoted(&message))
    }

    /// `"$X"/bin`: text after the closing quote; or an escape that YAML does not know.
    fn after_quote(&self, quote: char) -> Option<Diagnostic> {
        let body = &self.value[1..];
        let mut escaped = false;
        let closed = body.char_indices().find(|&(at, c)| {
            let doubled = quote == '\'' && (body[at + 1..].starts_with('\'') || escaped);
            let is_end = c == quote && !escaped && !doubled;
            escaped = !escaped && (c == '\\' && quote == '"' || c == '\'' && doubled);
            is_end
        });
        let inside = closed.map_or(body, |(at, _)| &body[..at]);
        let rest = closed.map_or("", |(at, _)| body[at + 1..].trim());
        if !rest.is_empty() && !rest.starts_with(['#', ':', ',', '}', ']']) {
            let message = "a value that starts with a quote ends with it, and nothing can follow";
            // `'it's'` has an apostrophe too much; of other values all belongs to the text.
            let apostrophe = quote == '\''
                && self.value.ends_with(quote)
                && self.value.matches(quote).count() == 3;
            let text = if apostrophe {
                &body[..body.len() - 1]
            } else {
                self.value
            };
            let hint = in_quotes(self.lead.trim_end(), text);
            return Some(Diagnostic::error(self.value_place(), message).with_hint(hint));
        }
        let escape = (quote == '"').then(|| unknown_escape(inside)).flatten()?;
        let message = format!(
            "`\\{escape}` is no escape that YAML knows; in double quotes a backslash starts one"
        );
        let hint = in_quotes(self.lead.trim_end(), inside);
        Some(Diagnostic::error(self.value_place(), message).with_hint(hint))
    }

    /// `| echo`: text after the sign that starts a block.
    fn after_block_sign(&self, sign: char) -> Option<Diagnostic> {
        let rest = self.value[1..]
            .trim_start_matches(|c: char| c.is_ascii_digit() || "+-".contains(c))
            .trim();
        let message = format!(
            "`{sign}` starts a text on the next lines, and nothing can follow it on its own"
        );
        let hint = "write the text below it, indented; or put the whole value in quotes";
        let place = self.value_place();
        (!rest.is_empty() && !rest.starts_with('#'))
            .then(|| Diagnostic::error(place, message).with_hint(hint))
    }

    /// `KEY:value`.
    fn missing_space(&self) -> Option<Diagnostic> {
        if self.is_entry() {
            return None;
        }
        let hint = missing_space(self.text)?;
        let message = "there is no space after the colon, so this is a text and no key";
        Some(Diagnostic::error(self.text_place(), message).with_hint(hint))
    }

    /// Neither `- ` nor `key: `, where there has to be one.
    fn stray_text(&self) -> Option<Diagnostic> {
        let is_stray = !self.is_entry() && !self.text.ends_with(':');
        let message = "this line is neither a list item nor `key: value`";
        let hint = "start it with `- ` if it is a command of its own; if it goes on with the text \
                    above, indent it like that";
        is_stray.then(|| Diagnostic::error(self.text_place(), message).with_hint(hint))
    }

    /// A good line in a column where it belongs to nothing.
    fn out_of_line(&self, error: &SyntaxError) -> Option<Diagnostic> {
        let message = if error.problem.contains("'-' indicator") {
            "this line stands among list items and does not start with `- `"
        } else if error.problem.contains("expected key") {
            "the indentation of this line fits none of the lines above it"
        } else {
            return None;
        };
        let hint = "what belongs together starts in the same column; what belongs to a key above \
                    starts further right than the key";
        Some(Diagnostic::error(self.text_place(), message).with_hint(hint))
    }
}

/// What CodeBuild says of a character that nothing starts with.
fn no_token(line: usize) -> String {
    format!("YAML_FILE_ERROR: found character that cannot start any token at line {line}")
}

/// A line that is indented deeper than the one above it, which has its value already.
fn too_deep(line: &Line<'_>, before: &Line<'_>) -> Option<Diagnostic> {
    let holds_value = before.lead.ends_with(": ")
        && !before.value.is_empty()
        && !before.value.starts_with(['|', '>', '[', '{']);
    let start = before.indent + before.text.chars().count()
        - before.text.trim_start_matches("- ").chars().count();
    let is_key = line.lead.trim_end().ends_with(':') || line.text.ends_with(':');
    let message = format!(
        "this line is indented deeper than {} above it, which has its value already",
        quoted(
            before
                .lead
                .trim_start_matches("- ")
                .trim_end()
                .trim_end_matches(':')
        )
    );
    let hint = match start {
        0 => "do not indent it, like the line above".to_owned(),
        _ => format!("indent it by {start} spaces, like the line above"),
    };
    let found = holds_value && is_key && line.indent > start;
    found.then(|| Diagnostic::error(line.text_place(), message).with_hint(hint))
}

/// The line that is suspected of being no entry at all: a key that lacks its colon is noticed on the line
/// after it.
fn stray_line<'a, 'b>(
    error: &SyntaxError,
    line: Option<&'b Line<'a>>,
    before: Option<&'b Line<'a>>,
) -> Option<&'b Line<'a>> {
    let problem = &error.problem;
    if problem.contains("expect ':'") {
        before
    } else if problem.contains("expected key") || problem.contains("'-' indicator") {
        line
    } else {
        None
    }
}

/// A tab that indents the line below, which the parser takes for more of the text above it.
fn tab_below(error: &SyntaxError, lines: &[&str], at: usize) -> Option<Diagnostic> {
    let below = Line::of(lines, at + 1)?;
    let is_to_blame = error.problem.contains("tab") && below.tab.is_some();
    is_to_blame.then(|| below.own_mistake()).flatten()
}

/// A quote or bracket that is open at the end of the file.
fn unclosed(error: &SyntaxError) -> Option<Diagnostic> {
    let problem = &error.problem;
    if problem.contains("quoted scalar") && problem.contains("end of stream") {
        let message = "the quote that starts here is not closed";
        return Some(
            Diagnostic::error(error.place, message).with_hint("close it, or leave both quotes out"),
        );
    }
    if problem.contains("indentation in quoted scalar") {
        let message =
            "the quoted text that starts here goes on in lines that are indented too little";
        let hint =
            "indent them further than the line with the quote, or close it where it should end";
        return Some(Diagnostic::error(error.place, message).with_hint(hint));
    }
    let (list, mapping) = (
        problem.contains("flow sequence"),
        problem.contains("flow mapping"),
    );
    if !list && !mapping {
        return None;
    }
    let (what, close) = if list {
        ("list in `[ ]`", ']')
    } else {
        ("mapping in `{ }`", '}')
    };
    let message = format!("a {what} before this is not closed, or has no comma between two values");
    let hint = format!(
        "add the `{close}` or the comma; a command that starts with a bracket has to be in quotes"
    );
    Some(Diagnostic::error(error.place, message).with_hint(hint))
}

/// What is left of the text of a line after `- ` and `key: `.
fn value_of(text: &str) -> &str {
    let mut rest = text;
    while let Some(after) = rest.strip_prefix("- ") {
        rest = after.trim_start();
    }
    let is_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let end = rest.find(|c| !is_key(c)).unwrap_or(rest.len());
    let after = &rest[end..];
    match after.strip_prefix(':') {
        Some(value) if end > 0 && value.starts_with([' ', '\t']) => value.trim_start(),
        Some("") if end > 0 => "",
        _ => rest,
    }
}

/// Whether an unquoted value has a colon that YAML takes for a key's.
fn has_colon(value: &str) -> bool {
    let code = value.split(" #").next().unwrap_or(value);
    code.contains(": ") || code.ends_with(':')
}

/// The first character after a backslash that makes no escape of YAML.
fn unknown_escape(inside: &str) -> Option<char> {
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        let escape = if c == '\\' { chars.next() } else { None };
        if let Some(escape) = escape.filter(|&c| !"0abt\tnvfre \"/\\N_LPxuU".contains(c)) {
            return Some(escape);
        }
    }
    None
}

#[cfg(test)]
mod tests;
