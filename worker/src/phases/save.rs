//! Saves the dependency cache at the end of `POST_BUILD`.
//!
//! Problems with the cache never fail a build; the log says them.

use std::path::PathBuf;

use cache::{
    capture::{CaptureError, Captured, Dialect, capture},
    client::CacheClient,
    download::fetch_outline,
    selection::Selection,
};
use protocol::{
    blob::TreeRef,
    cache_spec::UnaskedCache,
    digest::Digest,
    job::{CacheUse, CacheUseKind},
    message::cache::{Entry, PutOutcome},
    snapshot::Snapshot,
};

use super::{
    Work, cache_paths,
    commands::upload,
    millis,
    restore::{self, Keyed},
    scan::{self, Look, Names},
    source_path,
};
use crate::{
    clock,
    fault::{Fault, blocking},
    ground::Ground,
    lock_files::select,
    report::Chain,
};

/// Finds out what to save without being asked to: what the lock files of the source select, unless that is
/// there already. `None`: nothing; the log says why if there are such files.
///
/// # Errors
///
/// If the log cannot be written.
pub(super) async fn unasked(
    work: &Work<'_>,
    snapshot: &Snapshot,
    how: UnaskedCache,
) -> Result<Option<Keyed>, Fault> {
    let looked = async {
        let Some(source) = source_of(snapshot) else {
            return Ok(None);
        };
        let request = async |client: CacheClient| fetch_outline(&client, &source).await;
        let (tree, _) = work.cache.with("fetch the source", request).await?;
        let Some(keyed) = select(&tree, &work.site.base, how).map(Keyed::from) else {
            return Ok(None);
        };
        let path = work
            .assignment
            .dependencies
            .dependency(&keyed.spec, &keyed.key);
        let there = restore::entry(work, path).await?;
        Ok::<_, Fault>(Some((keyed, there.is_some())))
    };
    let text = match looked.await {
        Ok(None) => return Ok(None),
        Ok(Some((keyed, false))) => return Ok(Some(keyed)),
        Ok(Some((keyed, true))) => {
            format!(
                "Cache {} needs no saving: {THERE}",
                restore::shown(&keyed.key)
            )
        }
        Err(fault) => format!("Nothing is cached unasked: {}", Chain(&fault)),
    };
    work.say(&text).await?;
    Ok(None)
}

/// Why an entry under a key is not saved again.
const THERE: &str = "an entry is there under this key, and is never replaced";

/// Saves what is there under the paths, unless that is what the entry holds already. The sandbox is
/// quiet.
///
/// # Errors
///
/// If the log cannot be written.
pub(super) async fn run(
    work: &mut Work<'_>,
    ground: &Ground,
    snapshot: &Snapshot,
    saving: Keyed,
) -> Result<Option<CacheUse>, Fault> {
    work.say("Uploading cache...").await?;
    let started = clock::boot();
    let saved = save(work, ground, snapshot, &saving).await;
    let millis = millis(clock::boot().since(started));
    let key = restore::shown(&saving.key);
    match saved {
        Err(fault) => {
            let text = format!("Cache {key} could not be saved: {}", Chain(&fault));
            work.say(&text).await?;
            Ok(None)
        }
        Ok(None) => {
            let text = format!("Cache {key} is not saved: there are secrets in it");
            work.say(&text).await?;
            Ok(None)
        }
        Ok(Some(saved)) => {
            let text = match saved.what {
                CacheUseKind::Saved => {
                    format!("Saved cache {key}: {} bytes in {millis} ms", saved.bytes)
                }
                _ => format!("Cache {key} needs no saving: {}", saved.reason),
            };
            work.say(&text).await?;
            let what = CacheUse {
                key: saving.key,
                fallbacks: Vec::new(),
                what: saved.what,
                bytes: saved.bytes,
                bytes_moved: saved.bytes_moved,
                millis,
            };
            restore::record(work, &what, None).await;
            Ok(Some(what))
        }
    }
}

/// What became of it.
struct Saved {
    what: CacheUseKind,
    bytes: u64,
    bytes_moved: u64,
    /// Why nothing was saved.
    reason: &'static str,
}

const fn kept(bytes: u64, reason: &'static str) -> Saved {
    Saved {
        what: CacheUseKind::Kept,
        bytes,
        bytes_moved: 0,
        reason,
    }
}

/// `None`: nothing, since it would hold secrets. All of it is left, not only where they are: an entry is for other
/// builds too, and one with holes would be found there for as long as its key is the same.
async fn save(
    work: &mut Work<'_>,
    ground: &Ground,
    snapshot: &Snapshot,
    saving: &Keyed,
) -> Result<Option<Saved>, Fault> {
    let Keyed { spec, key, .. } = saving;
    let path = work.assignment.dependencies.dependency(spec, key);
    let there = restore::entry(work, path.clone()).await?;
    if spec.key.is_some() && there.is_some() {
        return Ok(Some(kept(0, THERE)));
    }
    let (captured, again) = capture_paths(work, ground, snapshot, saving).await?;
    if captured.tree.entries().is_empty() {
        return Ok(Some(kept(0, "there is nothing at its paths")));
    }
    let bytes = captured.tree.bytes();
    let digest = Digest::of(&captured.tree.encode());
    let outlines: Vec<_> = source_of(snapshot).into_iter().collect();
    // The same content made from other sources is to say so: times of files follow from it.
    let is_same = |entry: &Entry| {
        let tree = entry.trees.first();
        tree.is_some_and(|tree| tree.tree.digest == digest) && entry.outlines == outlines
    };
    if there.as_ref().is_some_and(is_same) {
        return Ok(Some(kept(bytes, "it is as it was")));
    }
    let look = Look::new(work, Names::FromRoot);
    let (captured, found) = look.find(captured).await?;
    if !found.is_empty() {
        let text = format!(
            "Secrets are in what the cache would hold: {}",
            scan::shown(&found)
        );
        work.say(&text).await?;
        return Ok(None);
    }
    let again = move || again().and_then(|captured| look.again(captured));
    let (tree, transfer) = upload(work, captured, again).await?;
    let named = (Vec::new(), vec![tree], outlines);
    let made_millis = work.spent_millis();
    let put = work
        .put_made_entry(path, named, (spec.key.is_none(), made_millis))
        .await?;
    Ok(Some(match put {
        PutOutcome::Stored => Saved {
            what: CacheUseKind::Saved,
            bytes,
            bytes_moved: transfer.bytes_moved,
            reason: "",
        },
        PutOutcome::Kept => kept(bytes, "somebody else has saved one in the meantime"),
    }))
}

/// Captures what the paths choose, and gives a way to do it again.
async fn capture_paths(
    work: &mut Work<'_>,
    ground: &Ground,
    snapshot: &Snapshot,
    saving: &Keyed,
) -> Result<
    (
        Captured,
        impl Fn() -> Result<Captured, CaptureError> + Clone + Send + Sync + 'static,
    ),
    Fault,
> {
    let root = root_of(work, ground)?;
    let variables = work.variables(snapshot);
    let patterns = cache_paths::patterns(&saving.spec.paths, &variables, ground.root_text());
    let sees_own = !saving.is_asked && matches!(ground, Ground::Namespace);
    let found = {
        let root = root.clone();
        blocking("look up the paths of the cache", move || {
            let mut patterns = patterns;
            if sees_own {
                patterns.retain(|pattern| !cache_paths::is_of_worker(pattern));
            }
            cache_paths::look_up(&root, &patterns)
        })
        .await?
    };
    if saving.is_asked {
        for line in &found.said {
            work.say(line).await?;
        }
    }
    let selection: Selection = found.selection;
    let whole = move || capture(&root, &selection, Dialect::Plain);
    let captured = blocking("capture the paths of the cache", whole.clone()).await?;
    Ok((captured, whole))
}

/// Where the worker sees the root of the unit.
pub(super) fn root_of(work: &Work<'_>, ground: &Ground) -> Result<PathBuf, Fault> {
    match ground {
        Ground::Host { unit, .. } => Ok(unit.clone()),
        Ground::Namespace => {
            let view = work.scene.view().map(PathBuf::from);
            view.ok_or_else(|| Fault::new("look into the sandbox", "there is none"))
        }
    }
}

/// The source that the build was made from, with the times that its files had.
fn source_of(snapshot: &Snapshot) -> Option<TreeRef> {
    let at = source_path();
    let source = snapshot
        .layers
        .iter()
        .find(|layer| layer.at.as_ref() == Some(&at));
    source.map(|layer| layer.tree.clone())
}
