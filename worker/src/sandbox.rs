//! The sandbox: where the commands of a phase run, apart from the worker and from each other.
//!
//! Each phase gets a keeper: the same program, executed again with `keeper` as its first argument, so
//! that it can fork and change namespaces while it has a single thread. The worker talks to it over a
//! socket, and the socket is the leash: when the worker's end is closed, by intention or because the
//! worker died, everything that ran in the sandbox is killed. This module and the ones below it are the
//! only place of the farm with `unsafe` code.
//!
//! At level `namespace` the keeper forks the init of a PID namespace, which mounts an overlay over the
//! worker's own root (see `namespace`) and runs the commands. At level `host` the keeper itself runs
//! them, and finds all their descendants as their subreaper. There a keeper that is itself killed takes
//! only the shell of the running command with it: the worker looks for the others by a mark in their
//! environment, and a process that hides it, or that ran as another user, may be beyond its reach; at
//! level `namespace` the kernel ends all of them with the init, always.

mod control;
mod descendants;
mod devices;
mod environment;
mod error;
mod executor;
mod expanding;
mod fence;
mod keeper;
mod message;
mod mounts;
mod namespace;
mod output;
mod own_root;
mod probe;
mod script;
mod signals;
mod skeleton;
mod spec;
mod state;
mod user;

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use protocol::worker::Isolation;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{
    net::{UnixStream, unix::pipe},
    process::{Child, Command as Program},
    task::spawn_blocking,
    time::timeout,
};

pub use self::{
    control::Leash,
    error::{SandboxError, StartError},
    keeper::keeper_main,
    message::{Carried, CommandExit, Expansion, Trouble},
    output::Output,
    probe::{Probe, probe},
    spec::SandboxSpec,
};
use self::{
    control::{Control, ControlError},
    message::{Reply, Request},
};

/// How long a keeper may take to set a sandbox up, or to kill everything in it. It takes milliseconds;
/// a machine that needs longer is out of memory or has a stuck disk.
const KEEPER_TIME_LIMIT: Duration = Duration::from_secs(30);
/// How long a shell may take to expand a word. Keys hash lock files, which takes milliseconds.
const EXPANSION_TIME_LIMIT: Duration = Duration::from_secs(60);
/// How long an expanded word may be, in bytes.
const EXPANSION_BYTES_MAX: u32 = 16 * 1024;

/// A command of a buildspec.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// The text for the shell: one or more lines, anything but NUL bytes, of any length.
    pub text: String,
}

/// A running keeper.
///
/// Dropping it kills everything in it, too, without waiting for the end.
#[derive(Debug)]
pub struct Sandbox {
    /// `None`: it was told to end.
    control: Option<Control>,
    child: Child,
    /// The init of its PID namespace, if it has one: with it everything inside ends.
    init: Option<Arc<OwnedFd>>,
    /// What a process has in its environment that was started at level `host`.
    mark: Option<Vec<u8>>,
    output: Option<Output>,
    view: PathBuf,
    notes: Vec<String>,
    /// Numbers requests, so that a late reply to one that was given up is told from the right one.
    last_request: u64,
}

impl Sandbox {
    /// Starts a keeper and has it set the isolation up.
    ///
    /// # Errors
    ///
    /// If that fails; what was tried on what is in the chain of causes.
    pub async fn start(spec: SandboxSpec) -> Result<Self, StartError> {
        let mut sandbox = Self::spawn(&spec)?;
        sandbox.set_up(spec).await?;
        Ok(sandbox)
    }

    /// Starts a keeper that does nothing yet: [`set_up`](Self::set_up) comes next. Needs a runtime.
    ///
    /// # Errors
    ///
    /// If the program cannot be executed.
    pub fn spawn(spec: &SandboxSpec) -> Result<Self, StartError> {
        let (control, output, child) = execute(spec)?;
        Ok(Self {
            control: Some(control),
            child,
            init: None,
            mark: (spec.isolation == Isolation::Host).then(|| spec.mark()),
            output: Some(output),
            view: PathBuf::from("/"),
            notes: Vec::new(),
            last_request: 0,
        })
    }

    /// Has the keeper set the isolation up, as `spec` says.
    ///
    /// # Errors
    ///
    /// If that fails; what was tried on what is in the chain of causes. [`finish`](Self::finish) is left
    /// to do.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped, only [`finish`](Self::finish) is left to do.
    pub async fn set_up(&mut self, spec: SandboxSpec) -> Result<(), StartError> {
        let work = spec.work.clone();
        let keeper = |source| StartError::Keeper {
            work: work.clone(),
            source,
        };
        let tried = "set up the sandbox";
        let asked = async {
            self.send(tried, &Request::Start(Box::new(spec))).await?;
            self.receive(tried).await
        };
        let reply = timeout(KEEPER_TIME_LIMIT, asked)
            .await
            .unwrap_or(Err(SandboxError::TooSlow {
                tried,
                limit: KEEPER_TIME_LIMIT,
            }));
        match reply.map_err(keeper)? {
            Reply::Started { init, notes } => {
                if let Some(init) = init {
                    self.view = PathBuf::from(format!("/proc/{init}/root"));
                    // If it has ended already, so has everything else.
                    let held =
                        Pid::from_raw(init).map(|init| pidfd_open(init, PidfdFlags::empty()));
                    self.init = held.and_then(Result::ok).map(Arc::new);
                }
                self.notes = notes;
                Ok(())
            }
            Reply::Refused { trouble, .. } => {
                // Its end is waited for, so that nothing of it holds the directories any more.
                let ended = self.finish().await;
                drop(ended);
                Err(StartError::SetUp {
                    work,
                    source: trouble,
                })
            }
            _ => Err(keeper(SandboxError::Gone { tried })),
        }
    }

    /// What says until when the sandbox may run; `None`: it was told to end.
    pub fn leash(&self) -> Option<Leash> {
        self.control.as_ref().map(Control::leash)
    }

    /// The log: what commands write to standard output and standard error, in the order in which they
    /// wrote. `None` if it was taken before.
    ///
    /// Whoever takes it must read it: a full pipe holds the commands up. It ends after
    /// [`quiesce`](Self::quiesce) or with the sandbox.
    pub fn take_output(&mut self) -> Option<Output> {
        self.output.take()
    }

    /// Runs a command to its end. What it left in the background goes on.
    ///
    /// # Errors
    ///
    /// If the farm could not run it. That the command failed is no error.
    ///
    /// # Cancel safety
    ///
    /// The command goes on when this is dropped; [`quiesce`](Self::quiesce) ends it.
    pub async fn run(&mut self, command: &Command) -> Result<CommandExit, SandboxError> {
        let tried = "run a command";
        let id = self.number();
        let command = command.text.clone();
        self.send(tried, &Request::Run { id, command }).await?;
        match self.reply(tried, id).await? {
            Reply::Exited { exit, .. } => Ok(exit),
            _ => Err(SandboxError::Gone { tried }),
        }
    }

    /// Forgets what commands have made of variables and directory: the next one starts with those of the
    /// sandbox's start. Files and processes stay.
    ///
    /// # Errors
    ///
    /// If the keeper is gone.
    pub async fn rewind(&mut self) -> Result<(), SandboxError> {
        self.send("rewind the variables", &Request::Rewind).await
    }

    /// Expands a word as the shell does in double quotes: variables, `$(…)`. Runs in the source
    /// directory with the variables that commands have set so far. Errors of the shell go to the log.
    ///
    /// # Errors
    ///
    /// If the farm could not try. That the word has no expansion is no error.
    pub async fn expand(&mut self, text: &str) -> Result<Expansion, SandboxError> {
        self.expand_within(text, EXPANSION_TIME_LIMIT).await
    }

    /// As [`expand`](Self::expand), with another time limit.
    ///
    /// # Errors
    ///
    /// If the farm could not try. That the word has no expansion is no error.
    pub async fn expand_within(
        &mut self,
        text: &str,
        limit: Duration,
    ) -> Result<Expansion, SandboxError> {
        let tried = "expand a word";
        let id = self.number();
        let request = Request::Expand {
            id,
            text: text.to_owned(),
            bytes_max: EXPANSION_BYTES_MAX,
        };
        self.send(tried, &request).await?;
        let reply = match timeout(limit, self.reply(tried, id)).await {
            Ok(reply) => reply?,
            Err(_) => {
                self.send(tried, &Request::Cancel { id }).await?;
                self.reply(tried, id).await?
            }
        };
        match reply {
            Reply::Expanded { expansion, .. } => Ok(expansion),
            _ => Err(SandboxError::Gone { tried }),
        }
    }

    /// What carries over to the next phase: the exported variables and the working directory, as the
    /// last command left them.
    ///
    /// # Errors
    ///
    /// If the keeper is gone.
    pub async fn variables_and_directory(&mut self) -> Result<Carried, SandboxError> {
        let tried = "tell the variables";
        let id = self.number();
        self.send(tried, &Request::State { id }).await?;
        match self.reply(tried, id).await? {
            Reply::State { carried, .. } => Ok(carried),
            _ => Err(SandboxError::Gone { tried }),
        }
    }

    /// Kills every process that commands started, also those that went into the background or made
    /// themselves independent. The log ends, and what is below [`view`](Self::view) changes no more.
    ///
    /// # Errors
    ///
    /// If the keeper is gone, or a process cannot be killed.
    pub async fn quiesce(&mut self) -> Result<(), SandboxError> {
        let tried = "kill the commands";
        let id = self.number();
        let asked = async {
            self.send(tried, &Request::Quiesce { id }).await?;
            self.reply(tried, id).await
        };
        match timeout(KEEPER_TIME_LIMIT, asked).await {
            Ok(Ok(Reply::Quiesced { .. })) => Ok(()),
            Ok(Ok(_)) => Err(SandboxError::Gone { tried }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SandboxError::TooSlow {
                tried,
                limit: KEEPER_TIME_LIMIT,
            }),
        }
    }

    /// Kills everything, ends the keeper and waits for that. All mounts are gone then; the upper
    /// directory remains. Also the way to break a sandbox off.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Ended`] if the keeper ended with an error, and everything has ended; any other if
    /// that is not sure. Then it may be called again.
    ///
    /// # Cancel safety
    ///
    /// Everything is killed from the first call on; a later one waits for the end.
    pub async fn finish(&mut self) -> Result<(), SandboxError> {
        // The leash: whoever reads the other end kills everything.
        if let Some(control) = self.control.take() {
            control.close();
        }
        timeout(KEEPER_TIME_LIMIT, self.ended())
            .await
            .unwrap_or(Err(SandboxError::TooSlow {
                tried: "end",
                limit: KEEPER_TIME_LIMIT,
            }))
    }

    /// Waits until the keeper has ended, and what it may have left.
    async fn ended(&mut self) -> Result<(), SandboxError> {
        let socket = |source| SandboxError::Socket {
            tried: "end",
            source,
        };
        let status = self.child.wait().await.map_err(socket)?;
        if status.success() {
            return Ok(());
        }
        let (init, mark) = (self.init.clone(), self.mark.clone());
        let gone = spawn_blocking(move || {
            // The kernel says that an init has ended when nothing is left of its namespace.
            init.is_none_or(|init| descendants::has_ended(&init))
                && mark.is_none_or(|mark| descendants::kill_marked(&mark))
        });
        if gone.await.unwrap_or(false) {
            Err(SandboxError::Ended { status })
        } else {
            Err(SandboxError::Left { status })
        }
    }

    /// Where the worker sees the sandbox's root directory, while the sandbox lives. Symbolic links below
    /// it are the sandbox's: do not follow them.
    pub fn view(&self) -> &Path {
        &self.view
    }

    /// What is different from the ideal here, for people: file systems that are read-only inside, and
    /// the like.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    const fn number(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    async fn send(&mut self, tried: &'static str, request: &Request) -> Result<(), SandboxError> {
        let Some(control) = &mut self.control else {
            return Err(SandboxError::Gone { tried });
        };
        let sent = control.send(request).await;
        sent.map_err(|error| broken(tried, error))
    }

    async fn receive(&mut self, tried: &'static str) -> Result<Reply, SandboxError> {
        let Some(control) = &mut self.control else {
            return Err(SandboxError::Gone { tried });
        };
        let received = control.receive().await;
        received
            .map_err(|error| broken(tried, error))?
            .ok_or(SandboxError::Gone { tried })
    }

    /// Waits for the reply to request `id`, and drops late replies to earlier ones.
    async fn reply(&mut self, tried: &'static str, id: u64) -> Result<Reply, SandboxError> {
        loop {
            let reply = self.receive(tried).await?;
            if reply.id() != id {
                continue;
            }
            return match reply {
                Reply::Refused { trouble, .. } => Err(SandboxError::Refused {
                    tried,
                    source: trouble,
                }),
                reply => Ok(reply),
            };
        }
    }
}

/// Waits for the keepers of a worker that is gone, which hold `lock`, and ends what they left at level
/// `host` in directories below `units`. Whether nothing runs any more. Blocks, for seconds at most.
///
/// # Errors
///
/// If `lock` cannot be opened.
pub(crate) fn await_keepers(lock: &Path, units: &Path) -> io::Result<bool> {
    let units = units.as_os_str().as_encoded_bytes();
    descendants::await_keepers(lock, &[spec::MARK.as_bytes(), b"=", units, b"/"].concat())
}

/// Executes the program as keeper, with its end of the socket as standard input and the pipe of the log
/// as standard output.
fn execute(spec: &SandboxSpec) -> Result<(Control, Output, Child), StartError> {
    let sockets = |source| StartError::Sockets { source };
    let (ours, theirs) = StdUnixStream::pair().map_err(sockets)?;
    ours.set_nonblocking(true).map_err(sockets)?;
    let ours = UnixStream::from_std(ours).map_err(sockets)?;
    let (reader, writer) = io::pipe().map_err(sockets)?;
    let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(sockets)?;
    let child = Program::new(&spec.program)
        .arg("keeper")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(OwnedFd::from(writer)))
        .spawn()
        .map_err(|source| StartError::Execute {
            program: spec.program.clone(),
            source,
        })?;
    Ok((Control::new(ours), Output::new(output), child))
}

fn broken(tried: &'static str, error: ControlError) -> SandboxError {
    match error {
        ControlError::Socket { source } => SandboxError::Socket { tried, source },
        ControlError::Message { source } => SandboxError::Message { tried, source },
    }
}
