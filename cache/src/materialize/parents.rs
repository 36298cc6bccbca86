//! The directory that is worked in: entries of one follow each other, so it is opened once for all of them.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use protocol::path::TreePath;
use rustix::{
    fs::{Mode, mkdirat},
    io::Errno,
};

use crate::beneath::Root;

/// The directory of the entry that was written last. Creates those that are not there.
pub(super) struct Parents<'a> {
    root: &'a Root,
    /// What a directory is created with.
    mode: Box<dyn Fn(&TreePath) -> u32 + 'a>,
    /// Its path, empty for the root; and the directory.
    open: Option<(Vec<u8>, OwnedFd)>,
}

impl fmt::Debug for Parents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parents")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl<'a> Parents<'a> {
    pub(super) fn new(root: &'a Root, mode: impl Fn(&TreePath) -> u32 + 'a) -> Self {
        Self {
            root,
            mode: Box::new(mode),
            open: None,
        }
    }

    /// The directory that holds `path`.
    pub(super) fn of(&mut self, path: &TreePath) -> io::Result<BorrowedFd<'_>> {
        let bytes = path.as_bytes();
        let slash = bytes.iter().rposition(|&byte| byte == b'/');
        let parent = &bytes[..slash.unwrap_or(0)];
        if self.open.as_ref().is_none_or(|(open, _)| open != parent) {
            let directory = open_or_create(self.root, path.parent().as_ref(), &*self.mode)?;
            self.open = Some((parent.to_vec(), directory));
        }
        let (_, directory) = self.open.as_ref().expect("it was just opened");
        Ok(directory.as_fd())
    }
}

/// Opens a directory; creates it, and those that lead to it, if it is not there.
pub(super) fn open_or_create(
    root: &Root,
    path: Option<&TreePath>,
    mode: &dyn Fn(&TreePath) -> u32,
) -> io::Result<OwnedFd> {
    let path = match (path, root.directory(path)) {
        (Some(path), Err(e)) if e.kind() == io::ErrorKind::NotFound => path,
        (_, opened) => return opened,
    };
    let outer = open_or_create(root, path.parent().as_ref(), mode)?;
    match mkdirat(&outer, path.name(), Mode::from_raw_mode(mode(path))) {
        // Somebody else may have been quicker.
        Ok(()) | Err(Errno::EXIST) => root.directory(Some(path)),
        Err(e) => Err(e.into()),
    }
}
