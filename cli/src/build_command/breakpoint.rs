//! `codebuild-breakpoint` and `codebuild-resume`: a build that is debugged waits, and people get shells in it.
//!
//! The breakpoint starts the shells itself, each on a terminal of its own, so that they find what the command finds:
//! its variables, directory, user and file system. It listens on a socket that the worker connects to.

mod visit;

use std::{
    env,
    fs::{self, File},
    io::{self, PipeWriter, Read as _, Write as _, stderr, stdin},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use protocol::message::terminal::{
    DEBUG_DIRECTORY, DEBUG_SOCKET, RESUME, SHELL, TERMINALS_OF_ATTEMPT_MAX, WAIT,
};
use rustix::{
    fs::{FlockOperation, flock},
    process::{ioctl_tiocsctty, setsid},
};

/// The name under which this program becomes a shell on a terminal of its own.
pub(super) const SHELL_NAME: &str = "codebuild-shell";

/// Shells, the better ones first.
const SHELLS: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/bin/sh"];

/// How long a build pauses that nobody has go on: a day's work. Its time limit ends most of them before.
const PAUSE_MAX: Duration = Duration::from_secs(8 * 60 * 60);

/// How long a build that goes on waits for its shells to show the last of what they wrote.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often somebody who finds no room is looked at again: no load, and not noticed by who waits.
const ROOM_POLL: Duration = Duration::from_millis(100);

/// How long whoever connects may take to say why: helper commands and the worker say so at once.
const FIRST_BYTE_TIME: Duration = Duration::from_secs(10);

/// A pause.
#[derive(Debug)]
struct Pause {
    /// Where shells start.
    here: PathBuf,
    shells: Mutex<Shells>,
    /// Rung when a shell is gone.
    gone: Condvar,
    /// Says that the build goes on.
    resume: SyncSender<()>,
}

/// The shells that there are.
#[derive(Debug, Default)]
struct Shells {
    /// Each with what tells it to end.
    open: Vec<(u64, PipeWriter)>,
    /// How many there have been.
    count: u64,
    /// Whether the build goes on.
    is_over: bool,
}

impl Pause {
    fn lock(&self) -> MutexGuard<'_, Shells> {
        // Nothing is done under the lock that could leave the list half done.
        self.shells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for another shell, if there is one; the shell ends when a byte comes from `end`.
    fn enter(&self, end: PipeWriter) -> io::Result<Seat<'_>> {
        let mut shells = self.lock();
        if shells.is_over {
            return Err(io::Error::other("the build goes on"));
        }
        if TERMINALS_OF_ATTEMPT_MAX <= shells.open.len() {
            return Err(io::Error::other("there are as many as may be"));
        }
        shells.count += 1;
        let id = shells.count;
        shells.open.push((id, end));
        Ok(Seat { pause: self, id })
    }

    fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Tells all shells that the build goes on, and waits for them as long as it may.
    fn end(&self) {
        let mut shells = self.lock();
        shells.is_over = true;
        for (_, end) in &mut shells.open {
            // Who does not listen has ended.
            let _told = end.write(&[0]);
        }
        let left = self
            .gone
            .wait_timeout_while(shells, FAREWELL, |shells| !shells.open.is_empty());
        drop(left);
    }
}

/// The place of a shell, until all that it showed is told.
#[derive(Debug)]
struct Seat<'a> {
    pause: &'a Pause,
    id: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut shells = self.pause.lock();
        shells.open.retain(|(of, _)| *of != self.id);
        self.pause.gone.notify_all();
    }
}

/// Pauses a build that is debugged, until somebody has it go on.
pub(super) fn pause() -> Result<ExitCode, String> {
    let Some(directory) = meeting() else {
        tell("the build does not pause: it was not started with `grange build --debug`");
        return Ok(ExitCode::SUCCESS);
    };
    let here = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("failed to {what}: {error}")
    };
    // Relative, because names of sockets are short.
    env::set_current_dir(&directory).map_err(failed("go where people find the build"))?;
    let listener = match meet().map_err(failed("wait for people"))? {
        Ok(listener) => listener,
        Err(first) => {
            return wait_for(first).map_err(failed("wait for the pause that there is"));
        }
    };
    tell(&format!(
        "the build is paused; `grange attach {}` opens a shell in it, and `codebuild-resume` there has it go on",
        attach_words()
    ));
    let (resume, resumed) = mpsc::sync_channel(1);
    let pause = Arc::new(Pause {
        here,
        shells: Mutex::default(),
        gone: Condvar::new(),
        resume,
    });
    let host = Arc::clone(&pause);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // There is no room for another file until somebody leaves.
                thread::sleep(ROOM_POLL);
                continue;
            };
            let host = Arc::clone(&host);
            thread::spawn(move || visit(stream, &host));
        }
    });
    let ended = resumed.recv_timeout(PAUSE_MAX);
    let _removed = fs::remove_file(DEBUG_SOCKET);
    pause.end();
    match ended {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            tell("the build goes on");
            Ok(ExitCode::SUCCESS)
        }
        Err(RecvTimeoutError::Timeout) => {
            let hours = PAUSE_MAX.as_secs() / 3600;
            Err(format!("nobody had the build go on for {hours} hours"))
        }
    }
}

/// Begins to listen where helper commands meet, or connects to the breakpoint that does already.
fn meet() -> io::Result<Result<UnixListener, UnixStream>> {
    // Of two that come at once the second finds the first.
    let directory = File::open(".")?;
    flock(&directory, FlockOperation::LockExclusive)?;
    if let Ok(first) = UnixStream::connect(DEBUG_SOCKET) {
        return Ok(Err(first));
    }
    let _none_or_one_that_is_over = fs::remove_file(DEBUG_SOCKET);
    UnixListener::bind(DEBUG_SOCKET).map(Ok)
}

/// Waits until another breakpoint of the same build is over.
fn wait_for(mut first: UnixStream) -> io::Result<ExitCode> {
    tell("the build is paused already; this goes on with it");
    first.write_all(&[WAIT])?;
    let mut rest = Vec::new();
    // Nothing comes but the end.
    first.take(1).read_to_end(&mut rest)?;
    Ok(ExitCode::SUCCESS)
}

/// Has a build go on that is paused; does nothing to one that is not debugged.
pub(super) fn resume() -> Result<ExitCode, String> {
    let Some(directory) = meeting() else {
        return Ok(ExitCode::SUCCESS);
    };
    let resumed = env::set_current_dir(directory)
        .and_then(|()| UnixStream::connect(DEBUG_SOCKET))
        .and_then(|mut stream| stream.write_all(&[RESUME]));
    match resumed {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(_) => Err("the build is not paused".to_owned()),
    }
}

/// Becomes a shell whose terminal is standard input.
pub(super) fn become_shell() -> Result<ExitCode, String> {
    let shell = SHELLS.into_iter().find(|path| Path::new(path).exists());
    let shell = shell.ok_or("there is no shell")?;
    setsid().map_err(|error| error.to_string())?;
    ioctl_tiocsctty(stdin()).map_err(|error| error.to_string())?;
    let mut command = Command::new(shell);
    // Files of the machine would change what commands have: their `PATH`, and where history is kept.
    if shell.ends_with("bash") {
        command.args(["--noprofile", "--norc"]);
    }
    command.env_remove("ENV").arg("-i");
    Err(command.exec().to_string())
}

/// Serves whoever has connected.
fn visit(mut stream: UnixStream, pause: &Arc<Pause>) {
    let mut first = [0];
    // Who says nothing keeps no thread.
    let _as_it_is = stream.set_read_timeout(Some(FIRST_BYTE_TIME));
    let read = stream.read_exact(&mut first);
    let _as_it_is = stream.set_read_timeout(None);
    match read {
        // Somebody else may have said so just before.
        Ok(()) if first == [RESUME] => drop(pause.resume.try_send(())),
        Ok(()) if first == [SHELL] => visit::serve(&stream, pause),
        // Whoever waits sees the end when this process has ended.
        Ok(()) if first == [WAIT] => drop(stream.read(&mut first)),
        _ => {}
    }
}

/// Where the helper commands meet; `None`: the build is not debugged.
fn meeting() -> Option<PathBuf> {
    let directory = variable(DEBUG_DIRECTORY)?;
    (!directory.is_empty()).then(|| PathBuf::from(directory))
}

/// What names this unit of the build to `grange attach`.
fn attach_words() -> String {
    let id = variable("CODEBUILD_BUILD_ID").unwrap_or_default();
    let id = id.rsplit_once(':').map_or(id.as_str(), |(_, id)| id);
    match variable("CODEBUILD_BATCH_BUILD_IDENTIFIER") {
        Some(unit) => format!("{id} --unit {unit}"),
        None => id.to_owned(),
    }
}

/// Says something where it does not get into what a command gives.
fn tell(text: &str) {
    let told = writeln!(stderr(), "codebuild-breakpoint: {text}");
    // Nobody listens.
    drop(told);
}

#[expect(
    clippy::disallowed_methods,
    reason = "what a command of a build is told, it is told in its environment"
)]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}
