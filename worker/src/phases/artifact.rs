//! From a tree as it was captured to a tree as it is published.
//!
//! Pure: each file goes to its place in the artifact, and hard links become files of their own.

use std::collections::BTreeMap;

use protocol::{
    attributes::{Attributes, EntryAttributes},
    path::TreePath,
    tree::{Entry, EntryKind, Tree, TreeError},
};

/// The published tree and its attributes: `places` says for each path in the artifact which entry of the
/// captured tree is there.
///
/// # Errors
///
/// If one file is where another has a directory, or the tree is larger than one may be.
pub(super) fn published(
    places: &BTreeMap<TreePath, TreePath>,
    tree: &Tree,
    attributes: &Attributes,
) -> Result<(Tree, Attributes), TreeError> {
    let mut published = BTreeMap::new();
    for (to, from) in places {
        let Some((at, entry)) = tree.find(from) else {
            continue;
        };
        let of = attributes.get(at).cloned().unwrap_or_default();
        let first = of
            .hard_link_to
            .and_then(|first| usize::try_from(first).ok());
        let of = match first {
            Some(first) => attributes.get(first).cloned().unwrap_or_default(),
            None => of,
        };
        published.insert(to.clone(), (entry.kind.clone(), of));
    }
    add_directories(&mut published);
    let (entries, attributes): (Vec<_>, Vec<_>) = published
        .into_iter()
        .map(|(path, (kind, of))| (Entry { path, kind }, of))
        .unzip();
    let numbered = (0..).zip(attributes);
    Ok((Tree::new(entries)?, Attributes::new(numbered.collect())))
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

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn file(at: &str) -> Entry {
        Entry {
            path: path(at),
            kind: EntryKind::File {
                digest: Digest::of(at.as_bytes()),
                executable: false,
            },
        }
    }

    #[test]
    fn each_file_goes_to_its_place_with_the_directories_that_lead_there() {
        let tree = Tree::new(vec![file("src/dist/a"), file("src/dist/css/b")]).unwrap();
        let places = [("a", "src/dist/a"), ("css/b", "src/dist/css/b")];
        let places = places.map(|(to, from)| (path(to), path(from))).into();
        let (tree, _) = published(&places, &tree, &Attributes::default()).unwrap();
        let shown: Vec<_> = tree.entries().iter().map(|e| e.path.to_string()).collect();
        assert_eq!(shown, ["a", "css", "css/b"]);
        assert_eq!(tree.entries()[0].kind, file("src/dist/a").kind);
        assert!(matches!(
            tree.entries()[1].kind,
            EntryKind::Directory { .. }
        ));
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
        let places = BTreeMap::from([(path("only"), path("src/b"))]);
        let (_, attributes) = published(&places, &tree, &attributes).unwrap();
        assert_eq!(attributes.get(0), Some(&of(Some(0o755), None)));
    }
}
