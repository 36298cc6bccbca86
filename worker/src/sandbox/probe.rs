//! What a worker can do, found out by doing it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use protocol::{
    canonical::Writer,
    digest::Digest,
    job::{Shell, ShellState},
    worker::Isolation,
};
use tokio::io::AsyncReadExt;

use super::{Command, Sandbox, SandboxSpec};

/// Package databases, as files or directories, besides dpkg's.
const PACKAGE_DATABASES: [&str; 5] = [
    "/lib/apk/db/installed",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/Packages.db",
    "/var/lib/pacman/local",
    "/var/lib/rpm",
];
/// Where dpkg says what is installed.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";
/// The fields of a dpkg record that say what is installed: other fields differ between machines that
/// have the same packages.
const DPKG_FIELDS: [&str; 4] = ["Architecture", "Package", "Status", "Version"];

/// What a worker can do.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Whether level `namespace` works here; if not, why, for people.
    pub namespace: Result<(), String>,
    /// What is different from the ideal at that level, for people.
    pub notes: Vec<String>,
    /// The file system underneath: release, package database, owner's salt.
    pub base: Digest,
    /// The machine's architecture, like `x86_64`.
    pub architecture: &'static str,
}

/// Finds out what this machine can do, by a sandbox of level `namespace` in `directory`, which must be
/// on the disk where layers will be. `salt` is the owner's: it tells bases apart that differ in what no
/// package database knows.
pub async fn probe(directory: &Path, program: &Path, salt: &str) -> Probe {
    let tried = try_namespace(directory, program).await;
    let (namespace, notes) = match tried {
        Ok(notes) => (Ok(()), notes),
        Err(why) => (Err(why), Vec::new()),
    };
    Probe {
        namespace,
        notes,
        base: base(salt),
        architecture: std::env::consts::ARCH,
    }
}

/// A program's error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}

async fn try_namespace(directory: &Path, program: &Path) -> Result<Vec<String>, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("the worker does not run as root".to_owned());
    }
    let trial = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(directory)
        .map_err(|error| {
            format!(
                "no directory can be made in `{}`: {error}",
                directory.display()
            )
        })?;
    let spec = SandboxSpec {
        until: None,
        lock: None,
        wipe: Vec::new(),
        isolation: Isolation::Namespace,
        upper: trial.path().join("upper"),
        work: trial.path().join("work"),
        lowers: Vec::new(),
        hidden: vec![directory.to_owned()],
        docker_socket: None,
        source_directory: PathBuf::from("/codebuild/output/src"),
        home: PathBuf::from("/root"),
        variables: std::iter::once(("PATH".to_owned(), b"/usr/sbin:/usr/bin:/sbin:/bin".to_vec()))
            .collect(),
        directory: b"/".to_vec(),
        shell: Shell::Sh,
        state: ShellState::Carried,
        user: None,
        program: program.to_owned(),
        helpers: Vec::new(),
    };
    let mut sandbox = Sandbox::start(spec).await.map_err(|error| chain(&error))?;
    let notes = sandbox.notes().to_vec();
    let tried = run_trial(&mut sandbox, trial.path()).await;
    sandbox.finish().await.map_err(|error| chain(&error))?;
    tried.map(|()| notes)
}

/// Runs a command that needs what commands need, and looks whether its change is where it belongs.
async fn run_trial(sandbox: &mut Sandbox, trial: &Path) -> Result<(), String> {
    let command = Command {
        text: "echo grange > /var/grange-probe && echo > /dev/null && test $$ != 1".to_owned(),
    };
    let exit = sandbox.run(&command).await.map_err(|error| chain(&error))?;
    sandbox.quiesce().await.map_err(|error| chain(&error))?;
    if exit.code != 0 {
        let mut said = String::new();
        if let Some(mut output) = sandbox.take_output() {
            // What cannot be read of it is not missed: the status says enough.
            drop(output.read_to_string(&mut said).await);
        }
        return Err(format!(
            "a trial command failed with status {}: {}",
            exit.code,
            said.trim()
        ));
    }
    let written = trial.join("upper/var/grange-probe");
    match fs::read(&written) {
        Ok(bytes) if bytes == b"grange\n" => Ok(()),
        Ok(_) => Err("a trial command's change is not as it was written".to_owned()),
        Err(error) => Err(format!(
            "a trial command's change is not in its layer: {error}"
        )),
    }
}

/// The identity of the file system underneath.
fn base(salt: &str) -> Digest {
    let mut writer = Writer::new(*b"gbas", 1);
    writer.bytes(std::env::consts::ARCH.as_bytes());
    writer.bytes(&fs::read("/etc/os-release").unwrap_or_default());
    for package in dpkg_packages(&fs::read(DPKG_STATUS).unwrap_or_default()) {
        writer.bytes(&package);
    }
    for path in PACKAGE_DATABASES {
        // What is not there, or not to be read, is the same as nothing.
        writer.bytes(&database(Path::new(path)).unwrap_or_default());
    }
    writer.bytes(salt.as_bytes());
    Digest::of(&writer.finish())
}

/// The installed packages, sorted: the same for the same packages, whatever order they came in.
fn dpkg_packages(status: &[u8]) -> Vec<Vec<u8>> {
    let mut packages = Vec::new();
    let mut package = Vec::new();
    for line in status.split(|byte| *byte == b'\n').chain([&b""[..]]) {
        if line.is_empty() {
            if !package.is_empty() {
                packages.push(std::mem::take(&mut package));
            }
            continue;
        }
        let field = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if DPKG_FIELDS.iter().any(|name| name.as_bytes() == field) {
            package.extend_from_slice(line);
            package.push(b'\n');
        }
    }
    packages.sort_unstable();
    packages
}

/// A database's bytes: a file's content, or the names in a directory and, one level deep, the contents of
/// its files.
fn database(path: &Path) -> io::Result<Vec<u8>> {
    if !path.is_dir() {
        return fs::read(path);
    }
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(entry.file_name().as_encoded_bytes());
        bytes.push(0);
        if entry.file_type()?.is_file() {
            bytes.extend_from_slice(Digest::of(&fs::read(entry.path())?).to_string().as_bytes());
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_installation_makes_no_difference() {
        let one =
            b"Package: a\nStatus: install ok installed\nVersion: 1\nDescription: x\n more\n\n\
            Package: b\nVersion: 2\n\n";
        let other =
            b"Package: b\nVersion: 2\n\nPackage: a\nStatus: install ok installed\nVersion: 1\n";
        let newer =
            b"Package: b\nVersion: 3\n\nPackage: a\nStatus: install ok installed\nVersion: 1\n";
        assert_eq!(dpkg_packages(one), dpkg_packages(other));
        assert_ne!(dpkg_packages(one), dpkg_packages(newer));
        assert_eq!(dpkg_packages(one).len(), 2);
    }

    #[test]
    fn an_owners_salt_makes_another_base() {
        assert_eq!(base("x"), base("x"));
        assert_ne!(base("x"), base("y"));
    }
}
