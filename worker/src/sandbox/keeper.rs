//! The keeper's program: what `grange keeper` does. It has one thread from its start to its end, which is
//! what forking and changing namespaces take.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, IntoRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::ExitCode,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal as NixSignal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{ForkResult, close, fork},
};
use protocol::worker::Isolation;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FlockOperation, Mode, flock},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, chdir, getpid, getppid, pidfd_open,
        pidfd_send_signal, set_child_subreaper, set_parent_process_death_signal, setsid, umask,
        waitpid,
    },
    time::Timespec,
};

use super::{
    SandboxSpec,
    control::{KeeperControl, Received},
    executor::{Executor, Scope, execute},
    message::{Reply, Request, Trouble},
    namespace,
    skeleton::{self, link_names},
    state::StateDirectory,
};
use crate::layers::remove;

/// The keeper of a sandbox: what the program does when its first argument is `keeper`. Standard input is
/// a socket to the worker, standard output the pipe of the log. `arguments` are those after `keeper`:
/// there are none, and a person who gives some gets a failure.
///
/// Must be called before the process has a second thread.
pub fn keeper_main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    if arguments.next().is_some() {
        return ExitCode::FAILURE;
    }
    // Whom there is to tell is told over the socket; a status is all that is left.
    match keep() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// Whether everything ended in order.
fn keep() -> io::Result<bool> {
    close_inherited()?;
    // A session of its own: the terminal's Ctrl-C is for the worker, not for builds. It fails only for
    // one that has its own already.
    let _ = setsid();
    umask(Mode::from_raw_mode(0o022));
    chdir("/")?;
    let signals = block_signals(&[
        NixSignal::SIGCHLD,
        NixSignal::SIGHUP,
        NixSignal::SIGINT,
        NixSignal::SIGTERM,
    ])?;
    let worker = getppid();
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let log = io::stdout().as_fd().try_clone_to_owned()?;
    release(0)?;
    release(1)?;
    let mut control = KeeperControl::new(stream)?;
    let Received::Request(Request::Start(spec)) = control.wait() else {
        return Ok(false);
    };
    let _lock = match spec.lock.as_deref().map(lock).transpose() {
        Ok(lock) => lock,
        Err(trouble) => return refuse(&mut control, trouble),
    };
    if is_orphaned(control.stream()) {
        // Whoever came after the worker may have looked for keepers before this one could be seen.
        return Ok(false);
    }
    let left = Left {
        worker,
        wipe: spec.wipe.clone(),
    };
    match spec.isolation {
        Isolation::Host => {
            let ended = host(control, signals, log, spec);
            left.wipe();
            ended
        }
        Isolation::Namespace => namespace(control, &signals, (log, &left), spec),
    }
}

/// What a dead worker leaves behind that nobody may find.
struct Left {
    /// The worker's process, which was there when the keeper began; `None`: it cannot be seen from here.
    worker: Option<Pid>,
    wipe: Vec<PathBuf>,
}

impl Left {
    /// Removes it if the worker is gone: a keeper whose parent has ended is given another. That the socket is closed
    /// says nothing: a worker that lives may have given up the sandbox alone.
    fn wipe(&self) {
        if self.worker == getppid() {
            return;
        }
        for path in &self.wipe {
            // Nobody is there to be told; the worker's next start tries again, and says so.
            let _removed = remove(path);
        }
    }
}

/// Says to whoever comes after the worker that something runs, until this process and its init have
/// ended.
fn lock(path: &Path) -> Result<File, Trouble> {
    let trouble = |error: io::Error| Trouble::io("lock", path, &error);
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(trouble)?;
    // Whoever waits for keepers holds it for a moment only.
    flock(&file, FlockOperation::LockShared).map_err(|errno| trouble(errno.into()))?;
    Ok(file)
}

/// Whether the worker is gone.
fn is_orphaned(worker: &UnixStream) -> bool {
    let none = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut of = [PollFd::new(worker, PollFlags::empty())];
    let is_open = poll(&mut of, Some(&none)).is_ok();
    !is_open || of[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Closes what the worker left open to its children by mistake: nobody else's files are for builds.
fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for fd in open {
        if 2 < fd {
            // The one that read the directory is closed already.
            let _ = close(fd);
        }
    }
    Ok(())
}

/// Puts `/dev/null` in the place of standard input or output, which is held elsewhere.
fn release(standard: i32) -> io::Result<()> {
    close(standard)?;
    // A file that is opened takes the lowest free number.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    if null.into_raw_fd() == standard {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// Has the signals wait to be read; others do what they do.
fn block_signals(signals: &[NixSignal]) -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in signals {
        set.add(*signal);
    }
    set.thread_set_mask()?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    Ok(SignalFd::with_flags(&set, flags)?)
}

/// Level `host`: the keeper runs the commands itself.
fn host(
    mut control: KeeperControl,
    signals: SignalFd,
    log: OwnedFd,
    spec: Box<SandboxSpec>,
) -> io::Result<bool> {
    match set_up_host(&spec) {
        Ok(state) => {
            let reply = Reply::Started {
                init: None,
                notes: Vec::new(),
            };
            control.send(&reply, None).map_err(io::Error::other)?;
            Ok(execute(Executor {
                control,
                signals,
                log: Some(log),
                state,
                spec,
                scope: Scope::Descendants,
            }))
        }
        Err(trouble) => refuse(&mut control, trouble),
    }
}

fn set_up_host(spec: &SandboxSpec) -> Result<StateDirectory, Trouble> {
    set_child_subreaper(Some(getpid()))
        .map_err(|errno| Trouble::new("become the subreaper of", "commands", errno))?;
    let state = spec.state_directory();
    let helpers = spec.helpers_directory();
    for path in [&state, &helpers, &spec.home] {
        fs::create_dir_all(path).map_err(|error| Trouble::io("make directory", path, &error))?;
    }
    let mut names = spec.helpers.clone();
    names.push(skeleton::PROGRAM.to_owned());
    link_names(&helpers, &spec.program, &names)?;
    StateDirectory::open(&state)
}

/// Level `namespace`: the keeper forks the init of a PID namespace, which runs the commands, and keeps
/// watch outside, where nothing inside can reach it.
fn namespace(
    mut control: KeeperControl,
    signals: &SignalFd,
    (log, left): (OwnedFd, &Left),
    spec: Box<SandboxSpec>,
) -> io::Result<bool> {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWPID) {
        let trouble = Trouble::io("make a PID namespace for", "init", &errno.into());
        return refuse(&mut control, trouble);
    }
    #[expect(unsafe_code, reason = "the first fork after unshare makes the init")]
    // SAFETY: the process has a single thread, so the child is free to do anything.
    let forked = unsafe { fork() };
    match forked {
        Err(errno) => refuse(&mut control, Trouble::io("fork", "init", &errno.into())),
        Ok(ForkResult::Child) => init(control, log, spec),
        Ok(ForkResult::Parent { child }) => {
            drop(log);
            let child = Pid::from_raw(child.as_raw()).ok_or(io::ErrorKind::InvalidData)?;
            let ended = watch(control.stream(), signals, child);
            left.wipe();
            ended
        }
    }
}

/// The init of the PID namespace. When it ends, for whatever reason, the kernel kills everything in it.
fn init(mut control: KeeperControl, log: OwnedFd, spec: Box<SandboxSpec>) -> io::Result<bool> {
    // Should the keeper be killed.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Signals that ask to end do nothing to an init, as long as it does not block them: what comes from
    // inside must not end the sandbox.
    let signals = block_signals(&[NixSignal::SIGCHLD])?;
    // The number by which the worker knows this process: `/proc` is still the worker's.
    let own = fs::read_link("/proc/self")?;
    let own = own.to_str().and_then(|own| own.parse().ok());
    let entered = namespace::enter(&spec).and_then(|notes| {
        let state = StateDirectory::open(Path::new(skeleton::STATE_DIRECTORY))?;
        Ok((notes, state))
    });
    match entered {
        Ok((notes, state)) => {
            let reply = Reply::Started { init: own, notes };
            control.send(&reply, None).map_err(io::Error::other)?;
            Ok(execute(Executor {
                control,
                signals,
                log: Some(log),
                state,
                spec,
                scope: Scope::Namespace,
            }))
        }
        Err(trouble) => refuse(&mut control, trouble),
    }
}

/// Tells the worker that there will be no sandbox, which is an end in order.
fn refuse(control: &mut KeeperControl, trouble: Trouble) -> io::Result<bool> {
    let reply = Reply::Refused { id: 0, trouble };
    control.send(&reply, None).map_err(io::Error::other)?;
    Ok(true)
}

/// Waits for the init to end, and kills it when the worker has closed the socket or a signal asks for
/// the end. Whether it ended in order or was asked to.
fn watch(control: &UnixStream, signals: &SignalFd, init: Pid) -> io::Result<bool> {
    let held = pidfd_open(init, PidfdFlags::empty())?;
    let mut asked = false;
    loop {
        let mut polled = [
            PollFd::new(&held, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(control, PollFlags::RDHUP),
        ];
        // The socket says the same for ever once the worker is gone.
        let count = if asked { 2 } else { 3 };
        match poll(&mut polled[..count], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ended = !polled[0].revents().is_empty();
        let hung_up = !polled[2].revents().is_empty();
        if ended {
            let status = waitpid(Some(init), WaitOptions::empty())?;
            let in_order = status.and_then(|(_, status)| status.exit_status()) == Some(0);
            return Ok(asked || in_order);
        }
        let mut signalled = false;
        while let Some(signal) = signals.read_signal()? {
            signalled |= signal.ssi_signo.cast_signed() != NixSignal::SIGCHLD as i32;
        }
        if hung_up || signalled {
            asked = true;
            pidfd_send_signal(&held, Signal::KILL)?;
        }
    }
}
