//! Reads and hashes the files that a walk found, in parallel; for whoever sends them, they become chunks meanwhile.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use protocol::{
    digest::{Digest, Hasher},
    path::TreePath,
};
use rustix::{
    fs::{Mode, OFlags, Stat, fstat},
    io::pread,
};
use tokio::sync::mpsc;

use super::{
    Capture, CaptureError, Detail, Dialect, Source, Stamp,
    facts::{Marks, XattrList, changed, holes, modified, xattrs},
    recheck::is_gone,
    walk::{Found, FoundKind},
};
use crate::{
    cutting::{Body, Chunk, Cutter},
    index::{IndexedFiles, Units},
    ongoing::{self, owned},
    packing::PACKED_BELOW,
};

/// How much is read at once. Large enough for the hash to work on many blocks in parallel.
const BUFFER_BYTES: usize = 256 * 1024;
/// How often a file is read: once, and once more if it changed meanwhile.
const READS: usize = 2;

/// What reading a file told.
pub(crate) struct FileFacts {
    pub(crate) digest: Digest,
    pub(crate) mode: u32,
    pub(crate) modified: i64,
    pub(crate) xattrs: XattrList,
    pub(crate) holes: Vec<(u64, u64)>,
    pub(crate) source: Source,
    /// How to know it again; `None`: its bytes are not those on disk.
    pub(crate) stamp: Option<Stamp>,
    /// Whether it was known, and not read.
    pub(crate) is_known: bool,
}

/// Reads each file of `found` that is not another name of an earlier one, unless `index` has it as it
/// is; the result is parallel to `found`. What is read goes to `out` too, if there is one, and the units that
/// went there are given.
pub(crate) fn hash_files(
    capture: &Capture<'_>,
    found: &[Found],
    links: &[Option<usize>],
    index: Option<&IndexedFiles>,
    out: Option<mpsc::Sender<Chunk>>,
) -> Result<(Vec<Option<FileFacts>>, Units), CaptureError> {
    let is_file = |&at: &usize| matches!(found[at].kind, FoundKind::File) && links[at].is_none();
    let is_small = |&at: &usize| found[at].size < PACKED_BELOW;
    let files: Vec<usize> = (0..found.len()).filter(is_file).collect();
    let small = files.iter().copied().filter(is_small).collect();
    let mut reading = Reading {
        capture,
        found,
        unread: Vec::new(),
        next: AtomicUsize::new(0),
        cutter: out.map(|out| Cutter::new(small, out)),
    };
    let mut all: Vec<Option<FileFacts>> = Vec::new();
    all.resize_with(found.len(), || None);
    for at in files {
        match index.and_then(|index| known(capture, &found[at], index)) {
            Some(facts) => {
                reading.cut(at, facts.digest, Body::Left)?;
                all[at] = Some(facts);
            }
            None => reading.unread.push(at),
        }
    }
    let threads = ongoing::threads().min(reading.unread.len());
    let run = || reading.run();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(owned(run))).collect();
        for thread in threads {
            for (at, facts) in thread.join().expect("reading does not panic")? {
                all[at] = Some(facts);
            }
        }
        Ok::<_, CaptureError>(())
    })?;
    let units = reading.cutter.map(Cutter::finish);
    Ok((all, units.unwrap_or_default()))
}

/// What is known of a file that has not changed since it was read.
fn known(capture: &Capture<'_>, found: &Found, index: &IndexedFiles) -> Option<FileFacts> {
    if capture.replaced.contains_key(&found.path) || capture.dialect != Dialect::Plain {
        return None;
    }
    let stamp = found.stamp();
    let digest = index.digest(&found.path, &stamp)?;
    Some(FileFacts {
        digest,
        mode: found.mode,
        modified: found.modified,
        xattrs: Vec::new(),
        holes: Vec::new(),
        source: Source::Disk {
            root: found.root,
            path: found.path.clone(),
        },
        stamp: Some(stamp),
        is_known: true,
    })
}

/// What several threads read together.
struct Reading<'a> {
    capture: &'a Capture<'a>,
    found: &'a [Found],
    /// Which of `found` are to be read, ascending.
    unread: Vec<usize>,
    /// Which of these is to be read next.
    next: AtomicUsize,
    cutter: Option<Cutter>,
}

impl Reading<'_> {
    /// Reads files until there are no more.
    fn run(&self) -> Result<Vec<(usize, FileFacts)>, CaptureError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut read = Vec::new();
        let stopping = Stopping(self);
        while let Some(&at) = self.unread.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let facts = self.hash_file(&self.found[at], &mut buffer);
            let facts = facts.and_then(|(facts, body)| {
                self.cut(at, facts.digest, body)?;
                Ok(facts)
            });
            read.push((at, facts?));
        }
        std::mem::forget(stopping);
        Ok(read)
    }

    /// Makes chunks of a file, if somebody sends them.
    fn cut(&self, at: usize, digest: Digest, body: Body) -> Result<(), CaptureError> {
        let added = self.cutter.as_ref();
        let added = added.map_or(Ok(()), |cutter| cutter.add(at, digest, body));
        added.map_err(|source| failed(&self.found[at], source))
    }

    fn hash_file(
        &self,
        found: &Found,
        buffer: &mut [u8],
    ) -> Result<(FileFacts, Body), CaptureError> {
        if let Some(bytes) = self.capture.replaced.get(&found.path) {
            let facts = FileFacts {
                digest: Digest::of(bytes),
                mode: found.mode,
                modified: found.modified,
                xattrs: Vec::new(),
                holes: Vec::new(),
                source: Source::Memory(bytes.clone()),
                stamp: None,
                is_known: false,
            };
            return Ok((facts, Body::Whole(bytes.clone())));
        }
        for _ in 0..READS {
            let read = self.read_file(found, buffer);
            if let Some(read) = read.map_err(|source| failed(found, source))? {
                return Ok(read);
            }
        }
        Err(CaptureError::Changed {
            path: found.path.clone(),
        })
    }

    /// Reads a file; `None` if it changed meanwhile.
    fn read_file(&self, found: &Found, buffer: &mut [u8]) -> io::Result<Option<(FileFacts, Body)>> {
        let capture = self.capture;
        let Some((mut file, own)) = open(capture, found.root, &found.path)? else {
            return Ok(None);
        };
        if (own.st_dev, own.st_ino) != found.node {
            return Ok(None);
        }
        let (xattrs, marks) = match capture.detail {
            Detail::Full => xattrs(file.as_fd(), capture.dialect)?,
            Detail::Checkout => (Vec::new(), Marks::default()),
        };
        let mut root = found.root;
        let mut before = own;
        if marks.elsewhere {
            root = 1;
            if capture.roots.len() < 2 {
                let why =
                    "its bytes are in a lower layer, and the merged file system is not at hand";
                return Err(io::Error::other(why));
            }
            let Some(opened) = open(capture, root, &found.path)? else {
                return Ok(None);
            };
            (file, before) = opened;
        }
        let (digest, body) = match &self.cutter {
            Some(cutter) => cutter.read(&file, size(&before))?,
            None => (hash(&file, buffer)?, Body::Left),
        };
        let holes = match capture.detail {
            Detail::Full => holes(file.as_fd(), &before)?,
            Detail::Checkout => Vec::new(),
        };
        let after = fstat(&file)?;
        if !unchanged(&before, &after) || size(&after) != digest.size() {
            return Ok(None);
        }
        let facts = FileFacts {
            digest,
            mode: own.st_mode & 0o7777,
            modified: modified(&own),
            xattrs,
            holes,
            source: Source::Disk {
                root,
                path: found.path.clone(),
            },
            stamp: Some(stamp_of(&own)),
            is_known: false,
        };
        Ok(Some((facts, body)))
    }
}

/// Ends the reading of all threads when it is dropped: if one fails or panics, the others need not go on, and must not
/// wait for what it had to read.
struct Stopping<'a>(&'a Reading<'a>);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        let Self(reading) = self;
        reading.next.store(reading.unread.len(), Ordering::Relaxed);
        reading.cutter.iter().for_each(Cutter::give_up);
    }
}

fn failed(found: &Found, source: io::Error) -> CaptureError {
    CaptureError::Read {
        path: found.path.clone(),
        source,
    }
}

fn hash(file: &File, buffer: &mut [u8]) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut at = 0;
    loop {
        ongoing::check()?;
        let length = pread(file, &mut *buffer, at)?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
}

/// Opens a regular file; `None` if it is gone, or something else is there now.
fn open(capture: &Capture<'_>, root: usize, path: &TreePath) -> io::Result<Option<(File, Stat)>> {
    // Never to block on a pipe that has taken the file's place.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match capture.roots[root].open_at(path, flags, Mode::empty()) {
        Err(e) if is_gone(&e) => return Ok(None),
        file => File::from(file?),
    };
    let stat = fstat(&file)?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    Ok(regular.then_some((file, stat)))
}

/// In bytes.
fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

pub(super) fn stamp_of(stat: &Stat) -> Stamp {
    Stamp {
        node: (stat.st_dev, stat.st_ino),
        size: size(stat),
        modified: modified(stat),
        changed: changed(stat),
    }
}

fn unchanged(before: &Stat, after: &Stat) -> bool {
    let times = |stat: &Stat| {
        (
            stat.st_mtime,
            stat.st_mtime_nsec,
            stat.st_ctime,
            stat.st_ctime_nsec,
        )
    };
    before.st_size == after.st_size && times(before) == times(after)
}
