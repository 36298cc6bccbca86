//! The patterns of `artifacts` and `cache` as they have to be looked up: below the root of a unit.
//!
//! Pure. A pattern that starts with `~`, or that names the directory which stands for the root at
//! isolation level `host`, becomes one that starts at the root.

use std::collections::BTreeMap;

use crate::{expand::expand, ground::HOME};

/// The pattern `text`, its variables expanded, as it is below the root that commands know as `root`.
pub(crate) fn rooted(text: &str, variables: &BTreeMap<String, Vec<u8>>, root: &str) -> String {
    let text = expand(text, variables);
    if let Some(rest) = below(&text, "~") {
        return format!("/{HOME}{rest}");
    }
    match root.trim_end_matches('/') {
        "" => text,
        root => match below(&text, root) {
            Some("") => "/".to_owned(),
            Some(rest) => rest.to_owned(),
            None => text,
        },
    }
}

/// What follows `outer` in `path`, if `path` is `outer` or lies below it.
fn below<'a>(path: &'a str, outer: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(outer)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(root: &str, text: &str, expected: &str) {
        let variables = [("DIR", "target"), ("HOME", "/data/units/7/root")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(rooted(text, &variables.into(), root), expected);
    }

    #[test]
    fn the_home_directory_has_one_name_below_the_root() {
        check("/", "~/.npm/**/*", "/root/.npm/**/*");
        check("/", "~", "/root");
        check("/", "/root/.m2", "/root/.m2");
        check("/", "~user/x", "~user/x");
    }

    #[test]
    fn on_a_host_the_units_own_directory_is_the_root() {
        check("/data/units/7", "$HOME/.npm", "/root/.npm");
        check("/data/units/7", "~/.npm", "/root/.npm");
        check("/data/units/7", "/root/.npm", "/root/.npm");
        check("/data/units/7", "/data/units/7", "/");
        check("/data/units/7", "/data/units/77/x", "/data/units/77/x");
    }

    #[test]
    fn what_is_relative_stays_so() {
        check("/", "$DIR/**/*", "target/**/*");
        check("/", "", "");
    }
}
