//! `grange cache explain`: why a dependency cache was not there, and what was.

use std::{cmp::Reverse, path::Path};

use cache::{download::fetch_outline, source::capture_source};
use protocol::{
    message::cache::{EntrySummary, UseStats, keys},
    tree::{Entry, EntryKind, Tree},
};
use serde::Serialize;

use super::{Cache, with_cache};
use crate::{args::ExplainArgs, command::Context, error::CommandError, render};

/// How many of the nearest entries are shown.
const NEAREST_MAX: usize = 5;
/// How many changed files are named of each entry.
const CHANGES_MAX: usize = 20;

/// What there is to say.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// What was looked for.
    pub(crate) key: String,
    /// Under which full keys it is there.
    pub(crate) found: Vec<Near>,
    /// How often it was restored, missed and saved, by project.
    pub(crate) uses: Vec<UseStats>,
    /// The entries whose keys are most like it, nearest first.
    pub(crate) nearest: Vec<Near>,
}

/// An entry that is there.
#[derive(Debug, Serialize)]
pub(crate) struct Near {
    /// The project.
    pub(crate) project: String,
    /// Which list of paths: entries of other lists are never found under one key.
    pub(crate) version: String,
    /// The key, after expansion.
    pub(crate) key: String,
    /// How many bytes its key has in common with the one that was looked for, from the start.
    pub(crate) shared: usize,
    /// When it was written and used, and how large it is.
    pub(crate) summary: EntrySummary,
    /// Which files of the source differ from those that it was made from; `None`: no source to compare
    /// was given, or it is not known what the entry was made from.
    pub(crate) changes: Option<Vec<String>>,
}

/// Explains a key.
///
/// # Errors
///
/// If the cache cannot be asked, or the source cannot be read.
pub(super) async fn run(args: &ExplainArgs, context: &Context) -> Result<(), CommandError> {
    let source = match &args.source {
        None => None,
        Some(directory) => Some(source_tree(directory).await?),
    };
    with_cache(&args.read.farm, context, async |cache| {
        let prefix = match &args.project {
            // Those that were made invalid, too: they say why nothing is there.
            Some(project) => keys::dependencies(project).trim_end_matches('/').to_owned(),
            None => "dependency/".to_owned(),
        };
        let listed = cache.client.list_entries(&cache.namespace, &prefix).await;
        let listed = listed.map_err(CommandError::farm)?;
        let near = listed
            .into_iter()
            .filter_map(|(path, summary)| near(&path, summary, &args.key))
            .filter(|near| {
                let name = near.project.split('@').next().unwrap_or_default();
                args.project.as_ref().is_none_or(|of| of.as_str() == name)
            });
        let (mut found, mut nearest): (Vec<Near>, Vec<Near>) =
            near.partition(|near| near.key == args.key);
        nearest.sort_by_key(|near| (Reverse(near.shared), Reverse(near.summary.used)));
        nearest.truncate(NEAREST_MAX);
        for near in found.iter_mut().chain(&mut nearest) {
            near.changes = changes(cache, near, source.as_ref()).await?;
        }
        let stats = cache.client.stats().await.map_err(CommandError::farm)?;
        let mut uses = stats.uses;
        uses.retain(|uses| {
            uses.key == args.key && args.project.as_ref().is_none_or(|of| uses.project == *of)
        });
        let explanation = Explanation {
            key: args.key.clone(),
            found,
            uses,
            nearest,
        };
        render::cache::explained(&explanation, args.read.json)
    })
    .await
}

/// What a full key says; `None`: it is of no dependency cache.
fn near(path: &str, summary: EntrySummary, wanted: &str) -> Option<Near> {
    let mut words = path.strip_prefix("dependency/")?.splitn(3, '/');
    let (project, version, key) = (words.next()?, words.next()?, words.next()?);
    let pairs = key.bytes().zip(wanted.bytes());
    Some(Near {
        project: project.to_owned(),
        version: version.to_owned(),
        shared: pairs.take_while(|(a, b)| a == b).count(),
        key: key.to_owned(),
        summary,
        changes: None,
    })
}

async fn source_tree(directory: &Path) -> Result<Tree, CommandError> {
    let directory = directory.to_owned();
    let reading = tokio::task::spawn_blocking(move || capture_source(&directory, false));
    let captured = reading.await.map_err(CommandError::farm)?;
    captured
        .map(|(captured, _)| captured.tree)
        .map_err(CommandError::usage)
}

/// Which files differ between `source` and what an entry was made from.
async fn changes(
    cache: &Cache,
    near: &Near,
    source: Option<&Tree>,
) -> Result<Option<Vec<String>>, CommandError> {
    let Some(source) = source else {
        return Ok(None);
    };
    let path = format!("dependency/{}/{}/{}", near.project, near.version, near.key);
    // It may go while we look.
    let entry = cache.entry(path).await?;
    let Some(outline) = entry.and_then(|entry| entry.outlines.first().cloned()) else {
        return Ok(None);
    };
    let outline = fetch_outline(&cache.client, &outline).await;
    let (outline, _) = outline.map_err(CommandError::farm)?;
    Ok(Some(differences(&outline, source)))
}

/// What files `new` has that `old` has not, or has otherwise, and the other way round.
fn differences(old: &Tree, new: &Tree) -> Vec<String> {
    let is_file = |entry: &&Entry| {
        let is_git = entry.path.components().next() == Some(b".git");
        matches!(entry.kind, EntryKind::File { .. }) && !is_git
    };
    let other =
        |tree: &Tree, entry: &Entry| tree.find(&entry.path).map(|(_, found)| found.kind.clone());
    let mut changes = Vec::new();
    for entry in new.entries().iter().filter(is_file) {
        match other(old, entry) {
            None => changes.push(format!("added {}", entry.path)),
            Some(kind) if kind != entry.kind => changes.push(format!("changed {}", entry.path)),
            Some(_) => {}
        }
    }
    for entry in old.entries().iter().filter(is_file) {
        if other(new, entry).is_none() {
            changes.push(format!("removed {}", entry.path));
        }
    }
    let more = changes.len().saturating_sub(CHANGES_MAX);
    if more > 0 {
        changes.truncate(CHANGES_MAX);
        changes.push(format!("and {more} more"));
    }
    changes
}

#[cfg(test)]
mod tests {
    use protocol::{digest::Digest, path::TreePath, time::WallTime};

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

    #[test]
    fn what_changed_is_named_and_git_is_not() {
        let old = tree(&[("a", "1"), ("gone", "1"), ("same", "1"), (".git/HEAD", "1")]);
        let new = tree(&[("a", "2"), ("new", "1"), ("same", "1")]);
        let expected = ["changed a", "added new", "removed gone"];
        assert_eq!(differences(&old, &new), expected);
    }

    #[test]
    fn the_nearest_key_shares_the_longest_beginning() {
        let summary = EntrySummary {
            written: WallTime(0),
            used: WallTime(0),
            bytes: 0,
            chunks: 0,
        };
        let shared = |path: &str| near(path, summary.clone(), "npm-abc").map(|near| near.shared);
        assert_eq!(shared("dependency/app/v/npm-abd"), Some(6));
        assert_eq!(shared("dependency/app/v/"), Some(0));
        assert_eq!(shared("snapshot/app/v/npm-abd"), None);
    }
}
