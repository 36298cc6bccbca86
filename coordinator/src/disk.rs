//! Making files durable: the one place that syncs, so that tests can see it, and let it fail.

use std::{fs::File, io};

/// Makes durable what was written to `file`, and its length.
///
/// # Errors
///
/// If the system refuses. Then nobody knows what of it is on the disk, and a second try that succeeds says
/// nothing: what was written since the last sync has to be written again.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    #[cfg(test)]
    seen::note(file)?;
    file.sync_data()
}

/// Makes durable what a directory holds, or all of a new file.
///
/// # Errors
///
/// If the system refuses.
pub(crate) fn sync_all(file: &File) -> io::Result<()> {
    #[cfg(test)]
    seen::note(file)?;
    file.sync_all()
}

/// What tests see of syncs on their own thread.
#[cfg(test)]
pub(crate) mod seen {
    use std::{
        cell::{Cell, RefCell},
        os::unix::fs::MetadataExt as _,
        path::Path,
    };

    use super::{File, io};

    thread_local! {
        static SYNCED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
        static FAILURES: Cell<u32> = const { Cell::new(0) };
    }

    pub(super) fn note(file: &File) -> io::Result<()> {
        let failures = FAILURES.get();
        if 0 < failures {
            FAILURES.set(failures - 1);
            return Err(io::Error::other("the disk is gone"));
        }
        let inode = file.metadata()?.ino();
        SYNCED.with_borrow_mut(|synced| synced.push(inode));
        Ok(())
    }

    /// Lets the next `count` syncs fail.
    pub(crate) fn fail(count: u32) {
        FAILURES.set(count);
    }

    /// Forgets which files were synced.
    pub(crate) fn forget() {
        SYNCED.take();
    }

    /// Whether the file at `path` was synced since.
    pub(crate) fn is_synced(path: &Path) -> bool {
        let inode = path.metadata().unwrap().ino();
        SYNCED.with_borrow(|synced| synced.contains(&inode))
    }
}
