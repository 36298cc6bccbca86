//! Variables in the patterns of `artifacts` and `cache`: `$NAME` and `${NAME}`.
//!
//! Pure, and deliberately not a shell: these texts are patterns, in which quotes, blanks and `*` mean
//! themselves.

use std::collections::BTreeMap;

/// Replaces `$NAME` and `${NAME}` in `text` by what `variables` says; what is not set becomes nothing,
/// as in a shell. A `$` that no name follows stays. Bytes of a value that are not UTF-8 are replaced.
pub fn expand(text: &str, variables: &BTreeMap<String, Vec<u8>>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, after) = split_name(rest);
        if name.is_empty() {
            expanded.push('$');
        } else {
            if let Some(value) = variables.get(name) {
                expanded.push_str(&String::from_utf8_lossy(value));
            }
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The name at the start of what follows a `$`, and what comes after it. Empty: there is none.
pub fn split_name(text: &str) -> (&str, &str) {
    if let Some(braced) = text.strip_prefix('{') {
        return match braced.split_once('}') {
            Some((name, after)) if is_name(name) => (name, after),
            _ => ("", text),
        };
    }
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    match text.split_at(end) {
        (name, after) if is_name(name) => (name, after),
        _ => ("", text),
    }
}

fn is_name(text: &str) -> bool {
    let head = text.bytes().next();
    head.is_some_and(|head| head == b'_' || head.is_ascii_alphabetic())
        && text.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let variables = [
            ("A", "one"),
            ("A_B", "two words"),
            ("GLOB", "*"),
            ("D", "$A"),
        ];
        let variables = variables
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .into();
        assert_eq!(expand(text, &variables), expected);
    }

    #[test]
    fn names_are_replaced_with_and_without_braces() {
        check("$A/x", "one/x");
        check("${A}_B", "one_B");
        check("$A_B", "two words");
        check("$A$A", "oneone");
        check("dist/$GLOB", "dist/*");
    }

    #[test]
    fn what_is_not_set_becomes_nothing() {
        check("a/$NOPE/b", "a//b");
        check("${NOPE}", "");
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        check("$D", "$A");
    }

    #[test]
    fn a_dollar_without_a_name_stays() {
        for text in [
            "$", "a$", "$/x", "$1", "${", "${A", "${A-b}", "$(date)", "${}", "'*'",
        ] {
            check(text, text);
        }
    }
}
