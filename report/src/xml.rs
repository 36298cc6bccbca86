//! XML as reports need it: one element after another, with limits and places, no entities of their own.
//!
//! Entities other than the five of XML and character references are never expanded: they are left as
//! they are written, so that a file cannot grow by being read. Namespaces are ignored.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesRef, BytesStart, Event};

use crate::parse::{ParseError, Position, quoted};

/// How deep elements may be nested. Suites in suites are the deepest that reports have; the deepest
/// seen is 14.
pub(crate) const DEPTH_MAX: usize = 128;

/// A start tag.
pub(crate) struct Element<'a> {
    tag: BytesStart<'a>,
    offset: usize,
}

impl<'a> Element<'a> {
    /// The name without its namespace.
    pub(crate) fn name(&self) -> &str {
        let whole = self.tag.name().into_inner();
        whole.rsplit(':').next().unwrap_or(whole)
    }

    /// The value of an attribute, with its entities resolved where they are XML's own.
    pub(crate) fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut attributes = self.tag.attributes();
        // A name that stands twice is not looked for: that is quadratic.
        let found = attributes.with_checks(false).flatten().find(|attribute| {
            let whole: &str = attribute.key.as_ref();
            whole == name
        })?;
        let resolved = unescape(&found.value).map(Cow::into_owned);
        Some(Cow::Owned(
            resolved.unwrap_or_else(|_| found.value.clone().into_owned()),
        ))
    }

    /// The value of an attribute; empty, if it is missing.
    pub(crate) fn text_of(&self, name: &str) -> Cow<'_, str> {
        self.attribute(name).unwrap_or_default()
    }

    /// A whole number of an attribute; `None`, if it is missing or not one.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.attribute(name)?.trim().parse().ok()
    }

    /// The byte at which it begins.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Whether this is its name.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name() == name
    }
}

/// A file that is being read. After an element was given it is open: its content is read by
/// [`child`](Self::child), [`text`](Self::text) or [`skip`](Self::skip), to its end.
pub(crate) struct Xml<'a> {
    reader: Reader<&'a [u8]>,
    text: &'a str,
    open: Vec<String>,
}

/// What comes next.
enum Node<'a> {
    Open(Element<'a>),
    Text(Cow<'a, str>),
    Close,
}

impl<'a> Xml<'a> {
    /// A reader at the start of `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        Self {
            reader,
            text,
            open: Vec::new(),
        }
    }

    /// The first element, which has to have one of these names; errors name the first of them.
    pub(crate) fn root(&mut self, expected: &[&'static str]) -> Result<Element<'a>, ParseError> {
        let root = self.any_root()?;
        if expected.contains(&root.name()) {
            return Ok(root);
        }
        Err(ParseError::WrongRoot {
            expected: expected.first().copied().unwrap_or_default(),
            found: quoted(root.name()),
        })
    }

    /// The first element, whatever it is called.
    pub(crate) fn any_root(&mut self) -> Result<Element<'a>, ParseError> {
        loop {
            match self.node()? {
                Node::Open(element) => return Ok(element),
                Node::Text(text) if text.trim().is_empty() => {}
                Node::Text(text) => {
                    return Err(ParseError::Unexpected {
                        at: self.position(),
                        expected: "an XML element",
                        found: format!("`{}`", quoted(text.trim())),
                    });
                }
                Node::Close => {}
            }
        }
    }

    /// The next element inside the open one; `None` at its end, which closes it.
    pub(crate) fn child(&mut self) -> Result<Option<Element<'a>>, ParseError> {
        loop {
            match self.node()? {
                Node::Open(element) => return Ok(Some(element)),
                Node::Text(_) => {}
                Node::Close => return Ok(None),
            }
        }
    }

    /// Passes over what is left of the open element.
    pub(crate) fn skip(&mut self) -> Result<(), ParseError> {
        let depth = self.open.len();
        while depth <= self.open.len() {
            self.node()?;
        }
        Ok(())
    }

    /// The text that is left of the open element and of those in it, at most `bytes_max` bytes and a
    /// character of it.
    pub(crate) fn text(&mut self, bytes_max: usize) -> Result<String, ParseError> {
        let depth = self.open.len();
        let mut text = String::new();
        while depth <= self.open.len() {
            if let Node::Text(more) = self.node()? {
                let room = bytes_max.saturating_sub(text.len());
                let end = (0..=room.min(more.len()))
                    .rev()
                    .find(|end| more.is_char_boundary(*end));
                text.push_str(&more[..end.unwrap_or(0)]);
            }
        }
        Ok(text)
    }

    /// Where an element begins.
    pub(crate) fn place_of(&self, element: &Element<'_>) -> Position {
        Position::of(self.text, element.offset())
    }

    fn position(&self) -> Position {
        let offset = usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX);
        Position::of(self.text, offset)
    }

    fn node(&mut self) -> Result<Node<'a>, ParseError> {
        loop {
            let offset = usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX);
            let event = self.reader.read_event();
            let event = event.map_err(|error| self.broken(&error))?;
            match event {
                Event::Start(tag) => return self.opened(Element { tag, offset }),
                Event::End(_) => {
                    self.open.pop();
                    return Ok(Node::Close);
                }
                Event::Text(text) => return Ok(Node::Text(text.into_inner())),
                Event::CData(text) => return Ok(Node::Text(text.into_inner())),
                Event::GeneralRef(name) => return Ok(Node::Text(resolved(&name))),
                Event::Eof => return Err(self.ended()),
                Event::Empty(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_) => {}
            }
        }
    }

    fn opened(&mut self, element: Element<'a>) -> Result<Node<'a>, ParseError> {
        if self.open.len() == DEPTH_MAX {
            return Err(ParseError::TooDeep {
                at: self.place_of(&element),
                depth_max: DEPTH_MAX,
            });
        }
        self.open.push(quoted(element.name()));
        Ok(Node::Open(element))
    }

    fn broken(&self, error: &quick_xml::Error) -> ParseError {
        let offset = usize::try_from(self.reader.error_position()).unwrap_or(usize::MAX);
        ParseError::NotXml {
            at: Position::of(self.text, offset),
            problem: quoted(&error.to_string()),
        }
    }

    fn ended(&self) -> ParseError {
        match self.open.last() {
            Some(open) => ParseError::Truncated {
                at: self.position(),
                open: open.clone(),
            },
            None => ParseError::Unexpected {
                at: self.position(),
                expected: "an XML element",
                found: "the end of the file".to_owned(),
            },
        }
    }
}

/// The text that a reference stands for; the reference as written, if it is none of XML's own.
fn resolved<'a>(name: &BytesRef<'_>) -> Cow<'a, str> {
    if let Ok(Some(character)) = name.resolve_char_ref() {
        return Cow::Owned(character.to_string());
    }
    let name: &str = name;
    match resolve_predefined_entity(name) {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Owned(format!("&{name};")),
    }
}
