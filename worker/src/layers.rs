//! The layers that this worker has unpacked, by what they are, ready to be put under a phase.
//!
//! Each layer is a directory `layers/<key>`, made somewhere else and renamed into place, so that what
//! stands there is whole. It is unpacked once, however many attempts want it at the same time, and stays
//! for the next one until the budget asks for its room; one that is in use stays in any case. What is
//! known of each is in `layers/<key>.facts`, so that a restart finds it again.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cache::materialize::remove_tree;
use protocol::{
    digest::{Digest, hex},
    snapshot::Layer,
};
use tracing::{info, warn};

/// How many source trees' times are remembered: those of the builds of a few days.
const SOURCE_TIMES_MAX: usize = 4_096;

/// What an unpacked layer is found by: its tree, its attributes and its place.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct LayerKey(String);

impl LayerKey {
    /// The key of `layer`.
    pub(crate) fn of(layer: &Layer) -> Self {
        let at = layer.at.as_ref().map_or(&b""[..], |at| at.as_bytes());
        let tree = layer.tree.tree.digest.to_string();
        let attributes = layer.tree.attributes.digest.to_string();
        let named = [tree.as_bytes(), attributes.as_bytes(), at].join(&b'\n');
        // Half a hash: mounts name many layers in little room, and nobody gains from a collision on
        // one worker's disk.
        Self(hex(&Digest::of(&named).hash()[..16]))
    }

    fn parse(name: &str) -> Option<Self> {
        let well_formed = name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
        well_formed.then(|| Self(name.to_owned()))
    }
}

impl fmt::Display for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The unpacked layers of one worker. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    directory: Arc<PathBuf>,
    /// Bytes that layers may take before those not in use go.
    budget: u64,
    shelf: Arc<Mutex<Shelf>>,
}

#[derive(Debug, Default)]
struct Shelf {
    slots: BTreeMap<LayerKey, Slot>,
    /// Counts uses, so that the least recent is known.
    tick: u64,
    /// Names what is being deleted.
    deleted: u64,
    /// The time that the files of a source tree had when it was last unpacked here.
    source_times: BTreeMap<Digest, i64>,
}

/// What is known of an unpacked layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LayerFacts {
    /// What its files take, in bytes.
    pub(crate) bytes: u64,
    /// The latest time of a file in it, in nanoseconds since 1970; `i64::MIN` if none has one.
    pub(crate) newest: i64,
}

#[derive(Debug, Default)]
struct Slot {
    /// What it is; `None`: not unpacked yet.
    facts: Option<LayerFacts>,
    /// How many attempts use it or wait for it.
    uses: u32,
    /// The tick of its last use.
    used: u64,
    /// Held by whoever unpacks it.
    filling: Arc<tokio::sync::Mutex<()>>,
}

/// An unpacked layer in use: it stays until this is dropped.
#[derive(Debug)]
pub(crate) struct LayerUse {
    path: PathBuf,
    key: LayerKey,
    layers: Layers,
    facts: LayerFacts,
    was_there: bool,
}

impl LayerUse {
    /// The directory that holds the layer.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of it.
    pub(crate) const fn facts(&self) -> LayerFacts {
        self.facts
    }

    /// Whether nothing had to be unpacked for it.
    pub(crate) const fn was_there(&self) -> bool {
        self.was_there
    }
}

impl Drop for LayerUse {
    fn drop(&mut self) {
        let mut shelf = self.layers.shelf();
        let Some(slot) = shelf.slots.get_mut(&self.key) else {
            return;
        };
        slot.uses = slot.uses.saturating_sub(1);
        if slot.uses == 0 && slot.facts.is_none() {
            shelf.slots.remove(&self.key);
        }
    }
}

/// Why a layer is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError<E> {
    /// It could not be unpacked.
    #[error(transparent)]
    Fill(E),
    /// It could not be put into its place: the worker's disk is in trouble.
    #[error("failed to put a layer at `{path}`")]
    Place {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl Layers {
    /// The layers below `directory`, which is made if it is not there. What a crash left half-done is
    /// removed. Blocking.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read or written.
    pub(crate) fn open(directory: &Path, budget: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut shelf = Shelf::default();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let key = name.to_str().and_then(LayerKey::parse);
            let facts = key.as_ref().and_then(|key| read_facts(directory, key));
            match (key, facts) {
                (Some(key), Some(facts)) if entry.file_type()?.is_dir() => {
                    let slot = Slot {
                        facts: Some(facts),
                        ..Slot::default()
                    };
                    shelf.slots.insert(key, slot);
                }
                _ if is_of_a_layer(directory, &name) => {}
                _ => {
                    if let Err(error) = remove(&entry.path()) {
                        warn!(path = %entry.path().display(), %error, "what a crash left stays");
                    }
                }
            }
        }
        info!(layers = shelf.slots.len(), "unpacked layers found");
        Ok(Self {
            directory: Arc::new(directory.to_owned()),
            budget,
            shelf: Arc::new(Mutex::new(shelf)),
        })
    }

    /// The layer `key`, unpacked. If it is not there, `fill` puts it at `scratch` (on the same file
    /// system, not there yet) and says what it is; of several who want it, one does.
    ///
    /// # Errors
    ///
    /// If `fill` fails, or the layer cannot be put into its place.
    ///
    /// # Cancel safety
    ///
    /// What `fill` has done so far stays at `scratch`, which is the caller's; the next one fills anew.
    pub(crate) async fn obtain<E, F>(
        &self,
        key: &LayerKey,
        scratch: PathBuf,
        fill: impl FnOnce(PathBuf) -> F,
    ) -> Result<LayerUse, LayerError<E>>
    where
        F: Future<Output = Result<LayerFacts, E>>,
    {
        let (filling, mut held) = self.hold(key);
        let filling = filling.lock().await;
        if let Some(facts) = self.facts(key) {
            held.facts = facts;
            held.was_there = true;
            return Ok(held);
        }
        held.facts = fill(scratch.clone()).await.map_err(LayerError::Fill)?;
        self.place(key, scratch, held.facts).await?;
        drop(filling);
        self.evict().await;
        Ok(held)
    }

    /// Makes the directory at `from`, which holds exactly what unpacking the layer would give, the
    /// unpacked layer, unless that is there already.
    ///
    /// # Errors
    ///
    /// If the layer cannot be put into its place.
    pub(crate) async fn adopt(
        &self,
        key: &LayerKey,
        from: PathBuf,
        facts: LayerFacts,
    ) -> Result<(), io::Error> {
        let there = |_| std::future::ready(Ok::<_, Infallible>(facts));
        match self.obtain(key, from, there).await {
            Ok(_) => Ok(()),
            Err(LayerError::Place { source, .. }) => Err(source),
            Err(LayerError::Fill(never)) => match never {},
        }
    }

    /// The time, in nanoseconds, that the files of the source tree `tree` had when it was last unpacked
    /// here; `None`: not known.
    pub(crate) fn source_time(&self, tree: &Digest) -> Option<i64> {
        self.shelf().source_times.get(tree).copied()
    }

    /// Remembers that time.
    pub(crate) fn remember_source_time(&self, tree: Digest, nanos: i64) {
        let mut shelf = self.shelf();
        if SOURCE_TIMES_MAX <= shelf.source_times.len() {
            shelf.source_times.clear();
        }
        shelf.source_times.insert(tree, nanos);
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Every change under the lock is one assignment, so a panic leaves nothing half-done.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, key: &LayerKey) -> (Arc<tokio::sync::Mutex<()>>, LayerUse) {
        let mut shelf = self.shelf();
        shelf.tick += 1;
        let tick = shelf.tick;
        let slot = shelf.slots.entry(key.clone()).or_default();
        slot.uses += 1;
        slot.used = tick;
        let held = LayerUse {
            path: self.directory.join(&key.0),
            key: key.clone(),
            layers: self.clone(),
            facts: LayerFacts {
                bytes: 0,
                newest: i64::MIN,
            },
            was_there: false,
        };
        (Arc::clone(&slot.filling), held)
    }

    fn facts(&self, key: &LayerKey) -> Option<LayerFacts> {
        self.shelf().slots.get(key).and_then(|slot| slot.facts)
    }

    async fn place<E>(
        &self,
        key: &LayerKey,
        from: PathBuf,
        facts: LayerFacts,
    ) -> Result<(), LayerError<E>> {
        let to = self.directory.join(&key.0);
        let known = facts_file(&self.directory, key);
        let placed = tokio::task::spawn_blocking({
            let to = to.clone();
            move || {
                fs::write(known, format!("{} {}", facts.bytes, facts.newest))?;
                fs::rename(from, to)
            }
        });
        let placed = placed.await.unwrap_or_else(|ended| Err(ended.into()));
        placed.map_err(|source| LayerError::Place { path: to, source })?;
        if let Some(slot) = self.shelf().slots.get_mut(key) {
            slot.facts = Some(facts);
        }
        Ok(())
    }

    /// Removes the layers used longest ago until the budget is kept. Those in use stay.
    async fn evict(&self) {
        let doomed = self.take_doomed();
        if doomed.is_empty() {
            return;
        }
        info!(layers = doomed.len(), "unpacked layers make room");
        let removed =
            tokio::task::spawn_blocking(move || doomed.iter().try_for_each(|path| remove(path)));
        if let Ok(Err(error)) = removed.await {
            // The next start removes it.
            warn!(error = %error, "a layer cannot be removed");
        }
    }

    /// Moves what has to go out of the way, so that the same layer may be unpacked anew at once.
    fn take_doomed(&self) -> Vec<PathBuf> {
        let mut shelf = self.shelf();
        let mut doomed = Vec::new();
        for key in victims(&shelf.slots, self.budget) {
            shelf.slots.remove(&key);
            shelf.deleted += 1;
            let trash = self.directory.join(format!("{}.deleted", shelf.deleted));
            let moved = fs::rename(self.directory.join(&key.0), &trash);
            let forgotten = fs::remove_file(facts_file(&self.directory, &key));
            if let Err(error) = moved.and(forgotten) {
                warn!(error = %error, "a layer cannot be put aside");
            }
            doomed.push(trash);
        }
        doomed
    }
}

/// Which layers go so that the rest keeps to `budget`: the least recently used that nobody uses.
fn victims(slots: &BTreeMap<LayerKey, Slot>, budget: u64) -> Vec<LayerKey> {
    let bytes = |slot: &Slot| slot.facts.map_or(0, |facts| facts.bytes);
    let mut total = slots.values().map(bytes).fold(0, u64::saturating_add);
    let free = |slot: &Slot| slot.uses == 0 && slot.facts.is_some();
    let mut candidates: Vec<_> = slots.iter().filter(|(_, slot)| free(slot)).collect();
    candidates.sort_by_key(|(_, slot)| slot.used);
    let mut victims = Vec::new();
    for (key, slot) in candidates {
        if total <= budget {
            break;
        }
        total -= bytes(slot);
        victims.push(key.clone());
    }
    victims
}

fn facts_file(directory: &Path, key: &LayerKey) -> PathBuf {
    directory.join(format!("{}.facts", key.0))
}

fn read_facts(directory: &Path, key: &LayerKey) -> Option<LayerFacts> {
    let text = fs::read_to_string(facts_file(directory, key)).ok()?;
    let (bytes, newest) = text.split_once(' ')?;
    Some(LayerFacts {
        bytes: bytes.parse().ok()?,
        newest: newest.parse().ok()?,
    })
}

fn is_of_a_layer(directory: &Path, name: &std::ffi::OsStr) -> bool {
    let name = name.to_str().and_then(|name| name.strip_suffix(".facts"));
    name.is_some_and(|name| LayerKey::parse(name).is_some() && directory.join(name).is_dir())
}

/// Removes a file or a directory with all that it holds, whatever its modes are. It is no error if
/// nothing is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => remove_tree(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests;
