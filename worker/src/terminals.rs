//! Shells for people inside of attempts: where a build that pauses waits for them, and the way there.
//!
//! The shell is started by the helper command in the build that pauses, so that it finds what the command finds. The
//! worker connects to that, and passes messages on. What is shown goes through the masker of the log.

mod frames;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs::File,
    future::pending,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use protocol::{
    lease::LeaseId,
    message::{
        terminal::{
            DEBUG_SOCKET, Gone, SHELL, TERMINAL_BYTES_MAX, TERMINAL_MESSAGE_BYTES_MAX,
            TERMINAL_MESSAGES_MAX, TERMINALS_OF_ATTEMPT_MAX, TERMINALS_OF_WORKER_MAX,
            TerminalInput, TerminalOpened, TerminalOutput, TerminalStart,
        },
        work::WorkRequest,
    },
};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixStream, unix::OwnedReadHalf},
    sync::mpsc,
    task::spawn_blocking,
    time::timeout,
};
use transport::{Connection, Lane, StreamError};

use self::frames::{Frames, write};
use crate::{
    attempt::Interrupt,
    secrets::{Masker, Patterns},
};

/// How long what may become a secret is held back: longer than what is printed at once takes to come, and too short
/// for who types to notice.
const HELD_BACK: Duration = Duration::from_millis(50);

/// How many messages may wait between a lane and what it is passed on to: the lane has its own room.
const HANDED_MAX: usize = 1;

const LANE: Lane = Lane {
    messages_max: TERMINAL_MESSAGES_MAX,
    bytes_max: TERMINAL_MESSAGE_BYTES_MAX,
};

/// Where the attempts that are debugged can be found.
#[derive(Debug, Default)]
pub(crate) struct Terminals(Mutex<BTreeMap<LeaseId, Door>>);

/// The way into an attempt. Each clone but the first is a terminal.
#[derive(Clone, Debug)]
struct Door(Arc<Place>);

#[derive(Debug)]
struct Place {
    /// The sandbox's root, as the worker sees it.
    root: PathBuf,
    /// Where the helper commands meet, as commands see it.
    directory: PathBuf,
    /// What must not be shown.
    patterns: Option<Arc<Patterns>>,
    /// Why the attempt is broken off, if it is.
    interrupt: OnceLock<Interrupt>,
}

impl Terminals {
    /// The sandbox of an attempt is up: its root is at `root`, and its helper commands meet in `directory`.
    pub(crate) fn open(
        &self,
        lease: LeaseId,
        (root, directory): (PathBuf, PathBuf),
        patterns: Option<Arc<Patterns>>,
    ) {
        let place = Place {
            root,
            directory,
            patterns,
            interrupt: OnceLock::new(),
        };
        self.lock().insert(lease, Door(Arc::new(place)));
    }

    /// An attempt is over: all that it runs is about to end, because of `interrupt` or by itself.
    pub(crate) fn close(&self, lease: LeaseId, interrupt: Option<Interrupt>) {
        let door = self.lock().remove(&lease);
        if let (Some(door), Some(interrupt)) = (door, interrupt) {
            // A door closes once.
            let _is_first = door.0.interrupt.set(interrupt);
        }
    }

    /// The way into an attempt, or why there is none.
    fn enter(&self, lease: LeaseId) -> Result<Door, &'static str> {
        let doors = self.lock();
        let open = |door: &Door| Arc::strong_count(&door.0) - 1;
        let door = doors.get(&lease).ok_or(NOT_PAUSED)?;
        if TERMINALS_OF_ATTEMPT_MAX <= open(door) {
            return Err("as many terminals are open in the build as may be; leave one");
        }
        if TERMINALS_OF_WORKER_MAX <= doors.values().map(open).sum() {
            return Err("as many terminals are open on the worker as may be; try again later");
        }
        Ok(door.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LeaseId, Door>> {
        // Nothing is done under the lock that could leave the map half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings a person's terminal to a shell in an attempt, until one of them ends.
    ///
    /// # Errors
    ///
    /// If the stream to the coordinator breaks.
    pub(crate) async fn serve(
        &self,
        connection: &Connection,
        start: TerminalStart,
    ) -> Result<(), StreamError> {
        let mut stream = connection.open().await?;
        stream.send.message(&WorkRequest::Terminal(start)).await?;
        let found = match self.enter(start.lease) {
            Ok(door) => match connect(Arc::clone(&door.0)).await {
                Ok(socket) => Ok((door, socket)),
                Err(_) => Err(NOT_PAUSED),
            },
            Err(why) => Err(why),
        };
        let (door, socket) = match found {
            Ok(found) => found,
            Err(why) => {
                let answer = TerminalOpened::NotHere(why.to_owned());
                stream.send.message(&answer).await?;
                stream.send.finish();
                return Ok(());
            }
        };
        stream.send.message(&TerminalOpened::Here).await?;
        let (shown, mut keyboard) = socket.into_split();
        let (screen, to_person) = mpsc::channel(HANDED_MAX);
        let (to_shell, mut typed) = mpsc::channel::<TerminalInput>(HANDED_MAX);
        let shows = show(shown, &door.0, screen);
        let types = async {
            let mut is_there = true;
            while let Some(input) = typed.recv().await {
                // What nobody reads any more is dropped: what is shown says how it ended.
                is_there = is_there && write(&mut keyboard, &input).await.is_ok();
            }
        };
        let both = async {
            tokio::join!(shows, types);
            pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            carried = LANE.carry(stream, to_person, to_shell) => carried,
            never = both => match never {},
        }
    }
}

const NOT_PAUSED: &str = "the build is not at a breakpoint";

/// Hands on what a shell shows, without secrets, and how it ended.
async fn show(socket: OwnedReadHalf, place: &Place, screen: mpsc::Sender<TerminalOutput>) {
    let mut masker = place.patterns.clone().map(Masker::new);
    let mut frames = Frames::new(socket);
    let mut shown = Vec::new();
    let last = loop {
        let holds = masker.as_ref().is_some_and(Masker::is_holding);
        let next = frames.next::<TerminalOutput>();
        let next = if holds {
            timeout(HELD_BACK, next).await.ok()
        } else {
            Some(next.await)
        };
        let last = match (next, &mut masker) {
            (Some(Ok(Some(TerminalOutput::Bytes(bytes)))), None) => {
                shown = bytes;
                None
            }
            (Some(Ok(Some(TerminalOutput::Bytes(bytes)))), Some(masker)) => {
                masker.push(&bytes, &mut shown);
                None
            }
            (None, masker) => {
                hold_no_more(masker, &mut shown);
                None
            }
            (Some(last), masker) => {
                hold_no_more(masker, &mut shown);
                let said = last.ok().flatten();
                Some(said.unwrap_or_else(|| TerminalOutput::Gone(why_gone(place))))
            }
        };
        for piece in shown.chunks(TERMINAL_BYTES_MAX) {
            if screen
                .send(TerminalOutput::Bytes(piece.to_vec()))
                .await
                .is_err()
            {
                return;
            }
        }
        shown.clear();
        if let Some(last) = last {
            break last;
        }
    };
    // Who has left does not want to know.
    drop(screen.send(last).await);
}

fn hold_no_more(masker: &mut Option<Masker>, shown: &mut Vec<u8>) {
    if let Some(masker) = masker {
        masker.interrupt(shown);
    }
}

/// Why a shell is gone that did not say so.
fn why_gone(place: &Place) -> Gone {
    match place.interrupt.get() {
        None => Gone::GoesOn,
        Some(Interrupt::Stopped) => Gone::Stopped,
        Some(Interrupt::TimedOut) => Gone::TimedOut,
        Some(Interrupt::Lost) => Gone::WorkerLost,
    }
}

/// Connects to the build, which is no friend: links that it has made are not followed.
async fn connect(place: Arc<Place>) -> io::Result<UnixStream> {
    let found = spawn_blocking(move || find(&place.root, &place.directory.join(DEBUG_SOCKET)));
    let socket = found.await??;
    // The socket that was found, whatever stands under its name by now.
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(&[SHELL]).await?;
    Ok(stream)
}

fn find(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let root = File::open(root)?;
    let below = path.strip_prefix("/").unwrap_or(path);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS;
    Ok(openat2(&root, below, flags, Mode::empty(), resolve)?)
}
