//! Reads and hashes the files that a walk found, in parallel.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use protocol::{
    digest::{Digest, Hasher},
    path::TreePath,
};
use rustix::{
    fs::{Mode, OFlags, Stat, fstat},
    io::{Errno, pread},
};

use super::{
    Capture, CaptureError, Detail, Dialect, Source, Stamp,
    facts::{Marks, XattrList, changed, holes, modified, xattrs},
    walk::{Found, FoundKind},
};
use crate::{
    index::IndexedFiles,
    ongoing::{self, owned},
};

/// How many threads read at most: past this, disks are the limit.
const THREADS_MAX: usize = 8;
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
    /// How to know it again; `None`: it cannot be.
    pub(crate) stamp: Option<Stamp>,
    /// Whether it was known, and not read.
    pub(crate) is_known: bool,
}

/// Reads each file of `found` that is not another name of an earlier one, unless `index` has it as it
/// is; the result is parallel to `found`.
pub(crate) fn hash_files(
    capture: &Capture<'_>,
    found: &[Found],
    links: &[Option<usize>],
    index: Option<&IndexedFiles>,
) -> Result<Vec<Option<FileFacts>>, CaptureError> {
    let is_file =
        |&index: &usize| matches!(found[index].kind, FoundKind::File) && links[index].is_none();
    let mut files = Vec::new();
    let mut all: Vec<Option<FileFacts>> = Vec::new();
    all.resize_with(found.len(), || None);
    for at in (0..found.len()).filter(is_file) {
        match index.and_then(|index| known(capture, &found[at], index)) {
            Some(facts) => all[at] = Some(facts),
            None => files.push(at),
        }
    }
    let threads = thread::available_parallelism().map_or(1, Into::into);
    let threads = threads.min(THREADS_MAX).min(files.len());
    let next = AtomicUsize::new(0);
    let read_some = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut facts = Vec::new();
        while let Some(&index) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            match hash_file(capture, &found[index], &mut buffer) {
                Ok(of) => facts.push((index, of)),
                Err(e) => {
                    // The others need not go on.
                    next.store(files.len(), Ordering::Relaxed);
                    return Err(e);
                }
            }
        }
        Ok(facts)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| scope.spawn(owned(read_some)))
            .collect();
        for thread in threads {
            let facts = thread.join().expect("reading does not panic")?;
            for (index, of) in facts {
                all[index] = Some(of);
            }
        }
        Ok(all)
    })
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

fn hash_file(
    capture: &Capture<'_>,
    found: &Found,
    buffer: &mut [u8],
) -> Result<FileFacts, CaptureError> {
    if let Some(bytes) = capture.replaced.get(&found.path) {
        return Ok(FileFacts {
            digest: Digest::of(bytes),
            mode: found.mode,
            modified: found.modified,
            xattrs: Vec::new(),
            holes: Vec::new(),
            source: Source::Memory(bytes.clone()),
            stamp: None,
            is_known: false,
        });
    }
    for _ in 0..READS {
        let facts = read_file(capture, found, buffer).map_err(|source| CaptureError::Read {
            path: found.path.clone(),
            source,
        })?;
        if let Some(facts) = facts {
            return Ok(facts);
        }
    }
    Err(CaptureError::Changed {
        path: found.path.clone(),
    })
}

/// Reads a file; `None` if it changed meanwhile.
fn read_file(
    capture: &Capture<'_>,
    found: &Found,
    buffer: &mut [u8],
) -> io::Result<Option<FileFacts>> {
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
            let why = "its bytes are in a lower layer, and the merged file system is not at hand";
            return Err(io::Error::other(why));
        }
        let Some(opened) = open(capture, root, &found.path)? else {
            return Ok(None);
        };
        (file, before) = opened;
    }
    let digest = hash(&file, buffer)?;
    let holes = match capture.detail {
        Detail::Full => holes(file.as_fd(), &before)?,
        Detail::Checkout => Vec::new(),
    };
    let after = fstat(&file)?;
    if !unchanged(&before, &after) || u64::try_from(after.st_size) != Ok(digest.size()) {
        return Ok(None);
    }
    Ok(Some(FileFacts {
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
    }))
}

fn hash(file: &OwnedFd, buffer: &mut [u8]) -> io::Result<Digest> {
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
fn open(
    capture: &Capture<'_>,
    root: usize,
    path: &TreePath,
) -> io::Result<Option<(OwnedFd, Stat)>> {
    // Never to block on a pipe that has taken the file's place.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(|e| Some(e.raw_os_error()));
    let file = match capture.roots[root].open_at(path, flags, Mode::empty()) {
        Err(e) if gone.contains(&e.raw_os_error()) => return Ok(None),
        file => file?,
    };
    let stat = fstat(&file)?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    Ok(regular.then_some((file, stat)))
}

fn stamp_of(stat: &Stat) -> Stamp {
    Stamp {
        node: (stat.st_dev, stat.st_ino),
        size: u64::try_from(stat.st_size).unwrap_or(0),
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
