//! What the patterns of `artifacts` and `cache` mean: which paths below a root they name.
//!
//! Pure. A pattern is brought to one form first: relative to the root of the build's file system,
//! without `.`, `..` and doubled slashes. `*` and `?` stay within one name, `**` crosses names, and
//! names that start with a dot are like any other.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use globset::{GlobBuilder, GlobMatcher};
use protocol::path::TreePath;

/// What a pattern's text is relative to. All paths are relative to the root, `/` between names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchors<'a> {
    /// What relative patterns are relative to; empty: the root.
    pub(crate) source: &'a str,
    /// What `~` and `/root` mean.
    pub(crate) home: &'a str,
    /// The root as commands see it, absolute: `/`, or a unit's own directory at isolation level `host`.
    pub(crate) root: &'a str,
}

/// A pattern in the one form.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    /// As it was written, for messages.
    written: String,
    /// Where to look: the names before the first that holds a wildcard.
    start: String,
    /// Matches the whole path.
    matcher: GlobMatcher,
    /// Whether it has no wildcard at all.
    literal: bool,
    /// Whether its last name is made of wildcards only, like `*` and `**`.
    open_end: bool,
    /// How many names a path has that it matches; `None`: any number.
    depth: Option<usize>,
}

impl Pattern {
    /// Reads a pattern whose variables are expanded; `None` if it leads out of the root or is no
    /// pattern, so that it matches nothing.
    pub(crate) fn new(written: &str, anchors: &Anchors<'_>) -> Option<Self> {
        let path = normalise(written, anchors)?;
        let matcher = GlobBuilder::new(&path)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .ok()?
            .compile_matcher();
        let names: Vec<_> = path.split('/').collect();
        let wild = names.iter().position(|name| name.contains(WILDCARDS));
        let start = names[..wild.unwrap_or(names.len())].join("/");
        let last = names.last().copied().unwrap_or_default();
        Some(Self {
            written: written.to_owned(),
            start,
            matcher,
            literal: wild.is_none(),
            open_end: last.bytes().all(|byte| byte == b'*'),
            // Alternatives may hold a slash of their own.
            depth: (!path.contains("**") && !path.contains('{')).then_some(names.len()),
        })
    }

    /// As it was written.
    pub(crate) fn written(&self) -> &str {
        &self.written
    }

    /// Below which path all that it matches lies; empty: the root.
    pub(crate) fn start(&self) -> &str {
        &self.start
    }

    /// Whether it has no wildcard, so that it matches [`start`](Self::start) and nothing else.
    pub(crate) const fn is_literal(&self) -> bool {
        self.literal
    }

    /// How many names a path has that it matches; `None`: any number.
    pub(crate) const fn depth(&self) -> Option<usize> {
        self.depth
    }

    /// Whether it matches `path`.
    pub(crate) fn matches(&self, path: &TreePath) -> bool {
        let path = OsStr::from_bytes(path.as_bytes());
        self.matcher.is_match(path)
    }

    /// Whether a directory that it matches is meant with all that it holds: `target` and `*/target`,
    /// and not `*`.
    pub(crate) const fn means_whole_directories(&self) -> bool {
        !self.open_end
    }
}

/// What makes a name more than itself.
const WILDCARDS: [char; 6] = ['*', '?', '[', ']', '{', '\\'];

/// Brings a pattern to the form relative to the root; `None` if it leads out of it. The root itself
/// becomes the empty text.
pub(crate) fn normalise(written: &str, anchors: &Anchors<'_>) -> Option<String> {
    let (base, rest) = if let Some(rest) = below(written, "~") {
        (anchors.home, rest)
    } else if let Some(rest) = below_root(written, anchors.root) {
        ("", rest)
    } else if let Some(rest) = below(written, "/root") {
        (anchors.home, rest)
    } else if written.starts_with('/') {
        ("", written)
    } else {
        (anchors.source, written)
    };
    let mut names: Vec<&str> = Vec::new();
    for name in base.split('/').chain(rest.split('/')) {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

/// What follows `outer` in `path`, if `path` is `outer` or lies below it.
fn below<'a>(path: &'a str, outer: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(outer)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn below_root<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    match root.trim_end_matches('/') {
        "" => None,
        root => below(path, root),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: Anchors<'_> = Anchors {
        source: "codebuild/output/src/src",
        home: "root",
        root: "/",
    };
    const HOST: Anchors<'_> = Anchors {
        root: "/data/units/7",
        ..NAMESPACE
    };

    #[track_caller]
    fn check(anchors: &Anchors<'_>, written: &str, expected: Option<&str>) {
        assert_eq!(
            normalise(written, anchors).as_deref(),
            expected,
            "{written}"
        );
    }

    #[test]
    fn a_pattern_is_relative_to_the_source_or_to_the_root() {
        let src = |rest: &str| format!("codebuild/output/src/src/{rest}");
        check(&NAMESPACE, "target/**/*", Some(&src("target/**/*")));
        check(&NAMESPACE, "./target//x", Some(&src("target/x")));
        check(&NAMESPACE, "~/.npm/**/*", Some("root/.npm/**/*"));
        check(&NAMESPACE, "/root/.m2", Some("root/.m2"));
        check(&NAMESPACE, "/opt/venv", Some("opt/venv"));
        check(
            &NAMESPACE,
            "../sibling",
            Some("codebuild/output/src/sibling"),
        );
        check(&NAMESPACE, "~user/x", Some(&src("~user/x")));
        check(&NAMESPACE, "/rooted", Some("rooted"));
        check(&NAMESPACE, "/", Some(""));
        check(&NAMESPACE, "/../etc", None);
    }

    #[test]
    fn on_a_host_the_units_own_directory_is_the_root() {
        check(&HOST, "/data/units/7/root/.npm", Some("root/.npm"));
        check(&HOST, "/root/.npm", Some("root/.npm"));
        check(&HOST, "/data/units/77/x", Some("data/units/77/x"));
    }

    #[track_caller]
    fn matched(pattern: &str, start: &str, yes: &[&str], no: &[&str]) {
        let root = Anchors {
            source: "",
            ..NAMESPACE
        };
        let pattern = Pattern::new(pattern, &root).unwrap();
        assert_eq!(pattern.start(), start);
        for path in yes {
            assert!(pattern.matches(&TreePath::new(*path).unwrap()), "{path}");
        }
        for path in no {
            assert!(!pattern.matches(&TreePath::new(*path).unwrap()), "{path}");
        }
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_cross_names() {
        matched("**/*", "", &["a", ".git/x", "a/b/c"], &[]);
        matched("dir/*", "dir", &["dir/a", "dir/.a"], &["dir/a/b", "dir"]);
        matched("dir/**/*", "dir", &["dir/a", "dir/a/b"], &["dir", "other"]);
        matched("a/b.txt", "a/b.txt", &["a/b.txt"], &["a/b.txt/c", "b.txt"]);
        matched("*.{js,css}", "", &["a.js", "b.css"], &["a/b.js", "c.ts"]);
    }

    #[test]
    fn a_named_directory_is_meant_whole_and_a_wildcard_is_not() {
        let whole = |text| {
            let pattern = Pattern::new(text, &NAMESPACE).unwrap();
            pattern.means_whole_directories()
        };
        assert!(whole("node_modules"));
        assert!(whole("packages/*/node_modules"));
        assert!(!whole("dir/*"));
        assert!(!whole("dir/**/*"));
    }

    #[test]
    fn what_is_no_pattern_matches_nothing() {
        assert!(Pattern::new("a[", &NAMESPACE).is_none());
        assert!(Pattern::new("../../../../../..", &NAMESPACE).is_none());
    }
}
