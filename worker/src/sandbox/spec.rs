//! How a sandbox is to be.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use protocol::{
    job::{Shell, ShellState},
    time::Time,
    worker::Isolation,
};
use serde::{Deserialize, Serialize};

use super::skeleton;

/// How a sandbox is to be.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SandboxSpec {
    /// The level.
    pub isolation: Isolation,
    /// Where changes to the file system go: a directory on a file system that can hold an overlay's
    /// upper layer (not an overlay itself). Made if it is missing; must be empty. Not used at level
    /// `host`.
    pub upper: PathBuf,
    /// What the sandbox needs for itself while it runs: a directory on the file system of `upper`, made
    /// if it is missing, not shared with another sandbox. Whoever starts the sandbox removes it after
    /// the end.
    pub work: PathBuf,
    /// Read-only layers over the worker's own root, topmost first. Not used at level `host`.
    pub lowers: Vec<PathBuf>,
    /// Directories of the worker that commands must not see. Not used at level `host`.
    pub hidden: Vec<PathBuf>,
    /// The socket of the machine's docker, which commands find at its usual place; `None`: they have none.
    /// Not used at level `host`, where they see what the worker's user sees.
    #[serde(default)]
    pub docker_socket: Option<PathBuf>,
    /// Where the source is, as commands see it: they start here at [`ShellState::Fresh`], and words are
    /// expanded here.
    pub source_directory: PathBuf,
    /// The home directory, as commands see it. Made if it is missing. The value of `HOME` unless
    /// `variables` says otherwise.
    pub home: PathBuf,
    /// The variables at the start: all of them; nothing of the worker's own environment is added.
    pub variables: BTreeMap<String, Vec<u8>>,
    /// The working directory of the first command, absolute.
    pub directory: Vec<u8>,
    /// Who runs commands.
    pub shell: Shell,
    /// What carries over from command to command.
    pub state: ShellState,
    /// The user that commands run as, by its name in the sandbox; words are expanded as whoever runs the
    /// sandbox all the same. `None`: commands run as that, too.
    pub user: Option<String>,
    /// When everything in it is to be killed, unless [`Leash::until`](super::Leash::until) names a later
    /// moment in time: on the clock that goes on while the machine sleeps. `None`: at no set time.
    pub until: Option<Time>,
    /// A file that the keeper holds locked, and others with it, as long as anything runs, so that who
    /// comes after a worker can wait for its keepers. Made if it is missing. `None`: nobody waits.
    pub lock: Option<PathBuf>,
    /// Directories outside the sandbox that are to outlive neither it nor the worker: when all that ran has ended
    /// and the worker is gone, the keeper removes them, as nobody else may for a long time. What is there while
    /// the worker lives stays. Empty: whatever is left waits for the worker's next start.
    #[serde(default)]
    pub wipe: Vec<PathBuf>,
    /// The program whose `keeper` subcommand is [`keeper_main`](super::keeper_main).
    pub program: PathBuf,
    /// Under which names `program` is found in [`helpers_directory`](Self::helpers_directory) besides
    /// `grange`.
    pub helpers: Vec<String>,
}

impl SandboxSpec {
    /// Where commands find `grange` and the helper commands. Belongs on the `PATH` that `variables`
    /// give.
    pub fn helpers_directory(&self) -> PathBuf {
        match self.isolation {
            Isolation::Host => self.work.join("bin"),
            Isolation::Namespace => PathBuf::from(skeleton::HELPERS_DIRECTORY),
        }
    }

    /// Where the files of shells are, and where helper commands meet, as commands see it: they may write there.
    pub fn state_directory(&self) -> PathBuf {
        match self.isolation {
            Isolation::Host => self.work.join("state"),
            Isolation::Namespace => PathBuf::from(skeleton::STATE_DIRECTORY),
        }
    }

    /// The program of the shell, where machines have it.
    pub(super) fn shell_program(&self) -> &'static Path {
        let places = match self.shell {
            Shell::Sh => ["/bin/sh", "/usr/bin/sh"],
            Shell::Bash => ["/bin/bash", "/usr/bin/bash"],
        };
        let [usual, other] = places.map(Path::new);
        if usual.exists() { usual } else { other }
    }

    /// The directory that nobody else has, with the source in it, as commands see it.
    pub(super) fn own_directory(&self) -> PathBuf {
        match self.isolation {
            Isolation::Host => self.work.parent().unwrap_or(&self.work).to_owned(),
            Isolation::Namespace => PathBuf::from("/codebuild"),
        }
    }

    /// What the processes of commands have in their environment at level `host`, as `/proc` shows it:
    /// by it they are found when their keeper is gone.
    pub(super) fn mark(&self) -> Vec<u8> {
        let work = self.work.as_os_str().as_encoded_bytes();
        [MARK.as_bytes(), b"=", work].concat()
    }
}

/// The variable that says whose a process is.
pub(super) const MARK: &str = "GRANGE_SANDBOX";
