//! A user of one machine: a home of its own, a source tree, and `grange up`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testkit::{farm::Built, program::grange};

/// Somebody's home, with a source tree in it.
pub(crate) struct Home {
    /// All that is in it.
    pub(crate) directory: TempDir,
    /// Where programs keep this user's data.
    pub(crate) data: PathBuf,
}

impl Home {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("grange-home-")
            .tempdir()
            .unwrap();
        fs::create_dir(directory.path().join("source")).unwrap();
        let data = directory.path().join("data");
        Self { directory, data }
    }

    /// The source tree; commands run in it.
    pub(crate) fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    /// The data of a farm that is started without `--data`.
    pub(crate) fn farm(&self) -> PathBuf {
        self.data.join("grange/farm")
    }

    /// A command of this user.
    pub(crate) fn grange(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&grange());
        command.args(arguments);
        command
    }

    /// A command of another program of this user.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.source())
            .env_remove("GRANGE_FARM")
            .env_remove("GRANGE_TOKEN")
            .env("HOME", self.directory.path())
            .env("XDG_DATA_HOME", &self.data)
            .env("XDG_CONFIG_HOME", self.directory.path().join("config"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Built {
        Built::from(self.grange(arguments).output().unwrap())
    }

    /// Starts `grange up` and waits until it is up.
    pub(crate) fn up(&self, arguments: &[&str]) -> Up {
        let errors = self.directory.path().join("up.log");
        let mut command = self.grange(&[&["up"], arguments].concat());
        let child = command
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&errors).unwrap());
        let mut child = child.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        for line in lines.by_ref().map_while(Result::ok) {
            said.push(line);
            if said.last().unwrap().starts_with("the tokens are good") {
                break;
            }
        }
        let up = Up {
            child,
            said: said.join("\n"),
            errors,
        };
        assert!(up.said.contains("the tokens"), "{}{}", up.said, up.errors());
        up
    }
}

/// A running `grange up`; killed when dropped.
pub(crate) struct Up {
    child: Child,
    /// What it printed.
    pub(crate) said: String,
    errors: PathBuf,
}

impl Up {
    /// Where it says that it is.
    pub(crate) fn address(&self) -> &str {
        let line = self.said.lines().next().unwrap();
        line.strip_prefix("the farm is up at ").unwrap()
    }

    /// The token that it prints in the line with this command.
    pub(crate) fn token(&self, command: &str) -> &str {
        let line = self.said.lines().find(|line| line.contains(command));
        line.unwrap().rsplit(' ').next().unwrap()
    }

    /// What it has said on standard error.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    /// Asks it to end, and gives its exit code.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        interrupt(&self.child);
        let code = self.child.wait().unwrap().code();
        (code, self.errors())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Presses Ctrl-C.
pub(crate) fn interrupt(child: &Child) {
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::INT).unwrap();
}
