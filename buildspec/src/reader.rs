//! Reading nodes as what they should be, and a remark for each that is something else.
//!
//! Every method goes on after a mistake with what can be used, so that one pass finds all mistakes.

use std::collections::{BTreeMap, BTreeSet};

use protocol::snapshot::{VARIABLE_BYTES_MAX, VARIABLES_MAX};

use crate::{
    advice::{in_quotes, missing_space, nearest, unknown_key},
    diagnostic::{Diagnostic, Place, Severity, quoted},
    keys::{Level, PHASES, Support},
    yaml::{Content, Entry, Node},
};

/// How many remarks are kept: more than anybody reads, and a bound on what a hostile file can make.
const DIAGNOSTICS_MAX: usize = 200;

/// Collects remarks while a file is read.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    lines: Vec<&'a str>,
    diagnostics: Vec<Diagnostic>,
    /// The keys that are not acted on and were named already, with their levels: once is enough.
    ignored: BTreeSet<(&'static str, String)>,
    /// How many remarks there were no room for, and whether one of them is an error.
    dropped: (usize, bool),
}

/// The known keys of a mapping.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    entries: Vec<&'a Entry>,
}

impl<'a> Fields<'a> {
    /// The value of `key`; `None` if it is not there.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of `key`; `None` if it is not there.
    pub(crate) fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key).copied()
    }
}

impl<'a> Reader<'a> {
    /// A reader of the file `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            lines: text.lines().collect(),
            diagnostics: Vec::new(),
            ignored: BTreeSet::new(),
            dropped: (0, false),
        }
    }

    /// Takes a remark.
    pub(crate) fn say(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            self.diagnostics.push(diagnostic);
        } else {
            self.dropped.0 += 1;
            self.dropped.1 |= diagnostic.severity == Severity::Error;
        }
    }

    /// Takes an error without advice.
    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>) {
        self.say(Diagnostic::error(place, message));
    }

    /// All remarks, by place.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.place);
        if self.dropped.0 > 0 {
            let message = format!("and {} more remarks", self.dropped.0);
            let place = self
                .diagnostics
                .last()
                .map_or(Place::START, |last| last.place);
            let more = Diagnostic::warning(place, message);
            self.diagnostics.push(Diagnostic {
                severity: if self.dropped.1 {
                    Severity::Error
                } else {
                    Severity::Warning
                },
                ..more
            });
        }
        self.diagnostics
    }

    /// The entries of a mapping; none of nothing. `what` is what it is, like "`env`".
    pub(crate) fn entries(&mut self, node: &'a Node, what: &str) -> &'a [Entry] {
        match &node.content {
            Content::Map(entries) => entries,
            _ if node.is_null() => &[],
            content => {
                let message = format!("{what} has to be a mapping, not {}", node.kind());
                let hint = match content {
                    Content::Scalar { text, .. } => missing_space(text),
                    _ => Some("take the `- ` away".to_owned()),
                };
                self.say(Diagnostic {
                    hint,
                    ..Diagnostic::error(node.place, message)
                });
                &[]
            }
        }
    }

    /// The known keys of a mapping on `level`; the others get a remark.
    pub(crate) fn fields(&mut self, node: &'a Node, what: &str, level: &Level) -> Fields<'a> {
        let as_key = match &node.content {
            Content::Scalar { text, .. } if !node.is_null() && missing_space(text).is_none() => {
                nearest(text, level.names())
            }
            _ => None,
        };
        let entries = match as_key {
            None => self.entries(node, what),
            Some(key) => {
                let message = format!("{what} has to be a mapping, not {}", node.kind());
                let hint = format!("write `{key}:`, with the colon, and its value after it");
                self.say(Diagnostic::error(node.place, message).with_hint(hint));
                &[]
            }
        };
        for entry in entries {
            match level.support(&entry.key) {
                Some(Support::Ignored(instead)) => {
                    self.unheeded(level, entry, instead);
                }
                Some(Support::Read | Support::Pointless) => {}
                // Looking for the nearest known key takes time, so not for what is dropped anyway.
                None if self.diagnostics.len() >= DIAGNOSTICS_MAX => {
                    self.dropped.0 += 1;
                    self.dropped.1 |= level.path == PHASES.path;
                }
                None => self.say(unknown_key(level, entry)),
            }
        }
        Fields {
            entries: entries
                .iter()
                .filter(|entry| level.support(&entry.key).is_some())
                .collect(),
        }
    }

    /// Says once that a key, which is read, changes nothing, and what happens instead.
    fn unheeded(&mut self, level: &Level, entry: &Entry, instead: &str) {
        if self.ignored.insert((level.path, entry.key.clone())) {
            let message = format!("`{}` {} is not acted on: {instead}", entry.key, level.name);
            self.say(Diagnostic::warning(entry.place, message));
        }
    }

    /// A text, as written; `None` with an error if it is none.
    pub(crate) fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.content {
            Content::Scalar { text, .. } if text.contains('\0') => {
                self.error(
                    node.place,
                    format!("{what} has a NUL character, which no program can be given"),
                );
                None
            }
            Content::Scalar { text, .. } => Some(text.clone()),
            _ => {
                self.error(
                    node.place,
                    format!("{what} has to be a text, not {}", node.kind()),
                );
                None
            }
        }
    }

    /// A text that is there; `None` for nothing and for an empty one.
    pub(crate) fn some_text(&mut self, node: Option<&Node>, what: &str) -> Option<String> {
        let node = node.filter(|node| !node.is_null())?;
        self.text(node, what).filter(|text| !text.trim().is_empty())
    }

    /// `yes` or `no` in any of YAML's spellings, quoted or not; `false` for nothing.
    pub(crate) fn flag(&mut self, node: Option<&Node>, what: &str) -> bool {
        let Some(node) = node.filter(|node| !node.is_null()) else {
            return false;
        };
        let Some(text) = self.text(node, what) else {
            return false;
        };
        match text.trim().to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" | "y" => true,
            "no" | "false" | "off" | "n" | "" => false,
            _ => {
                let message = format!("{what} has to be `yes` or `no`, not {}", quoted(&text));
                self.error(node.place, message);
                false
            }
        }
    }

    /// A whole number of at least one; `None` with an error if it is none.
    pub(crate) fn count(&mut self, node: &Node, what: &str) -> Option<u32> {
        let text = self.text(node, what)?;
        let count = text.trim().parse().ok().filter(|&count| count > 0);
        if count.is_none() {
            let message = format!(
                "{what} has to be a whole number from 1 on, not {}",
                quoted(&text)
            );
            self.error(node.place, message);
        }
        count
    }

    /// Warns of a `text` that is none of `words`, of which there is one for each `kind` of thing.
    pub(crate) fn expect_word(&mut self, (text, place): (&str, Place), kind: &str, words: &[&str]) {
        if words.contains(&text) || text.contains('$') {
            return;
        }
        let message = format!("{} is no {kind} that CodeBuild has", quoted(text));
        let hint = match nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("there are {}", words.join(", ")),
        };
        self.say(Diagnostic::warning(place, message).with_hint(hint));
    }

    /// A list of texts, or one text in place of a list of one. Nothing in it does not count.
    pub(crate) fn texts(&mut self, node: Option<&Node>, what: &str) -> Vec<(String, Place)> {
        let Some(node) = node.filter(|node| !node.is_null()) else {
            return Vec::new();
        };
        let nodes = match &node.content {
            Content::List(nodes) => nodes.as_slice(),
            Content::Scalar { .. } => std::slice::from_ref(node),
            Content::Map(_) => {
                let message = format!("{what} has to be a list, not a mapping");
                self.say(
                    Diagnostic::error(node.place, message).with_hint("write `- ` before each"),
                );
                &[]
            }
        };
        let there = nodes.iter().filter(|node| !node.is_null());
        there
            .filter_map(|node| Some((self.text(node, &format!("each of {what}"))?, node.place)))
            .collect()
    }

    /// The commands of a list.
    pub(crate) fn commands(&mut self, entry: Option<&Entry>, what: &str) -> Vec<String> {
        let Some(entry) = entry.filter(|entry| !entry.value.is_null()) else {
            return Vec::new();
        };
        let node = &entry.value;
        let nodes = match &node.content {
            Content::List(nodes) => nodes.as_slice(),
            Content::Scalar { .. } => {
                let message = format!("{what} should be a list; this is taken as one command");
                self.say(
                    Diagnostic::warning(entry.place, message)
                        .with_hint("write `- ` before each command"),
                );
                std::slice::from_ref(node)
            }
            Content::Map(_) => {
                let message = format!("{what} has to be a list of commands, not a mapping");
                let hint = "write `- ` before each command";
                self.say(Diagnostic::error(node.place, message).with_hint(hint));
                &[]
            }
        };
        let numbered = nodes.iter().zip(1..).filter(|(node, _)| !node.is_null());
        numbered
            .filter_map(|(node, number)| self.command(node, number, what))
            .collect()
    }

    fn command(&mut self, node: &Node, number: usize, what: &str) -> Option<String> {
        let cause = match &node.content {
            Content::Scalar { .. } => {
                return self.text(node, &format!("command {number} of {what}"));
            }
            Content::List(_) => "the `[` or `- ` it starts with",
            Content::Map(_) => "the `: ` in it",
        };
        let message = format!(
            "command {number} of {what} is read as {}, because of {cause}",
            node.kind()
        );
        let line = self
            .lines
            .get(node.place.line.saturating_sub(1))
            .copied()
            .unwrap_or_default();
        let command: String = line
            .chars()
            .skip(node.place.column.saturating_sub(1))
            .collect();
        let hint = in_quotes("-", command.trim());
        let line = node.place.line;
        let says = format!(
            "YAML_FILE_ERROR: Expected Commands[{}] to be of string type: found subkeys instead at line \
             {line}, value of the key tag on line {} might be empty",
            number - 1,
            line.saturating_sub(1)
        );
        let mistake = Diagnostic::error(node.place, message).with_hint(hint);
        self.say(match node.content {
            Content::Map(_) => mistake.with_codebuild(says),
            _ => mistake,
        });
        None
    }

    /// Variables: names and literal values. Nothing is the empty value.
    pub(crate) fn variables(
        &mut self,
        node: Option<&'a Node>,
        what: &str,
    ) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        let Some(node) = node else {
            return variables;
        };
        for entry in self.entries(node, what) {
            self.check_variable_name(entry);
            let what = format!("variable {}", quoted(&entry.key));
            let value = if entry.value.is_null() {
                Some(String::new())
            } else {
                self.text(&entry.value, &what)
            };
            let Some(value) = value else { continue };
            if entry.key.len() as u64 + value.len() as u64 >= VARIABLE_BYTES_MAX {
                let bytes = value.len();
                let message = format!(
                    "{what} has {bytes} bytes, less than {VARIABLE_BYTES_MAX} are possible"
                );
                self.error(entry.place, message);
                continue;
            }
            self.check_self_reference(entry, &value);
            variables.insert(entry.key.clone(), value);
        }
        if variables.len() as u64 > VARIABLES_MAX {
            let message = format!(
                "{what} has {} variables, at most {VARIABLES_MAX} are possible",
                variables.len()
            );
            self.error(node.place, message);
        }
        variables
    }

    /// Warns of a value that seems to expect its variable to have had another before.
    fn check_self_reference(&mut self, entry: &Entry, value: &str) {
        let name = &entry.key;
        let after = value
            .find(&format!("${name}"))
            .map(|at| at + 1 + name.len());
        let ends = after.is_some_and(|at| {
            let next = value[at..].chars().next();
            !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        if ends || value.contains(&format!("${{{name}}}")) {
            let shown = quoted(name);
            let message = format!(
                "variable {shown} names itself, and values are taken as they are: nothing in it is expanded"
            );
            let hint = format!(
                "set it in a command: {}",
                quoted(&format!("- export {name}=\"{value}\""))
            );
            self.say(Diagnostic::warning(entry.value.place, message).with_hint(hint));
        }
    }

    /// Says what is wrong with the name of a variable.
    pub(crate) fn check_variable_name(&mut self, entry: &Entry) {
        let name = &entry.key;
        let shown = quoted(name);
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!("{shown} cannot be the name of a variable");
            self.error(entry.place, message);
        } else if name.starts_with("CODEBUILD_") {
            let message = format!(
                "variable {shown} has a name that is reserved: CODEBUILD_ is for what the build sets"
            );
            self.say(Diagnostic::warning(entry.place, message));
        }
    }
}
