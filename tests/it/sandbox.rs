//! Sandboxes by themselves: the real keeper, real namespaces, real shells.

mod ending;
mod namespace;
mod shells;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use protocol::{
    job::{Shell, ShellState},
    worker::Isolation,
};
use tempfile::TempDir;
use testkit::program;
use tokio::{io::AsyncReadExt, runtime::Runtime};
use worker::sandbox::{Carried, Command, CommandExit, Sandbox, SandboxSpec};

use crate::levels::levels;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Whether this machine can do level `namespace`; says so if not.
async fn namespaces() -> bool {
    levels().await.contains(&Isolation::Namespace)
}

/// Directories for the sandboxes of one test.
struct Ground {
    directory: TempDir,
    isolation: Isolation,
}

impl Ground {
    fn new(isolation: Isolation) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            isolation,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The source directory, as commands see it.
    fn source(&self) -> PathBuf {
        match self.isolation {
            Isolation::Host => {
                fs::create_dir_all(self.path("src")).unwrap();
                self.path("src")
            }
            Isolation::Namespace => PathBuf::from("/codebuild/output/src"),
        }
    }

    /// A sandbox for the phase `name`, over the upper directories of `earlier` phases, last first.
    fn spec(&self, name: &str, earlier: &[&str]) -> SandboxSpec {
        let source = self.source();
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        SandboxSpec {
            isolation: self.isolation,
            upper: self.path(name).join("upper"),
            work: self.path(name).join("work"),
            lowers: earlier
                .iter()
                .map(|earlier| self.path(earlier).join("upper"))
                .collect(),
            hidden: vec![self.directory.path().to_owned()],
            docker_socket: None,
            directory: source.as_os_str().as_encoded_bytes().to_vec(),
            source_directory: source,
            home: match self.isolation {
                Isolation::Host => self.path("home"),
                Isolation::Namespace => PathBuf::from("/root"),
            },
            variables: BTreeMap::from([("PATH".to_owned(), path.into())]),
            shell: Shell::Sh,
            state: ShellState::Carried,
            user: None,
            until: None,
            lock: None,
            wipe: Vec::new(),
            program: program::grange(),
            helpers: vec!["codebuild-hash-files".to_owned()],
        }
    }

    /// The spec with what `before` carried over.
    fn next(&self, name: &str, earlier: &[&str], before: &Carried) -> SandboxSpec {
        SandboxSpec {
            variables: before.variables.clone(),
            directory: before.directory.clone(),
            ..self.spec(name, earlier)
        }
    }
}

/// What came of a phase.
struct Phase {
    exits: Vec<CommandExit>,
    log: String,
    carried: Carried,
}

impl Phase {
    fn codes(&self) -> Vec<i32> {
        self.exits.iter().map(|exit| exit.code).collect()
    }

    fn variable(&self, name: &str) -> Option<&[u8]> {
        self.carried.variables.get(name).map(Vec::as_slice)
    }
}

fn command(text: &str) -> Command {
    Command {
        text: text.to_owned(),
    }
}

/// Runs all commands, failed ones too, and ends the sandbox.
async fn phase(spec: SandboxSpec, commands: &[&str]) -> Phase {
    let mut sandbox = Sandbox::start(spec).await.unwrap();
    let mut output = sandbox.take_output().unwrap();
    let reader = async {
        let mut log = Vec::new();
        output.read_to_end(&mut log).await.unwrap();
        String::from_utf8_lossy(&log).into_owned()
    };
    let driver = async {
        let mut exits = Vec::new();
        for text in commands {
            exits.push(sandbox.run(&command(text)).await.unwrap());
        }
        let carried = sandbox.variables_and_directory().await.unwrap();
        sandbox.quiesce().await.unwrap();
        sandbox.finish().await.unwrap();
        (exits, carried)
    };
    let (log, (exits, carried)) = tokio::join!(reader, driver);
    Phase {
        exits,
        log,
        carried,
    }
}

/// Checks what commands print, at every level.
#[track_caller]
pub(crate) fn check(commands: &[&str], expected_log: &str) {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            let phase = phase(ground.spec("phase", &[]), commands).await;
            assert_eq!(phase.log, expected_log, "at level {level}");
        }
    });
}

/// Whether some process of the machine has `mark` among its arguments.
fn running(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        arguments.any(|argument| argument == mark.as_bytes())
    })
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
