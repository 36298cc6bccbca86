//! What a restore and a put are measured against: the same files from memory, a copy, a walk.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Result, ensure};

/// How many threads write.
const WRITERS: usize = 2;
/// How many files a writer takes at a time, so that two seldom work in one directory.
const TAKEN_AT_ONCE: usize = 64;

/// All files of a tree, in memory.
pub(super) struct Files {
    directories: Vec<PathBuf>,
    links: Vec<(PathBuf, PathBuf)>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Files {
    /// Reads them.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut all = Self {
            directories: vec![],
            links: vec![],
            files: vec![],
        };
        all.read_below(root, Path::new(""))?;
        Ok(all)
    }

    fn read_below(&mut self, root: &Path, below: &Path) -> Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.directories.push(path.clone());
                self.read_below(root, &path)?;
            } else if kind.is_symlink() {
                self.links.push((path, fs::read_link(entry.path())?));
            } else {
                self.files.push((path, fs::read(entry.path())?));
            }
        }
        Ok(())
    }

    /// How many files there are.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// Writes all of them below `root`, with two threads.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        fs::create_dir(root)?;
        for directory in &self.directories {
            fs::create_dir(root.join(directory))?;
        }
        for (path, target) in &self.links {
            symlink(target, root.join(path))?;
        }
        let next = AtomicUsize::new(0);
        let write = || -> Result<()> {
            loop {
                let start = next.fetch_add(TAKEN_AT_ONCE, Ordering::Relaxed);
                let end = self.files.len().min(start + TAKEN_AT_ONCE);
                let Some(taken) = self.files.get(start..end) else {
                    return Ok(());
                };
                for (path, bytes) in taken {
                    File::create_new(root.join(path))?.write_all(bytes)?;
                }
            }
        };
        thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
            let mut ended = writers.into_iter().map(|writer| writer.join());
            ended.all(|ended| ended.is_ok_and(|written| written.is_ok()))
        })
        .then_some(())
        .ok_or_else(|| anyhow::anyhow!("a file was not written"))
    }
}

/// Copies a tree as `cp -r` does.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status()?;
    ensure!(status.success(), "the tree was not copied");
    Ok(())
}

/// Looks at each entry of a tree, and gives how many there are.
pub(super) fn stat_walk(directory: &Path) -> Result<usize> {
    let mut entries = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        entries += 1;
        if entry.metadata()?.is_dir() {
            entries += stat_walk(&entry.path())?;
        }
    }
    Ok(entries)
}

/// Makes the tree at `root` what the one at `wanted` is, and touches only what differs.
pub(super) fn update(root: &Path, wanted: &Path) -> Result<()> {
    let names = |directory: &Path| -> Result<Vec<_>> {
        let entries = fs::read_dir(directory)?;
        Ok(entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?)
    };
    for name in names(root)? {
        let (here, there) = (root.join(&name), wanted.join(&name));
        let kept = there.symlink_metadata().is_ok_and(|there| {
            let here = here.symlink_metadata();
            here.is_ok_and(|here| here.file_type() == there.file_type())
        });
        if kept {
            continue;
        }
        if here.symlink_metadata()?.is_dir() {
            fs::remove_dir_all(&here)?;
        } else {
            fs::remove_file(&here)?;
        }
    }
    for name in names(wanted)? {
        let (here, there) = (root.join(&name), wanted.join(&name));
        let kind = there.symlink_metadata()?.file_type();
        if here.symlink_metadata().is_err() {
            copy(&there, &here)?;
        } else if kind.is_dir() {
            update(&here, &there)?;
        } else if kind.is_symlink() {
            if fs::read_link(&here)? != fs::read_link(&there)? {
                fs::remove_file(&here)?;
                symlink(fs::read_link(&there)?, &here)?;
            }
        } else if fs::read(&here)? != fs::read(&there)? {
            fs::write(&here, fs::read(&there)?)?;
        }
    }
    Ok(())
}
