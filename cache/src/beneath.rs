//! Opening what lies below a directory, and never anything else: no link is followed, so no path leads
//! out, whatever somebody puts into the directory meanwhile.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use protocol::path::TreePath;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, open, openat, openat2},
    io::Errno,
};

/// A directory that is worked below.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
}

impl From<OwnedFd> for Root {
    fn from(directory: OwnedFd) -> Self {
        Self { directory }
    }
}

impl Root {
    /// Opens the directory at `path`. Links in this path itself are followed: it is the caller's.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let directory = open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { directory })
    }

    /// The directory itself.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Opens what is at `path`, or creates it with `mode` if the flags say so.
    ///
    /// A link anywhere in the path is an error (`ELOOP` or `ENOTDIR`).
    pub(crate) fn open_at(
        &self,
        path: &TreePath,
        flags: OFlags,
        mode: Mode,
    ) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(&self.directory, path.as_bytes(), flags, mode, resolve) {
            // Kernels before 5.6, and sandboxes that do not know the call.
            Err(Errno::NOSYS) => self.open_by_component(path, flags, mode),
            opened => Ok(opened?),
        }
    }

    /// Opens the directory at `path`; `None` is the root.
    pub(crate) fn directory(&self, path: Option<&TreePath>) -> io::Result<OwnedFd> {
        match path {
            Some(path) => self.open_at(path, DIRECTORY, Mode::empty()),
            None => Ok(openat(&self.directory, c".", DIRECTORY, Mode::empty())?),
        }
    }

    fn open_by_component(&self, path: &TreePath, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let mut outer: Option<OwnedFd> = None;
        if let Some(parent) = path.parent() {
            for name in parent.components() {
                let below = outer.as_ref().map_or(self.as_fd(), AsFd::as_fd);
                let flags = DIRECTORY | OFlags::NOFOLLOW;
                outer = Some(openat(below, name, flags, Mode::empty())?);
            }
        }
        let below = outer.as_ref().map_or(self.as_fd(), AsFd::as_fd);
        Ok(openat(below, path.name(), flags, mode)?)
    }
}

/// Opens directories.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn no_link_is_followed_whichever_way_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        fs::write(root.join("a/b/file"), "inside").unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("../outside", root.join("link")).unwrap();
        symlink("a", root.join("same")).unwrap();

        let root = Root::open(&root).unwrap();
        let path = |text: &str| TreePath::new(text).unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
        for (text, opens) in [
            ("a/b/file", true),
            ("up/outside", false),
            ("link", false),
            ("same/b/file", false),
        ] {
            let fast = root.open_at(&path(text), flags, Mode::empty());
            let slow = root.open_by_component(&path(text), flags, Mode::empty());
            assert_eq!((fast.is_ok(), slow.is_ok()), (opens, opens), "{text}");
        }
    }
}
