//! Peers: `iroh-blobs` with its file store, from the program in `benches/peers`, and nginx with TLS 1.3,
//! from the system's packages. Who cannot be had is left out, and said so.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use protocol::digest::{Digest, hex};

use super::Took;
use crate::{cache::process::Process, noise::Noise};

/// How many bytes of blobs a peer has of each size, and how many blobs at most: one that takes longer to
/// fill than to measure says no more.
const STORED_BYTES: u64 = 256 << 20;
const BLOBS_MAX: u64 = 8_192;
/// How often it is looked whether nginx listens, and how long in between.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(25);

/// Who is there.
pub(super) struct Peers {
    program: Option<PathBuf>,
    nginx: Option<Nginx>,
    iroh: Vec<(u64, Iroh)>,
    /// Who is not, and why.
    pub(super) missing: Vec<String>,
}

struct Iroh {
    directory: PathBuf,
    address: SocketAddr,
    id: String,
    _process: Process,
}

struct Nginx {
    directory: PathBuf,
    address: SocketAddr,
    child: Child,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.directory.join("pid"));
        if let Ok(pid) = pid {
            // With its workers; fails only if it has ended already.
            let _ended = Command::new("kill").arg(pid.trim()).status();
        }
        let _reaped = self.child.wait();
    }
}

impl Peers {
    /// Starts those that can be had, with blobs of these sizes.
    pub(super) fn start(directory: &Path, sizes: &[u64]) -> Self {
        let mut peers = Self {
            program: None,
            nginx: None,
            iroh: Vec::new(),
            missing: Vec::new(),
        };
        match build() {
            Ok(program) => peers.program = Some(program),
            Err(error) => {
                peers.missing.push(format!("peers' program: {error:#}"));
                return peers;
            }
        }
        for &size in sizes {
            match peers.start_iroh(&directory.join(format!("iroh-{size}")), size) {
                Ok(iroh) => peers.iroh.push((size, iroh)),
                Err(error) => peers.missing.push(format!("iroh-blobs: {error:#}")),
            }
        }
        match start_nginx(&directory.join("nginx"), sizes) {
            Ok(nginx) => peers.nginx = Some(nginx),
            Err(error) => peers.missing.push(format!("nginx: {error:#}")),
        }
        peers
    }

    fn start_iroh(&self, directory: &Path, size: u64) -> Result<Iroh> {
        fs::create_dir_all(directory)?;
        let mut command = self.command()?;
        command.arg("iroh-serve").arg(directory);
        command.args([size.to_string(), blobs(size).to_string()]);
        let mut process = Process::spawn(command)?;
        let (address, id) = process.hear()?;
        Ok(Iroh {
            directory: directory.to_owned(),
            address,
            id,
            _process: process,
        })
    }

    fn command(&self) -> Result<Command> {
        let program = self.program.as_ref().context("there is no such program")?;
        Ok(Command::new(program))
    }

    /// Reads blobs from iroh-blobs; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub(super) fn read_iroh(&self, size: u64, reads: (u64, usize)) -> Result<Option<Took>> {
        let found = self.iroh.iter().find(|(of, _)| *of == size);
        let Some((_, iroh)) = found else {
            return Ok(None);
        };
        let mut command = self.command()?;
        command.arg("iroh-read");
        command.args([iroh.address.to_string(), iroh.id.clone()]);
        command.arg(iroh.directory.join("hashes"));
        command.args([reads.0.to_string(), reads.1.to_string()]);
        Ok(Some(Process::spawn(command)?.hear()?))
    }

    /// Reads files from nginx; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub(super) fn read_nginx(&self, size: u64, reads: (u64, usize)) -> Result<Option<Took>> {
        let Some(nginx) = &self.nginx else {
            return Ok(None);
        };
        let mut command = self.command()?;
        command.args(["https-read", &nginx.address.to_string()]);
        command.arg(nginx.directory.join("certificate.der"));
        command.arg(nginx.directory.join(format!("list-{size}")));
        command.args([reads.0.to_string(), reads.1.to_string()]);
        Ok(Some(Process::spawn(command)?.hear()?))
    }
}

fn blobs(size: u64) -> u64 {
    (STORED_BYTES / size).min(BLOBS_MAX)
}

/// Builds the program of the peers, with what its lock file names.
fn build() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.with_file_name("target").join("peers");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--locked", "--quiet"]);
    cargo
        .arg("--manifest-path")
        .arg(here.join("peers/Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    ensure!(cargo.status()?.success(), "it does not build");
    Ok(target.join("release/peers"))
}

fn start_nginx(directory: &Path, sizes: &[u64]) -> Result<Nginx> {
    install_nginx()?;
    let files = directory.join("files");
    fs::create_dir_all(&files)?;
    for &size in sizes {
        let mut list = String::new();
        for at in 0..blobs(size) {
            let bytes = Noise::new(at << 24).bytes(usize::try_from(size)?);
            let name = format!("{size}-{at}");
            fs::write(files.join(&name), &bytes)?;
            list.push_str(&format!("{name} {}\n", hex(Digest::of(&bytes).hash())));
        }
        fs::write(directory.join(format!("list-{size}")), list)?;
    }
    certify(directory)?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let place = directory.display();
    let settings = format!(
        "daemon off; user root; worker_processes auto; pid {place}/pid; error_log stderr error;\n\
         events {{}}\n\
         http {{ access_log off; keepalive_requests 100000000; open_file_cache max=20000;\n\
         client_body_temp_path {place}; proxy_temp_path {place}; fastcgi_temp_path {place};\n\
         uwsgi_temp_path {place}; scgi_temp_path {place};\n\
         server {{ listen {address} ssl; ssl_protocols TLSv1.3; root {place}/files;\n\
         ssl_certificate {place}/certificate.pem; ssl_certificate_key {place}/key.pem; }} }}\n"
    );
    fs::write(directory.join("nginx.conf"), settings)?;
    let mut nginx = Command::new("nginx");
    nginx.arg("-c").arg(directory.join("nginx.conf"));
    let child = nginx.stdin(Stdio::null()).spawn()?;
    let nginx = Nginx {
        directory: directory.to_owned(),
        address,
        child,
    };
    for _ in 0..TRIES {
        if TcpStream::connect(address).is_ok() {
            return Ok(nginx);
        }
        thread::sleep(PAUSE);
    }
    anyhow::bail!("it does not listen")
}

/// Installs nginx from the system's packages, where that is allowed and needed.
fn install_nginx() -> Result<()> {
    let is_there = || {
        Command::new("nginx")
            .arg("-v")
            .stderr(Stdio::null())
            .status()
    };
    if is_there().is_ok() {
        return Ok(());
    }
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "nginx-light"]);
    install.stdout(Stdio::null()).stderr(Stdio::null());
    let installed = install.status().is_ok_and(|status| status.success());
    ensure!(
        installed,
        "it is not installed, and this user cannot install it"
    );
    Ok(is_there().map(|_| ())?)
}

/// Makes a certificate for `localhost`.
fn certify(directory: &Path) -> Result<()> {
    let file = |name: &str| directory.join(name);
    let mut request = Command::new("openssl");
    request.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
    request.args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    request.args(["-subj", "/CN=localhost"]);
    request.args(["-addext", "subjectAltName=DNS:localhost"]);
    request.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    request.arg("-keyout").arg(file("key.pem"));
    request.arg("-out").arg(file("certificate.pem"));
    let mut convert = Command::new("openssl");
    convert.args(["x509", "-outform", "der"]);
    convert.arg("-in").arg(file("certificate.pem"));
    convert.arg("-out").arg(file("certificate.der"));
    for mut command in [request, convert] {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        ensure!(command.status()?.success(), "openssl makes no certificate");
    }
    Ok(())
}
