//! From files to chunks for whoever sends them, while the files are read: so what is new is read once. Blocks.
//!
//! A big file is cut by itself. Small ones share chunks with those that follow them in the tree, but several threads
//! read them, and end in any order: what comes early waits for what belongs before it. The walk says which ones are
//! small. If a file has another length by the time it is read, the packs around it may not be those of the tree; that
//! harms nobody, because the upload reads again what it finds no chunks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use protocol::{
    digest::{Digest, Hasher},
    layout::CHUNK_BYTES_MAX,
};
use tokio::sync::mpsc;

use crate::{
    chunking::{WINDOW_BYTES, first_cut},
    index::{Units, unit_name},
    ongoing,
    packing::{PACKED_BELOW, Packer},
};

/// How many bytes of small files may be early: some dozens of the largest, so that one that takes long holds up
/// nobody. Past it, who has read another one waits.
const EARLY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A chunk that was read.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

impl Chunk {
    pub(crate) fn new(bytes: Bytes) -> Self {
        let digest = Digest::of(&bytes);
        Self { digest, bytes }
    }
}

/// Hands a chunk on, as soon as there is room for it; an error if nobody takes any more.
pub(crate) fn hand_on(bytes: Bytes, out: &mpsc::Sender<Chunk>) -> io::Result<Digest> {
    let chunk = Chunk::new(bytes);
    let digest = chunk.digest;
    match out.blocking_send(chunk) {
        Ok(()) => Ok(digest),
        Err(_) => Err(not_taken()),
    }
}

fn not_taken() -> io::Error {
    io::Error::other("nobody takes what is read")
}

/// Reads what should have `size` bytes, and hands on the chunks of a file of that length. Gives the digest of what
/// was there, and those of the chunks. If it had another length, the digest says so, and the chunks are good for
/// nothing.
pub(crate) fn cut_file(
    source: impl Read,
    size: u64,
    out: &mpsc::Sender<Chunk>,
) -> io::Result<(Digest, Vec<Digest>)> {
    // One byte more than there should be tells a file that grew.
    let mut source = source.take(size.saturating_add(1));
    let capacity = usize::try_from(size).map_or(WINDOW_BYTES, |size| size.min(WINDOW_BYTES));
    let mut window = Vec::with_capacity(capacity);
    let mut hasher = Hasher::default();
    let mut chunks = Vec::new();
    loop {
        ongoing::check()?;
        let room = WINDOW_BYTES - window.len();
        let read = source.by_ref().take(room as u64).read_to_end(&mut window)?;
        hasher.update(&window[window.len() - read..]);
        // What fits in a chunk is not cut.
        let length = match size <= CHUNK_BYTES_MAX {
            true => window.len(),
            false => first_cut(&window),
        };
        if length == 0 {
            return Ok((hasher.finish(), chunks));
        }
        // Of its own length: many wait, and the window is as long as the longest.
        let chunk = Bytes::copy_from_slice(&window[..length]);
        window.drain(..length);
        chunks.push(hand_on(chunk, out)?);
    }
}

/// What there is of a file that was read, besides its digest.
#[derive(Debug)]
pub(crate) enum Body {
    /// Nothing: its bytes are where they were.
    Left,
    /// All of it, to be put together with others.
    Whole(Bytes),
    /// These chunks, which were handed on.
    Cut(Vec<Digest>),
}

/// Makes chunks of files that several threads read.
#[derive(Debug)]
pub(crate) struct Cutter {
    out: mpsc::Sender<Chunk>,
    made: Mutex<Made>,
    /// Another small file has had its turn, or none will any more.
    turned: Condvar,
}

impl Cutter {
    /// Hands chunks on to `out`. The files `small`, ascending, share chunks; each is to be [added](Self::add) once.
    pub(crate) fn new(small: Vec<usize>, out: mpsc::Sender<Chunk>) -> Self {
        let made = Made {
            small,
            turns: 0,
            early: BTreeMap::new(),
            early_bytes: 0,
            seen: BTreeSet::new(),
            packer: Packer::new(),
            units: Units::new(),
            is_given_up: false,
        };
        Self {
            out,
            made: Mutex::new(made),
            turned: Condvar::new(),
        }
    }

    /// Reads an open file that should have `size` bytes; if it is a big one, its chunks are handed on meanwhile.
    pub(crate) fn read(&self, file: &File, size: u64) -> io::Result<(Digest, Body)> {
        if PACKED_BELOW <= size {
            let (digest, chunks) = cut_file(file, size, &self.out)?;
            return Ok((digest, Body::Cut(chunks)));
        }
        ongoing::check()?;
        if self.out.is_closed() {
            return Err(not_taken());
        }
        let capacity = usize::try_from(size + 1).expect("it is a small one");
        let mut bytes = Vec::with_capacity(capacity);
        file.take(size + 1).read_to_end(&mut bytes)?;
        Ok((Digest::of(&bytes), Body::Whole(bytes.into())))
    }

    /// Adds the file with the number `at`, which did not change while it was read. Waits while too much is early, and
    /// until there is room for the chunk that it completes; an error if nobody takes chunks any more.
    pub(crate) fn add(&self, at: usize, digest: Digest, body: Body) -> io::Result<()> {
        let mut made = self.lock();
        let bytes = match body {
            Body::Left => None,
            Body::Whole(bytes) => Some(bytes),
            Body::Cut(chunks) => {
                made.units.insert(unit_name([&digest]), chunks);
                None
            }
        };
        if made.small.binary_search(&at).is_err() {
            return Ok(());
        }
        while made.has_to_wait(at) {
            made = self
                .turned
                .wait(made)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let packs = made.add(at, Small { digest, bytes });
        drop(made);
        self.turned.notify_all();
        packs.into_iter().try_for_each(|pack| self.hand_on(pack))
    }

    /// A file cannot be read: those behind it need not wait for it.
    pub(crate) fn give_up(&self) {
        self.lock().is_given_up = true;
        self.turned.notify_all();
    }

    /// What was handed on, when all files are added: what units were cut into.
    pub(crate) fn finish(self) -> Units {
        let rest = self.lock().packer.close();
        // Whoever does not take it says why; here it is not among the units.
        let _taken_or_not = self.hand_on(rest);
        let made = self.made.into_inner();
        made.unwrap_or_else(PoisonError::into_inner).units
    }

    /// Hands on a pack, unless files of it were not read.
    fn hand_on(&self, pack: Vec<Small>) -> io::Result<()> {
        let bytes: Option<Vec<&[u8]>> = pack.iter().map(|file| file.bytes.as_deref()).collect();
        let bytes = bytes.unwrap_or_default().concat();
        if bytes.is_empty() {
            return Ok(());
        }
        let chunk = hand_on(bytes.into(), &self.out)?;
        let name = unit_name(pack.iter().map(|file| &file.digest));
        self.lock().units.insert(name, vec![chunk]);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that shares a chunk with others.
#[derive(Debug)]
struct Small {
    digest: Digest,
    /// `None`: it was not read, or is no small one after all.
    bytes: Option<Bytes>,
}

impl Small {
    fn length(&self) -> usize {
        self.bytes.as_ref().map_or(0, Bytes::len)
    }
}

/// What has become of the files.
#[derive(Debug)]
struct Made {
    /// The small ones, ascending.
    small: Vec<usize>,
    /// How many of these have had their turn.
    turns: usize,
    /// Those that were read before they have it.
    early: BTreeMap<usize, Small>,
    early_bytes: usize,
    /// What has been put into a pack.
    seen: BTreeSet<Digest>,
    packer: Packer<Small>,
    units: Units,
    is_given_up: bool,
}

impl Made {
    /// Whether there is no room for another file that is early.
    fn has_to_wait(&self, at: usize) -> bool {
        let is_next = self.small.get(self.turns) == Some(&at);
        EARLY_BYTES_MAX <= self.early_bytes && !is_next && !self.is_given_up
    }

    /// Adds a file; gives the packs that are whole then.
    fn add(&mut self, at: usize, file: Small) -> Vec<Vec<Small>> {
        self.early_bytes += file.length();
        self.early.insert(at, file);
        let mut whole = Vec::new();
        while let Some(at) = self.small.get(self.turns)
            && let Some(file) = self.early.remove(at)
        {
            self.turns += 1;
            self.early_bytes -= file.length();
            let digest = file.digest;
            let is_packed = 0 < digest.size() && digest.size() < PACKED_BELOW;
            if is_packed && self.seen.insert(digest) {
                whole.extend(self.packer.add(&digest, file));
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests;
