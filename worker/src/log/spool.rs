//! The spool of a log: the file that holds what was written, in order, masked and within its limit.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use protocol::agent_line;

use crate::{
    clock,
    secrets::{KeyIds, Masker},
};

/// What is left free for the farm's own lines when commands have written all that they may, in bytes.
pub(super) const RESERVED_BYTES: u64 = 4 * 1024 * 1024;

/// The file and how much of it counts. What is written goes to where the last write ended, so that one
/// that failed half-way leaves nothing in between.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    pub(super) written: u64,
    /// Bytes that were not taken, because the log is full.
    pub(super) dropped: u64,
    /// The most bytes that commands may write.
    room: u64,
    /// Whether the last byte did not end its line.
    in_line: bool,
    /// Takes secrets out of what commands write; `None`: nobody knows of any.
    pub(super) masker: Option<Masker>,
    /// Takes the ids of access keys out of what is left then.
    key_ids: KeyIds,
}

impl Spool {
    /// An empty one in `file`, of which commands may write `room` bytes.
    pub(super) fn new(file: File, room: u64) -> Self {
        Self {
            file,
            written: 0,
            dropped: 0,
            room,
            in_line: false,
            masker: None,
            key_ids: KeyIds::default(),
        }
    }

    /// Appends what a command wrote, as far as there is room; the first time that there is none, a line
    /// says so. Blocks.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut masked = Vec::with_capacity(bytes.len());
        let mut shown = Vec::with_capacity(bytes.len());
        match &mut self.masker {
            None => self.key_ids.push(bytes, &mut shown),
            Some(masker) => {
                masker.push(bytes, &mut masked);
                self.key_ids.push(&masked, &mut shown);
            }
        }
        self.append_masked(&shown)
    }

    /// Appends what was held back, because it might have become a secret: something else comes now. Blocks.
    pub(super) fn let_go(&mut self) -> io::Result<()> {
        let mut held = Vec::new();
        if let Some(masker) = &mut self.masker {
            masker.interrupt(&mut held);
        }
        let mut shown = Vec::new();
        self.key_ids.push(&held, &mut shown);
        self.key_ids.let_go(&mut shown);
        self.append_masked(&shown)
    }

    fn append_masked(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = usize::try_from(self.room.saturating_sub(self.written)).unwrap_or(usize::MAX);
        let (taken, over) = bytes.split_at(bytes.len().min(room));
        self.push(taken, self.room)?;
        if over.is_empty() {
            return Ok(());
        }
        if self.dropped == 0 {
            let text = format!(
                "The log has reached its limit of {} bytes: what commands write from here on is dropped",
                self.room
            );
            self.write_line(&agent_line::stamp(clock::wall_micros(), &text))?;
        }
        self.dropped += over.len() as u64;
        Ok(())
    }

    /// Appends a line of the farm's own, which begins where lines begin, whatever a command wrote last.
    /// Blocks.
    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        self.let_go()?;
        self.write_line(line)
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        let limit = self.room + RESERVED_BYTES;
        if self.in_line {
            self.push(format!("\n{line}").as_bytes(), limit)
        } else {
            self.push(line.as_bytes(), limit)
        }
    }

    /// Appends all of `bytes` or nothing; nothing too if the log would be longer than `limit` then.
    /// Blocks.
    fn push(&mut self, bytes: &[u8], limit: u64) -> io::Result<()> {
        if limit < self.written.saturating_add(bytes.len() as u64) {
            return Ok(());
        }
        if let Err(error) = self.file.write_all_at(bytes, self.written) {
            // A part of it may be there. The next write covers what cannot be cut off.
            let _cut = self.file.set_len(self.written);
            return Err(error);
        }
        self.written += bytes.len() as u64;
        if let Some(last) = bytes.last() {
            self.in_line = *last != b'\n';
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_disk_took_in_part_is_not_in_the_log() {
        // Files may be so long here, as on a disk that is full then.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut spool = Spool::new(File::create(&path).unwrap(), 1 << 20);
        spool.push(b"whole\n", 1 << 20).unwrap();
        let file = std::mem::replace(&mut spool.file, File::open(&path).unwrap());
        assert!(spool.push(b"refused\n", 1 << 20).is_err());
        assert_eq!(spool.written, 6);
        // Part of what was refused has reached the disk all the same.
        file.write_all_at(b"refu", 6).unwrap();
        spool.file = file;
        spool.push(b"ok\n", 1 << 20).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("whole\nok\n"), "{text}");
    }
}
