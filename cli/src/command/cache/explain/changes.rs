//! Which files of a source differ from those that an entry was made from; those first that its key is made from.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use cache::{
    download::fetch_outline,
    source::{SourceError, capture_source},
};
use globset::GlobSet;
use protocol::{
    message::client::BUILDSPEC_BYTES_MAX,
    path::TreePath,
    tree::{Entry, EntryKind, Tree},
};
use serde::Serialize;
use worker::lock_files::{UNASKED, is_lock_file};

use super::Near;
use crate::{
    build_command::globs,
    command::{cache::Cache, source::read_bounded},
    error::CommandError,
    key_template::{hashed, known_variables},
};

/// How many changed files are named, of each kind.
const CHANGES_MAX: usize = 20;

/// What has changed in a source since an entry was made from it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Changes {
    /// Files that the key is made from; `None`: nobody knows which these are.
    pub(crate) inputs: Option<Vec<String>>,
    /// All others.
    pub(crate) others: Vec<String>,
}

/// Whether a key is made from the file at a path.
type IsInput<'a> = Box<dyn Fn(&TreePath) -> bool + 'a>;

/// A source tree that is compared with those that entries were made from.
#[derive(Debug)]
pub(super) struct Source {
    tree: Tree,
    /// The files that the key of its buildspec hashes; `None`: there is no such key, or nobody knows.
    hashed: Option<GlobSet>,
}

impl Source {
    /// Reads the source in `directory`; its buildspec is at `buildspec` below that, if it has one.
    ///
    /// # Errors
    ///
    /// If the source cannot be read.
    pub(super) async fn read(directory: &Path, buildspec: &Path) -> Result<Self, CommandError> {
        let (directory, buildspec) = (directory.to_owned(), directory.join(buildspec));
        let reading = tokio::task::spawn_blocking(move || {
            let (captured, _) = capture_source(&directory, false)?;
            let hashed = hashed_by(&buildspec);
            let tree = captured.tree;
            Ok::<_, SourceError>(Self { tree, hashed })
        });
        let read = reading.await.map_err(CommandError::farm)?;
        read.map_err(CommandError::usage)
    }

    /// What has changed since `near` was made; `None`: nobody knows what it was made from, or it has gone.
    pub(super) async fn changes(
        &self,
        cache: &Cache,
        near: &Near,
    ) -> Result<Option<Changes>, CommandError> {
        let path = format!("dependency/{}/{}/{}", near.project, near.version, near.key);
        let entry = cache.entry(path).await?;
        let Some(outline) = entry.and_then(|entry| entry.outlines.first().cloned()) else {
            return Ok(None);
        };
        let outline = fetch_outline(&cache.client, &outline).await;
        let (outline, _) = outline.map_err(CommandError::of_cache)?;
        Ok(Some(self.since(&outline, &near.key)))
    }

    /// What has changed since it was as `old`, of which an entry under `key` was made.
    fn since(&self, old: &Tree, key: &str) -> Changes {
        let of_key = self.inputs(key);
        let is_input = |entry: &Entry| of_key.as_ref().is_some_and(|is| is(&entry.path));
        let (inputs, others) = differences(old, &self.tree, is_input);
        Changes {
            inputs: of_key.is_some().then(|| named(inputs)),
            others: named(others),
        }
    }

    /// Which files a key is made from; `None`: nobody knows.
    fn inputs(&self, key: &str) -> Option<IsInput<'_>> {
        if key.starts_with(UNASKED) {
            return Some(Box::new(is_lock_file));
        }
        let globs = self.hashed.as_ref()?;
        let is_hashed = move |path: &TreePath| globs.is_match(OsStr::from_bytes(path.as_bytes()));
        Some(Box::new(is_hashed))
    }
}

/// The files that the key in a buildspec hashes; `None`: it hashes none, only a shell knows them, or there is no
/// buildspec to be read.
fn hashed_by(path: &Path) -> Option<GlobSet> {
    let bytes = read_bounded(path, BUILDSPEC_BYTES_MAX).ok()?;
    let spec = buildspec::parse(str::from_utf8(&bytes).ok()?).spec?;
    let variables = known_variables(&spec);
    let key = spec.cache?.spec.key?;
    globs(&hashed(&key, &variables)?).ok()
}

/// What files `new` has that `old` has not, or has otherwise, and the other way round: those that are inputs, and
/// the others.
fn differences(
    old: &Tree,
    new: &Tree,
    is_input: impl Fn(&Entry) -> bool,
) -> (Vec<String>, Vec<String>) {
    let is_file = |entry: &&Entry| {
        let is_git = entry.path.components().next() == Some(b".git");
        matches!(entry.kind, EntryKind::File { .. }) && !is_git
    };
    let other =
        |tree: &Tree, entry: &Entry| tree.find(&entry.path).map(|(_, found)| found.kind.clone());
    let (mut inputs, mut others) = (Vec::new(), Vec::new());
    let mut note = |what: &str, entry: &Entry| {
        let change = format!("{what} {}", entry.path);
        match is_input(entry) {
            true => inputs.push(change),
            false => others.push(change),
        }
    };
    for entry in new.entries().iter().filter(is_file) {
        match other(old, entry) {
            None => note("added", entry),
            Some(kind) if kind != entry.kind => note("changed", entry),
            Some(_) => {}
        }
    }
    for entry in old.entries().iter().filter(is_file) {
        if other(new, entry).is_none() {
            note("removed", entry);
        }
    }
    (inputs, others)
}

/// The first of them, and how many there are besides.
fn named(mut changes: Vec<String>) -> Vec<String> {
    let more = changes.len().saturating_sub(CHANGES_MAX);
    if more > 0 {
        changes.truncate(CHANGES_MAX);
        changes.push(format!("and {more} more"));
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use protocol::digest::Digest;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let entry = |(path, bytes): &(&str, &str)| Entry {
            path: TreePath::new(*path).unwrap(),
            kind: EntryKind::File {
                digest: Digest::of(bytes.as_bytes()),
                executable: false,
            },
        };
        Tree::new(files.iter().map(entry).collect()).unwrap()
    }

    fn source(files: &[(&str, &str)], patterns: &[&str]) -> Source {
        let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        Source {
            tree: tree(files),
            hashed: globs(&patterns).ok(),
        }
    }

    #[test]
    fn what_changed_is_named_and_git_is_not() {
        let old = tree(&[("a", "1"), ("gone", "1"), ("same", "1"), (".git/HEAD", "1")]);
        let new = source(&[("a", "2"), ("new", "1"), ("same", "1")], &[]);
        let expected = Changes {
            inputs: None,
            others: ["changed a", "added new", "removed gone"]
                .map(str::to_owned)
                .into(),
        };
        assert_eq!(new.since(&old, "k"), expected);
    }

    #[test]
    fn what_the_key_is_made_from_is_told_apart_from_a_thousand_other_files() {
        let others: Vec<_> = (0..1000).map(|number| format!("a{number:04}")).collect();
        let files = |bytes: &'static str| {
            let others = others.iter().map(move |path| (path.as_str(), bytes));
            others.chain([("go.sum", bytes), ("z.lock", bytes)])
        };
        let old = tree(&files("1").collect::<Vec<_>>());
        let new = source(&files("2").collect::<Vec<_>>(), &["*.lock"]);
        let inputs = |key: &str| {
            let changes = new.since(&old, key);
            assert_eq!(changes.others.last().unwrap(), "and 981 more");
            changes.inputs.unwrap()
        };
        assert_eq!(inputs("npm-1"), ["changed z.lock"]);
        assert_eq!(inputs("lock-files/0/1"), ["changed go.sum"]);
    }

    #[test]
    fn the_buildspec_says_what_its_key_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("buildspec.yml");
        let hashed = |key: &str| {
            let phases = "phases:\n  build:\n    commands: ['true']\n";
            let cache = format!("cache:\n  key: {key}\n  paths: [deps]\n");
            fs::write(&path, format!("version: 0.2\n{phases}{cache}")).unwrap();
            hashed_by(&path)
        };
        let globs = hashed("a-$(codebuild-hash-files one.lock 'x/*')").unwrap();
        let matches = ["one.lock", "x/y", "two.lock"].map(|path| globs.is_match(path));
        assert_eq!(matches, [true, true, false]);
        let globs = hashed("a-$(codebuild-hash-files $CODEBUILD_SRC_DIR/one.lock)").unwrap();
        assert!(globs.is_match("one.lock"));
        assert!(hashed("a-$(codebuild-hash-files $NOBODY/one.lock)").is_none());
        assert!(hashed("fixed").is_none());
        assert!(hashed_by(&folder.path().join("none.yml")).is_none());
    }
}
