//! Keys of dependency caches as buildspecs write them, without a shell: text, variables whose values are known, and
//! calls that hash files. Pure.

use std::collections::BTreeMap;

use buildspec::BuildSpec;
use worker::expand::split_name;

use crate::build_command::HASH_FILES;

/// What only a shell can make something of. Wildcards are not among it: who hashes files knows them, too.
const OF_SHELLS: [char; 9] = ['$', '|', '>', '<', ';', '&', '(', '`', '\\'];

/// The variables whose values are known of all builds by `spec`; they are in the root of the source tree.
pub(crate) fn known_variables(spec: &BuildSpec) -> BTreeMap<String, String> {
    let mut variables = spec.variables.clone();
    variables.insert("CODEBUILD_SRC_DIR".to_owned(), ".".to_owned());
    variables
}

/// The words of a call of `codebuild-hash-files` that stands behind a `$`, and what comes after it.
pub(crate) fn hash_call(after: &str) -> Option<(&str, &str)> {
    let call = after.strip_prefix('(')?.trim_start();
    let words = call.strip_prefix(HASH_FILES)?;
    let ends_name = |c: char| c.is_whitespace() || c == ')';
    words.starts_with(ends_name).then_some(())?;
    words.split_once(')')
}

/// The patterns among the words of a call.
pub(crate) fn patterns(words: &str) -> Vec<String> {
    let patterns = words.split_whitespace();
    let patterns = patterns.map(|word| word.trim_matches(['"', '\'']).to_owned());
    patterns.collect()
}

/// The patterns of all files that a key hashes; `None`: only a shell knows them all.
pub(crate) fn hashed(key: &str, variables: &BTreeMap<String, String>) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut rest = key;
    while let Some((_, after)) = rest.split_once('$') {
        rest = after;
        if let Some((words, behind)) = hash_call(after) {
            let words = plain(words, variables);
            (!is_for_shell(&words)).then_some(())?;
            all.extend(patterns(&words));
            rest = behind;
        }
    }
    Some(all)
}

/// Adds the value of the variable behind a `$` to `text`, and gives what comes after it; if it is not known,
/// the `$` is added, and nothing is taken.
pub(crate) fn variable<'t>(
    after: &'t str,
    variables: &BTreeMap<String, String>,
    text: &mut String,
) -> &'t str {
    let (name, behind) = split_name(after);
    if let Some(value) = variables.get(name) {
        text.push_str(value);
        return behind;
    }
    text.push('$');
    after
}

/// A text with the values of variables that are known.
pub(crate) fn plain(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = variable(after, variables, &mut expanded);
    }
    expanded.push_str(rest);
    expanded
}

/// Whether only a shell can make something of a text.
pub(crate) fn is_for_shell(text: &str) -> bool {
    text.contains(OF_SHELLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &str, expected: Option<&[&str]>) {
        let variables = [("CODEBUILD_SRC_DIR", "."), ("APP", "web")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = expected.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(hashed(key, &variables.into()), expected, "{key}");
    }

    #[test]
    fn the_patterns_of_each_call_are_found() {
        let key = "npm-$(codebuild-hash-files package-lock.json 'a/*.lock')-$OS-$(codebuild-hash-files go.sum)";
        check(key, Some(&["package-lock.json", "a/*.lock", "go.sum"]));
        check("fixed-$HOME", Some(&[]));
        check("$(codebuild-hash-files)", Some(&[]));
    }

    #[test]
    fn patterns_have_the_values_of_variables_that_are_known() {
        let key = "$(codebuild-hash-files $CODEBUILD_SRC_DIR/${APP}/package-lock.json)";
        check(key, Some(&["./web/package-lock.json"]));
    }

    #[test]
    fn what_only_a_shell_knows_is_no_pattern() {
        for words in [
            "$NOBODY/lock",
            "$(ls)",
            "lock | head -c 8",
            "lock 2>/dev/null",
            "`ls`",
        ] {
            check(&format!("k-$(codebuild-hash-files {words})"), None);
        }
    }
}
