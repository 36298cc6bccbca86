//! Gives what was written its attributes, in the one order that works: owner (which clears mode bits
//! and capabilities), mode, extended attributes, times last.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::Ordering,
};

use protocol::{attributes::EntryAttributes, tree::EntryKind};
use rustix::{
    fs::{
        AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat,
        fchmod, fchown, fsetxattr, futimens, utimensat,
    },
    io::Errno,
};

use super::{Owner, unpack::Unpacking};

/// Bits that lend the owner's rights to whoever runs the file: only with the owner they were meant for.
const LENDING_BITS: u32 = 0o6000;

/// Lends rights as well.
const CAPABILITY: &[u8] = b"security.capability";

/// How something was created.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    /// With the mode that it is to have.
    pub(super) has_mode: bool,
}

/// Restores the open file or directory of the entry at `index`.
pub(super) fn restore_file(
    unpacking: &Unpacking,
    file: BorrowedFd<'_>,
    (index, made): (usize, Made),
) -> io::Result<()> {
    let known = unpacking.plan.attributes(index);
    let owner = owner(unpacking, known);
    if let Some((user, group)) = owner {
        tolerate(unpacking, fchown(file, user, group))?;
    }
    // A new owner takes some bits away.
    if !made.has_mode || owner.is_some() {
        fchmod(file, Mode::from_raw_mode(wanted_mode(unpacking, index)))?;
    }
    for (name, value) in known.map_or(&[][..], |known| &known.xattrs) {
        if name == CAPABILITY && unpacking.settings.owner == Owner::Own {
            continue;
        }
        let set = fsetxattr(file, name.as_slice(), value, XattrFlags::empty());
        tolerate(unpacking, set)?;
    }
    if let Some(times) = times(unpacking, known) {
        futimens(file, &times)?;
    }
    Ok(())
}

/// Restores what cannot be opened: links, pipes and devices.
pub(super) fn restore_entry(
    unpacking: &Unpacking,
    parent: BorrowedFd<'_>,
    index: usize,
) -> io::Result<()> {
    let entry = unpacking.plan.entry(index);
    let name = entry.path.name();
    let known = unpacking.plan.attributes(index);
    if let Some((user, group)) = owner(unpacking, known) {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        tolerate(unpacking, chownat(parent, name, user, group, flags))?;
    }
    if !matches!(entry.kind, EntryKind::Symlink { .. }) {
        // It was just created by us in a directory of ours, so there is no link to be followed.
        chmodat(
            parent.as_fd(),
            name,
            Mode::from_raw_mode(wanted_mode(unpacking, index)),
            AtFlags::empty(),
        )?;
    }
    if let Some(times) = times(unpacking, known) {
        utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// The owner that is to be set; `None`: it is right as it is, or stays.
fn owner(
    unpacking: &Unpacking,
    known: Option<&EntryAttributes>,
) -> Option<(Option<Uid>, Option<Gid>)> {
    let (user, group) = known?.owner?;
    if unpacking.settings.owner == Owner::Own || (user, group) == unpacking.fresh.owner {
        return None;
    }
    // All ones means "leave as it is" to the system.
    let real = |number: u32| number != u32::MAX;
    let user = real(user).then(|| Uid::from_raw(user));
    let group = real(group).then(|| Gid::from_raw(group));
    Some((user, group))
}

/// The mode that the entry at `index` is to have.
pub(super) fn wanted_mode(unpacking: &Unpacking, index: usize) -> u32 {
    let default = match unpacking.plan.entry(index).kind {
        EntryKind::Directory { .. } => 0o755,
        EntryKind::File { executable, .. } if executable => 0o755,
        _ => 0o644,
    };
    let known = unpacking.plan.attributes(index);
    let mode = known.and_then(|known| known.mode).unwrap_or(default);
    match unpacking.settings.owner {
        Owner::Keep => mode,
        Owner::Own => mode & !LENDING_BITS,
    }
}

fn times(unpacking: &Unpacking, known: Option<&EntryAttributes>) -> Option<Timestamps> {
    let recorded = known.and_then(|known| known.modified);
    let modified = recorded.or(unpacking.settings.default_modified)?;
    Some(Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified.div_euclid(1_000_000_000),
            tv_nsec: modified.rem_euclid(1_000_000_000),
        },
    })
}

/// Lets pass what our rights or the file system do not allow, and counts it.
fn tolerate(unpacking: &Unpacking, done: Result<(), Errno>) -> io::Result<()> {
    match done {
        Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) => {
            unpacking.refused.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        done => Ok(done?),
    }
}
