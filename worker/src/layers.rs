//! The layers that this worker has unpacked, by what they are, ready to be put under a phase.
//!
//! Each layer is a directory `layers/<key>`, made somewhere else and renamed into place, so that what
//! stands there is whole. It is unpacked once, however many attempts want it at the same time, and stays
//! for the next one until the budget asks for its room; one that is in use stays in any case. What is
//! known of each is in `layers/<key>.facts`, so that a restart finds it again. What is unpacked is not
//! synced at once: the facts name the boot that it belongs to until a sync in the background has made it
//! durable, and after a power cut what was not durable is dropped.

mod in_use;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cache::{materialize::remove_tree, ongoing};
use protocol::{
    digest::{Digest, hex},
    snapshot::Layer,
};
use tokio::sync::{Notify, OwnedMutexGuard};
use tracing::{info, warn};

pub(crate) use self::in_use::LayerUse;

/// How many source trees' times are remembered: those of the builds of a few days.
const SOURCE_TIMES_MAX: usize = 4_096;

/// Where the system names this boot of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What stands in the place of a boot when a layer outlives the next power cut.
const DURABLE: &str = "durable";

/// How long to gather fresh layers before they are synced together: a sync concerns all of the disk.
const GATHER: Duration = Duration::from_secs(5);

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
    /// Names this boot of the machine; empty: unknown.
    boot: Arc<str>,
    /// Wakes whoever makes layers durable.
    fresh: Arc<Notify>,
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
    /// Whether it outlives a power cut.
    durable: bool,
    /// The tick at which it was put into its place.
    placed: u64,
    /// How many attempts use it or wait for it.
    uses: u32,
    /// The tick of its last use.
    used: u64,
    /// Held by whoever unpacks it.
    filling: Arc<tokio::sync::Mutex<()>>,
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
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        Self::open_in(boot.trim(), directory, budget)
    }

    fn open_in(boot: &str, directory: &Path, budget: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut shelf = Shelf::default();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let key = name.to_str().and_then(LayerKey::parse);
            let facts = key.as_ref().and_then(|key| read_facts(directory, key));
            let facts = facts.filter(|(_, made)| made == DURABLE || made == boot);
            match (key, facts) {
                (Some(key), Some((facts, made))) if entry.file_type()?.is_dir() => {
                    let slot = Slot {
                        facts: Some(facts),
                        durable: made == DURABLE,
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
            boot: boot.into(),
            fresh: Arc::new(Notify::new()),
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
    /// What `fill` has done so far stays at `scratch`, which is the caller's; the next one fills anew. Once
    /// it is filled, the layer comes to its place whoever still waits for it.
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
        let filling = filling.lock_owned().await;
        if let Some(facts) = self.facts(key) {
            held.facts = facts;
            held.was_there = true;
            return Ok(held);
        }
        held.facts = fill(scratch.clone()).await.map_err(LayerError::Fill)?;
        let held = self.place(held, scratch, filling).await?;
        self.evict().await;
        Ok(held)
    }

    /// A layer that an attempt has unpacked for itself at `path`: nobody else finds it there.
    pub(crate) fn own(&self, key: LayerKey, path: PathBuf, facts: LayerFacts) -> LayerUse {
        let (layers, was_there) = (self.clone(), false);
        LayerUse {
            path,
            key,
            layers,
            facts,
            was_there,
        }
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
        let unknown = LayerFacts {
            bytes: 0,
            newest: i64::MIN,
        };
        let held = self.own(key.clone(), self.directory.join(&key.0), unknown);
        (Arc::clone(&slot.filling), held)
    }

    fn facts(&self, key: &LayerKey) -> Option<LayerFacts> {
        self.shelf().slots.get(key).and_then(|slot| slot.facts)
    }

    /// Puts what was filled into its place. Who asked may be gone before it is there: it is put there all
    /// the same, and nobody fills the layer meanwhile.
    async fn place<E>(
        &self,
        held: LayerUse,
        from: PathBuf,
        filling: OwnedMutexGuard<()>,
    ) -> Result<LayerUse, LayerError<E>> {
        let path = held.path.clone();
        let placed = ongoing::spawn_blocking(move || {
            let placed = held.layers.put_into_place(&held, &from);
            drop(filling);
            placed.map(|()| held)
        });
        let placed = placed.await.unwrap_or_else(|ended| Err(ended.into()));
        placed.map_err(|source| LayerError::Place { path, source })
    }

    fn put_into_place(&self, held: &LayerUse, from: &Path) -> io::Result<()> {
        if ongoing::is_given_up() {
            // From here on `from` may be on its way out.
            return Err(io::Error::other("nobody wants the layer any more"));
        }
        write_facts(&self.directory, &held.key, held.facts, &self.boot)?;
        fs::rename(from, &held.path)?;
        let mut shelf = self.shelf();
        shelf.tick += 1;
        let tick = shelf.tick;
        if let Some(slot) = shelf.slots.get_mut(&held.key) {
            slot.facts = Some(held.facts);
            slot.durable = false;
            slot.placed = tick;
        }
        drop(shelf);
        self.fresh.notify_one();
        Ok(())
    }

    /// Makes layers durable in the background, for ever.
    pub(crate) async fn keep_durable(self) {
        loop {
            self.fresh.notified().await;
            tokio::time::sleep(GATHER).await;
            let layers = self.clone();
            let made = tokio::task::spawn_blocking(move || layers.make_durable()).await;
            if let Ok(Err(error)) = made {
                // After a power cut they are fetched again.
                warn!(%error, "unpacked layers cannot be made durable");
            }
        }
    }

    /// Has everything that is unpacked now outlive a power cut. Blocks.
    fn make_durable(&self) -> io::Result<()> {
        let is_fresh = |slot: &Slot| slot.facts.is_some() && !slot.durable;
        let shelf = self.shelf();
        let fresh = shelf.slots.iter().filter(|(_, slot)| is_fresh(slot));
        let fresh: Vec<_> = fresh
            .map(|(key, slot)| (key.clone(), slot.placed))
            .collect();
        drop(shelf);
        if fresh.is_empty() {
            return Ok(());
        }
        rustix::fs::syncfs(fs::File::open(&*self.directory)?)?;
        for (key, placed) in fresh {
            // Held while the file is written: the layer may not go and come again in between.
            let mut shelf = self.shelf();
            let Some(slot) = shelf.slots.get_mut(&key) else {
                continue;
            };
            if let Some(facts) = slot.facts.filter(|_| slot.placed == placed) {
                write_facts(&self.directory, &key, facts, DURABLE)?;
                slot.durable = true;
            }
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
            let trash = loop {
                shelf.deleted += 1;
                let trash = self.directory.join(format!("{}.deleted", shelf.deleted));
                // What an earlier worker could not remove is in the way.
                if fs::symlink_metadata(&trash).is_err() {
                    break trash;
                }
            };
            if let Err(error) = fs::rename(self.directory.join(&key.0), &trash) {
                // It is still there, and still a good layer.
                warn!(error = %error, "a layer cannot be put aside");
                continue;
            }
            shelf.slots.remove(&key);
            if let Err(error) = fs::remove_file(facts_file(&self.directory, &key)) {
                warn!(error = %error, "what was known of a layer stays");
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

/// What is known of a layer, and what it was made in: a boot of the machine, or [`DURABLE`].
fn read_facts(directory: &Path, key: &LayerKey) -> Option<(LayerFacts, String)> {
    let text = fs::read_to_string(facts_file(directory, key)).ok()?;
    let mut words = text.split(' ');
    let facts = LayerFacts {
        bytes: words.next()?.parse().ok()?,
        newest: words.next()?.parse().ok()?,
    };
    let made = words.next().filter(|made| !made.is_empty())?;
    Some((facts, made.to_owned()))
}

/// Writes that, whole or not at all.
fn write_facts(directory: &Path, key: &LayerKey, facts: LayerFacts, made: &str) -> io::Result<()> {
    let aside = directory.join(format!("{}.new", key.0));
    fs::write(&aside, format!("{} {} {made}", facts.bytes, facts.newest))?;
    fs::rename(aside, facts_file(directory, key))
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
