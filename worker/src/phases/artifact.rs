//! From a tree as it was captured to a tree as it is published.
//!
//! Pure: base directories are taken off the paths, or all directories, and hard links become files of
//! their own.

use std::collections::BTreeMap;

use protocol::{
    attributes::{Attributes, EntryAttributes},
    path::TreePath,
    tree::{Entry, EntryKind, Tree, TreeError},
};

/// How captured paths become published ones.
#[derive(Clone, Debug)]
pub(super) struct Reshape {
    /// The base directories, below the root; empty text: the root.
    pub(super) bases: Vec<String>,
    /// Whether every file goes to the root under its own name.
    pub(super) discard_paths: bool,
}

impl Reshape {
    /// Where a captured path is published.
    fn place(&self, path: &TreePath) -> Option<TreePath> {
        if self.discard_paths {
            return TreePath::new(path.name()).ok();
        }
        let below = |base: &String| {
            let base = TreePath::new(base.as_bytes()).ok()?;
            let inside = path.is_within(&base) && path != &base;
            inside.then(|| path.as_bytes()[base.as_bytes().len() + 1..].to_vec())
        };
        // Of nested base directories the innermost counts.
        let shortest = self.bases.iter().filter_map(below).min_by_key(Vec::len);
        match shortest {
            Some(rest) => TreePath::new(rest).ok(),
            None => Some(path.clone()),
        }
    }

    /// The published tree and its attributes. Of two that go to one place the later in tree order wins.
    ///
    /// # Errors
    ///
    /// If one file goes to where another has a directory.
    pub(super) fn apply(
        &self,
        tree: &Tree,
        attributes: &Attributes,
    ) -> Result<(Tree, Attributes), TreeError> {
        let mut published = BTreeMap::new();
        for (at, entry) in tree.entries().iter().enumerate() {
            if matches!(entry.kind, EntryKind::Directory { .. }) {
                continue;
            }
            let of = attributes.get(at).cloned().unwrap_or_default();
            let first = of
                .hard_link_to
                .and_then(|first| usize::try_from(first).ok());
            let of = match first {
                Some(first) => attributes.get(first).cloned().unwrap_or_default(),
                None => of,
            };
            if let Some(place) = self.place(&entry.path) {
                published.insert(place, (entry.kind.clone(), of));
            }
        }
        add_directories(&mut published);
        let (entries, attributes): (Vec<_>, Vec<_>) = published
            .into_iter()
            .map(|(path, (kind, of))| (Entry { path, kind }, of))
            .unzip();
        let numbered = (0..).zip(attributes);
        Ok((Tree::new(entries)?, Attributes::new(numbered.collect())))
    }
}

/// Adds the directories that lead to what is there.
fn add_directories(published: &mut BTreeMap<TreePath, (EntryKind, EntryAttributes)>) {
    let mut missing = Vec::new();
    for path in published.keys() {
        let mut parent = path.parent();
        while let Some(path) = parent {
            parent = path.parent();
            missing.push(path);
        }
    }
    for path in missing {
        published.entry(path).or_insert_with(|| {
            let directory = EntryKind::Directory { opaque: false };
            (directory, EntryAttributes::default())
        });
    }
}

#[cfg(test)]
mod tests {
    use protocol::digest::Digest;

    use super::*;

    fn file(path: &str) -> Entry {
        Entry {
            path: TreePath::new(path).unwrap(),
            kind: EntryKind::File {
                digest: Digest::of(path.as_bytes()),
                executable: false,
            },
        }
    }

    #[track_caller]
    fn check(bases: &[&str], discard_paths: bool, files: &[&str], expected: &[&str]) {
        let tree = Tree::new(files.iter().map(|path| file(path)).collect()).unwrap();
        let reshape = Reshape {
            bases: bases.iter().map(|&base| base.to_owned()).collect(),
            discard_paths,
        };
        let (tree, _) = reshape.apply(&tree, &Attributes::default()).unwrap();
        let show = |entry: &Entry| match entry.kind {
            EntryKind::Directory { .. } => format!("{}/", entry.path),
            _ => entry.path.to_string(),
        };
        let shown: Vec<_> = tree.entries().iter().map(show).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_base_directory_is_not_part_of_the_path() {
        let files = ["src/dist/a.js", "src/dist/css/b.css"];
        check(&["src/dist"], false, &files, &["a.js", "css/", "css/b.css"]);
        check(
            &["src"],
            false,
            &files,
            &["dist/", "dist/a.js", "dist/css/", "dist/css/b.css"],
        );
        check(&[""], false, &["etc/x"], &["etc/", "etc/x"]);
    }

    #[test]
    fn what_several_base_directories_hold_is_put_together() {
        let files = ["src/one/a", "src/two/b", "opt/c"];
        let expected = ["a", "b", "opt/", "opt/c"];
        check(&["src/one", "src/two"], false, &files, &expected);
    }

    #[test]
    fn discarded_paths_leave_names_and_the_later_wins() {
        let tree = Tree::new(vec![file("src/a/x"), file("src/b/x"), file("src/y")]).unwrap();
        let reshape = Reshape {
            bases: vec!["src".to_owned()],
            discard_paths: true,
        };
        let (tree, _) = reshape.apply(&tree, &Attributes::default()).unwrap();
        assert_eq!(tree.entries().len(), 2);
        let EntryKind::File { digest, .. } = tree.entries()[0].kind else {
            panic!("`x` is a file");
        };
        assert_eq!(digest, Digest::of(b"src/b/x"));
    }

    #[test]
    fn a_hard_link_becomes_a_file_with_the_attributes_of_the_first() {
        let tree = Tree::new(vec![file("src/a"), file("src/b")]).unwrap();
        let of = |mode, hard_link_to| EntryAttributes {
            mode,
            hard_link_to,
            ..EntryAttributes::default()
        };
        let attributes = Attributes::new(vec![(0, of(Some(0o755), None)), (1, of(None, Some(0)))]);
        let reshape = Reshape {
            bases: vec!["src".to_owned()],
            discard_paths: false,
        };
        let (_, attributes) = reshape.apply(&tree, &attributes).unwrap();
        assert_eq!(attributes.get(1), Some(&of(Some(0o755), None)));
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_refused() {
        let tree = Tree::new(vec![file("src/one/a"), file("src/two/a/b")]).unwrap();
        let reshape = Reshape {
            bases: vec!["src/one".to_owned(), "src/two".to_owned()],
            discard_paths: false,
        };
        assert!(reshape.apply(&tree, &Attributes::default()).is_err());
    }
}
