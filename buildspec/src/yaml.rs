//! YAML as a small tree in which everything has its place.
//!
//! The one module that names the YAML library. Scalars keep their text as written (`3.10` stays `3.10`,
//! `yes` stays `yes`); what they mean is for the reader to say. Aliases and `<<` are followed, and what
//! they multiply is limited like everything else.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use crate::diagnostic::{Diagnostic, Place, quoted};

/// How deep lists and mappings may lie in each other. The language needs nine levels.
const DEPTH_MAX: usize = 64;
/// How much a document may weigh after aliases are followed: sixteen times the largest buildspec.
const WEIGHT_MAX: usize = 16 * 1024 * 1024;
/// What a node weighs beside its text: about what it takes in memory.
const NODE_WEIGHT: usize = 64;

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where it starts, and its length if it ends on the same line.
    pub place: Place,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A text, a number, a boolean or nothing.
    Scalar {
        /// The text as written, without quotes and indentation.
        text: String,
        /// Whether it was written without quotes and not as a block: only then can it mean nothing.
        plain: bool,
    },
    /// `- a` or `[a]`.
    List(Vec<Node>),
    /// `a: b` or `{a: b}`; each key once.
    Map(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key's text; for one that is a list or a mapping, what it looks like.
    pub key: String,
    /// Where the key is.
    pub place: Place,
    /// The value.
    pub value: Node,
}

impl Node {
    /// Whether it is nothing: `key:` with nothing after it, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        let Content::Scalar { text, plain: true } = &self.content else {
            return false;
        };
        matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// What it is, in a word with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.content {
            _ if self.is_null() => "nothing",
            Content::Scalar { .. } => "a text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }

    fn weight(&self) -> usize {
        NODE_WEIGHT
            + match &self.content {
                Content::Scalar { text, .. } => text.len(),
                Content::List(nodes) => nodes.iter().map(Self::weight).sum(),
                Content::Map(entries) => entries
                    .iter()
                    .map(|entry| entry.key.len() + entry.value.weight())
                    .sum(),
            }
    }
}

/// A document that is well-formed.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its content; null for an empty one.
    pub root: Node,
    /// What is to be said about its form.
    pub remarks: Vec<Diagnostic>,
}

/// Where and why a text is no YAML, in the words of the library.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// Where it was noticed, which may be after the mistake.
    pub place: Place,
    /// What the library says.
    pub problem: String,
}

/// Why there is no tree.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The text is no YAML.
    Syntax(SyntaxError),
    /// The text is over a limit.
    Limit(Diagnostic),
}

/// Reads the first document of `text`.
///
/// # Errors
///
/// If it is no YAML, or over a limit.
pub(crate) fn read(text: &str) -> Result<Document, ReadError> {
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| ReadError::Syntax(syntax_error(&error)))?;
        match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => {}
            Event::StreamEnd | Event::DocumentEnd => break,
            event => builder.take(event, place_of(span))?,
        }
    }
    if matches!(parser.next_event(), Some(Ok((Event::DocumentStart(_), _)))) {
        let place = parser
            .peek()
            .and_then(Result::ok)
            .map_or(Place::START, |(_, span)| place_of(*span));
        let message = "everything from here on is a second document and does not count";
        let remark = Diagnostic::warning(place, message).with_hint("take the `---` above it out");
        builder.remarks.push(remark);
    }
    Ok(Document {
        root: builder.root.unwrap_or(NOTHING),
        remarks: builder.remarks,
    })
}

const NOTHING: Node = Node {
    place: Place::START,
    content: Content::Scalar {
        text: String::new(),
        plain: true,
    },
};

fn syntax_error(error: &ScanError) -> SyntaxError {
    SyntaxError {
        place: Place {
            line: error.marker().line(),
            column: error.marker().col() + 1,
            length: 0,
        },
        problem: error.info().to_owned(),
    }
}

fn place_of(span: Span) -> Place {
    let (start, end) = (span.start, span.end);
    let same_line = start.line() == end.line();
    Place {
        line: start.line(),
        column: start.col() + 1,
        length: if same_line {
            end.col().saturating_sub(start.col())
        } else {
            0
        },
    }
}

/// A list or mapping that is not complete.
#[derive(Debug)]
struct Open {
    place: Place,
    anchor: usize,
    content: OpenContent,
}

#[derive(Debug)]
enum OpenContent {
    List(Vec<Node>),
    /// The complete entries, and the key whose value comes next.
    Map(Vec<Entry>, Option<Node>),
}

/// Puts events together.
#[derive(Debug, Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    weight: usize,
    root: Option<Node>,
    remarks: Vec<Diagnostic>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), ReadError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some_and(|tag| !tag.is_yaml_core_schema()) {
                    let message = "what starts with `!` is a tag in YAML, and no part of the text";
                    let hint = "put the whole text in quotes if it is meant to be there";
                    self.remarks
                        .push(Diagnostic::warning(place, message).with_hint(hint));
                }
                let content = Content::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                let node = Node { place, content };
                self.weigh(node.weight(), place)?;
                self.complete(node, anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    let message = "an alias stands in the value that it is an alias for";
                    return Err(ReadError::Limit(Diagnostic::error(place, message)));
                };
                let (weight, node) = (
                    node.weight(),
                    Node {
                        place,
                        ..node.clone()
                    },
                );
                self.weigh(weight, place)?;
                self.complete(node, 0)
            }
            Event::SequenceStart(anchor, _) => {
                self.start(place, anchor, OpenContent::List(Vec::new()))
            }
            Event::MappingStart(anchor, _) => {
                self.start(place, anchor, OpenContent::Map(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn start(
        &mut self,
        place: Place,
        anchor: usize,
        content: OpenContent,
    ) -> Result<(), ReadError> {
        if self.open.len() == DEPTH_MAX {
            let message =
                format!("lists and mappings lie more than {DEPTH_MAX} levels deep in each other");
            return Err(ReadError::Limit(Diagnostic::error(place, message)));
        }
        self.open.push(Open {
            place: Place { length: 0, ..place },
            anchor,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), ReadError> {
        let open = self.open.pop().expect("the parser pairs starts and ends");
        self.weigh(NODE_WEIGHT, open.place)?;
        let content = match open.content {
            OpenContent::List(nodes) => Content::List(nodes),
            OpenContent::Map(entries, _) => Content::Map(self.settle(entries)),
        };
        let node = Node {
            place: open.place,
            content,
        };
        self.complete(node, open.anchor)
    }

    /// Puts a complete node, which has been weighed, where it belongs.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), ReadError> {
        if anchor > 0 {
            self.weigh(node.weight(), node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            OpenContent::List(nodes) => nodes.push(node),
            OpenContent::Map(entries, key) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push(Entry {
                    place: key.place,
                    key: key_text(key),
                    value: node,
                }),
            },
        }
        Ok(())
    }

    fn weigh(&mut self, weight: usize, place: Place) -> Result<(), ReadError> {
        self.weight += weight;
        if self.weight <= WEIGHT_MAX {
            return Ok(());
        }
        let message = "buildspec has too many values, or its aliases repeat too much";
        Err(ReadError::Limit(Diagnostic::error(place, message)))
    }
}

impl Builder {
    /// Follows `<<`, and of entries with one key keeps the last, as CodeBuild does.
    fn settle(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let (merges, own): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.key == "<<");
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        let mut superseded = vec![false; own.len()];
        for (at, entry) in own.iter().enumerate() {
            if let Some(before) = last.insert(&entry.key, at) {
                superseded[before] = true;
                let message = format!(
                    "key {} is there twice; this one counts, the one on line {} does not",
                    quoted(&entry.key),
                    own[before].place.line
                );
                let hint = "put both together, or take one out";
                self.remarks
                    .push(Diagnostic::warning(entry.place, message).with_hint(hint));
            }
        }
        let mut keep = superseded.into_iter().map(|superseded| !superseded);
        let mut settled = own;
        settled.retain(|_| keep.next().unwrap_or(true));
        for merge in merges {
            merge_into(&mut settled, merge.value);
        }
        settled
    }
}

/// Adds what `source`, a mapping or a list of them, has and `entries` have not.
fn merge_into(entries: &mut Vec<Entry>, source: Node) {
    let maps = match source.content {
        Content::List(nodes) => nodes,
        content => vec![Node { content, ..source }],
    };
    for map in maps {
        let Content::Map(added) = map.content else {
            continue;
        };
        let known: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        entries.extend(
            added
                .into_iter()
                .filter(|entry| !known.contains(&entry.key)),
        );
    }
}

/// The text of a key; for one that is a list or a mapping, what it looks like.
fn key_text(key: Node) -> String {
    match key.content {
        Content::Scalar { text, .. } => text,
        Content::List(_) => "[…]".to_owned(),
        Content::Map(_) => "{…}".to_owned(),
    }
}
