//! Runs commands at the worker's request: the loop of a namespace's init, and of a keeper at level
//! `host`. One command at a time; whatever ends is reaped; the end of the socket is the end of all.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use nix::sys::signalfd::SignalFd;
use protocol::{job::ShellState, time::Time};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::fchown,
    io::Errno,
    process::{
        Pid, Signal, WaitOptions, WaitStatus, kill_process_group, set_parent_process_death_signal,
        setsid, wait,
    },
};

use super::{
    SandboxSpec,
    control::KeeperControl,
    descendants,
    expanding::Expanding,
    fence::Fence,
    message::{Carried, CommandExit, Expansion, Reply, Request, Trouble},
    script::is_name,
    signals,
    spec::MARK,
    state::{Saved, StateDirectory},
    user::{self, User, become_user},
};

/// How a shell says that it is not there: the status for a command that is not found.
const NOT_FOUND: i32 = 127;
/// How a shell says that it may not execute something.
const NOT_EXECUTABLE: i32 = 126;

/// Which processes are the commands'.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scope {
    /// All others of this PID namespace, whose init this process is.
    Namespace,
    /// The descendants of this process.
    Descendants,
}

/// What there is to run commands with.
#[derive(Debug)]
pub(super) struct Executor {
    pub(super) control: KeeperControl,
    pub(super) signals: SignalFd,
    /// Where commands write; `None` after the log has ended.
    pub(super) log: Option<OwnedFd>,
    pub(super) state: StateDirectory,
    pub(super) spec: Box<SandboxSpec>,
    pub(super) scope: Scope,
}

/// The loop's own state.
struct Loop {
    parts: Executor,
    /// Who runs commands; `None`: it is not known yet, or whoever runs this.
    user: Option<User>,
    carried: Carried,
    /// Variables that no shell can carry: passed to every command as they are.
    unnamed: BTreeMap<String, Vec<u8>>,
    running: Option<Running>,
    fence: Fence,
    /// Whether the worker could not be told something.
    is_unheard: bool,
}

struct Running {
    id: u64,
    pid: Pid,
    expansion: Option<Expanding>,
}

/// Carries requests out until the worker closes the socket or a signal asks for the end, then kills
/// everything. Whether all of it is gone.
pub(super) fn execute(parts: Executor) -> bool {
    let (carried, unnamed) = at_the_start(&parts.spec);
    let Ok(fence) = Fence::new(parts.spec.until) else {
        // Without it nobody would end what a stopped worker leaves.
        return false;
    };
    let mut state = Loop {
        fence,
        parts,
        user: None,
        carried,
        unnamed,
        running: None,
        is_unheard: false,
    };
    while state.turn() {}
    state.kill_all()
}

/// What the first command finds, and the variables that no shell can carry.
fn at_the_start(spec: &SandboxSpec) -> (Carried, BTreeMap<String, Vec<u8>>) {
    let mut variables = spec.variables.clone();
    let home = spec.home.as_os_str().as_encoded_bytes().to_vec();
    variables.entry("HOME".to_owned()).or_insert(home);
    let named = |name: &String| is_name(name.as_bytes());
    let (variables, unnamed) = variables.into_iter().partition(|(name, _)| named(name));
    let directory = match spec.state {
        ShellState::Carried => spec.directory.clone(),
        ShellState::Fresh => spec
            .source_directory
            .as_os_str()
            .as_encoded_bytes()
            .to_vec(),
    };
    let carried = Carried {
        variables,
        directory,
    };
    (carried, unnamed)
}

impl Loop {
    /// Waits until something happens and reacts to it. Whether to go on.
    fn turn(&mut self) -> bool {
        self.wait();
        let mut asked_to_end = false;
        while let Ok(Some(signal)) = self.parts.signals.read_signal() {
            asked_to_end |=
                signal.ssi_signo.cast_signed() != nix::sys::signal::Signal::SIGCHLD as i32;
        }
        self.read_expansion();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            self.reaped(pid, status);
        }
        let goes_on = self.carry_out_all();
        goes_on && !asked_to_end && !self.is_unheard && !self.fence.is_over()
    }

    /// Carries out what the worker has asked for. Whether to go on: nothing begins behind the fence, because the
    /// machine may have slept since it was asked for.
    fn carry_out_all(&mut self) -> bool {
        let Some(requests) = self.parts.control.requests(&mut self.fence) else {
            return false;
        };
        for request in requests {
            if self.fence.is_over() {
                return false;
            }
            self.carry_out(request);
        }
        true
    }

    fn wait(&self) {
        let expanding = self.running.as_ref().and_then(|it| it.expansion.as_ref());
        let pipe = expanding.and_then(Expanding::pipe);
        let control = self.parts.control.stream();
        let mut polled = vec![
            PollFd::new(control, PollFlags::IN),
            PollFd::new(&self.parts.signals, PollFlags::IN),
            PollFd::new(self.fence.timer(), PollFlags::IN),
        ];
        polled.extend(pipe.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        // Interrupted or not: all sources are looked at.
        let _ = poll(&mut polled, None);
    }

    fn carry_out(&mut self, request: Request) {
        match request {
            Request::Until(until) => self.fence.set(Time(until)),
            Request::Rewind => (self.carried, self.unnamed) = at_the_start(&self.parts.spec),
            Request::Run { id, command } => {
                if let Err(why) = self.find_user() {
                    let exit = CommandExit {
                        not_started: Some(why),
                        ..exited(NOT_EXECUTABLE)
                    };
                    return self.reply(&Reply::Exited { id, exit });
                }
                // Rights on a large source take a while.
                if self.fence.is_over() {
                    return;
                }
                let (carried, shell) = (&self.carried, self.parts.spec.shell);
                let written = self.parts.state.write_command(carried, shell, &command);
                self.start(id, written, None);
            }
            Request::Expand {
                id,
                text,
                bytes_max,
            } => {
                let word = (self.parts.spec.source_directory.as_path(), text.as_str());
                let (carried, shell) = (&self.carried, self.parts.spec.shell);
                let written = self.parts.state.write_expansion(carried, shell, word);
                self.start(id, written, Some(bytes_max));
            }
            Request::Cancel { id } => {
                if self.running.as_ref().is_some_and(|it| it.id == id) {
                    self.give_up(Expansion::TimedOut);
                }
            }
            Request::State { id } => {
                let mut carried = self.carried.clone();
                carried.variables.extend(self.unnamed.clone());
                self.reply(&Reply::State { id, carried });
            }
            Request::Quiesce { id } => {
                let gone = self.kill_all();
                // The last that holds the pipe: its reader sees the end.
                self.parts.log = None;
                let trouble = Trouble::new("kill what is left of", "commands", Errno::BUSY);
                self.reply(&match gone {
                    true => Reply::Quiesced { id },
                    false => Reply::Refused { id, trouble },
                });
            }
            Request::Start(_) => {
                let trouble = Trouble::new("start a second time", "keeper", Errno::ALREADY);
                self.reply(&Reply::Refused { id: 0, trouble });
            }
        }
    }

    /// Finds out who runs commands, and gives them what they need. Why not, if there is no such user.
    fn find_user(&mut self) -> Result<(), String> {
        let Some(name) = self
            .parts
            .spec
            .user
            .as_ref()
            .filter(|_| self.user.is_none())
        else {
            return Ok(());
        };
        let unknown = || format!("user: unknown user {name}");
        let user = User::named(name).ok_or_else(unknown)?;
        if !user.is_root() {
            let log = self.parts.log.as_ref();
            let (uid, gid) = user.owner();
            let given = self.parts.state.give_to((uid, gid));
            // So that they can open `/dev/stdout`.
            let given = given.and_then(|()| log.map_or(Ok(()), |log| Ok(fchown(log, uid, gid)?)));
            given.map_err(|error| format!("failed to run commands as user {name}: {error}"))?;
            let spec = &self.parts.spec;
            user::grant(&spec.source_directory, &spec.own_directory());
        }
        self.user = Some(user);
        Ok(())
    }

    /// Starts the shell on the script that was written, if it was.
    fn start(&mut self, id: u64, written: Result<(), Trouble>, bytes_max: Option<u32>) {
        let busy = || Trouble::new("run two commands at once in", "sandbox", Errno::BUSY);
        let is_idle = self.running.is_none();
        let idle = is_idle.then_some(()).ok_or_else(busy);
        let expansion = bytes_max.map(|bytes_max| usize::try_from(bytes_max).unwrap_or(usize::MAX));
        let started = written.and(idle).and_then(|()| {
            let shell = self.parts.spec.shell_program();
            let trouble = |error: io::Error| Trouble::io("execute shell", shell, &error);
            match self.spawn(shell, expansion) {
                Ok(running) => Ok(Some(running)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(trouble(error)),
            }
        });
        match started {
            Ok(Some((pid, expansion))) => self.running = Some(Running { id, pid, expansion }),
            Ok(None) => {
                self.say(&format!(
                    "{}: not found\n",
                    self.parts.spec.shell_program().display()
                ));
                let exit = exited(NOT_FOUND);
                self.reply(&match expansion {
                    None => Reply::Exited { id, exit },
                    Some(_) => Reply::Expanded {
                        id,
                        expansion: Expansion::Failed(NOT_FOUND),
                    },
                });
            }
            Err(trouble) => self.reply(&Reply::Refused { id, trouble }),
        }
    }

    fn spawn(
        &self,
        shell: &Path,
        bytes_max: Option<usize>,
    ) -> io::Result<(Pid, Option<Expanding>)> {
        let log = |log: Option<&OwnedFd>| match log {
            Some(log) => Ok::<_, io::Error>(Stdio::from(log.try_clone()?)),
            None => Ok(Stdio::null()),
        };
        let stderr = log(self.parts.log.as_ref())?;
        let (stdout, expansion) = match bytes_max {
            None => (log(self.parts.log.as_ref())?, None),
            Some(bytes_max) => {
                let (expanding, writer) = Expanding::start(bytes_max)?;
                (Stdio::from(OwnedFd::from(writer)), Some(expanding))
            }
        };
        let mut program = Command::new(shell);
        program
            .arg(self.parts.state.script())
            .env_clear()
            .envs(
                self.unnamed
                    .iter()
                    .map(|(name, value)| (name, os_str(value))),
            )
            .envs(self.mark())
            .current_dir(self.fallback_directory())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        let user = self.user.as_ref().filter(|_| bytes_max.is_none());
        let identity = user.map(User::identity);
        #[expect(unsafe_code, reason = "what runs between fork and exec")]
        // SAFETY: the closure only makes system calls; it allocates nothing and takes no lock.
        unsafe {
            program.pre_exec(move || {
                // First: the kernel forgets the signal of a parent's death when the user changes.
                identity.as_ref().map_or(Ok(()), become_user)?;
                become_a_command()
            });
        }
        let child = program.spawn()?;
        Ok((Pid::from_child(&child), expansion))
    }

    /// What marks the processes of commands where no namespace holds them.
    fn mark(&self) -> Option<(&'static str, &OsStr)> {
        let work = self.parts.spec.work.as_os_str();
        (self.parts.scope == Scope::Descendants).then_some((MARK, work))
    }

    /// Where a shell starts before it changes to the directory of the last command: also where it stays
    /// if that is gone.
    fn fallback_directory(&self) -> &Path {
        let source = self.parts.spec.source_directory.as_path();
        if source.is_dir() {
            source
        } else {
            Path::new("/")
        }
    }

    /// Reads what an expansion has written so far.
    fn read_expansion(&mut self) {
        let running = self.running.as_mut();
        let Some(expanding) = running.and_then(|running| running.expansion.as_mut()) else {
            return;
        };
        let too_long = expanding.read();
        if too_long {
            self.give_up(Expansion::TooLong);
        }
    }

    /// Ends the expansion that runs. Its answer follows when its shell is reaped.
    fn give_up(&mut self, why: Expansion) {
        if let Some(running) = &mut self.running
            && let Some(expanding) = &mut running.expansion
        {
            expanding.give_up(why);
            // The shell leads its session and is not reaped yet, so the number is still its own.
            let _ = kill_process_group(running.pid, Signal::KILL);
        }
    }

    /// A child ended. Most are orphans that nobody asks for.
    fn reaped(&mut self, pid: Pid, status: WaitStatus) {
        let Some(running) = self.running.take_if(|running| running.pid == pid) else {
            return;
        };
        let id = running.id;
        let code = status.exit_status();
        let signal = status.terminating_signal();
        let code = code.or_else(|| signal.map(|signal| 128 + signal));
        let code = code.unwrap_or(255);
        let reply = match running.expansion {
            Some(expanding) => Reply::Expanded {
                id,
                expansion: expanding.finish(code),
            },
            None => Reply::Exited {
                id,
                exit: CommandExit {
                    code,
                    signal,
                    state_lost: self.keep_state(),
                    not_started: None,
                },
            },
        };
        self.reply(&reply);
    }

    /// Takes over what the command saved. Why not, if it saved something that cannot be taken over.
    fn keep_state(&mut self) -> Option<String> {
        if self.parts.spec.state == ShellState::Fresh {
            return None;
        }
        match self.parts.state.saved() {
            Saved::Carried(mut carried) => {
                carried.variables.remove(MARK);
                self.carried = carried;
                None
            }
            Saved::Nothing => None,
            Saved::Lost(why) => Some(why),
        }
    }

    /// Kills everything that commands started. Whether it is gone.
    fn kill_all(&mut self) -> bool {
        let mut reaped = Vec::new();
        let gone = match self.parts.scope {
            Scope::Descendants => descendants::kill_all(|pid, status| reaped.push((pid, status))),
            Scope::Namespace => {
                kill_namespace(|pid, status| reaped.push((pid, status)));
                true
            }
        };
        for (pid, status) in reaped {
            self.reaped(pid, status);
        }
        gone
    }

    fn reply(&mut self, reply: &Reply) {
        // A worker that is gone, or does not read before the fence, is told nothing any more.
        let sent = self.parts.control.send(reply, Some(&self.fence));
        self.is_unheard |= sent.is_err();
    }

    /// Writes to the log.
    fn say(&self, text: &str) {
        if let Some(Ok(log)) = self.parts.log.as_ref().map(OwnedFd::try_clone) {
            // If nobody reads it, nobody misses it.
            let written = File::from(log).write_all(text.as_bytes());
            drop(written);
        }
    }
}

/// Kills all other processes of the PID namespace, and waits for them.
fn kill_namespace(mut reaped: impl FnMut(Pid, WaitStatus)) {
    // The kernel signals all of them while no process can be made. None there is fine, too.
    let everybody = nix::unistd::Pid::from_raw(-1);
    let _ = nix::sys::signal::kill(everybody, nix::sys::signal::Signal::SIGKILL);
    // Orphans become children of this process, so that the last to end is one of them.
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => reaped(pid, status),
            Ok(None) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Makes a forked child what commands run as: a session of its own, with signals as usual, and killed with the
/// keeper.
fn become_a_command() -> io::Result<()> {
    setsid()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    signals::reset()?;
    Ok(())
}

const fn exited(code: i32) -> CommandExit {
    CommandExit {
        code,
        signal: None,
        state_lost: None,
        not_started: None,
    }
}

fn os_str(bytes: &[u8]) -> &OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

#[cfg(test)]
mod tests;
