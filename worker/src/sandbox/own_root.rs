//! A private root: from here on no mount of this process is seen outside, nor the other way round.
//!
//! In a chroot `/` is no mount, and neither its propagation can be changed nor another root put in its
//! place. So the process steps out to the real root of its mount namespace, makes all of that private,
//! mounts the chroot's tree over itself, and makes that the root of the namespace. What else was mounted
//! there is let go of: it could not be unmounted elsewhere as long as the sandbox lives.

use std::{fs, path::Path};

use rustix::{
    fs::{CWD, Mode, OFlags, open, stat},
    io::Errno,
    mount::{
        MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
        move_mount, open_tree, unmount,
    },
    process::{chdir, chroot, fchdir, pivot_root},
};

use super::message::Trouble;

/// How deep in the file system a chroot may be.
const DEPTH_MAX: usize = 256;

/// Makes the mounts of this process, which has a mount namespace of its own, private, and `/` a mount.
/// `aside` is a directory below `/` that may be made.
pub(super) fn make_private(aside: &Path) -> Result<(), Trouble> {
    match private("/") {
        Ok(()) => Ok(()),
        Err(Errno::INVAL) => remount(aside),
        Err(errno) => Err(Trouble::new("make private", "/", errno)),
    }
}

fn private(point: &str) -> Result<(), Errno> {
    mount_change(
        point,
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
}

/// Makes `/` a mount, if it is a directory of a mount.
fn remount(aside: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(aside).map_err(|error| Trouble::io("make directory", aside, &error))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open("/", flags, Mode::empty()).map_err(|errno| Trouble::new("open", "/", errno))?;
    step_out(aside).map_err(|errno| Trouble::new("leave the chroot at", "/", errno))?;
    private(".").map_err(|errno| Trouble::new("make private", "the root of all mounts", errno))?;
    enter(&root).map_err(|errno| Trouble::new("mount over itself", "/", errno))
}

/// Makes the root of the mount namespace the working directory: `..` stops only at the root directory,
/// and with that below, never on the way up.
fn step_out(aside: &Path) -> Result<(), Errno> {
    chdir("/")?;
    chroot(aside)?;
    for _ in 0..DEPTH_MAX {
        let (here, above) = (stat(".")?, stat("..")?);
        if (here.st_dev, here.st_ino) == (above.st_dev, above.st_ino) {
            return chroot(".");
        }
        chdir("..")?;
    }
    Err(Errno::LOOP)
}

/// Mounts the tree at `root` over itself, and makes that the root directory.
fn enter(root: &impl std::os::fd::AsFd) -> Result<(), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    fchdir(root)?;
    let tree = open_tree(CWD, ".", flags)?;
    move_mount(
        &tree,
        c"",
        CWD,
        ".",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    fchdir(&tree)?;
    match pivot_root(".", ".") {
        Ok(()) => {
            unmount(".", UnmountFlags::DETACH)?;
            chdir("/")
        }
        // The first file system of a machine stays where it is.
        Err(Errno::INVAL) => chroot("."),
        Err(errno) => Err(errno),
    }
}
