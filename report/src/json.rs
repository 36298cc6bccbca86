//! JSON as a tree with a bounded number of values: a short file can otherwise take a hundred times its
//! length in memory.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::parse::{ParseError, Position, quoted};

/// How many values a report may have: the result set of a million lines, or of a hundred thousand
/// scenarios, in some 300 MB.
pub(crate) const VALUES_MAX: usize = 4_000_000;

/// A value. Of a name that stands twice in an object, both are kept.
#[derive(Debug)]
pub(crate) enum Json {
    Null,
    Flag,
    Number(f64),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

static ABSENT: Json = Json::Null;

impl Json {
    /// The value of a name; null, if there is none or this is no object.
    pub(crate) fn of(&self, name: &str) -> &Self {
        let entries = self.entries().iter();
        let mut found = entries.filter(|(key, _)| key == name);
        found.next().map_or(&ABSENT, |(_, value)| value)
    }

    /// The text; empty, if this is none.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// The number; `None`, if this is none.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The list; empty, if this is none.
    pub(crate) fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }

    /// Names and values; empty, if this is no object.
    pub(crate) fn entries(&self) -> &[(String, Self)] {
        match self {
            Self::Object(entries) => entries,
            _ => &[],
        }
    }

    /// What kind of value it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flag => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads a whole file.
pub(crate) fn parse(text: &str) -> Result<Json, ParseError> {
    parse_at_most(text, VALUES_MAX)
}

fn parse_at_most(text: &str, values_max: usize) -> Result<Json, ParseError> {
    let left = Cell::new(values_max);
    let mut source = serde_json::Deserializer::from_str(text);
    let read = Seed(&left).deserialize(&mut source);
    match read.and_then(|json| source.end().map(|()| json)) {
        Ok(json) => Ok(json),
        Err(_) if left.get() == 0 => Err(ParseError::TooManyValues { values_max }),
        Err(error) => Err(ParseError::NotJson {
            at: Position {
                line: error.line(),
                column: error.column(),
            },
            problem: quoted(&error.to_string()),
        }),
    }
}

/// Reads one value, as long as there are some left.
#[derive(Clone, Copy)]
struct Seed<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Json, D::Error> {
        let left = self.0.get().saturating_sub(1);
        self.0.set(left);
        if left == 0 {
            return Err(D::Error::custom("too many values"));
        }
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Flag)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = source.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = source.next_key::<String>()? {
            entries.push((name, source.next_value_seed(self)?));
        }
        Ok(Json::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_reached_by_name_and_missing_ones_are_null() {
        let json = parse(r#"{"a": [1, "x", null, true]}"#).unwrap();
        assert_eq!(json.of("a").list()[0].number(), Some(1.0));
        assert_eq!(json.of("a").list()[1].text(), "x");
        assert_eq!(json.of("b").of("c").kind(), "null");
    }

    #[test]
    fn more_values_than_the_limit_are_refused() {
        assert!(parse_at_most("[1,2,3]", 5).is_ok());
        let refused = parse_at_most("[1,2,3,4]", 5).unwrap_err();
        assert_eq!(refused, ParseError::TooManyValues { values_max: 5 });
    }

    #[test]
    fn depth_is_limited_and_the_place_of_an_error_is_said() {
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(&deep), Err(ParseError::NotJson { .. })));
        let error = parse("{\n  \"a\": ,\n}").unwrap_err();
        let expected = "line 2, column 8: not JSON: expected value at line 2 column 8";
        assert_eq!(error.to_string(), expected);
        assert!(parse("[] []").is_err());
    }
}
