//! Level `namespace`: an overlay over the worker's own root, in namespaces of its own.
//!
//! From the bottom: the host's `/` without what is mounted below it; the skeleton (private directories,
//! whiteouts for what is hidden); the layers of the snapshot; the upper directory, which becomes the
//! phase's layer. The kernel refuses a lower directory that lies inside another one, and layers on the
//! disk of `/` do; so host and skeleton are an overlay of their own, whose other identity satisfies it.
//! That base has file handles (`nfs_export`) and an identity (`uuid`), or hard links of the host's files
//! would break when they are written.
//!
//! Both overlays are `volatile`: `sync` does nothing, and a phase's end does not wait for the disk. What
//! is to survive a power cut is stored in the cache; who keeps an upper directory syncs it.
//!
//! Network and users are the host's, so abstract sockets and local ports are shared with it. Everything
//! else that commands could change stays in the upper directory.

use std::{
    ffi::CString,
    fs, io,
    os::{fd::OwnedFd, unix::fs::symlink},
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{chdir, pivot_root},
};

use super::{
    SandboxSpec, devices,
    message::Trouble,
    mounts::{self, Mount},
    own_root, skeleton,
};
use crate::docker::SOCKET;

/// How large the files of shells, and what else is kept in memory for a sandbox, may become together.
const MEMORY_OPTIONS: &str = "mode=0755,size=64m";

/// Moves this process, the init of a new PID namespace, into the sandbox's file system. Gives notes on
/// what is different from the ideal.
pub(super) fn enter(spec: &SandboxSpec) -> Result<Vec<String>, Trouble> {
    // From the namespace that it was executed in; no other will give it.
    let program = devices::copy(Path::new("/proc/self/exe"), false)?;
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(flags).map_err(|errno| Trouble::io("make namespaces for", "init", &errno.into()))?;
    own_root::make_private(&spec.work)?;
    let table =
        mounts::read().map_err(|error| Trouble::io("read the table of mounts", "/proc", &error))?;
    if let Some(point) = mounts::not_covered(&table) {
        // It would be read-only, and every installation would fail half-way.
        return Err(Trouble::new(
            "cover the separate file system",
            point,
            Errno::XDEV,
        ));
    }
    let hidden = outermost(spec.hidden.iter().map(|path| real(path)).collect());
    let host = Host::copy(program, &table, &hidden, spec.docker_socket.as_deref())?;
    let mut notes = host.notes();
    let nested = mounts::root_kind(&table) == Some("overlay");
    notes.extend(mount_root(spec, &hidden, nested)?);
    change_root()?;
    furnish(spec, &host, &hidden)?;
    let name = skeleton::HOST_NAME;
    rustix::system::sethostname(name.as_bytes())
        .map_err(|errno| Trouble::new("set the host name", name, errno))?;
    devices::drop_capabilities()?;
    Ok(notes)
}

/// The path without symbolic links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Of `paths` those that do not lie in another one: what hides that hides them.
fn outermost(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths.dedup_by(|path, before| path.starts_with(before));
    paths
}

/// Copies of mounts of the host, taken while it can be seen, attached when it no longer can.
struct Host {
    sys: OwnedFd,
    program: OwnedFd,
    /// The file that `/etc/resolv.conf` links to, if the link leads where a sandbox has something else.
    resolver: Option<OwnedFd>,
    /// The socket of docker, if commands may use it and it is there.
    docker: Option<OwnedFd>,
    /// Real file systems below `/`, outermost first.
    shown: Vec<(PathBuf, OwnedFd)>,
}

impl Host {
    fn copy(
        program: OwnedFd,
        table: &[Mount],
        hidden: &[PathBuf],
        docker: Option<&Path>,
    ) -> Result<Self, Trouble> {
        let mut shown = Vec::new();
        for point in mounts::shown(table, hidden) {
            shown.push((point.to_owned(), devices::copy(point, false)?));
        }
        let resolver = match resolver(table) {
            Some(path) => Some(devices::copy(&path, false)?),
            None => None,
        };
        Ok(Self {
            sys: devices::copy(Path::new("/sys"), true)?,
            program,
            resolver,
            // A machine whose docker is down builds what needs none.
            docker: docker.and_then(|socket| devices::copy(socket, false).ok()),
            shown,
        })
    }

    fn notes(&self) -> Vec<String> {
        if self.shown.is_empty() {
            return Vec::new();
        }
        let points = self
            .shown
            .iter()
            .map(|(point, _)| format!("`{}`", point.display()));
        let points = points.collect::<Vec<_>>().join(", ");
        vec![format!(
            "separate file systems are read-only in phases: {points}"
        )]
    }
}

/// The file that `/etc/resolv.conf` links to, if a sandbox does not see it otherwise.
fn resolver(table: &[Mount]) -> Option<PathBuf> {
    let link = Path::new("/etc/resolv.conf");
    if !fs::symlink_metadata(link).ok()?.is_symlink() {
        return None;
    }
    let file = fs::canonicalize(link).ok()?;
    let apart = mounts::mount_of(table, &file).is_some_and(|mount| mount.point != Path::new("/"));
    let own = mounts::OWN.iter().any(|own| file.starts_with(own));
    (apart || own).then_some(file)
}

/// Mounts the overlay and makes its root the working directory.
fn mount_root(
    spec: &SandboxSpec,
    hidden: &[PathBuf],
    nested: bool,
) -> Result<Vec<String>, Trouble> {
    let stage = spec.work.join("stage");
    let work = spec.work.join("overlay");
    // A volatile overlay that was not unmounted in order leaves a mark, and its directory is refused.
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Trouble::io("remove", &work, &error));
        }
        _ => {}
    }
    for path in [&spec.upper, &work, &stage] {
        fs::create_dir_all(path).map_err(|error| Trouble::io("make directory", path, &error))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let stage_trouble = |errno| Trouble::new("mount tmpfs at", &stage, errno);
    mount("tmpfs", &stage, "tmpfs", flags, c"mode=0755,size=64m").map_err(stage_trouble)?;
    // Short names relative to here: options have one page, and `,` and `:` mean something in them.
    chdir(&stage).map_err(|errno| Trouble::new("change to", &stage, errno))?;
    for name in ["skeleton", "base-work", "base", "root"] {
        fs::create_dir(name).map_err(|error| Trouble::io("make directory", name, &error))?;
    }
    let has_docker = spec.docker_socket.is_some();
    skeleton::build(Path::new("skeleton"), hidden, &spec.helpers, has_docker)?;
    let mut links = vec![
        (Path::new("/"), "host".to_owned()),
        (&spec.upper, "upper".to_owned()),
        (&work, "work".to_owned()),
    ];
    for (index, lower) in spec.lowers.iter().enumerate() {
        // The kernel's own message would not say which one.
        fs::metadata(lower).map_err(|error| Trouble::io("find the layer", lower, &error))?;
        links.push((lower, index.to_string()));
    }
    for (target, name) in links {
        symlink(target, &name).map_err(|error| Trouble::io("make link", &name, &error))?;
    }
    let layers = spec.lowers.len();
    if nested {
        // Three overlays on each other are too many for the kernel. Its `/` being an overlay, the
        // layers cannot lie on it, so that the kernel takes them all as they are.
        overlay("root", &root_options(layers, &["skeleton", "host"]))?;
    } else {
        mount_base()?;
        overlay("root", &root_options(layers, &["base"]))?;
    }
    note_on_hard_links(&stage)
}

fn mount_base() -> Result<(), Trouble> {
    let options = "lowerdir=host,upperdir=skeleton,workdir=base-work,redirect_dir=on,index=on,\
        nfs_export=on,metacopy=off,volatile";
    match overlay("base", &format!("{options},uuid=on")) {
        // Kernels before 6.7 do not know `uuid`. They need it only if the disk of `/` has none.
        Err(trouble) if trouble.errno == Errno::INVAL.raw_os_error() => {
            fs::remove_dir_all("base-work")
                .and_then(|()| fs::create_dir("base-work"))
                .map_err(|error| Trouble::io("make again", "base-work", &error))?;
            overlay("base", options)
        }
        mounted => mounted,
    }
}

/// The options of the overlay that commands see, over `layers` layers named by their numbers.
fn root_options(layers: usize, base: &[&str]) -> String {
    let mut lowers: Vec<String> = (0..layers).map(|index| index.to_string()).collect();
    lowers.extend(base.iter().map(|&name| name.to_owned()));
    let lowers = lowers.join(":");
    format!(
        "lowerdir={lowers},upperdir=upper,workdir=work,redirect_dir=on,index=on,metacopy=off,volatile"
    )
}

fn overlay(point: &str, options: &str) -> Result<(), Trouble> {
    let trouble = |errno| Trouble::new(&format!("mount overlay ({options}) at"), point, errno);
    let options = CString::new(options).map_err(|_| trouble(Errno::INVAL))?;
    let flags = MountFlags::NODEV;
    mount("grange", point, "overlay", flags, options.as_c_str()).map_err(trouble)
}

/// The kernel switches the index off, and says so only in its log, if it finds file systems underneath
/// that it cannot tell apart.
fn note_on_hard_links(stage: &Path) -> Result<Vec<String>, Trouble> {
    let table =
        mounts::read().map_err(|error| Trouble::io("read the table of mounts", "/proc", &error))?;
    let point = real(stage).join("root");
    let root = table.iter().rfind(|mount| mount.point == point);
    let indexed =
        root.is_some_and(|root| root.options.split(',').any(|option| option == "index=on"));
    let note =
        "a file of an earlier phase that has several names keeps them only until it is written";
    Ok(if indexed {
        Vec::new()
    } else {
        vec![note.to_owned()]
    })
}

/// Makes the mounted overlay the root directory, and lets go of the host's.
fn change_root() -> Result<(), Trouble> {
    let trouble = |errno| Trouble::new("change the root directory to", "root", errno);
    chdir("root").map_err(trouble)?;
    // The old root comes to lie over the new one, and is taken away from there.
    pivot_root(".", ".").map_err(trouble)?;
    unmount(".", UnmountFlags::DETACH).map_err(trouble)?;
    chdir("/").map_err(trouble)
}

/// Mounts what belongs into the new root. Links are now the sandbox's own and lead nowhere else.
fn furnish(spec: &SandboxSpec, host: &Host, hidden: &[PathBuf]) -> Result<(), Trouble> {
    for point in ["/proc", "/sys", "/dev", skeleton::STATE_DIRECTORY] {
        mount_point(Path::new(point))?;
    }
    devices::mount_proc()?;
    devices::attach_sys(&host.sys)?;
    devices::make_dev()?;
    devices::guard_proc()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    devices::tmpfs(skeleton::STATE_DIRECTORY, flags, MEMORY_OPTIONS)?;
    let program = Path::new(skeleton::HELPERS_DIRECTORY).join(skeleton::PROGRAM);
    if program.exists() {
        devices::attach(&host.program, &program, false)?;
        devices::read_only(&program)?;
    }
    if let Some(resolver) = &host.resolver {
        let point = Path::new("/etc/resolv.conf");
        if fs::symlink_metadata(point).is_ok() {
            devices::attach(resolver, point, false)?;
            devices::read_only(point)?;
        }
    }
    if let Some(socket) = &host.docker {
        devices::attach(socket, Path::new(SOCKET), false)?;
    }
    for (point, tree) in &host.shown {
        if !point.exists() {
            // A layer took it away.
            continue;
        }
        devices::attach(tree, point, true)?;
        devices::read_only(point)?;
        for hidden in hidden.iter().filter(|hidden| hidden.starts_with(point)) {
            if let (true, Some(hidden)) = (hidden.is_dir(), hidden.to_str()) {
                devices::tmpfs(hidden, flags | MountFlags::RDONLY, "mode=0000,size=4k")?;
            }
        }
    }
    fs::create_dir_all(&spec.home)
        .map_err(|error| Trouble::io("make directory", &spec.home, &error))
}

fn mount_point(point: &Path) -> Result<(), Trouble> {
    // In place, unless a layer took it away: then it is made again, in the upper directory.
    if point.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(point).map_err(|error| Trouble::io("make directory", point, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_something_hidden_is_hidden_with_it() {
        let paths = ["/data/a/b", "/data/ab", "/data/a", "/data/a"].map(PathBuf::from);
        assert_eq!(
            outermost(paths.into()),
            ["/data/a", "/data/ab"].map(PathBuf::from)
        );
    }

    #[test]
    fn a_snapshot_of_all_layers_fits_in_the_options() {
        let layers = usize::try_from(protocol::snapshot::LAYERS_MAX).unwrap();
        let options = root_options(layers, &["base"]);
        assert!(options.starts_with("lowerdir=0:1:2:"));
        assert!(options.contains(":63:base,upperdir="));
        // The kernel takes one page.
        assert!(options.len() < 4096 / 2);
    }
}
