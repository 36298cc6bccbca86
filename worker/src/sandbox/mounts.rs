//! The table of mounts, and what of it a sandbox takes over. Pure, but for reading the table.

use std::{
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// Types of file systems that hold files of people and packages. What is not named here (tmpfs, proc,
/// cgroup, …) belongs to the running system, and a sandbox has its own or none; overlays are other
/// people's containers.
const REAL_TYPES: [&str; 21] = [
    "9p", "bcachefs", "btrfs", "ceph", "cifs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs",
    "iso9660", "nfs", "nfs4", "ntfs3", "smb3", "squashfs", "vfat", "virtiofs", "xfs", "zfs",
];

/// Directories of which a sandbox has its own, so that what is mounted below them on the host is not
/// wanted.
pub(super) const OWN: [&str; 7] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/var/tmp",
    "/codebuild",
];

/// Directories that commands change when they install something. If one of them is a file system of its
/// own, the overlay on `/` does not cover it.
const WRITTEN: [&str; 6] = ["/etc", "/opt", "/root", "/srv", "/usr", "/var"];

/// A mount.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mount {
    /// Where.
    pub(super) point: PathBuf,
    /// The type of its file system.
    pub(super) kind: String,
    /// The options of its file system.
    pub(super) options: String,
}

/// Reads the mounts of this process's namespace, in the order in which they were made.
pub(super) fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// Parses a table in the format of `/proc/PID/mountinfo`. Lines that make no sense are left out.
fn parse(table: &[u8]) -> Vec<Mount> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    // 36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    let mut fields = line.split(|byte| *byte == b' ');
    let point = unescape(fields.nth(4)?);
    let mut rest = fields.skip_while(|field| *field != b"-");
    rest.next()?;
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let options = String::from_utf8_lossy(rest.nth(1)?).into_owned();
    Some(Mount {
        point,
        kind,
        options,
    })
}

/// Takes back the kernel's `\040` for a space and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = match (byte, after.first_chunk::<3>()) {
            (b'\\', Some(digits)) => std::str::from_utf8(digits).ok(),
            _ => None,
        };
        match escaped.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            None => bytes.push(byte),
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// The type of the file system at `/`.
pub(super) fn root_kind(table: &[Mount]) -> Option<&str> {
    let roots = table.iter().rfind(|mount| mount.point == Path::new("/"));
    roots.map(|mount| mount.kind.as_str())
}

/// The mount that `path`, which is absolute and has no symbolic links in it, lies on.
pub(super) fn mount_of<'a>(table: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let over = table.iter().filter(|mount| path.starts_with(&mount.point));
    // Of several at one point the last covers the others.
    over.max_by_key(|mount| mount.point.components().count())
}

/// The real file systems below `/` that a sandbox shows read-only, outermost first, each point once.
pub(super) fn shown<'a>(table: &'a [Mount], hidden: &[PathBuf]) -> Vec<&'a Path> {
    let wanted = |mount: &&Mount| {
        let point = mount.point.as_path();
        REAL_TYPES.contains(&mount.kind.as_str())
            && point != Path::new("/")
            && !OWN.iter().any(|own| point.starts_with(own))
            && !hidden.iter().any(|hidden| point.starts_with(hidden))
    };
    let mut points: Vec<&Path> = table
        .iter()
        .filter(wanted)
        .map(|mount| mount.point.as_path())
        .collect();
    points.sort_unstable();
    points.dedup();
    points
}

/// A directory that commands must be able to change, but that an overlay on `/` would not cover.
pub(super) fn not_covered(table: &[Mount]) -> Option<&Path> {
    let mut points = table.iter().map(|mount| mount.point.as_path());
    points.find(|point| WRITTEN.iter().any(|written| *point == Path::new(written)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        23 22 0:21 / /proc rw - proc proc rw\n\
        24 22 0:22 / /dev rw shared:2 master:1 - devtmpfs devtmpfs rw\n\
        25 22 254:1 / /home rw - ext4 /dev/vdb rw\n\
        26 25 254:2 / /home/with\\040space rw - xfs /dev/vdc rw\n\
        27 22 254:3 / /data rw - ext4 /dev/vdd rw\n\
        28 22 0:30 / /mnt/ram rw - tmpfs tmpfs rw\n\
        29 23 254:0 /x /proc/odd rw - ext4 /dev/vda rw\n\
        30 25 254:4 / /home rw - btrfs /dev/vde rw\n\
        broken line\n";

    #[test]
    fn real_file_systems_are_shown_and_others_are_not() {
        let table = parse(TABLE);
        assert_eq!(table.len(), 9);
        assert_eq!(root_kind(&table), Some("ext4"));
        let hidden = [PathBuf::from("/data")];
        let expected = ["/home", "/home/with space"].map(Path::new);
        assert_eq!(shown(&table, &hidden), expected);
        assert_eq!(not_covered(&table), None);
    }

    #[test]
    fn a_file_lies_on_the_innermost_mount() {
        let table = parse(TABLE);
        let of = |path| mount_of(&table, Path::new(path)).unwrap().kind.as_str();
        assert_eq!(of("/etc/resolv.conf"), "ext4");
        assert_eq!(of("/home/me"), "btrfs");
        assert_eq!(of("/home/with space/x"), "xfs");
        assert_eq!(of("/homely"), "ext4");
    }

    #[test]
    fn a_separate_var_is_found() {
        let table = parse(b"22 1 254:0 / / rw - ext4 a rw\n23 22 254:1 / /var rw - tmpfs b rw\n");
        assert_eq!(not_covered(&table), Some(Path::new("/var")));
    }
}
