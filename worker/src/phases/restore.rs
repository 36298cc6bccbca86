//! Restores a dependency cache, and what restoring and saving have in common.
//!
//! Problems with the cache never fail a build; the log says them.

use std::cmp::Reverse;

use cache::{
    client::CacheClient,
    download::{fetch_outline, fetch_tree},
    materialize::Contents,
};
use protocol::{
    blob::TreeRef,
    cache_spec::CacheSpec,
    job::{CacheUse, CacheUseKind},
    message::cache::{Entry, KEY_BYTES_MAX, UseRecord},
    snapshot::Layer,
};
use tracing::debug;

use super::{Work, millis, newest};
use crate::{
    clock, fault::Fault, ground::Ground, lock_files::Selected, report::Chain, sandbox::Expansion,
    source_times::Outline,
};

/// How many of the entries that a fallback key begins are asked for: one that is listed may be incomplete.
const FALLBACKS_TRIED: usize = 3;

/// A dependency cache that is at hand, and what the source has to know of it.
#[derive(Debug)]
pub(super) struct Restored {
    /// What it is.
    pub(super) held: Held,
    /// What it was made from.
    pub(super) made_from: Vec<Outline>,
    /// The latest time of anything in it, in nanoseconds since 1970.
    pub(super) newest: i64,
}

/// Where a dependency cache is.
#[derive(Debug)]
pub(super) enum Held {
    /// Unpacked on this worker, ready to lie over the source.
    Layer(Layer),
    /// At the cache; it goes into the unit's directory when the source is there.
    Contents {
        /// What it is.
        tree: TreeRef,
        /// All of it but the bytes of its files.
        contents: Box<Contents>,
    },
}

/// A dependency cache whose keys are known.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    /// Which files.
    pub(super) spec: CacheSpec,
    /// After expansion; empty for a project's only entry.
    pub(super) key: String,
    /// How keys begin of entries that do as well, after expansion.
    fallbacks: Vec<String>,
    /// Whether the buildspec asks for it.
    pub(super) is_asked: bool,
}

impl From<Selected> for Keyed {
    fn from(selected: Selected) -> Self {
        Self {
            spec: selected.spec,
            key: selected.key,
            fallbacks: vec![selected.fallback],
            is_asked: false,
        }
    }
}

/// Whether a shell has to look at a key.
pub(super) fn needs_shell(spec: &CacheSpec) -> bool {
    let special = |key: &String| key.contains(['$', '`', '\\']);
    spec.key.iter().chain(&spec.fallback_keys).any(special)
}

/// The cache with its keys after expansion; `None` if its key cannot be used, and the log says why. If
/// [`needs_shell`], the sandbox runs.
///
/// # Errors
///
/// If the sandbox or the log fails.
pub(super) async fn expand_keys(
    work: &mut Work<'_>,
    spec: &CacheSpec,
) -> Result<Option<Keyed>, Fault> {
    let Some(written) = &spec.key else {
        return Ok(Some(Keyed {
            spec: spec.clone(),
            key: String::new(),
            fallbacks: Vec::new(),
            is_asked: true,
        }));
    };
    let key = match expand(work, spec, written).await? {
        Ok(key) => key,
        Err(why) => {
            let text = format!("The cache is not used: the expansion of its key `{written}` {why}");
            work.say(&text).await?;
            return Ok(None);
        }
    };
    let mut fallbacks = Vec::with_capacity(spec.fallback_keys.len());
    for written in &spec.fallback_keys {
        match expand(work, spec, written).await? {
            Ok(fallback) => fallbacks.push(fallback),
            Err(why) => {
                let text = format!(
                    "A fallback key of the cache is not used: the expansion of `{written}` {why}"
                );
                work.say(&text).await?;
            }
        }
    }
    Ok(Some(Keyed {
        spec: spec.clone(),
        key,
        fallbacks,
        is_asked: true,
    }))
}

/// A key after expansion; or why it cannot be used.
async fn expand(
    work: &mut Work<'_>,
    spec: &CacheSpec,
    written: &str,
) -> Result<Result<String, String>, Fault> {
    let expanded = if needs_shell(spec) {
        match work.scene.expand(written, work.log).await? {
            Expansion::Word(word) => String::from_utf8(word).map_err(|_| "is not UTF-8".to_owned()),
            Expansion::Failed(status) => Err(format!("failed with exit status {status}")),
            Expansion::TooLong => Err("is too long".to_owned()),
            Expansion::TimedOut => Err("took too long".to_owned()),
        }
    } else {
        Ok(written.to_owned())
    };
    Ok(expanded.and_then(|key| check_key(work, spec, key)))
}

fn check_key(work: &Work<'_>, spec: &CacheSpec, key: String) -> Result<String, String> {
    // An empty one would be the entry of those who have no key.
    if key.is_empty() {
        return Err("is empty".to_owned());
    }
    if work.holds_secret(&key) {
        // Keys are kept and listed as they are.
        return Err("holds a secret".to_owned());
    }
    if key.chars().any(char::is_control) {
        return Err("holds control characters".to_owned());
    }
    let whole = work.assignment.dependencies.dependency(spec, &key);
    if KEY_BYTES_MAX < whole.len() {
        return Err("is too long".to_owned());
    }
    Ok(key)
}

/// How a key is shown in the log.
pub(super) fn shown(key: &str) -> String {
    if key.is_empty() {
        "of the project".to_owned()
    } else {
        format!("`{key}`")
    }
}

/// Brings a dependency cache here, if there is one.
///
/// # Errors
///
/// If the log cannot be written.
pub(super) async fn run(
    work: &Work<'_>,
    ground: &Ground,
    keyed: &Keyed,
) -> Result<(Option<Restored>, CacheUse), Fault> {
    let started = clock::boot();
    let restored = restore(work, ground, keyed).await;
    let millis = millis(clock::boot().since(started));
    let mut what = CacheUse {
        key: keyed.key.clone(),
        fallbacks: keyed.fallbacks.clone(),
        what: CacheUseKind::Missed,
        bytes: 0,
        bytes_moved: 0,
        millis,
    };
    let key = shown(&keyed.key);
    let (text, found) = match restored {
        Ok(Some((found, restored, (bytes, moved)))) => {
            (what.bytes, what.bytes_moved) = (bytes, moved);
            let which = match found.other {
                None => {
                    what.what = CacheUseKind::Restored;
                    key
                }
                Some(other) => {
                    what.what = CacheUseKind::RestoredByFallback;
                    format!("`{other}`, as there is none {key}")
                }
            };
            let text =
                format!("Restored cache {which}: {bytes} bytes, {moved} moved, in {millis} ms");
            (text, Some((found.path, restored)))
        }
        Ok(None) => (format!("There is no cache {key} yet"), None),
        Err(fault) => {
            let text = format!("Cache {key} could not be restored: {}", Chain(&fault));
            (text, None)
        }
    };
    work.say(&text).await?;
    let (path, restored) = found.unzip();
    record(work, &what, path).await;
    Ok((restored, what))
}

/// Where an entry was found.
struct Place {
    path: String,
    /// Its key, where that is another than was asked for.
    other: Option<String>,
}

/// Gives where it was found, what it is, its bytes, and how many of them were moved.
async fn restore(
    work: &Work<'_>,
    ground: &Ground,
    keyed: &Keyed,
) -> Result<Option<(Place, Restored, (u64, u64))>, Fault> {
    let Some((place, entry)) = find(work, keyed).await? else {
        return Ok(None);
    };
    let Some(tree) = entry.trees.into_iter().next() else {
        return Ok(None);
    };
    let mut made_from = Vec::new();
    for outline in &entry.outlines {
        let request = async |client: CacheClient| fetch_outline(&client, outline).await;
        let outline = work
            .cache
            .with("fetch what the cache was made from", request)
            .await?;
        made_from.push(outline);
    }
    let (held, newest, bytes) = match ground {
        Ground::Namespace => {
            let layer = Layer { at: None, tree };
            let (unpacked, transfer) = work.layer(&layer).await?;
            let facts = unpacked.facts();
            let bytes = (facts.bytes, transfer.bytes_moved);
            (Held::Layer(layer), facts.newest, bytes)
        }
        Ground::Host { .. } => {
            let request = async |client: CacheClient| fetch_tree(&client, &tree).await;
            let contents = work.cache.with("fetch the cache", request).await?;
            let contents = Box::new(Contents::from(contents));
            let newest = newest(&contents.attributes);
            let bytes = contents.tree.bytes();
            (Held::Contents { tree, contents }, newest, (bytes, bytes))
        }
    };
    let restored = Restored {
        held,
        made_from,
        newest,
    };
    Ok(Some((place, restored, bytes)))
}

/// The entry under the key or else the newest that a fallback key begins.
async fn find(work: &Work<'_>, keyed: &Keyed) -> Result<Option<(Place, Entry)>, Fault> {
    let scope = &work.assignment.dependencies;
    let path = |key: &str| scope.dependency(&keyed.spec, key);
    let exact = Place {
        path: path(&keyed.key),
        other: None,
    };
    if let Some(entry) = entry(work, exact.path.clone()).await? {
        return Ok(Some((exact, entry)));
    }
    let before = path("").len();
    for fallback in &keyed.fallbacks {
        let prefix = path(fallback);
        let namespace = &work.assignment.namespace;
        let request = async |client: CacheClient| client.list_entries(namespace, &prefix).await;
        let mut begun = work.cache.with("look through the cache", request).await?;
        begun.sort_by_key(|(_, entry)| Reverse(entry.written));
        for (path, _) in begun.into_iter().take(FALLBACKS_TRIED) {
            let other = path.get(before..).unwrap_or_default().to_owned();
            let other = Some(other);
            if let Some(entry) = entry(work, path.clone()).await? {
                return Ok(Some((Place { path, other }, entry)));
            }
        }
    }
    Ok(None)
}

/// The entry under a path, if all of it is there.
pub(super) async fn entry(work: &Work<'_>, path: String) -> Result<Option<Entry>, Fault> {
    let key = work.key(path);
    let request = async |client: CacheClient| client.get_entry(key.clone()).await;
    work.cache.with("look up the cache", request).await
}

/// Has the cache count what was done; `path`: of the entry that was restored. That it does not is no reason for
/// anything.
pub(super) async fn record(work: &Work<'_>, what: &CacheUse, path: Option<String>) {
    let record = UseRecord {
        team: work.assignment.team.clone(),
        project: work.assignment.project.clone(),
        what: what.clone(),
        entry: path.map(|path| work.key(path)),
    };
    let request = async |client: CacheClient| client.record(record.clone()).await;
    if let Err(fault) = work.cache.with("count a use of the cache", request).await {
        debug!(error = %Chain(&fault), "a use of the cache was not counted");
    }
}
