//! Keys of dependency caches without a shell: what `codebuild-hash-files` would print, and variables whose
//! values are known. All else counts as it is written. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::HistoryError;
use crate::key_template::{hash_call, is_for_shell, patterns, plain, variable};

/// What `codebuild-hash-files` prints for patterns; `None`: no file matches, and it fails.
type Hash<'a> = &'a mut dyn FnMut(&[String]) -> Result<Option<String>, HistoryError>;

/// A key after expansion; `None`: builds cannot use it. What only a shell can expand is added to `unread`.
///
/// # Errors
///
/// As `hash` fails.
pub(super) fn expand(
    written: &str,
    variables: &BTreeMap<String, String>,
    unread: &mut BTreeSet<String>,
    hash: Hash<'_>,
) -> Result<Option<String>, HistoryError> {
    let mut key = String::new();
    let mut rest = written;
    while let Some((before, after)) = rest.split_once('$') {
        key.push_str(before);
        if let Some((words, behind)) = hash_call(after) {
            let words = plain(words, variables);
            if is_for_shell(&words) {
                unread.insert(written.to_owned());
            }
            let patterns = patterns(&words);
            let digest = match patterns.is_empty() {
                true => None,
                false => hash(&patterns)?,
            };
            let Some(digest) = digest else {
                return Ok(None);
            };
            key.push_str(&digest);
            rest = behind;
        } else {
            rest = variable(after, variables, &mut key);
            if rest == after {
                unread.insert(written.to_owned());
            }
        }
    }
    key.push_str(rest);
    if written.contains(['`', '\\']) {
        unread.insert(written.to_owned());
    }
    let is_usable = !key.is_empty() && !key.chars().any(char::is_control);
    Ok(is_usable.then_some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key for a tree whose only file is `lock`, and whether a shell would know more.
    fn expanded(written: &str) -> (Option<String>, bool) {
        let variables = [("V", "1"), ("CODEBUILD_SRC_DIR", ".")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut unread = BTreeSet::new();
        let mut hash = |patterns: &[String]| -> Result<Option<String>, HistoryError> {
            let is_there = patterns.iter().any(|pattern| pattern.ends_with("lock"));
            Ok(is_there.then(|| format!("<{}>", patterns.join(" "))))
        };
        let key = expand(written, &variables.into(), &mut unread, &mut hash).unwrap();
        (key, !unread.is_empty())
    }

    #[track_caller]
    fn check(written: &str, expected: &str) {
        assert_eq!(expanded(written), (Some(expected.to_owned()), false));
    }

    #[test]
    fn hashes_and_known_variables_are_put_in() {
        check("npm-1", "npm-1");
        check("npm-$(codebuild-hash-files lock)-1", "npm-<lock>-1");
        check("$( codebuild-hash-files 'a' \"b/lock\" )", "<a b/lock>");
        check(
            "v$V-${V}x-$(codebuild-hash-files $CODEBUILD_SRC_DIR/lock)",
            "v1-1x-<./lock>",
        );
    }

    #[test]
    fn a_key_that_a_build_could_not_use_is_none() {
        let none = (None, false);
        assert_eq!(expanded("npm-$(codebuild-hash-files other)"), none);
        assert_eq!(expanded("npm-$(codebuild-hash-files)"), none);
        assert_eq!(expanded("npm-$(codebuild-hash-files )"), none);
        assert_eq!(expanded("a\tb"), none);
        assert_eq!(expanded(""), none);
    }

    #[test]
    fn what_a_shell_would_have_to_say_counts_as_it_is_written() {
        for written in [
            "k-$(cat version)",
            "k-$UNKNOWN",
            "k-`date`",
            "k-\\$V",
            "k-$(codebuild-hash-files lock | head -c 8)",
            "k-$(codebuild-hash-files $UNKNOWN/other lock)",
        ] {
            let (key, is_unread) = expanded(written);
            assert!(is_unread, "{written}");
            assert!(key.is_some_and(|key| key.starts_with("k-")), "{written}");
        }
    }
}
