//! A disk in memory that tells what was written from what was synced, and can stop in the middle.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use coordinator::Storage;

use super::{dice::Dice, script::Power};

/// The most that is written whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// A disk; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    files: BTreeMap<String, File>,
    /// What a power cut may put back, because the directory was not synced since: what a name stood for
    /// before; `None`: nothing.
    names: BTreeMap<String, Option<Vec<u8>>>,
    fuse: Fuse,
    is_full: bool,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
struct File {
    written: Vec<u8>,
    synced: Vec<u8>,
}

/// When the disk stops.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Fuse {
    /// Never.
    #[default]
    None,
    /// At the change after so many others, of which a part is made.
    At(u64),
    /// It has stopped.
    Blown,
}

/// What a power cut left of a file that was being written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Torn {
    /// It ends early.
    Short,
    /// Sectors of it are zero.
    Zeros,
}

impl Disk {
    /// Lets the disk stop.
    pub(super) fn set_fuse(&self, fuse: Fuse) {
        self.lock().fuse = fuse;
    }

    /// Whether the disk has stopped.
    pub(super) fn is_blown(&self) -> bool {
        self.lock().fuse == Fuse::Blown
    }

    /// Lets writes fail, or not any more.
    pub(super) fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Whether writes fail.
    pub(super) fn is_full(&self) -> bool {
        self.lock().is_full
    }

    /// What is there when the program, or the machine, starts again; what was torn on the way.
    pub(super) fn restart(&self, power: Power, dice: Dice, key: u64) -> Vec<Torn> {
        let mut disk = self.lock();
        disk.fuse = Fuse::None;
        if power == Power::Killed {
            return Vec::new();
        }
        let mut torn = Vec::new();
        for (number, file) in (0..).zip(disk.files.values_mut()) {
            torn.extend(tear(file, dice, &[key, number]));
        }
        let names = std::mem::take(&mut disk.names);
        for (number, (name, before)) in (0..).zip(names) {
            if dice.percent("name comes back", &[key, number], 50) {
                match before {
                    Some(bytes) => disk.files.insert(name, whole(&bytes)),
                    None => disk.files.remove(&name),
                };
            }
        }
        torn
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }
}

/// Leaves any part of what was written to `file` since its last sync.
fn tear(file: &mut File, dice: Dice, keys: &[u64]) -> Option<Torn> {
    let synced = file.synced.len();
    let new = file.written.len().saturating_sub(synced);
    let is_appended = file.written.starts_with(&file.synced);
    if file.written == file.synced {
        return None;
    }
    if new == 0 || !is_appended {
        // It was cut, and a cut that is not synced has happened or not.
        let kept = match dice.percent("cut", keys, 50) {
            true => file.written.clone(),
            false => file.synced.clone(),
        };
        *file = File {
            written: kept.clone(),
            synced: kept,
        };
        return None;
    }
    let mut torn = None;
    if dice.percent("short", keys, 60) {
        let kept = dice.below("kept", keys, new as u64 + 1);
        let kept = usize::try_from(kept).unwrap();
        file.written.truncate(synced + kept);
        torn = (0 < kept && kept < new).then_some(Torn::Short);
    } else {
        let end = file.written.len();
        for sector in synced / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let sectors = [keys, &[sector as u64]].concat();
            if dice.percent("unwritten", &sectors, 50) {
                let start = synced.max(sector * SECTOR_BYTES);
                file.written[start..end.min((sector + 1) * SECTOR_BYTES)].fill(0);
                torn = Some(Torn::Zeros);
            }
        }
    }
    file.synced.clone_from(&file.written);
    torn
}

impl Platter {
    /// Burns the fuse by one change; gives whether this one is made, or how it fails.
    fn change(&mut self) -> io::Result<bool> {
        match self.fuse {
            Fuse::None => Ok(true),
            Fuse::At(0) => {
                self.fuse = Fuse::Blown;
                Ok(false)
            }
            Fuse::At(left) => {
                self.fuse = Fuse::At(left - 1);
                Ok(true)
            }
            Fuse::Blown => Err(stopped()),
        }
    }

    /// Puts a file in place; that it is there is not durable.
    fn put(&mut self, name: &str, bytes: &[u8]) {
        let before = self.files.insert(name.to_owned(), whole(bytes));
        let before = before.map(|file| file.synced);
        self.names.entry(name.to_owned()).or_insert(before);
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files
            .get_mut(name)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn stopped() -> io::Error {
    io::Error::other("the machine has stopped")
}

fn whole(bytes: &[u8]) -> File {
    File {
        written: bytes.to_vec(),
        synced: bytes.to_vec(),
    }
}

impl Storage for Disk {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/disk").join(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.lock().file(name)?.written.clone())
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.lock();
        let is_made = disk.change()?;
        if disk.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if is_made {
            disk.put(name, bytes);
            disk.names.clear();
            return Ok(());
        }
        // One that is not made to its end has some of its bytes.
        disk.put(name, &bytes[..bytes.len() / 2]);
        Err(stopped())
    }

    fn write_at(&mut self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.lock();
        let is_made = disk.change()?;
        let is_full = disk.is_full;
        let file = disk.file(name)?;
        let offset = usize::try_from(offset).unwrap();
        let end = match is_made && !is_full {
            true => bytes.len(),
            false => bytes.len() / 2,
        };
        let length = file.written.len().max(offset + end);
        file.written.resize(length, 0);
        file.written[offset..offset + end].copy_from_slice(&bytes[..end]);
        match (is_made, is_full) {
            (false, _) => Err(stopped()),
            (true, true) => Err(io::ErrorKind::StorageFull.into()),
            (true, false) => Ok(()),
        }
    }

    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut disk = self.lock();
        if !disk.change()? {
            return Err(stopped());
        }
        let file = disk.file(name)?;
        file.written.truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        if !disk.change()? {
            return Err(stopped());
        }
        let file = disk.file(name)?;
        file.synced.clone_from(&file.written);
        Ok(())
    }

    fn replace(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let bytes = &parts.concat();
        let mut disk = self.lock();
        if !disk.change()? {
            if bytes.len().is_multiple_of(2) {
                let stem = name.split('.').next().unwrap_or(name);
                disk.put(&format!("{stem}.new"), &bytes[..bytes.len() / 2]);
            } else {
                // It is in place, and that is not durable.
                disk.put(name, bytes);
            }
            return Err(stopped());
        }
        if disk.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.put(name, bytes);
        disk.names.clear();
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut disk = self.lock();
        if !disk.change()? {
            return Err(stopped());
        }
        disk.names.clear();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        if !disk.change()? {
            return Err(stopped());
        }
        let file = disk.files.remove(name);
        let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        disk.names.insert(name.to_owned(), Some(file.synced));
        Ok(())
    }
}
