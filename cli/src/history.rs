//! The history of a project, as a cache would see it: which keys its builds would look up, and what of
//! their source trees would be there. Nothing is built.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use ::cache::eviction::{Access, Lru, Measure, Policy, Queues, Worth, bound, clairvoyant, replay};
use protocol::{
    cache_spec::CacheSpec,
    digest::{Hasher, hex},
};

use crate::build_command::{HASH_FILES, HashError, globs};

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    /// There is no git.
    #[error("failed to start git")]
    Start {
        /// What the system says.
        source: io::Error,
    },
    /// It is no repository, or git says something else.
    #[error("git cannot read `{}`: {said}", repository.display())]
    Git {
        /// Which.
        repository: PathBuf,
        /// What git says.
        said: String,
    },
    /// The key of the cache has a pattern that makes no sense.
    #[error("the key of the cache cannot be expanded")]
    Key(#[from] HashError),
}

/// A file of a commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CommitFile {
    path: PathBuf,
    /// What git calls its content.
    object: String,
    bytes: u64,
}

/// The last `count` commits that lead to `HEAD`, oldest first.
///
/// # Errors
///
/// If git cannot say.
pub(crate) fn commits(repository: &Path, count: u32) -> Result<Vec<String>, HistoryError> {
    let count = format!("--max-count={count}");
    let listed = git(repository, &["rev-list", "--reverse", &count, "HEAD"])?;
    let text = String::from_utf8_lossy(&listed);
    Ok(text.lines().map(str::to_owned).collect())
}

/// The files of a commit.
///
/// # Errors
///
/// If git cannot say.
pub(crate) fn files(repository: &Path, commit: &str) -> Result<Vec<CommitFile>, HistoryError> {
    let listed = git(repository, &["ls-tree", "-r", "-z", "-l", commit])?;
    let rows = listed.split(|&byte| byte == 0);
    Ok(rows.filter_map(parse_file).collect())
}

/// One row: mode, kind, object, bytes, a tab, the path. `None` for what is no file, such as a submodule.
fn parse_file(row: &[u8]) -> Option<CommitFile> {
    let row = String::from_utf8_lossy(row);
    let (facts, path) = row.split_once('\t')?;
    let mut facts = facts.split_ascii_whitespace();
    let (_mode, kind) = (facts.next()?, facts.next()?);
    let (object, bytes) = (facts.next()?, facts.next()?);
    (kind == "blob").then_some(())?;
    Some(CommitFile {
        path: path.into(),
        object: object.to_owned(),
        bytes: bytes.parse().ok()?,
    })
}

fn git(repository: &Path, words: &[&str]) -> Result<Vec<u8>, HistoryError> {
    let output = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(words)
        .output()
        .map_err(|source| HistoryError::Start { source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(HistoryError::Git {
        repository: repository.to_owned(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The key of a dependency cache for a commit with these files: what `codebuild-hash-files` would print
/// stands for it, all else as it is written. It is made from git's names of the contents, so it differs
/// from that of a build, and changes when that would.
///
/// # Errors
///
/// If a pattern makes no sense.
pub(crate) fn expand_key(spec: &CacheSpec, files: &[CommitFile]) -> Result<String, HistoryError> {
    let mut key = String::new();
    let mut rest = spec.key.as_deref().unwrap_or_default();
    let call = format!("$({HASH_FILES}");
    while let Some((before, after)) = rest.split_once(&call) {
        key.push_str(before);
        let (words, behind) = after.split_once(')').unwrap_or((after, ""));
        let patterns = words.split_whitespace();
        let patterns = patterns.map(|word| word.trim_matches(['"', '\'']).to_owned());
        let globs = globs(&patterns.collect::<Vec<_>>())?;
        let mut all = Hasher::default();
        for file in files.iter().filter(|file| globs.is_match(&file.path)) {
            all.update(file.path.as_os_str().as_encoded_bytes());
            all.update(file.object.as_bytes());
        }
        key.push_str(&hex(&all.finish().hash()[..8]));
        rest = behind;
    }
    key.push_str(rest);
    Ok(key)
}

/// What an entry of the dependency cache takes and saves: nobody knows before it is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supposed {
    /// In bytes.
    pub(crate) bytes: u64,
    /// In milliseconds.
    pub(crate) made_millis: u64,
}

/// What was found out about a history.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct History {
    /// The keys of the dependency cache, numbered as they first came, for each commit.
    keys: Vec<u64>,
    /// The bytes of all source trees, and of those files of them that an earlier one had.
    pub(crate) source_bytes: u64,
    pub(crate) source_there: u64,
    /// How many source trees an earlier commit had as a whole.
    pub(crate) trees_there: u64,
    numbers: BTreeMap<String, u64>,
    objects: BTreeSet<String>,
    trees: BTreeSet<String>,
}

/// How a cache of one size would do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rates {
    /// How many entries it has room for.
    pub(crate) entries: u64,
    /// What it saves, in milliseconds: the cache's own eviction, LRU, Belady's rule, the bound.
    pub(crate) chosen: u64,
    pub(crate) lru: u64,
    pub(crate) clairvoyant: u64,
    pub(crate) bound: u64,
}

impl History {
    /// Adds a commit with these files, whose build looks up `key`; `None`: it has no dependency cache.
    pub(crate) fn add(&mut self, files: &[CommitFile], key: Option<String>) {
        let mut tree = Hasher::default();
        for file in files {
            tree.update(file.path.as_os_str().as_encoded_bytes());
            tree.update(file.object.as_bytes());
            self.source_bytes += file.bytes;
            if !self.objects.insert(file.object.clone()) {
                self.source_there += file.bytes;
            }
        }
        let is_new = self.trees.insert(hex(tree.finish().hash()));
        self.trees_there += u64::from(!is_new);
        if let Some(key) = key {
            let next = self.numbers.len() as u64;
            self.keys.push(*self.numbers.entry(key).or_insert(next));
        }
    }

    /// How many lookups of the dependency cache there would be.
    pub(crate) fn lookups(&self) -> u64 {
        self.keys.len() as u64
    }

    /// How many different keys.
    pub(crate) fn different(&self) -> u64 {
        self.numbers.len() as u64
    }

    /// How caches would do that have room for 1, 2, 4, … entries, up to all of them.
    pub(crate) fn rates(&self, supposed: Supposed) -> Vec<Rates> {
        let worth = Worth {
            bytes: supposed.bytes.max(1),
            made_millis: supposed.made_millis.max(1),
        };
        let trace = self.keys.iter().map(|&key| Access { key, worth });
        let trace: Vec<Access> = trace.collect();
        let mut sizes = vec![1];
        while sizes.last().is_some_and(|&last| last < self.different()) {
            sizes.push(1 << sizes.len());
        }
        let rates = sizes.into_iter().map(|entries: u64| {
            let capacity = entries.saturating_mul(worth.bytes);
            let saved =
                |policy: &mut dyn Policy<u64>| replay(&trace, capacity, policy).saved_millis;
            Rates {
                entries,
                chosen: saved(&mut Queues::default()),
                lru: saved(&mut Lru::default()),
                clairvoyant: clairvoyant(&trace, capacity, Measure::Millis).saved_millis,
                bound: bound(&trace, capacity, Measure::Millis),
            }
        });
        rates.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, object: &str, bytes: u64) -> CommitFile {
        CommitFile {
            path: path.into(),
            object: object.to_owned(),
            bytes,
        }
    }

    #[test]
    fn a_row_of_git_is_read_and_a_submodule_passed_by() {
        let row = b"100644 blob 0123abcd     120\tsrc/a file.rs";
        assert_eq!(
            parse_file(row),
            Some(file("src/a file.rs", "0123abcd", 120))
        );
        assert_eq!(parse_file(b"160000 commit 0123abcd       -\tlib"), None);
        assert_eq!(parse_file(b""), None);
    }

    #[test]
    fn a_key_changes_with_the_files_that_it_names_and_with_no_other() {
        let spec = CacheSpec {
            fallback_keys: Vec::new(),
            key: Some("npm-$(codebuild-hash-files package-lock.json)-1".to_owned()),
            paths: vec![],
        };
        let key = |lock: &str, other: &str| {
            let files = [file("package-lock.json", lock, 1), file("a.js", other, 1)];
            expand_key(&spec, &files).unwrap()
        };
        assert!(key("1", "1").starts_with("npm-") && key("1", "1").ends_with("-1"));
        assert_eq!(key("1", "1"), key("1", "2"));
        assert_ne!(key("1", "1"), key("2", "1"));
    }

    #[test]
    fn what_earlier_commits_had_is_there() {
        let mut history = History::default();
        let first = [file("a", "1", 10), file("b", "2", 5)];
        let second = [file("a", "1", 10), file("b", "3", 5)];
        for (files, key) in [(&first, "x"), (&second, "y"), (&first, "x")] {
            history.add(files, Some(key.to_owned()));
        }
        assert_eq!((history.source_bytes, history.source_there), (45, 25));
        assert_eq!((history.trees_there, history.different()), (1, 2));
        let rates = history.rates(Supposed {
            bytes: 100,
            made_millis: 7,
        });
        let chosen: Vec<u64> = rates.iter().map(|rates| rates.chosen).collect();
        assert_eq!(chosen, [0, 7]);
        assert!(rates.iter().all(|rates| rates.chosen <= rates.bound));
    }
}
