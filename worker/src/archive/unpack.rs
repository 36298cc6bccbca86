//! Unpacks archives that anybody may have made: never outside the target, and with limits.
//!
//! Nothing is written through a link: links are made last, when everything else is there.

mod formats;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, BufReader, Read},
    mem,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::{Component, Path, PathBuf},
};

use cache::compression::unpacked_stream;
use flate2::read::MultiGzDecoder;
use protocol::archive::ArchiveFormat;

use self::formats::{unpack_tar, unpack_zip};

/// How many bytes the name of an entry may have: what the kernel takes as a path.
const NAME_BYTES_MAX: usize = 4096;

/// How much an archive may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Entries, and directories on the way to them.
    entries: u64,
    /// Bytes of all files together.
    bytes: u64,
    /// Bytes that are read to find the entries and what is in them.
    stream: u64,
}

impl Limits {
    /// Twice the entries that the largest trees of dependencies have; what a checkout with large files has; and what
    /// a tar needs beside it.
    pub(super) const ALLOWED: Self = Self {
        entries: 300_000,
        bytes: 8 << 30,
        stream: 9 << 30,
    };
}

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    /// It leads out of itself: nobody should unpack it.
    #[error("entry `{name}` leads out of the archive")]
    Outside {
        /// The entry.
        name: String,
    },
    /// One entry is where another needs a directory, or the other way round.
    #[error("entry `{name}` is where another one is")]
    Twice {
        /// The entry.
        name: String,
    },
    /// No file can be called so.
    #[error("entry `{name}` has a name that is too long")]
    Name {
        /// The entry.
        name: String,
    },
    /// It holds something else than files, directories and links.
    #[error("entry `{name}` is no file, no directory and no link")]
    Kind {
        /// The entry.
        name: String,
    },
    /// It has more entries than [`Limits`] allow.
    #[error("archive has more than {max} entries and directories")]
    Entries {
        /// How many may be there.
        max: u64,
    },
    /// It has more bytes than [`Limits`] allow.
    #[error("archive has more than {max} bytes unpacked")]
    Bytes {
        /// How many may be there.
        max: u64,
    },
    /// What has to be known of it at once is more than a process may hold.
    #[error("archive takes too much memory to unpack")]
    Memory,
    /// It is damaged, takes a password, or is no archive of this format.
    #[error("archive cannot be read")]
    Read {
        /// Why.
        source: io::Error,
    },
    /// The disk refuses: not the archive's doing.
    #[error("failed to unpack at `{path}`")]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Unpacks `archive` into the directory `target`, which is made. Blocks, and takes as much memory as the names of all
/// entries.
///
/// # Errors
///
/// If it cannot be unpacked; then a part of it may be there.
pub(super) fn unpack(
    archive: &Path,
    target: &Path,
    (format, limits): (ArchiveFormat, Limits),
) -> Result<(), UnpackError> {
    let mut to = Target::new(target, limits)?;
    let file = File::open(archive).map_err(|source| disk_error(archive, source))?;
    let unpacked = match format {
        ArchiveFormat::Zip => unpack_zip(file, &mut to),
        ArchiveFormat::Tar => unpack_tar(file, &mut to),
        ArchiveFormat::TarGz => unpack_tar(MultiGzDecoder::new(BufReader::new(file)), &mut to),
        ArchiveFormat::TarZst => unpacked_stream(file)
            .map_err(|source| UnpackError::Read { source })
            .and_then(|stream| unpack_tar(stream, &mut to)),
    };
    match unpacked {
        Err(UnpackError::Read { source }) if source.kind() == io::ErrorKind::OutOfMemory => {
            Err(UnpackError::Memory)
        }
        unpacked => unpacked.and_then(|()| to.link_all()),
    }
}

/// Where an archive is unpacked, and what of it is still allowed.
struct Target<'a> {
    root: &'a Path,
    limits: Limits,
    /// How many entries and directories there were.
    entries: u64,
    bytes_left: u64,
    directories: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    /// By where it is, what a symbolic link names.
    links: BTreeMap<PathBuf, Vec<u8>>,
    /// By where it is, the file that a hard link is another name of.
    names: BTreeMap<PathBuf, PathBuf>,
}

impl<'a> Target<'a> {
    fn new(root: &'a Path, limits: Limits) -> Result<Self, UnpackError> {
        fs::create_dir(root).map_err(|source| disk_error(root, source))?;
        Ok(Self {
            root,
            limits,
            entries: 0,
            bytes_left: limits.bytes,
            directories: BTreeSet::new(),
            files: BTreeSet::new(),
            links: BTreeMap::new(),
            names: BTreeMap::new(),
        })
    }

    /// Counts an entry, whatever it is, or a directory.
    fn count(&mut self) -> Result<(), UnpackError> {
        self.entries += 1;
        let max = self.limits.entries;
        if max < self.entries {
            return Err(UnpackError::Entries { max });
        }
        Ok(())
    }

    /// Where an entry belongs, below the target; `None`: it is the target itself.
    fn place(&mut self, name: &[u8]) -> Result<Option<PathBuf>, UnpackError> {
        self.count()?;
        let place = relative(name)?;
        let above = place.ancestors().skip(1);
        let is_covered =
            |path: &Path| self.links.contains_key(path) || self.names.contains_key(path);
        if above.into_iter().any(is_covered) {
            return Err(UnpackError::Twice { name: shown(name) });
        }
        Ok(Some(place).filter(|place| !place.as_os_str().is_empty()))
    }

    fn directory(&mut self, place: &Path, name: &[u8]) -> Result<(), UnpackError> {
        if self.is_taken(place) {
            return Err(UnpackError::Twice { name: shown(name) });
        }
        self.make_directories(place, name)
    }

    /// Makes a directory and those above that are not there yet.
    fn make_directories(&mut self, place: &Path, name: &[u8]) -> Result<(), UnpackError> {
        let is_missing =
            |place: &&Path| !place.as_os_str().is_empty() && !self.directories.contains(*place);
        let missing: Vec<_> = place.ancestors().take_while(is_missing).collect();
        for place in missing.into_iter().rev() {
            self.count()?;
            let path = self.root.join(place);
            fs::create_dir(&path).map_err(|source| clash(&path, name, source))?;
            self.directories.insert(place.to_owned());
        }
        Ok(())
    }

    /// Whether something else than a directory is there.
    fn is_taken(&self, place: &Path) -> bool {
        self.files.contains(place)
            || self.links.contains_key(place)
            || self.names.contains_key(place)
    }

    fn file(
        &mut self,
        (place, name): (PathBuf, &[u8]),
        content: impl Read,
        is_executable: bool,
    ) -> Result<(), UnpackError> {
        let path = self.root.join(&place);
        if let Some(parent) = place.parent() {
            self.make_directories(parent, name)?;
        }
        // A later one of the same name counts.
        self.links.remove(&place);
        self.names.remove(&place);
        let mut file = File::create(&path).map_err(|source| clash(&path, name, source))?;
        // One byte more says that there are too many.
        let mut content = Watched {
            inner: content.take(self.bytes_left.saturating_add(1)),
            failed: None,
        };
        let copied = io::copy(&mut content, &mut file);
        if let Some(source) = content.failed {
            return Err(UnpackError::Read { source });
        }
        let copied = copied.map_err(|source| disk_error(&path, source))?;
        let left = self.bytes_left.checked_sub(copied);
        let max = self.limits.bytes;
        self.bytes_left = left.ok_or(UnpackError::Bytes { max })?;
        let mode = if is_executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode))
            .map_err(|source| disk_error(&path, source))?;
        self.files.insert(place);
        Ok(())
    }

    fn link(&mut self, (place, name): (PathBuf, &[u8]), to: Vec<u8>) -> Result<(), UnpackError> {
        if to.is_empty() || NAME_BYTES_MAX < to.len() || to.contains(&0) {
            return Err(UnpackError::Kind { name: shown(name) });
        }
        if self.root.join(&place).exists() {
            return Err(UnpackError::Twice { name: shown(name) });
        }
        self.names.remove(&place);
        self.links.insert(place, to);
        Ok(())
    }

    fn another_name(
        &mut self,
        (place, name): (PathBuf, &[u8]),
        of: &[u8],
    ) -> Result<(), UnpackError> {
        let of = relative(of)?;
        if !self.files.contains(&of) || self.root.join(&place).exists() {
            return Err(UnpackError::Twice { name: shown(name) });
        }
        self.links.remove(&place);
        self.names.insert(place, of);
        Ok(())
    }

    /// Makes the links: nothing is written after them.
    fn link_all(mut self) -> Result<(), UnpackError> {
        let (names, links) = (mem::take(&mut self.names), mem::take(&mut self.links));
        for place in names.keys().chain(links.keys()) {
            if let Some(parent) = place.parent() {
                self.make_directories(parent, place.as_os_str().as_bytes())?;
            }
        }
        let at = |place: &Path| self.root.join(place);
        for (place, of) in &names {
            let (path, name) = (at(place), place.as_os_str().as_bytes());
            fs::hard_link(at(of), &path).map_err(|source| clash(&path, name, source))?;
        }
        for (place, to) in &links {
            let (path, name) = (at(place), place.as_os_str().as_bytes());
            let made = symlink(OsStr::from_bytes(to), &path);
            made.map_err(|source| clash(&path, name, source))?;
        }
        Ok(())
    }
}

/// A reader that remembers that it failed, so that reading and writing are told apart.
struct Watched<R> {
    inner: R,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let kind = error.kind();
            // Which is tried again.
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }
}

/// The path of an entry below the target.
fn relative(name: &[u8]) -> Result<PathBuf, UnpackError> {
    let outside = || UnpackError::Outside { name: shown(name) };
    if NAME_BYTES_MAX < name.len() || name.contains(&0) {
        return Err(outside());
    }
    let mut place = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => {
                return Err(outside());
            }
        }
    }
    Ok(place)
}

/// The beginning of a name, for people.
fn shown(name: &[u8]) -> String {
    /// A line or two of a terminal.
    const SHOWN_BYTES_MAX: usize = 200;
    let name = &name[..name.len().min(SHOWN_BYTES_MAX)];
    name.escape_ascii().to_string()
}

fn disk_error(path: &Path, source: io::Error) -> UnpackError {
    UnpackError::Disk {
        path: path.to_owned(),
        source,
    }
}

/// What a refusal of the file system means: that entries are in each other's way, or that the disk has trouble.
fn clash(path: &Path, name: &[u8], source: io::Error) -> UnpackError {
    match source.kind() {
        io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory => UnpackError::Twice { name: shown(name) },
        io::ErrorKind::InvalidFilename => UnpackError::Name { name: shown(name) },
        _ => disk_error(path, source),
    }
}

#[cfg(test)]
mod tests;
