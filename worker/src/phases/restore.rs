//! Restores a dependency cache, and what restoring and saving have in common.
//!
//! Problems with the cache never fail a build; the log says them.

use cache::{
    client::CacheClient,
    download::{fetch_outline, fetch_tree},
    materialize::Contents,
};
use protocol::{
    blob::TreeRef,
    cache_spec::CacheSpec,
    job::{CacheUse, CacheUseKind},
    message::cache::{Entry, KEY_BYTES_MAX, UseRecord, keys},
    snapshot::Layer,
};
use tracing::debug;

use super::{Work, millis, newest};
use crate::{
    clock, fault::Fault, ground::Ground, report::Chain, sandbox::Expansion, source_times::Outline,
};

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

/// Whether a shell has to look at a key.
pub(super) fn needs_shell(spec: &CacheSpec) -> bool {
    let special = |key: &String| key.contains(['$', '`', '\\']);
    spec.key.as_ref().is_some_and(special)
}

/// The key after expansion, empty for a project's only entry; `None` if it cannot be used, and the log
/// says why. If [`needs_shell`], the sandbox runs.
///
/// # Errors
///
/// If the sandbox or the log fails.
pub(super) async fn expand_key(
    work: &mut Work<'_>,
    spec: &CacheSpec,
) -> Result<Option<String>, Fault> {
    let Some(written) = &spec.key else {
        return Ok(Some(String::new()));
    };
    let expanded = if needs_shell(spec) {
        match work.scene.expand(written, work.log).await? {
            Expansion::Word(word) => String::from_utf8(word).map_err(|_| "is not UTF-8".to_owned()),
            Expansion::Failed(status) => Err(format!("failed with exit status {status}")),
            Expansion::TooLong => Err("is too long".to_owned()),
            Expansion::TimedOut => Err("took too long".to_owned()),
        }
    } else {
        Ok(written.clone())
    };
    match expanded.and_then(|key| check_key(work, spec, key)) {
        Ok(key) => Ok(Some(key)),
        Err(why) => {
            let text = format!("The cache is not used: the expansion of its key `{written}` {why}");
            work.say(&text).await?;
            Ok(None)
        }
    }
}

fn check_key(work: &Work<'_>, spec: &CacheSpec, key: String) -> Result<String, String> {
    // An empty one would be the entry of those who have no key.
    if key.is_empty() {
        return Err("is empty".to_owned());
    }
    if key.chars().any(char::is_control) {
        return Err("holds control characters".to_owned());
    }
    let whole = keys::dependency(&work.assignment.project, spec, &key);
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

/// Brings the dependency cache under an expanded `key` here, if there is one.
///
/// # Errors
///
/// If the log cannot be written.
pub(super) async fn run(
    work: &Work<'_>,
    ground: &Ground,
    spec: &CacheSpec,
    key: String,
) -> Result<(Option<Restored>, CacheUse), Fault> {
    let started = clock::boot();
    let restored = restore(work, ground, spec, &key).await;
    let millis = millis(clock::boot().since(started));
    let mut what = CacheUse {
        key,
        what: CacheUseKind::Missed,
        bytes: 0,
        bytes_moved: 0,
        millis,
    };
    let key = shown(&what.key);
    let (text, restored) = match restored {
        Ok(Some((restored, bytes, moved))) => {
            what.what = CacheUseKind::Restored;
            (what.bytes, what.bytes_moved) = (bytes, moved);
            let text =
                format!("Restored cache {key}: {bytes} bytes, {moved} moved, in {millis} ms");
            (text, Some(restored))
        }
        Ok(None) => (format!("There is no cache {key} yet"), None),
        Err(fault) => {
            let text = format!("Cache {key} could not be restored: {}", Chain(&fault));
            (text, None)
        }
    };
    work.say(&text).await?;
    record(work, &what).await;
    Ok((restored, what))
}

/// Gives what was restored, its bytes, and how many of them were moved.
async fn restore(
    work: &Work<'_>,
    ground: &Ground,
    spec: &CacheSpec,
    key: &str,
) -> Result<Option<(Restored, u64, u64)>, Fault> {
    let path = keys::dependency(&work.assignment.project, spec, key);
    let entry_key = work.key(path);
    let request = async |client: CacheClient| client.get_entry(entry_key.clone()).await;
    let entry = work.cache.with("look up the cache", request).await?;
    let Some(Entry {
        trees, outlines, ..
    }) = entry
    else {
        return Ok(None);
    };
    let Some(tree) = trees.into_iter().next() else {
        return Ok(None);
    };
    let mut made_from = Vec::new();
    for outline in &outlines {
        let request = async |client: CacheClient| fetch_outline(&client, outline).await;
        let outline = work
            .cache
            .with("fetch what the cache was made from", request)
            .await?;
        made_from.push(outline);
    }
    Ok(Some(match ground {
        Ground::Namespace => {
            let layer = Layer { at: None, tree };
            let (unpacked, transfer) = work.layer(&layer).await?;
            let facts = unpacked.facts();
            let restored = Restored {
                held: Held::Layer(layer),
                made_from,
                newest: facts.newest,
            };
            (restored, facts.bytes, transfer.bytes_moved)
        }
        Ground::Host { .. } => {
            let request = async |client: CacheClient| fetch_tree(&client, &tree).await;
            let contents = work.cache.with("fetch the cache", request).await?;
            let contents = Box::new(Contents::from(contents));
            let newest = newest(&contents.attributes);
            let bytes = contents.tree.bytes();
            let restored = Restored {
                held: Held::Contents { tree, contents },
                made_from,
                newest,
            };
            (restored, bytes, bytes)
        }
    }))
}

/// Has the cache count what was done. That it does not is no reason for anything.
pub(super) async fn record(work: &Work<'_>, what: &CacheUse) {
    let record = UseRecord {
        team: work.assignment.team.clone(),
        project: work.assignment.project.clone(),
        what: what.clone(),
    };
    let request = async |client: CacheClient| client.record(record.clone()).await;
    if let Err(fault) = work.cache.with("count a use of the cache", request).await {
        debug!(error = %Chain(&fault), "a use of the cache was not counted");
    }
}
