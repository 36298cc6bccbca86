//! Which times a source's files get when it is put back. Pure.
//!
//! Compilers and make compare times, so a restored dependency cache is of use only to files that seem as
//! old as they were when it was made. A cache entry records the source that it was made from: a file with
//! that path and those bytes gets the recorded time. Every other file, changed, new or unknown to one of
//! several entries, is newer than everything in them. The times of whoever uploaded the source never
//! count, and nor do those of "the last build": they would pair one build's objects with another's
//! sources.

use protocol::{
    attributes::{Attributes, EntryAttributes},
    digest::Digest,
    path::TreePath,
    tree::{EntryKind, Tree},
};

/// How much later than everything recorded a file is that matches no record, in nanoseconds: the
/// coarsest clock that file systems of today keep times by, twice over.
const MARGIN_NANOS: i64 = 20_000_000;

/// The source that a dependency cache was made from.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it was.
    pub tree: &'a Tree,
    /// With the times that its files had.
    pub attributes: &'a Attributes,
}

impl Record<'_> {
    /// The time that the file at `path` had, if it was there with these bytes.
    fn modified(&self, path: &TreePath, digest: &Digest) -> Option<i64> {
        let (index, entry) = self.tree.find(path)?;
        let same = matches!(&entry.kind, EntryKind::File { digest: found, .. } if found == digest);
        if !same {
            return None;
        }
        let known = self.attributes.get(index)?;
        match known.hard_link_to {
            Some(first) => self.attributes.get(usize::try_from(first).ok()?)?.modified,
            None => known.modified,
        }
    }

    fn latest(&self) -> Option<i64> {
        let times = self.attributes.entries().iter();
        times.filter_map(|(_, known)| known.modified).max()
    }
}

/// The attributes with which to put back the source `tree`: its own but for the times, which come from
/// the `records` of the dependency caches that are restored with it, or are `now` (nanoseconds since
/// 1970; moved past everything that is recorded, should that be later).
pub fn source_attributes(
    tree: &Tree,
    attributes: &Attributes,
    records: &[Record<'_>],
    now: i64,
) -> Attributes {
    let latest = records.iter().filter_map(Record::latest).max();
    let now = latest.map_or(now, |latest| now.max(latest.saturating_add(MARGIN_NANOS)));
    let entries = tree.entries().iter().zip(0_u32..);
    let timed = entries.map(|(entry, index)| {
        let known = attributes.get(index as usize);
        let known = known.cloned().unwrap_or_default();
        if known.hard_link_to.is_some() {
            return (index, known);
        }
        let recorded = match &entry.kind {
            EntryKind::File { digest, .. } => agreed(records, &entry.path, digest),
            _ => None,
        };
        let modified = Some(recorded.unwrap_or(now));
        (index, EntryAttributes { modified, ..known })
    });
    Attributes::new(timed.collect())
}

/// The time that all records give a file; `None` if one does not know it, or they differ.
fn agreed(records: &[Record<'_>], path: &TreePath, digest: &Digest) -> Option<i64> {
    let mut times = records.iter().map(|record| record.modified(path, digest));
    let first = times.next()??;
    times.all(|time| time == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use protocol::tree::Entry;

    use super::*;

    /// A source: paths, contents and times.
    type Source = (Tree, Attributes);

    fn source(files: &[(&str, &str, i64)]) -> Source {
        let entry = |(path, bytes, _): &(&str, &str, i64)| Entry {
            path: TreePath::new(*path).unwrap(),
            kind: EntryKind::File {
                digest: Digest::of(bytes.as_bytes()),
                executable: false,
            },
        };
        let tree = Tree::new(files.iter().map(entry).collect()).unwrap();
        let timed = |entry: &Entry| {
            let path = entry.path.to_string();
            let (_, _, time) = files.iter().find(|(of, ..)| *of == path).unwrap();
            EntryAttributes {
                modified: Some(*time),
                ..Default::default()
            }
        };
        let attributes = (0..).zip(tree.entries().iter().map(timed)).collect();
        (tree, Attributes::new(attributes))
    }

    fn record((tree, attributes): &Source) -> Record<'_> {
        Record { tree, attributes }
    }

    /// Checks the times of the files `a`, `b`, …, in this order, at the moment 1,000 s.
    #[track_caller]
    fn check(now: &Source, records: &[&Source], expected: &[i64]) {
        let records: Vec<_> = records.iter().map(|of| record(of)).collect();
        let attributes = source_attributes(&now.0, &now.1, &records, NOW);
        let times: Vec<_> = attributes
            .entries()
            .iter()
            .map(|(_, of)| of.modified.unwrap())
            .collect();
        assert_eq!(times, expected);
    }

    const NOW: i64 = 1_000_000_000_000;

    #[test]
    fn what_an_entry_was_made_from_gets_its_time_back_and_the_rest_is_new() {
        let made_from = source(&[("a", "same", 10), ("b", "before", 11), ("c", "moved", 12)]);
        let now = source(&[("a", "same", 99), ("b", "after", 1), ("d", "moved", 1)]);
        check(&now, &[&made_from], &[10, NOW, NOW]);
    }

    #[test]
    fn the_clients_own_times_never_count() {
        check(
            &source(&[("a", "x", 1), ("b", "y", NOW * 2)]),
            &[],
            &[NOW, NOW],
        );
    }

    #[test]
    fn the_objects_of_one_build_are_not_paired_with_the_sources_of_another() {
        // One entry was made from version 1 of `a`, then `a` was changed and changed back. Its time then
        // is that of the entry's own source, not of a build in between.
        let first = source(&[("a", "1", 10)]);
        let second = source(&[("a", "2", 20)]);
        check(&source(&[("a", "1", 30)]), &[&first], &[10]);
        check(&source(&[("a", "1", 30)]), &[&second], &[NOW]);
        // Two entries, made from different versions: whatever the file is now, one of them is out of
        // date, and must be seen to be.
        check(&source(&[("a", "1", 30)]), &[&first, &second], &[NOW]);
        check(&source(&[("a", "2", 30)]), &[&first, &second], &[NOW]);
        // The same bytes at different times: no time suits both.
        let later = source(&[("a", "1", 15)]);
        check(&source(&[("a", "1", 30)]), &[&first, &later], &[NOW]);
        check(&source(&[("a", "1", 30)]), &[&first, &first], &[10]);
    }

    #[test]
    fn what_changed_is_newer_than_everything_in_the_entries_whatever_the_clock_says() {
        let ahead = NOW + 5_000_000_000;
        let made_from = source(&[("a", "same", ahead), ("b", "before", 11)]);
        let now = source(&[("a", "same", 1), ("b", "after", 1)]);
        check(&now, &[&made_from], &[ahead, ahead + MARGIN_NANOS]);
    }
}
