//! Which entries of a directory are captured.

use std::collections::BTreeSet;

use protocol::path::TreePath;

/// Which entries of a directory are captured. Directories that lead to a chosen entry always are, so
/// that their modes are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selection {
    /// Everything.
    All,
    /// Everything but these and what lies below them.
    Except(BTreeSet<TreePath>),
    /// What is listed.
    Listed {
        /// Each of these by itself: of a directory, not what it holds.
        paths: BTreeSet<TreePath>,
        /// Each of these with all that lies below it.
        whole: BTreeSet<TreePath>,
    },
}

/// What a selection says of one path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It is taken; if it is a directory, what it holds is looked at.
    Take,
    /// It is taken if it is a directory, because it leads to something.
    Lead,
    /// Neither it nor what lies below it is taken.
    Skip,
}

impl Selection {
    /// Each of `paths` by itself.
    pub fn paths(paths: BTreeSet<TreePath>) -> Self {
        Self::Listed {
            paths,
            whole: BTreeSet::new(),
        }
    }

    /// What becomes of `path`.
    pub(crate) fn of(&self, path: &TreePath) -> Verdict {
        match self {
            Self::All => Verdict::Take,
            Self::Except(left_out) if left_out.contains(path) => Verdict::Skip,
            Self::Except(_) => Verdict::Take,
            Self::Listed { paths, whole } => {
                if paths.contains(path) || is_below_any(path, whole) {
                    Verdict::Take
                } else if leads_to(path, paths) || leads_to(path, whole) {
                    Verdict::Lead
                } else {
                    Verdict::Skip
                }
            }
        }
    }
}

/// Whether `path` is one of `outer`, or lies below one.
pub(crate) fn is_below_any(path: &TreePath, outer: &BTreeSet<TreePath>) -> bool {
    if outer.is_empty() {
        return false;
    }
    let mut at = Some(path.clone());
    while let Some(path) = at {
        if outer.contains(&path) {
            return true;
        }
        at = path.parent();
    }
    false
}

/// Whether something in `paths` lies below `path`: in tree order it would follow directly.
fn leads_to(path: &TreePath, paths: &BTreeSet<TreePath>) -> bool {
    paths
        .range(path..)
        .next()
        .is_some_and(|next| next.is_within(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&str]) -> BTreeSet<TreePath> {
        paths
            .iter()
            .map(|&path| TreePath::new(path).unwrap())
            .collect()
    }

    #[track_caller]
    fn check(selection: &Selection, expected: &[(&str, Verdict)]) {
        for (path, verdict) in expected {
            let path = TreePath::new(*path).unwrap();
            assert_eq!(selection.of(&path), *verdict, "{path}");
        }
    }

    #[test]
    fn a_listed_path_brings_the_directories_that_lead_to_it_and_nothing_else() {
        let listed = Selection::Listed {
            paths: set(&["a/b/c", "d"]),
            whole: set(&["e/f"]),
        };
        check(
            &listed,
            &[
                ("a", Verdict::Lead),
                ("a/b", Verdict::Lead),
                ("a/b/c", Verdict::Take),
                ("a/b/cc", Verdict::Skip),
                ("a-b", Verdict::Skip),
                ("d", Verdict::Take),
                ("d/x", Verdict::Skip),
                ("e", Verdict::Lead),
                ("e/f/g/h", Verdict::Take),
            ],
        );
    }

    #[test]
    fn what_is_left_out_is_left_out_as_a_whole() {
        let except = Selection::Except(set(&["tmp"]));
        check(&except, &[("tmp", Verdict::Skip), ("tmp2", Verdict::Take)]);
    }
}
