//! From commits to lookups: what each build asks the dependency cache for, and which files it hands in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ::cache::hits::{Chunk, Lookup};
use buildspec::BuildSpec;
use protocol::{
    cache_spec::{CacheSpec, UnaskedCache},
    digest::{Digest, hex},
};
use worker::lock_files::select_among;

use super::{
    HistoryError, Supposed,
    contents::Contents,
    git::{Commit, CommitFile},
    keys,
};
use crate::{
    build_command::{globs, hash_hashed},
    key_template::known_variables,
};

/// How many files all commits may have together: 256 MiB, with 16 bytes for each.
const FILES_MAX: usize = 1 << 24;

/// What is looked up of the dependency cache by one build.
#[derive(Debug)]
struct Asked {
    key: String,
    fallbacks: Vec<String>,
    /// Whether the entry is the only one, which each build replaces.
    replaces: bool,
}

/// What was collected.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) dependencies: Vec<Lookup>,
    pub(super) sources: Vec<Lookup>,
    pub(super) unusable: u64,
    pub(super) unhashed: u64,
    pub(super) unread: BTreeSet<String>,
}

/// Collects lookups, commit by commit.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    spec: &'a BuildSpec,
    contents: Contents,
    asked: Vec<Asked>,
    /// The lines that stand for what is under a key.
    lines: BTreeMap<String, BTreeSet<usize>>,
    unusable: u64,
    unhashed: u64,
    unread: BTreeSet<String>,
    sources: Vec<Lookup>,
    /// The numbers of files, by what git calls their contents.
    numbers: BTreeMap<String, usize>,
    /// How many files the commits have had.
    files: usize,
}

impl<'a> Collector<'a> {
    /// For builds by `spec`, which is the same for all commits.
    pub(super) fn new(spec: &'a BuildSpec, contents: Contents) -> Self {
        Self {
            spec,
            contents,
            asked: Vec::new(),
            lines: BTreeMap::new(),
            unusable: 0,
            unhashed: 0,
            unread: BTreeSet::new(),
            sources: Vec::new(),
            numbers: BTreeMap::new(),
            files: 0,
        }
    }

    /// Adds the build of a commit.
    ///
    /// # Errors
    ///
    /// If a key has a pattern that makes no sense, git does not give a file, or there are too many.
    pub(super) fn add(
        &mut self,
        commit: &Commit,
        files: &[CommitFile],
    ) -> Result<(), HistoryError> {
        self.files += files.len();
        if FILES_MAX < self.files {
            return Err(HistoryError::TooMany { max: FILES_MAX });
        }
        self.add_source(commit, files);
        let spec = self.spec;
        match &spec.cache {
            Some(cache) => self.add_asked(&cache.spec, commit, files),
            None => self.add_unasked(files),
        }
    }

    fn add_source(&mut self, commit: &Commit, files: &[CommitFile]) {
        let mut distinct = BTreeMap::new();
        for file in files {
            let next = self.numbers.len();
            let number = match self.numbers.get(&file.object) {
                Some(&number) => number,
                None => *self.numbers.entry(file.object.clone()).or_insert(next),
            };
            distinct.insert(number, file.bytes);
        }
        let chunk = |(number, bytes)| Chunk { number, bytes };
        self.sources.push(Lookup {
            key: commit.tree.clone(),
            fallbacks: Vec::new(),
            chunks: distinct.into_iter().map(chunk).collect(),
            made_millis: 0,
            replaces: false,
        });
    }

    fn add_asked(
        &mut self,
        spec: &CacheSpec,
        commit: &Commit,
        files: &[CommitFile],
    ) -> Result<(), HistoryError> {
        let variables = self.variables(commit);
        let mut lines = BTreeSet::new();
        let key = match &spec.key {
            Some(written) => self.expand(written, (&variables, files), &mut lines)?,
            None => Some(String::new()),
        };
        let Some(key) = key else {
            self.unusable += 1;
            return Ok(());
        };
        let mut fallbacks = Vec::new();
        for written in spec.fallback_keys.iter().filter(|_| spec.key.is_some()) {
            let all = (&variables, files);
            fallbacks.extend(self.expand(written, all, &mut BTreeSet::new())?);
        }
        self.push(spec, (key, fallbacks), lines);
        Ok(())
    }

    /// What the lock files select where the buildspec asks for nothing.
    fn add_unasked(&mut self, files: &[CommitFile]) -> Result<(), HistoryError> {
        let named = files.iter().filter_map(|file| {
            // Git's name of the content changes when its digest does.
            let digest = Digest::of(file.object.as_bytes());
            Some((file.path.to_str()?, digest))
        });
        let base = Digest::of(&[]);
        let Some(selected) = select_among(named, &base, UnaskedCache::default()) else {
            return Ok(());
        };
        let mut lines = BTreeSet::new();
        for file in files {
            let path = file.path.to_str();
            if selected
                .locks
                .iter()
                .any(|lock| path == Some(lock.as_str()))
            {
                lines.extend(&self.contents.of(file)?.lines);
            }
        }
        let keys = (selected.key, vec![selected.fallback]);
        self.push(&selected.spec, keys, lines);
        Ok(())
    }

    /// The variables of a build whose values are known without it.
    fn variables(&self, commit: &Commit) -> BTreeMap<String, String> {
        let mut variables = known_variables(self.spec);
        let version = "CODEBUILD_RESOLVED_SOURCE_VERSION".to_owned();
        variables.insert(version, commit.id.clone());
        variables
    }

    /// A key after expansion; the lines of the files that it is made of are added to `lines`.
    fn expand(
        &mut self,
        written: &str,
        (variables, files): (&BTreeMap<String, String>, &[CommitFile]),
        lines: &mut BTreeSet<usize>,
    ) -> Result<Option<String>, HistoryError> {
        let contents = &mut self.contents;
        let mut hash = |patterns: &[String]| -> Result<Option<String>, HistoryError> {
            let globs = globs(patterns)?;
            let mut hashed = Vec::new();
            for file in files.iter().filter(|file| globs.is_match(&file.path)) {
                let content = contents.of(file)?;
                hashed.push((file.path.clone(), content.sha256));
                lines.extend(&content.lines);
            }
            hashed.sort();
            Ok((!hashed.is_empty()).then(|| hash_hashed(&hashed)))
        };
        keys::expand(written, variables, &mut self.unread, &mut hash)
    }

    /// Adds a lookup. Entries of different paths are apart, whatever their keys.
    fn push(
        &mut self,
        spec: &CacheSpec,
        (key, fallbacks): (String, Vec<String>),
        mut lines: BTreeSet<usize>,
    ) {
        let version = hex(&spec.version().hash()[..8]);
        let apart = |key: String| format!("{version}/{key}");
        let key = apart(key);
        if lines.is_empty() {
            // What it has is not known: it is something of its own.
            self.unhashed += 1;
            lines.insert(self.contents.number(format!("\n{key}").as_bytes()));
        }
        self.lines.entry(key.clone()).or_insert(lines);
        self.asked.push(Asked {
            key,
            fallbacks: fallbacks.into_iter().map(apart).collect(),
            replaces: spec.key.is_none(),
        });
    }

    /// All lookups; those of the dependency cache are supposed to take and save so much.
    pub(super) fn finish(self, supposed: Supposed) -> Collected {
        let newest = self.asked.last().map(|asked| self.lines[&asked.key].len());
        let newest = newest.unwrap_or(1) as u64;
        let bytes = (supposed.bytes / newest).max(1);
        let entry = |(key, lines): (String, BTreeSet<usize>)| {
            let millis = u128::from(supposed.made_millis) * lines.len() as u128;
            let millis = u64::try_from(millis / u128::from(newest));
            let chunks = lines.into_iter().map(|number| Chunk { number, bytes });
            let chunks: Arc<[Chunk]> = chunks.collect();
            (key, (chunks, millis.unwrap_or(u64::MAX).max(1)))
        };
        let entries: BTreeMap<_, _> = self.lines.into_iter().map(entry).collect();
        let lookup = |asked: Asked| {
            let (chunks, made_millis) = &entries[&asked.key];
            Lookup {
                key: asked.key,
                fallbacks: asked.fallbacks,
                chunks: Arc::clone(chunks),
                made_millis: *made_millis,
                replaces: asked.replaces,
            }
        };
        Collected {
            dependencies: self.asked.into_iter().map(lookup).collect(),
            sources: self.sources,
            unusable: self.unusable,
            unhashed: self.unhashed,
            unread: self.unread,
        }
    }
}
