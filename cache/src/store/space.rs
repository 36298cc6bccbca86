//! The disk's side of the database: how much its files take, and getting back what deleted chunks took.
//!
//! A deleted chunk is on the disk until the file that it is in is rewritten without it.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::{
    Trouble,
    rocks::{Column, Rocks},
};

/// What part of all bytes in blob files is rewritten at a time, as a divisor: so much work is done before
/// it is seen whether that was enough.
const PART_DIVISOR: u64 = 4;
/// What part of all files the rows are, as a divisor, when they are worth rewriting, too.
const ROWS_DIVISOR: u64 = 64;
/// How many bytes of the disk rewriting leaves alone: the log goes on meanwhile.
const RESERVE_BYTES: u64 = 16 << 20;
const GC_ENABLED: &str = "enable_blob_garbage_collection";
const GC_AGE_CUTOFF: &str = "blob_garbage_collection_age_cutoff";

/// What the files of a directory take on the disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct DiskUsage {
    /// All of them, in bytes, as `du` counts.
    pub(crate) all: u64,
    /// The log's among them.
    pub(crate) log: u64,
}

/// How many bytes the disk of `directory` has left.
pub(super) fn free(directory: &Path) -> Result<u64, Trouble> {
    let stat =
        rustix::fs::statvfs(directory).map_err(|source| Trouble::disk(directory, source.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether the disk of `directory` has `needed` bytes left.
pub(super) fn check_free(directory: &Path, needed: u64) -> Result<(), Trouble> {
    let free = free(directory)?;
    if needed <= free {
        return Ok(());
    }
    Err(Trouble::Full {
        directory: directory.to_owned(),
        free,
        needed,
    })
}

/// What the files under `directory` take.
pub(crate) fn disk_usage(directory: &Path) -> io::Result<DiskUsage> {
    let mut usage = DiskUsage::default();
    for (name, bytes) in files(directory)? {
        usage.all += bytes;
        if name.ends_with(".log") {
            usage.log += bytes;
        }
    }
    Ok(usage)
}

/// The files of a directory, and what each takes on the disk, in bytes.
fn files(directory: &Path) -> io::Result<Vec<(String, u64)>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut files = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let file = file?;
        // Files come and go while this looks.
        if let (Ok(metadata), Ok(name)) = (file.metadata(), file.file_name().into_string()) {
            files.push((name, metadata.blocks() * 512));
        }
    }
    Ok(files)
}

/// Makes the disk give back what deleted chunks took, oldest files first and a part at a time, until the
/// files in use take at most `enough` bytes, all were looked at, or `stop` is set. All that is alive in a
/// part is written anew before its files go: a part is no larger than `part_max` bytes, which the budget
/// has to spare, and what the disk has left.
pub(crate) fn reclaim(
    (rocks, directory): (&Rocks, &Path),
    (enough, part_max): (u64, u64),
    stop: &AtomicBool,
) -> Result<(), Trouble> {
    if enough / ROWS_DIVISOR < rocks.rows_bytes()? {
        let rows = Column::ALL
            .into_iter()
            .filter(|&column| column != Column::Chunks);
        for column in rows {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            rocks.compact(column, &CompactOptions::default());
        }
    }
    let mut unseen = rocks.blob_files()?;
    let reclaimed = loop {
        if stop.load(Ordering::Relaxed) || unseen == 0 {
            break Ok(());
        }
        let (part, all) = match next_part((rocks, directory), part_max) {
            Ok((0, _)) => break Ok(()),
            Ok(part) => part,
            Err(trouble) => break Err(trouble),
        };
        if let Err(trouble) = rewrite(rocks, part, all) {
            break Err(trouble.into());
        }
        unseen = unseen.saturating_sub(part);
        // Files that are not in use any more are deleted a little later, so `disk_usage` would lag.
        if rocks.used_bytes()? <= enough {
            break Ok(());
        }
    };
    rocks.set(Column::Chunks, &[(GC_ENABLED, "false")])?;
    reclaimed
}

/// How many of the oldest blob files are rewritten next, and how many there are.
fn next_part((rocks, directory): (&Rocks, &Path), part_max: u64) -> Result<(u64, u64), Trouble> {
    let disk = |source: io::Error| Trouble::disk(directory, source);
    let count = rocks.blob_files()?;
    let mut blobs: Vec<_> = files(directory)
        .map_err(disk)?
        .into_iter()
        .filter(|(name, _)| name.ends_with(".blob"))
        .collect();
    // Names are numbers of one length.
    blobs.sort();
    // Those that are not in use any more were the oldest.
    let surplus = blobs
        .len()
        .saturating_sub(usize::try_from(count).unwrap_or(0));
    let blobs: Vec<u64> = blobs.into_iter().skip(surplus).map(|blob| blob.1).collect();
    // What is in memory is written first.
    let free = free(directory)?.saturating_sub(rocks.unflushed_bytes());
    Ok((part(&blobs, free, part_max), count))
}

/// How many of `blobs`, the sizes of files in bytes, are rewritten at once on a disk that has `free` bytes
/// left, when no more than `part_max` bytes are to be: at least one, if there is room for it.
fn part(blobs: &[u64], free: u64, part_max: u64) -> u64 {
    let room = free.saturating_sub(RESERVE_BYTES);
    let wanted = part_max.min(blobs.iter().sum::<u64>() / PART_DIVISOR);
    let mut bytes = 0;
    let fitting = blobs.iter().take_while(|&&blob| {
        let wants_more = bytes == 0 || bytes + blob <= wanted;
        bytes += blob;
        wants_more && bytes <= room
    });
    fitting.count() as u64
}

/// Writes what is alive in the oldest `part` of `all` blob files anew.
fn rewrite(rocks: &Rocks, part: u64, all: u64) -> Result<(), rocksdb::Error> {
    // The database takes so much of the number of files, rounded down.
    let cutoff = (super::as_float(part) + 0.5) / super::as_float(all);
    let cutoff = format!("{:.6}", cutoff.min(1.0));
    rocks.set(
        Column::Chunks,
        &[(GC_ENABLED, "true"), (GC_AGE_CUTOFF, &cutoff)],
    )?;
    let mut options = CompactOptions::default();
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    rocks.compact(Column::Chunks, &options);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_quarter_of_the_bytes_and_fits_on_the_disk() {
        const MB: u64 = 1 << 20;
        let even = [64 * MB; 8];
        assert_eq!(part(&even, 1000 * MB, u64::MAX), 2);
        assert_eq!(part(&even, 100 * MB, u64::MAX), 1);
        assert_eq!(part(&even, 70 * MB, u64::MAX), 0);
        assert_eq!(part(&even, 1000 * MB, 64 * MB), 1);
        assert_eq!(part(&even, 1000 * MB, MB), 1);
        let mixed = [64 * MB, 64 * MB, MB, MB, MB, MB, MB, MB];
        assert_eq!(part(&mixed, 1000 * MB, u64::MAX), 1);
        assert_eq!(part(&[MB], 1000 * MB, u64::MAX), 1);
        assert_eq!(part(&[], 1000 * MB, u64::MAX), 0);
    }
}
