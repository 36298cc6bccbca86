//! Which process had a data directory before this one. What that one was given others may have at once,
//! if nothing that it started runs any more; so what is not certain is not said.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use protocol::worker::Incarnation;

/// What names one run of this machine's system.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The process that had the directory whose lock is `lock`, if it wrote that into `record`. A copy of the
/// directory, or one on a machine that was started anew, has another lock: nobody can tell from that one
/// whether the process runs on elsewhere.
pub(super) fn read(record: &Path, lock: &File) -> Option<Incarnation> {
    let text = fs::read_to_string(record).ok()?;
    decode(&text, &place(lock).ok()?)
}

/// Writes down that `incarnation` has the directory, for the process after it. It need not outlive a power
/// cut: after that nothing runs, and nothing is said.
pub(super) fn write(record: &Path, lock: &File, incarnation: Incarnation) -> io::Result<()> {
    let aside = record.with_extension("new");
    fs::write(&aside, encode(&place(lock)?, incarnation))?;
    fs::rename(aside, record)
}

/// Which lock it is, among all that there ever were.
fn place(lock: &File) -> io::Result<String> {
    let boot = fs::read_to_string(BOOT)?;
    let of = lock.metadata()?;
    Ok(format!("{} {} {}", boot.trim(), of.dev(), of.ino()))
}

fn encode(place: &str, incarnation: Incarnation) -> String {
    format!("{place} {}\n", incarnation.0)
}

fn decode(text: &str, place: &str) -> Option<Incarnation> {
    let (found, incarnation) = text.strip_suffix('\n')?.rsplit_once(' ')?;
    let incarnation = incarnation.parse().ok()?;
    (found == place).then_some(Incarnation(incarnation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_down_counts_for_the_same_lock_only() {
        let folder = tempfile::tempdir().unwrap();
        let (record, lock) = (folder.path().join("process"), folder.path().join("lock"));
        let (lock, copied) = (
            File::create(lock).unwrap(),
            File::create(folder.path().join("copy")).unwrap(),
        );
        assert_eq!(read(&record, &lock), None);
        write(&record, &lock, Incarnation(u64::MAX)).unwrap();
        assert_eq!(read(&record, &lock), Some(Incarnation(u64::MAX)));
        assert_eq!(read(&record, &copied), None);
        assert_eq!(decode("another-boot 1 2 7\n", "boot 1 2"), None);
        for damaged in ["", "boot 1 2 7", "boot 1 2\n", "boot 1 2 x\n"] {
            assert_eq!(decode(damaged, "boot 1 2"), None, "{damaged:?}");
        }
    }
}
