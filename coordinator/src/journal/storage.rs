//! Where a journal's files are: the seam below which bytes are only bytes.

use std::{
    fmt::Debug,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate};

use crate::{
    directory::{self, DirectoryError},
    disk,
};

/// Files that a journal is kept in, by name. A name has no directory in it.
///
/// What this says is durable survives a power cut. Of what was written and not synced a cut leaves any
/// part, in whole sectors; what was removed may be there again.
pub trait Storage: Debug + Send + Sync {
    /// Where a file is, for people.
    fn path(&self, name: &str) -> PathBuf;

    /// The same files, for use beside this; what two write has to be in different files. `None`: there is
    /// no second way to them.
    fn beside(&self) -> Option<Box<dyn Storage>> {
        None
    }

    /// The names of all files, in any order.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn list(&self) -> io::Result<Vec<String>>;

    /// The bytes of a file.
    ///
    /// # Errors
    ///
    /// If it is not there, or the system refuses.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Makes a file that holds `bytes`, durably; one of that name is lost first.
    ///
    /// # Errors
    ///
    /// If the system refuses; half a file may be there.
    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Writes into a file that is there, `offset` bytes from its start. Durable after
    /// [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// If the system refuses; part of `bytes` may be there.
    fn write_at(&mut self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Lets a file end after `length` bytes. Durable after [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn cut(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Makes durable what was written into a file.
    ///
    /// # Errors
    ///
    /// If the system refuses; nobody knows what is durable then.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Makes durable which files there are, and with what bytes those that were put in place of others: a
    /// program that was killed may have left them in the system's memory only. Nothing to do for storage
    /// of which that cannot be said.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Sets room aside for the first `bytes` bytes of a file, so that writing them does not fail for want of it;
    /// the file is as long as before. Nothing to do for storage that has no such thing.
    ///
    /// # Errors
    ///
    /// If there is no room, or the system refuses.
    fn set_aside(&mut self, _name: &str, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    /// Gives back the room that is set aside behind the `length` bytes that a file has.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn release(&mut self, _name: &str, _length: u64) -> io::Result<()> {
        Ok(())
    }

    /// How many bytes are free; `None`: nobody knows.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// Puts `parts` in place of a file, one after the other, durably, or makes it: a start finds the old or the
    /// new one whole, and maybe half of the new one under the name with the extension `new`.
    ///
    /// # Errors
    ///
    /// If the system refuses; the old file is there still.
    fn replace(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// Files in a directory that nobody else writes to.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// The file that was written to last.
    open: Option<(String, File)>,
}

impl Files {
    /// The files in `directory`, which is made if need be.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub(super) fn open(directory: &Path) -> Result<Self, DirectoryError> {
        directory::create(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            open: None,
        })
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let file = directory::private().open(self.path(name))?;
            self.open = Some((name.to_owned(), file));
        }
        let (_, file) = self.open.as_ref().expect("it was just put there");
        Ok(file)
    }
}

impl Storage for Files {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn beside(&self) -> Option<Box<dyn Storage>> {
        Some(Box::new(Self {
            directory: self.directory.clone(),
            open: None,
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            // Names that are no text are none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let mut options = directory::private();
        let file = options.create(true).truncate(true).open(&path)?;
        file.write_all_at(bytes, 0)?;
        disk::sync_all(&file)?;
        directory::sync_parent(&path)?;
        self.open = Some((name.to_owned(), file));
        Ok(())
    }

    fn write_at(&mut self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file(name)?.write_all_at(bytes, offset)
    }

    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.set_len(length)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        disk::sync(self.file(name)?)
    }

    fn sync_names(&mut self) -> io::Result<()> {
        disk::sync_all(&File::open(&self.directory)?)
    }

    fn set_aside(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let file = self.file(name)?;
        Ok(fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes)?)
    }

    fn release(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.set_len(length)
    }

    fn free_bytes(&self) -> Option<u64> {
        directory::free_bytes(&self.directory).ok()
    }

    fn replace(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        directory::replace(&self.path(name), parts)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }
}
