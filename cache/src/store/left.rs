//! The holds that a store which ends in order leaves for the next one, in a file beside the database.

use std::{fs, io, io::Write as _, path::Path, time::Duration};

use crate::{clock::Clock, holds::Holds};

const NAME: &str = "holds";

/// Takes the holds that were left in `directory`: after a crash they say nothing any more, so the file is
/// gone before anything new is promised. Without them everything is held for `time`.
pub(super) fn take(directory: &Path, time: Duration) -> Holds {
    let path = directory.join(NAME);
    let left = fs::read(&path).ok().filter(|_| {
        let removed = fs::remove_file(&path).and_then(|()| sync(directory));
        removed.is_ok()
    });
    let resumed = left.and_then(|left| Holds::resume(&left, Clock::wall(), time));
    resumed.unwrap_or_else(|| Holds::new(time))
}

/// Leaves holds; nothing is promised any more. That fails on a full disk, say, and then the next start holds
/// everything.
pub(super) fn leave(directory: &Path, holds: &Holds, clock: &Clock) {
    let bytes = holds.leave(clock.now(), Clock::wall());
    let path = directory.join(NAME);
    let temporary = directory.join("holds.new");
    let written = fs::File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| sync(directory));
    if let Err(error) = written {
        tracing::warn!(%error, "holds are not left for the next start");
        // What is left of it is no table, or is overwritten.
        let _removed = fs::remove_file(&temporary);
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}
