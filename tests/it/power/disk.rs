//! A disk whose power can be cut: a file system in a file, which is shut down without flushing anything, as
//! a power cut does, and mounted again. Only root may do that.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use tempfile::TempDir;

/// How large the disk is, in bytes; the file takes only what is written.
const DISK_BYTES: u64 = 2 << 30;

/// Shuts the file system that holds the first argument down, without flushing its log:
/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const SHUT_DOWN: &str = r#"
    open(my $at, "<", $ARGV[0]) or die "open: $!";
    my $flags = pack("L", 2);
    ioctl($at, 0x8004587d, $flags) or die "ioctl: $!";
"#;

/// What takes the place of the system's calls in a process that is not to sync files whose names end in
/// `.log`: the store's log, and nothing else.
const UNSYNCED: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_log(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path);
    return 4 < length && memcmp(path + length - 4, ".log", 4) == 0;
}

int fdatasync(int file) { return is_log(file) ? 0 : (int)syscall(SYS_fdatasync, file); }
int fsync(int file) { return is_log(file) ? 0 : (int)syscall(SYS_fsync, file); }
"#;

/// A disk; unmounted when dropped.
pub(crate) struct Disk {
    directory: TempDir,
    /// The block device that its image is mounted as.
    device: Mutex<String>,
}

impl Disk {
    /// `None`, with the reason told, where this is not allowed.
    pub(crate) fn new() -> Option<Self> {
        let disk = Self {
            directory: tempfile::tempdir().unwrap(),
            device: Mutex::default(),
        };
        fs::create_dir(disk.path()).unwrap();
        let image = fs::File::create(disk.image()).unwrap();
        image.set_len(DISK_BYTES).unwrap();
        let mut make = Command::new("mkfs.ext4");
        make.arg("-q").arg(disk.image());
        let made = succeeds(&mut make).and_then(|()| disk.mount());
        match made {
            Ok(()) => Some(disk),
            Err(why) => {
                testkit::cannot(&format!("no file system can be shut down here: {why}"));
                None
            }
        }
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    /// Mounts the image as a block device that nobody had before: whoever has copied the mounts of this machine
    /// meanwhile keeps the file system that was cut off, and the same device would be that one again.
    fn mount(&self) -> Result<(), String> {
        let mut attach = Command::new("losetup");
        attach.args(["--find", "--show"]).arg(self.image());
        let attached = attach.output().map_err(|error| error.to_string())?;
        if !attached.status.success() {
            return Err(String::from_utf8_lossy(&attached.stderr).into_owned());
        }
        let device = String::from_utf8_lossy(&attached.stdout).trim().to_owned();
        let mut mount = Command::new("mount");
        let mounted = succeeds(mount.arg(&device).arg(self.path()));
        *self.device.lock().unwrap() = device;
        mounted
    }

    /// Gives the device back, as soon as nobody has it mounted.
    fn detach(&self) {
        let device = self.device.lock().unwrap();
        let _detached = Command::new("losetup").args(["-d", &device]).output();
    }

    /// Cuts the power: what was not synced is gone, and nothing is written any more.
    pub(crate) fn cut(&self) {
        let mut perl = Command::new("perl");
        succeeds(perl.args(["-e", SHUT_DOWN]).arg(self.path())).unwrap();
    }

    /// Turns the power on again, after all that used the disk has ended.
    pub(crate) fn restore(&self) {
        succeeds(Command::new("umount").arg(self.path())).unwrap();
        self.detach();
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because whoever still uses it must not keep it for ever.
        let _not_mounted = Command::new("umount").arg("-l").arg(self.path()).output();
        self.detach();
    }
}

/// Makes the library in `directory` that leaves the sync of the store's log out; `None`, with the reason
/// told, where there is no compiler.
pub(crate) fn unsynced(directory: &Path) -> Option<PathBuf> {
    let (source, library) = (directory.join("unsynced.c"), directory.join("unsynced.so"));
    fs::write(&source, UNSYNCED).unwrap();
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library);
    match succeeds(compile.arg(&source)) {
        Ok(()) => Some(library),
        Err(why) => {
            testkit::cannot(&format!("the sync cannot be taken out here: {why}"));
            None
        }
    }
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        other => Err(format!("{command:?}: {other:?}")),
    }
}
