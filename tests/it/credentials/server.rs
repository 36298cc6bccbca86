//! A server of files over TLS that lets one person in, and notes what it is given.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The server's program.
const PROGRAM: &str = include_str!("server.py");

/// A running server; ended when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    port: String,
    notes: PathBuf,
    _directory: tempfile::TempDir,
}

/// Whether this machine has what the server needs.
pub(super) fn has_server() -> bool {
    let runs = |program: &str, argument: &str| {
        let ran = Command::new(program).arg(argument).output();
        ran.is_ok_and(|output| output.status.success())
    };
    let can = runs("python3", "--version") && runs("openssl", "version");
    if !can {
        testkit::cannot("there is no python3 or no openssl here");
    }
    can
}

impl Server {
    /// Serves the files of `root` to `who` (`user:password`; empty: to everybody); what is below `/moved/` is at
    /// `target`.
    pub(super) fn start(root: &Path, who: &str, target: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let certified = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
            .arg(at("key"))
            .arg("-out")
            .arg(at("certificate"))
            .output()
            .unwrap();
        assert!(certified.status.success(), "{certified:?}");
        let both = [at("key"), at("certificate")].map(|path| fs::read_to_string(path).unwrap());
        fs::write(at("both"), both.concat()).unwrap();
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM])
            .args([root, &at("both"), &at("notes")])
            .args([target, who])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut port).unwrap();
        Self {
            child,
            port: port.trim().to_owned(),
            notes: at("notes"),
            _directory: directory,
        }
    }

    /// Its protocol, host and port.
    pub(super) fn origin(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The address of a file.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.origin())
    }

    /// What it was asked, by path, with what came as authorization, or `-`.
    pub(super) fn notes(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(&self.notes).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .map(|(path, given)| (path.to_owned(), given.to_owned()))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
