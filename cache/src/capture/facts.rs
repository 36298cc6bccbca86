//! What the system knows of an open file besides its bytes: times, extended attributes, holes.

use std::{io, os::fd::BorrowedFd};

use rustix::{
    fs::{SeekFrom, Stat, fgetxattr, flistxattr, seek},
    io::Errno,
};

use super::Dialect;

/// Names and values, sorted by name.
pub(crate) type XattrList = Vec<(Vec<u8>, Vec<u8>)>;

/// What overlayfs has noted on an entry of its upper directory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Marks {
    /// The directory hides what is below it.
    pub(crate) opaque: bool,
    /// The directory shows what is at another path of the lower layers.
    pub(crate) redirected: bool,
    /// The file's bytes are in a lower layer.
    pub(crate) elsewhere: bool,
}

/// Where overlayfs keeps its notes: as root, and in a user namespace.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// Most entries have none or a few short ones; others are asked for again with room for all.
const LIST_BYTES: usize = 1024;
/// What Linux allows for a list of names, and for one value.
const XATTR_BYTES_MAX: usize = 64 * 1024;
/// A file with more holes is kept without them: that is right, and takes more room on disk.
const HOLES_MAX: usize = 1 << 20;

/// When the content last changed, in nanoseconds since 1970.
pub(crate) fn modified(stat: &Stat) -> i64 {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(nanos)
}

/// When content, mode, owner, names or anything else last changed, in nanoseconds since 1970. No
/// program can set it.
pub(crate) fn changed(stat: &Stat) -> i64 {
    let nanos = i64::try_from(stat.st_ctime_nsec).unwrap_or(0);
    stat.st_ctime
        .saturating_mul(1_000_000_000)
        .saturating_add(nanos)
}

/// Extended attributes that are kept besides `user.*`: capabilities and access lists.
const KEPT: [&[u8]; 3] = [
    b"security.capability",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
];

/// The extended attributes that are kept, and what overlayfs noted.
pub(crate) fn xattrs(file: BorrowedFd<'_>, dialect: Dialect) -> io::Result<(XattrList, Marks)> {
    let mut kept = Vec::new();
    let mut marks = Marks::default();
    let list = grow(LIST_BYTES, |buffer| flistxattr(file, buffer))?;
    for name in list.split(|&byte| byte == 0) {
        let note = OVERLAY_PREFIXES
            .iter()
            .find_map(|prefix| name.strip_prefix(*prefix));
        if let Some(note) = note
            && dialect == Dialect::Overlay
        {
            match note {
                b"opaque" => marks.opaque = value(file, name)?.as_deref() == Some(b"y"),
                b"redirect" => marks.redirected = true,
                b"metacopy" => marks.elsewhere = true,
                _ => {}
            }
        } else if (name.starts_with(b"user.") || KEPT.contains(&name))
            && let Some(value) = value(file, name)?
        {
            kept.push((name.to_vec(), value));
        }
    }
    kept.sort();
    Ok((kept, marks))
}

/// The value of one attribute; `None` if it went away.
fn value(file: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    match grow(LIST_BYTES, |buffer| fgetxattr(file, name, buffer)) {
        Err(e) if e.raw_os_error() == Some(Errno::NODATA.raw_os_error()) => Ok(None),
        value => value.map(Some),
    }
}

/// Reads what `read` gives, with more room if it asks for it. Nothing, where there is no such thing.
fn grow(room: usize, read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; room];
    let length = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(XATTR_BYTES_MAX, 0);
            read(&mut buffer)?
        }
        Err(Errno::NOTSUP) => 0,
        length => length?,
    };
    buffer.truncate(length);
    Ok(buffer)
}

/// Where the file has no blocks: offsets and lengths in bytes, ascending.
pub(crate) fn holes(file: BorrowedFd<'_>, stat: &Stat) -> io::Result<Vec<(u64, u64)>> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    // Every file with a hole has fewer blocks than bytes, so nearly all need no search.
    if size <= blocks.saturating_mul(512) {
        return Ok(Vec::new());
    }
    let mut holes = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Hole(at)) {
            Ok(start) if start < size => start,
            // At its end, or on a file system that knows no holes.
            _ => break,
        };
        let end = match seek(file, SeekFrom::Data(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => size,
            Err(e) => return Err(e.into()),
        };
        if holes.len() == HOLES_MAX || end <= start {
            return Ok(Vec::new());
        }
        holes.push((start, end - start));
        at = end;
    }
    Ok(holes)
}
