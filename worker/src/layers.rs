//! The layers that this worker has unpacked, by what they are, ready to be put under a phase.
//!
//! Each layer is a directory `layers/<key>`, made somewhere else and renamed into place, so that what
//! stands there is whole. It is unpacked once, however many attempts want it at the same time, and stays
//! for the next one until the budget asks for its room; one that is in use stays in any case. What is
//! known of sizes is in `layers/<key>.bytes`, so that a restart finds it again.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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

#[derive(Debug, Default)]
struct Slot {
    /// What it takes on disk; `None`: not unpacked yet.
    bytes: Option<u64>,
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
    was_there: bool,
}

impl LayerUse {
    /// The directory that holds the layer.
    pub(crate) fn path(&self) -> &Path {
        &self.path
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
        if slot.uses == 0 && slot.bytes.is_none() {
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
            let bytes = key.as_ref().and_then(|key| read_size(directory, key));
            match (key, bytes) {
                (Some(key), Some(bytes)) if entry.file_type()?.is_dir() => {
                    let slot = Slot {
                        bytes: Some(bytes),
                        ..Slot::default()
                    };
                    shelf.slots.insert(key, slot);
                }
                _ if is_size_of_a_layer(directory, &name) => {}
                _ => remove(&entry.path())?,
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
    /// system, not there yet) and says how many bytes it takes; of several who want it, one does.
    ///
    /// # Errors
    ///
    /// If `fill` fails, or the layer cannot be put into its place.
    ///
    /// # Cancel safety
    ///
    /// What `fill` has done so far stays at `scratch`, which is the caller's; the next one fills anew.
    pub(crate) async fn obtain<E>(
        &self,
        key: &LayerKey,
        scratch: PathBuf,
        fill: impl AsyncFnOnce(&Path) -> Result<u64, E>,
    ) -> Result<LayerUse, LayerError<E>> {
        let (filling, mut held) = self.hold(key);
        let filling = filling.lock().await;
        if self.is_there(key) {
            held.was_there = true;
            return Ok(held);
        }
        let bytes = fill(&scratch).await.map_err(LayerError::Fill)?;
        self.place(key, scratch, bytes).await?;
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
        bytes: u64,
    ) -> Result<(), io::Error> {
        let adopted = self
            .obtain(key, from, async |_| {
                Ok::<u64, std::convert::Infallible>(bytes)
            })
            .await;
        match adopted {
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
            was_there: false,
        };
        (Arc::clone(&slot.filling), held)
    }

    fn is_there(&self, key: &LayerKey) -> bool {
        let shelf = self.shelf();
        shelf
            .slots
            .get(key)
            .is_some_and(|slot| slot.bytes.is_some())
    }

    async fn place<E>(
        &self,
        key: &LayerKey,
        from: PathBuf,
        bytes: u64,
    ) -> Result<(), LayerError<E>> {
        let to = self.directory.join(&key.0);
        let size = size_file(&self.directory, key);
        let placed = tokio::task::spawn_blocking({
            let to = to.clone();
            move || {
                fs::write(size, bytes.to_string())?;
                fs::rename(from, to)
            }
        });
        let placed = placed.await.unwrap_or_else(|ended| Err(ended.into()));
        placed.map_err(|source| LayerError::Place { path: to, source })?;
        if let Some(slot) = self.shelf().slots.get_mut(key) {
            slot.bytes = Some(bytes);
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
            let unsized_ = fs::remove_file(size_file(&self.directory, &key));
            if let Err(error) = moved.and(unsized_) {
                warn!(error = %error, "a layer cannot be put aside");
            }
            doomed.push(trash);
        }
        doomed
    }
}

/// Which layers go so that the rest keeps to `budget`: the least recently used that nobody uses.
fn victims(slots: &BTreeMap<LayerKey, Slot>, budget: u64) -> Vec<LayerKey> {
    let sizes = slots.values().filter_map(|slot| slot.bytes);
    let mut total = sizes.fold(0, u64::saturating_add);
    let free = |slot: &Slot| slot.uses == 0 && slot.bytes.is_some();
    let mut candidates: Vec<_> = slots.iter().filter(|(_, slot)| free(slot)).collect();
    candidates.sort_by_key(|(_, slot)| slot.used);
    let mut victims = Vec::new();
    for (key, slot) in candidates {
        if total <= budget {
            break;
        }
        total -= slot.bytes.unwrap_or(0);
        victims.push(key.clone());
    }
    victims
}

fn size_file(directory: &Path, key: &LayerKey) -> PathBuf {
    directory.join(format!("{}.bytes", key.0))
}

fn read_size(directory: &Path, key: &LayerKey) -> Option<u64> {
    fs::read_to_string(size_file(directory, key))
        .ok()?
        .parse()
        .ok()
}

fn is_size_of_a_layer(directory: &Path, name: &std::ffi::OsStr) -> bool {
    let name = name.to_str().and_then(|name| name.strip_suffix(".bytes"));
    name.is_some_and(|name| LayerKey::parse(name).is_some() && directory.join(name).is_dir())
}

/// Removes a file or a directory with all that it holds.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests;
