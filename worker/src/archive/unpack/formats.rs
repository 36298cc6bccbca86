//! How the formats hold their entries.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read},
    rc::Rc,
};

use tar::EntryType;
use zip::ZipArchive;

use super::{NAME_BYTES_MAX, Target, UnpackError, shown};

/// Unpacks a zip.
pub(super) fn unpack_zip(file: File, to: &mut Target<'_>) -> Result<(), UnpackError> {
    let read = |error: zip::result::ZipError| UnpackError::Read {
        source: io::Error::other(error),
    };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(read)?;
    for number in 0..archive.len() {
        let mut entry = archive.by_index(number).map_err(read)?;
        let name = entry.name_raw().to_vec();
        let Some(place) = to.place(&name)? else {
            continue;
        };
        if entry.is_dir() {
            to.directory(&place, &name)?;
        } else if entry.is_symlink() {
            let mut target = Vec::new();
            let longest = NAME_BYTES_MAX as u64 + 1;
            let found = (&mut entry).take(longest).read_to_end(&mut target);
            found.map_err(|source| UnpackError::Read { source })?;
            to.link((place, &name), target)?;
        } else {
            let is_executable = entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
            to.file((place, &name), entry, is_executable)?;
        }
    }
    Ok(())
}

/// A reader that gives so many bytes and no more.
struct Allowed<R> {
    inner: R,
    left: u64,
    is_over: Rc<Cell<bool>>,
}

impl<R: Read> Read for Allowed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            self.is_over.set(true);
            return Err(io::Error::other("there is too much of it"));
        }
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.inner.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Unpacks a tar.
pub(super) fn unpack_tar(stream: impl Read, to: &mut Target<'_>) -> Result<(), UnpackError> {
    let is_over = Rc::new(Cell::new(false));
    let max = to.limits.stream;
    let mut archive = tar::Archive::new(Allowed {
        inner: stream,
        left: max,
        is_over: Rc::clone(&is_over),
    });
    let unpacked = unpack_entries(&mut archive, to).and_then(|()| {
        // What says whether the stream is whole comes behind the end of the tar.
        let rest = io::copy(&mut archive.into_inner(), &mut io::sink());
        rest.map(drop)
            .map_err(|source| UnpackError::Read { source })
    });
    match unpacked {
        Err(UnpackError::Read { .. }) if is_over.get() => Err(UnpackError::Bytes { max }),
        unpacked => unpacked,
    }
}

fn unpack_entries(
    archive: &mut tar::Archive<impl Read>,
    to: &mut Target<'_>,
) -> Result<(), UnpackError> {
    let read = |source| UnpackError::Read { source };
    for entry in archive.entries().map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            // What it says of all entries is nothing that is kept.
            to.count()?;
            continue;
        }
        let Some(place) = to.place(&name)? else {
            continue;
        };
        let linked = || entry.link_name_bytes().map(|to| to.into_owned());
        match kind {
            EntryType::Directory => to.directory(&place, &name)?,
            EntryType::Symlink => to.link((place, &name), linked().unwrap_or_default())?,
            EntryType::Link => {
                to.another_name((place, &name), &linked().unwrap_or_default())?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mode = entry.header().mode().unwrap_or_default();
                to.file((place, &name), entry, mode & 0o111 != 0)?;
            }
            _ => return Err(UnpackError::Kind { name: shown(&name) }),
        }
    }
    Ok(())
}
