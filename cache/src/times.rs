//! Which times the files of a source get, so that tools which compare them are right.
//!
//! cargo and make take what is newer than its results for changed. So a file that is what it was when a
//! dependency cache was made gets the time that it had then, and every other file the time of now, which
//! is later than anything in the cache. Keeping "the last build's" times instead would pair one build's
//! results with another's sources, and make would link the wrong program. The client's own times are
//! never used: they say when a file was checked out, not what it is.

use std::collections::BTreeMap;

use protocol::{
    attributes::{Attributes, EntryAttributes},
    digest::Digest,
    path::TreePath,
    tree::{EntryKind, Tree},
};

/// What a dependency cache was made from: the source of its build, with the times that it had.
#[derive(Clone, Debug)]
pub struct MadeFrom {
    /// The source.
    pub tree: Tree,
    /// Its times, among other things.
    pub attributes: Attributes,
}

impl MadeFrom {
    /// By path, what each file was and when it had last changed.
    fn files(&self) -> BTreeMap<&TreePath, (Digest, i64)> {
        let entries = self.tree.entries().iter().enumerate();
        let files = entries.filter_map(|(index, entry)| {
            let EntryKind::File { digest, .. } = entry.kind else {
                return None;
            };
            let of = self.attributes.get(index)?;
            // A second name of a file has the time of the first.
            let of = match of.hard_link_to.and_then(|first| usize::try_from(first).ok()) {
                Some(first) => self.attributes.get(first)?,
                None => of,
            };
            Some((&entry.path, (digest, of.modified?)))
        });
        files.collect()
    }
}

/// The attributes of a source, with times: `attributes` are those that it was uploaded with, `caches`
/// what each restored dependency cache was made from, `now` the time of materialisation in nanoseconds
/// since 1970, later than any time in those caches.
///
/// With several caches, a file keeps a time only if all agree on it.
pub fn with_times(
    tree: &Tree,
    attributes: &Attributes,
    caches: &[MadeFrom],
    now: i64,
) -> Attributes {
    let caches: Vec<_> = caches.iter().map(MadeFrom::files).collect();
    let time_of = |path: &TreePath, digest: Digest| {
        let mut times = caches.iter().map(|files| {
            let (then, modified) = files.get(path)?;
            (*then == digest).then_some(*modified)
        });
        let first = times.next()??;
        times.all(|other| other == Some(first)).then_some(first)
    };
    let entries = (0..).zip(tree.entries()).map(|(index, entry)| {
        let known = attributes.get(index as usize).cloned();
        let modified = match entry.kind {
            EntryKind::File { digest, .. } => time_of(&entry.path, digest).unwrap_or(now),
            _ => now,
        };
        let of = EntryAttributes {
            modified: Some(modified),
            ..known.unwrap_or_default()
        };
        (index, of)
    });
    Attributes::new(entries.collect())
}

#[cfg(test)]
mod tests {
    use protocol::tree::Entry;

    use super::*;

    const NOW: i64 = 9_000;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let entry = |(path, content): &(&str, &str)| Entry {
            path: TreePath::new(*path).unwrap(),
            kind: EntryKind::File {
                digest: Digest::of(content.as_bytes()),
                executable: false,
            },
        };
        Tree::new(files.iter().map(entry).collect()).unwrap()
    }

    /// A cache that was made from `files`: path, content, time.
    fn made_from(files: &[(&str, &str, i64)]) -> MadeFrom {
        let plain: Vec<_> = files
            .iter()
            .map(|(path, content, _)| (*path, *content))
            .collect();
        let tree = tree(&plain);
        let of = |(index, entry): (u32, &Entry)| {
            let named = files
                .iter()
                .find(|file| file.0.as_bytes() == entry.path.as_bytes());
            let of = EntryAttributes {
                modified: named.map(|file| file.2),
                ..Default::default()
            };
            (index, of)
        };
        let attributes = Attributes::new((0..).zip(tree.entries()).map(of).collect());
        MadeFrom { tree, attributes }
    }

    /// The times that the files of a source get, in tree order.
    fn check(source: &[(&str, &str)], caches: &[MadeFrom], expected: &[i64]) {
        let tree = tree(source);
        let times = with_times(&tree, &Attributes::default(), caches, NOW);
        let times: Vec<_> = (0..expected.len())
            .map(|index| times.get(index).unwrap().modified.unwrap())
            .collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn what_is_as_it_was_keeps_its_time_and_the_rest_is_new() {
        let cache = made_from(&[("a", "1", 100), ("b", "1", 200)]);
        check(
            &[("a", "1"), ("b", "2"), ("c", "1")],
            &[cache],
            &[100, NOW, NOW],
        );
    }

    #[test]
    fn without_a_cache_everything_is_new() {
        check(&[("a", "1")], &[], &[NOW]);
    }

    #[test]
    fn going_back_to_older_content_is_a_change_to_a_cache_of_newer_content() {
        let newer = made_from(&[("a", "2", 300)]);
        check(&[("a", "1")], &[newer], &[NOW]);
    }

    #[test]
    fn several_caches_have_to_agree() {
        let one = made_from(&[("a", "1", 100), ("b", "1", 100)]);
        let other = made_from(&[("a", "1", 100), ("b", "1", 150)]);
        check(&[("a", "1"), ("b", "1")], &[one, other], &[100, NOW]);
    }

    #[test]
    fn what_else_is_known_of_a_file_stays() {
        let tree = tree(&[("a", "1")]);
        let mode = EntryAttributes {
            mode: Some(0o600),
            modified: Some(1),
            ..Default::default()
        };
        let uploaded = Attributes::new(vec![(0, mode)]);
        let times = with_times(&tree, &uploaded, &[], NOW);
        assert_eq!(times.get(0).unwrap().mode, Some(0o600));
        assert_eq!(times.get(0).unwrap().modified, Some(NOW));
    }
}
