//! The history of a project, as a cache would see it: what the builds of its commits would look up, commit by
//! commit. Nothing is built, so nobody knows what an entry of a dependency cache would take and save: see
//! [`Supposed`]. Source trees are known, file by file.

mod contents;
mod git;
mod keys;
mod lookups;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use ::cache::hits::{AtSize, Eviction, Lookup, sizes};
use buildspec::BuildSpec;

use self::{contents::Contents, git::Blobs, lookups::Collector};
use crate::build_command::HashError;

/// What is compared.
const EVICTIONS: [Eviction; 3] = [Eviction::Chosen, Eviction::Lru, Eviction::Clairvoyant];

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
    /// Git ended while it was asked for files.
    #[error("failed to read files from git")]
    Read {
        /// What the system says.
        source: io::Error,
    },
    /// A file that a key is made of is no lock file.
    #[error("`{}` has {bytes} bytes; files that a cache's key is made of may have {max}", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// How large it is.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The history does not fit in memory.
    #[error("the commits have more than {max} files together; `--commits` says how many are read")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The key of the cache has a pattern that makes no sense.
    #[error("the key of the cache cannot be expanded")]
    Key(#[from] HashError),
}

/// What entries of the dependency cache take and save: nobody knows before they are built. This is of the
/// newest commit; of others it is in proportion to the lines of the files that their keys are made of. Two
/// entries share what such lines they have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supposed {
    /// In bytes.
    pub(crate) bytes: u64,
    /// In milliseconds.
    pub(crate) made_millis: u64,
}

/// What was found out about a history.
#[derive(Debug)]
pub(crate) struct History {
    /// What the directory of the repository is called, without where it is.
    pub(crate) repository: String,
    /// How many commits were read, and the last one of them.
    pub(crate) commits: u64,
    pub(crate) head: String,
    /// What is looked up of the dependency cache.
    pub(crate) dependencies: Simulated,
    /// How many builds would find no key that can be used.
    pub(crate) unusable: u64,
    /// How many builds would look up a key that is made of no files: nobody knows what changes in its entry.
    pub(crate) unhashed: u64,
    /// Keys of which only a shell knows a part: that counts as it is written.
    pub(crate) unread: BTreeSet<String>,
    /// What is handed in of the source tree: each commit's files.
    pub(crate) sources: Simulated,
}

/// Lookups, and how caches of several sizes do.
#[derive(Debug)]
pub(crate) struct Simulated {
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) sizes: Vec<AtSize>,
}

impl From<Vec<Lookup>> for Simulated {
    fn from(lookups: Vec<Lookup>) -> Self {
        let sizes = sizes(&lookups).into_iter();
        let sizes = sizes.map(|bytes| AtSize::simulate(&lookups, bytes, &EVICTIONS));
        Self {
            sizes: sizes.collect(),
            lookups,
        }
    }
}

/// The last part of a path, whatever was typed for it.
fn name(repository: &Path) -> String {
    let whole = repository.canonicalize();
    let whole = whole.unwrap_or_else(|_| repository.to_owned());
    let last = whole.file_name().unwrap_or_default();
    last.to_string_lossy().into_owned()
}

/// Reads the last `count` commits that lead to `HEAD`, oldest first, and replays what their builds by `spec`
/// would look up.
///
/// # Errors
///
/// If git cannot say, or a pattern in a key makes no sense.
pub(crate) fn replay(
    (repository, count): (&Path, u32),
    spec: &BuildSpec,
    supposed: Supposed,
) -> Result<History, HistoryError> {
    let commits = git::commits(repository, count)?;
    let contents = Contents::new(Blobs::open(repository)?);
    let mut collector = Collector::new(spec, contents);
    for commit in &commits {
        collector.add(commit, &git::files(repository, commit)?)?;
    }
    let head = commits.last().map(|commit| commit.id.clone());
    let collected = collector.finish(supposed);
    Ok(History {
        repository: name(repository),
        commits: commits.len() as u64,
        head: head.unwrap_or_default(),
        dependencies: collected.dependencies.into(),
        unusable: collected.unusable,
        unhashed: collected.unhashed,
        unread: collected.unread,
        sources: collected.sources.into(),
    })
}
