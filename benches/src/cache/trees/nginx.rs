//! A peer that is not a cache: an archive of the tree, compressed by zstd, from nginx over TLS.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use testkit::{tell, wait};

/// An nginx that serves one archive.
pub(super) struct Nginx {
    server: Child,
    url: String,
    _directory: TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with the master, which a signal ends in good order.
        let _gone = Command::new("kill")
            .arg(self.server.id().to_string())
            .status();
        let _gone = self.server.wait();
    }
}

impl Nginx {
    /// Packs `tree` and serves it; `None` if this machine has no nginx, openssl, curl or zstd.
    pub(super) fn start(tree: &Path) -> Result<Option<Self>> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"];
        let Some(program) = program.into_iter().find(|path| Path::new(path).exists()) else {
            tell("there is no nginx here: install it for the row beside it");
            return Ok(None);
        };
        let directory = tempfile::tempdir()?;
        let at = directory.path();
        // Its workers are another user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(at, open)?;
        let packed = Command::new("tar")
            .args(["--zstd", "-cf"])
            .arg(at.join("tree.tar.zst"))
            .arg("-C")
            .arg(tree)
            .arg(".")
            .status()?;
        ensure!(packed.success(), "the tree was not packed");
        let certified = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"])
            .arg(at.join("key.pem"))
            .arg("-out")
            .arg(at.join("certificate.pem"))
            .stderr(Stdio::null())
            .status();
        if !certified.is_ok_and(|status| status.success()) {
            tell("there is no openssl here that makes a certificate");
            return Ok(None);
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        fs::write(at.join("nginx.conf"), configuration(at, port))?;
        let server = Command::new(program)
            .arg("-c")
            .arg(at.join("nginx.conf"))
            .stderr(Stdio::null())
            .spawn()?;
        let nginx = Self {
            server,
            url: format!("https://127.0.0.1:{port}/tree.tar.zst"),
            _directory: directory,
        };
        let address = ("127.0.0.1", port);
        wait::until_true("nginx listens", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Ok(Some(nginx))
    }

    /// Fetches the archive and unpacks it into `target`.
    pub(super) fn unpack(&self, target: &Path) -> Result<()> {
        fs::create_dir(target)?;
        let mut curl = Command::new("curl")
            .args(["-sSfk", &self.url])
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to run curl")?;
        let archive = curl.stdout.take().context("curl has an output")?;
        let unpacked = Command::new("tar")
            .args(["--zstd", "-x", "-C"])
            .arg(target)
            .stdin(archive)
            .status()?;
        let fetched = curl.wait()?;
        ensure!(
            fetched.success() && unpacked.success(),
            "the archive was not fetched"
        );
        Ok(())
    }
}

fn configuration(at: &Path, port: u16) -> String {
    let at = at.display();
    format!(
        "daemon off;\nworker_processes 2;\npid {at}/pid;\nerror_log {at}/error.log;\n\
         events {{}}\n\
         http {{\n\
         access_log off;\nsendfile on;\n\
         client_body_temp_path {at}/body;\nproxy_temp_path {at}/proxy;\n\
         fastcgi_temp_path {at}/fastcgi;\nuwsgi_temp_path {at}/uwsgi;\nscgi_temp_path {at}/scgi;\n\
         server {{\n\
         listen 127.0.0.1:{port} ssl;\nssl_protocols TLSv1.3;\n\
         ssl_certificate {at}/certificate.pem;\nssl_certificate_key {at}/key.pem;\n\
         root {at};\n\
         }}\n}}\n"
    )
}
