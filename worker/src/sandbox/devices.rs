//! What a sandbox has of the machine itself: `/proc`, `/sys`, `/dev`, and capabilities.
//!
//! Commands run as root, but with the capabilities that containers usually have: they can install
//! packages and change owners, and cannot mount, load modules, set the clock, touch the network's set-up
//! or reach files by handle. Devices that they make on their layers do not work.

use std::{
    fs::{self, Permissions},
    os::{
        fd::OwnedFd,
        unix::fs::{PermissionsExt, symlink},
    },
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    io::Errno,
    mount::{
        MountFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_remount, move_mount,
        open_tree,
    },
    thread::{
        CapabilitySet, capability_is_in_bounding_set, clear_ambient_capability_set,
        remove_capability_from_bounding_set,
    },
};

use super::{message::Trouble, mounts};

/// Device files of `/dev`: name, major and minor number.
const DEVICES: [(&str, u32, u32); 6] = [
    ("full", 1, 7),
    ("null", 1, 3),
    ("random", 1, 8),
    ("tty", 5, 0),
    ("urandom", 1, 9),
    ("zero", 1, 5),
];
/// Links of `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];
/// What of `/proc` changes the whole machine, and so is read-only.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// What of `/proc` shows other people's secrets, and so is empty.
const MASKED: [&str; 3] = ["/proc/kcore", "/proc/keys", "/proc/timer_list"];

/// The capabilities that commands keep: those that containers have by default, with which package
/// managers work.
const KEPT: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

const NOTHING_SPECIAL: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Takes a copy of the mount at `path`, to be attached elsewhere.
pub(super) fn copy(path: &Path, recursive: bool) -> Result<OwnedFd, Trouble> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(CWD, path, flags).map_err(|errno| Trouble::new("copy the mount at", path, errno))
}

/// Attaches a copied mount at `point`, following links or, if the last part of it is a link, over that.
pub(super) fn attach(tree: &OwnedFd, point: &Path, follow: bool) -> Result<(), Trouble> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    flags.set(MoveMountFlags::MOVE_MOUNT_T_SYMLINKS, follow);
    move_mount(tree, c"", CWD, point, flags)
        .map_err(|errno| Trouble::new("attach a mount at", point, errno))
}

/// Makes the mount at `point` read-only.
pub(super) fn read_only(point: &Path) -> Result<(), Trouble> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(point, flags, c"")
        .map_err(|errno| Trouble::new("make read-only the mount at", point, errno))
}

/// Mounts a file system in memory.
pub(super) fn tmpfs(point: &str, flags: MountFlags, options: &str) -> Result<(), Trouble> {
    file_system("tmpfs", point, flags, options)
}

fn file_system(kind: &str, point: &str, flags: MountFlags, options: &str) -> Result<(), Trouble> {
    let trouble = |errno| Trouble::new(&format!("mount {kind} at"), point, errno);
    let options = std::ffi::CString::new(options).map_err(|_| trouble(Errno::INVAL))?;
    mount(kind, point, kind, flags, options.as_c_str()).map_err(trouble)
}

/// Mounts `/proc` of the PID namespace.
pub(super) fn mount_proc() -> Result<(), Trouble> {
    file_system("proc", "/proc", NOTHING_SPECIAL, "")
}

/// Attaches the host's `/sys`, read-only with all that is mounted below it.
pub(super) fn attach_sys(tree: &OwnedFd) -> Result<(), Trouble> {
    attach(tree, Path::new("/sys"), true)?;
    let table =
        mounts::read().map_err(|error| Trouble::io("read the table of mounts", "/proc", &error))?;
    for mount in table {
        if mount.point.starts_with("/sys") {
            read_only(&mount.point)?;
        }
    }
    Ok(())
}

/// Makes a `/dev` of the sandbox's own: the usual files, terminals and shared memory, no disks.
pub(super) fn make_dev() -> Result<(), Trouble> {
    tmpfs("/dev", MountFlags::NOSUID, "mode=0755,size=64k")?;
    let dev = Path::new("/dev");
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        let device = makedev(major, minor);
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), device)
            .map_err(|errno| Trouble::new("make device", &path, errno))?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))
            .map_err(|error| Trouble::io("make device", &path, &error))?;
    }
    for (name, target) in LINKS {
        let path = dev.join(name);
        symlink(target, &path).map_err(|error| Trouble::io("make link", &path, &error))?;
    }
    for name in ["pts", "shm"] {
        let path = dev.join(name);
        fs::create_dir(&path).map_err(|error| Trouble::io("make directory", &path, &error))?;
    }
    let terminals = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    file_system("devpts", "/dev/pts", terminals, options)?;
    let shared = MountFlags::NOSUID | MountFlags::NODEV;
    tmpfs("/dev/shm", shared, "mode=1777")?;
    // Device files work on a read-only file system; none can be added to this one, which has no `nodev`.
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
    mount_remount("/dev", flags, c"")
        .map_err(|errno| Trouble::new("make read-only the mount at", dev, errno))
}

/// Takes away what `/proc` offers for changing or spying on the machine.
pub(super) fn guard_proc() -> Result<(), Trouble> {
    for path in READ_ONLY.map(Path::new) {
        match mount_bind(path, path) {
            Ok(()) => read_only(path)?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(Trouble::new("guard", path, errno)),
        }
    }
    for path in MASKED.map(Path::new) {
        match mount_bind("/dev/null", path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Trouble::new("mask", path, errno)),
        }
    }
    Ok(())
}

/// Gives up for ever, for this process's children, all capabilities that commands do not keep.
pub(super) fn drop_capabilities() -> Result<(), Trouble> {
    let trouble = |errno| Trouble::new("give up capabilities of", "init", errno);
    clear_ambient_capability_set().map_err(trouble)?;
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !KEPT.contains(capability) => {
                remove_capability_from_bounding_set(capability).map_err(trouble)?;
            }
            Ok(_) => {}
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(trouble(errno)),
        }
    }
    Ok(())
}
