//! What one pattern means. Pure.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use protocol::path::TreePath;

use super::GlobError;

/// How many `**` inside of names one pattern may have: each doubles the work.
const INNER_STARS_MAX: usize = 4;

/// A pattern, in the view.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// The names at the beginning that are no wildcards; `None`: the root.
    start: Option<TreePath>,
    /// Whether there is nothing but these.
    literal: bool,
    /// How many more names a match has at most; `None`: any number.
    depth: Option<usize>,
    /// What the path below `start` has to match.
    globs: GlobSet,
    /// Whether nothing can match: the pattern leads out of the view.
    outside: bool,
}

impl Pattern {
    /// Understands `text`, which is relative to `directory` if it does not start with `/`.
    pub(super) fn parse(text: &str, directory: Option<&TreePath>) -> Result<Self, GlobError> {
        let mut start: Vec<Vec<u8>> = match directory {
            Some(directory) if !text.starts_with('/') => {
                directory.components().map(<[u8]>::to_vec).collect()
            }
            _ => Vec::new(),
        };
        let names = text.split('/').filter(|name| !matches!(*name, "" | "."));
        let mut rest: Vec<&str> = Vec::new();
        let mut outside = false;
        for name in names {
            if !rest.is_empty() || name.contains(['*', '?', '[', '{', '\\']) {
                rest.push(name);
            } else if name == ".." {
                outside |= start.pop().is_none();
            } else {
                start.push(name.as_bytes().to_vec());
            }
        }
        let globs = Self::globs(text, &rest)?;
        let endless = rest.iter().any(|name| name.contains("**"));
        let start = start.join(&b'/');
        let start = if start.is_empty() {
            None
        } else {
            let path = TreePath::new(start);
            outside |= path.is_err();
            path.ok()
        };
        Ok(Self {
            start,
            literal: rest.is_empty(),
            depth: (!endless).then_some(rest.len()),
            globs,
            outside: outside || rest.contains(&".."),
        })
    }

    fn globs(text: &str, rest: &[&str]) -> Result<GlobSet, GlobError> {
        let failed = |source| GlobError::Pattern {
            pattern: text.to_owned(),
            source,
        };
        let mut set = GlobSetBuilder::new();
        if rest.is_empty() {
            return set.build().map_err(failed);
        }
        for glob in spell_out(&rest.join("/")).ok_or_else(|| GlobError::TooManyStars {
            pattern: text.to_owned(),
        })? {
            let glob = GlobBuilder::new(&glob)
                .literal_separator(true)
                .backslash_escape(true)
                .build();
            set.add(glob.map_err(failed)?);
        }
        set.build().map_err(failed)
    }

    /// The names at the beginning that are no wildcards; `None`: the root.
    pub(super) fn start(&self) -> Option<&TreePath> {
        self.start.as_ref()
    }

    /// Whether the pattern has no wildcards.
    pub(super) fn is_literal(&self) -> bool {
        self.literal
    }

    /// Whether nothing in the view can match.
    pub(super) fn is_outside(&self) -> bool {
        self.outside
    }

    /// Whether what lies below a directory that is `depth` names below the start can match.
    pub(super) fn reaches_below(&self, depth: usize) -> bool {
        self.depth.is_none_or(|reach| depth < reach)
    }

    /// Whether the pattern means the path.
    pub(super) fn matches(&self, path: &TreePath) -> bool {
        if self.outside {
            return false;
        }
        let below = match &self.start {
            None => path.as_bytes(),
            Some(start) if self.literal => return path == start,
            Some(start) if path.is_within(start) => {
                let Some(below) = path.as_bytes().get(start.as_bytes().len() + 1..) else {
                    return false;
                };
                below
            }
            Some(_) => return false,
        };
        self.globs.is_match(Path::new(OsStr::from_bytes(below)))
    }
}

/// `**` inside of a name (`a**b`) crosses names, as it does by itself: the patterns that say so with `**`
/// only between `/`. `None` if there are too many.
fn spell_out(pattern: &str) -> Option<Vec<String>> {
    let mut spelled = vec![String::new()];
    let mut inner = 0;
    for (number, name) in pattern.split('/').enumerate() {
        let mut choices = vec![String::new()];
        if name == "**" {
            choices = vec!["**".to_owned()];
        } else {
            for (number, part) in split_stars(name).enumerate() {
                if number > 0 {
                    inner += 1;
                    let crossing = choices.iter().map(|choice| format!("{choice}*/**/*"));
                    let crossing: Vec<_> = crossing.collect();
                    choices.iter_mut().for_each(|choice| choice.push('*'));
                    choices.extend(crossing);
                }
                choices.iter_mut().for_each(|choice| choice.push_str(part));
                if INNER_STARS_MAX < inner {
                    return None;
                }
            }
        }
        let separator = if number == 0 { "" } else { "/" };
        let join = |before: &String| {
            let before = before.clone();
            choices
                .iter()
                .map(move |choice| format!("{before}{separator}{choice}"))
                .collect::<Vec<_>>()
        };
        spelled = spelled.iter().flat_map(join).collect();
    }
    Some(spelled)
}

/// The parts of a name between runs of two or more stars.
fn split_stars(name: &str) -> impl Iterator<Item = &str> {
    name.split("**").enumerate().map(|(number, part)| {
        // Of three stars the third starts the next part.
        if number > 0 {
            part.trim_start_matches('*')
        } else {
            part
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, means: &[&str], not: &[&str]) {
        let directory = TreePath::new("src").unwrap();
        let pattern = Pattern::parse(pattern, Some(&directory)).unwrap();
        for path in means {
            assert!(pattern.matches(&TreePath::new(*path).unwrap()), "{path}");
        }
        for path in not {
            assert!(!pattern.matches(&TreePath::new(*path).unwrap()), "{path}");
        }
    }

    #[test]
    fn one_star_stays_in_a_name_and_two_cross_names() {
        check(
            "**/*",
            &["src/a", "src/a/b", "src/.hidden/.x"],
            &["src", "a"],
        );
        check("*", &["src/a", "src/.a"], &["src/a/b"]);
        check("dir/*", &["src/dir/x"], &["src/dir", "src/dir/x/y"]);
        check(
            "dir/**/*",
            &["src/dir/x", "src/dir/x/y"],
            &["src/dir", "src/dirx/y"],
        );
        check("dir/**", &["src/dir/x", "src/dir/x/y"], &["src/dir"]);
        check(
            "**/test/*.xml",
            &["src/test/a.xml", "src/a/b/test/a.xml"],
            &["src/test/b/a.xml"],
        );
        check(
            "a/b.txt",
            &["src/a/b.txt"],
            &["src/a/b_txt", "src/a/b.txt/c"],
        );
        check("./a//b/", &["src/a/b"], &[]);
        check("/root/.m2/**/*", &["root/.m2/a/b"], &["src/root/.m2/a"]);
        check("../out/*.jar", &["out/x.jar"], &["src/out/x.jar"]);
        check("../../x", &[], &["x", "src/x"]);
        check(
            "{a,b}/[xy]?.c",
            &["src/a/x1.c", "src/b/y2.c"],
            &["src/c/x1.c"],
        );
    }

    #[test]
    fn two_stars_inside_a_name_cross_names_too() {
        check(
            "**.*",
            &["src/a.b", "src/a/b.c"],
            &["src/a", "src/a/b", "src/a.d/e"],
        );
        check(
            "lib**so",
            &["src/lib.so", "src/lib/x/y.so"],
            &["src/x/lib.so.1"],
        );
        check("a***b", &["src/ab", "src/ax/yb"], &[]);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text| Pattern::parse(text, None).unwrap_err().to_string();
        assert_eq!(error("a[b"), "`a[b` is no pattern");
        assert_eq!(
            error("a**b**c**d**e**f"),
            "`a**b**c**d**e**f` has too many `**` inside of names"
        );
    }
}
