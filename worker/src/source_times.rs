//! The times of source files: which of them look as old as they are to cargo and make.
//!
//! Pure. A dependency cache holds products of an earlier build, and its entry records the source that
//! they were made from. A file of the new source with the path and the content that it had then gets the
//! time that it had then, so its products are up to date. Every other file gets a time that is later than
//! anything in the entry, so that whatever was made from another version of it is made again.

use std::collections::BTreeMap;

use protocol::{
    attributes::{Attributes, EntryAttributes},
    digest::Digest,
    path::TreePath,
    tree::{Entry, EntryKind, Tree},
};

/// A tree and its attributes: what an earlier source was.
pub(crate) type Outline = (Tree, Attributes);

/// The attributes of the source `tree`, of which `attributes` are known, over products that were made
/// from `earlier` sources: a file that all of these agree about gets their time, every other entry gets
/// `fresh`, in nanoseconds since 1970.
pub(crate) fn stamp(
    tree: &Tree,
    attributes: &Attributes,
    earlier: &[Outline],
    fresh: i64,
) -> Attributes {
    let known: Vec<_> = earlier.iter().map(times_of).collect();
    let stamped = tree.entries().iter().enumerate().filter_map(|(at, entry)| {
        let index = u32::try_from(at).ok()?;
        let of = attributes.get(at).cloned().unwrap_or_default();
        if of.hard_link_to.is_some() {
            // It has the time of the name that it links to.
            return Some((index, of));
        }
        let modified = Some(agreed(entry, &known).unwrap_or(fresh));
        Some((index, EntryAttributes { modified, ..of }))
    });
    Attributes::new(stamped.collect())
}

/// The content and the time of each file, by path.
type Times<'a> = BTreeMap<&'a TreePath, (&'a Digest, i64)>;

fn times_of((tree, attributes): &Outline) -> Times<'_> {
    let mut times = Times::new();
    for (at, Entry { path, kind }) in tree.entries().iter().enumerate() {
        let EntryKind::File { digest, .. } = kind else {
            continue;
        };
        let of = attributes.get(at);
        let first = of.and_then(|of| of.hard_link_to);
        let of = match first.and_then(|first| usize::try_from(first).ok()) {
            Some(first) => attributes.get(first),
            None => of,
        };
        if let Some(modified) = of.and_then(|of| of.modified) {
            times.insert(path, (digest, modified));
        }
    }
    times
}

/// The time that all earlier sources say, if they have the file with this content.
fn agreed(entry: &Entry, earlier: &[Times<'_>]) -> Option<i64> {
    let EntryKind::File { digest, .. } = &entry.kind else {
        return None;
    };
    let mut agreed = None;
    for times in earlier {
        let (then, modified) = times.get(&entry.path)?;
        if *then != digest || agreed.is_some_and(|agreed| agreed != *modified) {
            return None;
        }
        agreed = Some(*modified);
    }
    agreed
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: i64 = 1_000;

    /// A source in which each file has this content and this time.
    fn source(files: &[(&str, &str, i64)]) -> Outline {
        let entry = |&(path, content, _): &(&str, &str, i64)| Entry {
            path: TreePath::new(path).unwrap(),
            kind: EntryKind::File {
                digest: Digest::of(content.as_bytes()),
                executable: false,
            },
        };
        let tree = Tree::new(files.iter().map(entry).collect()).unwrap();
        let time = |path: &TreePath| {
            let found = files
                .iter()
                .find(|(at, ..)| at.as_bytes() == path.as_bytes());
            found.map(|&(_, _, time)| time)
        };
        let of = |(at, entry): (usize, &Entry)| {
            let of = EntryAttributes {
                modified: time(&entry.path),
                ..EntryAttributes::default()
            };
            (u32::try_from(at).unwrap(), of)
        };
        let attributes = tree.entries().iter().enumerate().map(of).collect();
        (tree, Attributes::new(attributes))
    }

    #[track_caller]
    fn check(now: &[(&str, &str)], earlier: &[Outline], expected: &[i64]) {
        let files: Vec<_> = now
            .iter()
            .map(|&(path, content)| (path, content, 1))
            .collect();
        let (tree, _) = source(&files);
        let stamped = stamp(&tree, &Attributes::default(), earlier, FRESH);
        let times = (0..now.len()).map(|at| stamped.get(at).unwrap().modified.unwrap());
        assert_eq!(times.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn only_an_unchanged_file_keeps_its_time() {
        let earlier = source(&[
            ("changed", "old", 10),
            ("moved", "x", 20),
            ("same", "s", 30),
        ]);
        check(
            &[("changed", "new"), ("moved-here", "x"), ("same", "s")],
            &[earlier],
            &[FRESH, FRESH, 30],
        );
    }

    #[test]
    fn without_an_entry_everything_is_fresh() {
        check(&[("a", "1"), ("b", "2")], &[], &[FRESH, FRESH]);
    }

    #[test]
    fn several_entries_have_to_agree() {
        let one = source(&[("a", "1", 10), ("b", "2", 20), ("c", "3", 30)]);
        let two = source(&[("a", "1", 10), ("b", "2", 21)]);
        check(
            &[("a", "1"), ("b", "2"), ("c", "3")],
            &[one, two],
            &[10, FRESH, FRESH],
        );
    }

    #[test]
    fn the_clients_own_times_are_never_used() {
        let (tree, attributes) = source(&[("a", "1", 5)]);
        let stamped = stamp(&tree, &attributes, &[], FRESH);
        assert_eq!(stamped.get(0).unwrap().modified, Some(FRESH));
    }

    #[test]
    fn a_second_name_of_a_file_has_the_time_of_the_first() {
        let (tree, _) = source(&[("a", "1", 0), ("b", "1", 0)]);
        let link = EntryAttributes {
            hard_link_to: Some(0),
            ..EntryAttributes::default()
        };
        let linked = Attributes::new(vec![(1, link)]);
        let stamped = stamp(&tree, &linked, &[], FRESH);
        assert_eq!(stamped.get(1).unwrap().modified, None);
        let then = (tree.clone(), stamp(&tree, &linked, &[], 10));
        let again = stamp(&tree, &Attributes::default(), &[then], FRESH);
        assert_eq!(again.get(1).unwrap().modified, Some(10));
    }
}
