//! The skeleton: what lies over the worker's own root in every sandbox, before any layer.
//!
//! Private directories that hide the host's, mount points, a hosts file, and a whiteout for each
//! directory that commands must not see. A whiteout hides better than a mount over the directory: it
//! stays where it is when commands rename a directory above it.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use super::{message::Trouble, mounts::OWN};
use crate::docker::SOCKET;

/// The name of the machine inside.
pub(super) const HOST_NAME: &str = "grange";
/// Where commands find `grange` and the helper commands.
pub(super) const HELPERS_DIRECTORY: &str = "/codebuild/bin";
/// Where the shells' files are, as `CodeBuild` has them.
pub(super) const STATE_DIRECTORY: &str = "/codebuild/output/tmp";
/// What `grange` is called in [`HELPERS_DIRECTORY`].
pub(super) const PROGRAM: &str = "grange";

/// Directories that hide the host's, with their modes. They belong to the layers: what commands write
/// there is there in the next phase.
const PRIVATE: [(&str, u32); 4] = [
    ("/codebuild", 0o755),
    ("/run", 0o755),
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
];

/// Directories that must be there, with their modes: mount points, and what belongs below private ones.
const PRESENT: [(&str, u32); 8] = [
    ("/codebuild/bin", 0o755),
    ("/codebuild/output", 0o755),
    ("/codebuild/output/src", 0o755),
    ("/codebuild/output/tmp", 0o755),
    ("/dev", 0o755),
    ("/proc", 0o555),
    ("/run/lock", 0o1777),
    ("/sys", 0o555),
];

/// Makes the skeleton in the empty directory `root`. Paths of `hidden` are absolute and have no symbolic
/// links in them; those below private directories are hidden already.
pub(super) fn build(
    root: &Path,
    hidden: &[PathBuf],
    helpers: &[String],
    has_docker: bool,
) -> Result<(), Trouble> {
    for (path, mode) in PRIVATE {
        directory(root, path, mode)?;
        let path = below(root, Path::new(path));
        setxattr(&path, "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .map_err(|errno| Trouble::new("mark as opaque", &path, errno))?;
    }
    for (path, mode) in PRESENT {
        directory(root, path, mode)?;
    }
    if has_docker {
        // For the socket to be mounted over.
        let point = below(root, Path::new(SOCKET));
        fs::write(&point, b"").map_err(|error| Trouble::io("make file", &point, &error))?;
    }
    hosts(root).map_err(|error| Trouble::io("make the hosts file in", root, &error))?;
    link_helpers(&below(root, Path::new(HELPERS_DIRECTORY)), helpers)?;
    for path in hidden {
        if OWN.iter().any(|own| path.starts_with(own)) {
            continue;
        }
        if let Some(parent) = path.parent() {
            as_on_the_host(root, parent)?;
        }
        let whiteout = below(root, path);
        mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|errno| Trouble::new("make a whiteout for", path, errno))?;
    }
    Ok(())
}

/// Makes an empty file for `grange` to be mounted over, and links with the other names to it.
fn link_helpers(directory: &Path, helpers: &[String]) -> Result<(), Trouble> {
    let program = directory.join(PROGRAM);
    fs::write(&program, b"")
        .and_then(|()| fs::set_permissions(&program, Permissions::from_mode(0o755)))
        .map_err(|error| Trouble::io("make file", &program, &error))?;
    link_names(directory, Path::new(PROGRAM), helpers)
}

/// Makes links to `program` in `directory`, one for each name, in the place of what has such a name.
pub(super) fn link_names(
    directory: &Path,
    program: &Path,
    names: &[String],
) -> Result<(), Trouble> {
    for name in names {
        let link = directory.join(name);
        let linked = match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => symlink(program, &link),
        };
        linked.map_err(|error| Trouble::io("make link", &link, &error))?;
    }
    Ok(())
}

fn directory(root: &Path, path: &str, mode: u32) -> Result<(), Trouble> {
    let path = Path::new(path);
    if let Some(parent) = path.parent() {
        as_on_the_host(root, parent)?;
    }
    let made = below(root, path);
    // `/run/lock` and the like may be links on the host: here they are what is said above.
    fs::create_dir(&made)
        .and_then(|()| fs::set_permissions(&made, Permissions::from_mode(mode)))
        .map_err(|error| Trouble::io("make directory", &made, &error))
}

/// Makes the directory `path` and those above it, where they are not there yet, with the modes and
/// owners that they have on the host: they stand for those.
fn as_on_the_host(root: &Path, path: &Path) -> Result<(), Trouble> {
    let mut host = PathBuf::from("/");
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        host.push(name);
        let made = below(root, &host);
        match fs::create_dir(&made) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(Trouble::io("make directory", &made, &error)),
        }
        if let Ok(stat) = fs::symlink_metadata(&host) {
            let mode = Permissions::from_mode(stat.mode() & 0o7777);
            chown(&made, Some(stat.uid()), Some(stat.gid()))
                .and_then(|()| fs::set_permissions(&made, mode))
                .map_err(|error| Trouble::io("make directory", &made, &error))?;
        }
    }
    Ok(())
}

/// Makes `/etc/hosts`: the host's, and the name of the machine inside, or programs that look their own
/// name up would wait for the network.
fn hosts(root: &Path) -> io::Result<()> {
    let mut hosts = match fs::read("/etc/hosts") {
        Ok(hosts) => hosts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => b"127.0.0.1 localhost\n".to_vec(),
        Err(error) => return Err(error),
    };
    if hosts.last().is_some_and(|last| *last != b'\n') {
        hosts.push(b'\n');
    }
    hosts.extend_from_slice(format!("127.0.1.1 {HOST_NAME}\n").as_bytes());
    as_on_the_host(root, Path::new("/etc")).map_err(io::Error::other)?;
    let path = root.join("etc/hosts");
    fs::write(&path, hosts)?;
    fs::set_permissions(&path, Permissions::from_mode(0o644))
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
