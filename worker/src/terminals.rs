//! Shells for people inside of attempts: where a build that pauses waits for them, and the way there.
//!
//! The shell is started by the helper command in the build that pauses, so that it finds what the command finds. The
//! worker connects to that, and passes messages on. What is shown goes through the masker of the log.

mod doors;
mod frames;

use std::{
    convert::Infallible,
    fs::File,
    future::pending,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use protocol::{
    message::{
        terminal::{
            DEBUG_SOCKET, Gone, SHELL, TERMINAL_BYTES_MAX, TERMINAL_MESSAGE_BYTES_MAX,
            TERMINAL_MESSAGES_MAX, TerminalInput, TerminalOpened, TerminalOutput, TerminalStart,
        },
        work::WorkRequest,
    },
    report::Chain,
};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixStream, unix::OwnedReadHalf},
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::debug;
use transport::{Connection, Lane, StreamError};

pub(crate) use self::doors::{ATTACHING_MAX, Meeting, Terminals};
use self::{
    doors::{NOT_PAUSED, Place},
    frames::{Frames, write},
};
use crate::{attempt::Interrupt, secrets::Masker};

/// How long what may become a secret is held back: longer than what is printed at once takes to come, and too short
/// for who types to notice.
const HELD_BACK: Duration = Duration::from_millis(50);

/// How long a breakpoint may take to let somebody in; the coordinator waits a little longer.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long the shells of an attempt that is over have to show the last of what they wrote: a screen over a long path.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long after its last shell the end of an attempt is known here, if that is why the shell is gone.
const ENDING: Duration = Duration::from_secs(1);

/// How many messages may wait between a lane and what it is passed on to: the lane has its own room.
const HANDED_MAX: usize = 1;

const LANE: Lane = Lane {
    messages_max: TERMINAL_MESSAGES_MAX,
    bytes_max: TERMINAL_MESSAGE_BYTES_MAX,
};

impl Terminals {
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
            Ok(seat) => match connect(Arc::clone(&seat.place)).await {
                Ok(socket) => Ok((seat, socket)),
                Err(error) => {
                    // A build that does not pause has no socket.
                    debug!(lease = %start.lease, error = %Chain(&error), "no way to a shell");
                    Err(NOT_PAUSED)
                }
            },
            Err(why) => Err(why),
        };
        let (seat, socket) = match found {
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
        let shows = show(shown, &seat.place, screen);
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
        let over = async {
            seat.place.closed.cancelled().await;
            sleep(FAREWELL).await;
        };
        tokio::select! {
            biased;
            carried = LANE.carry(stream, to_person, to_shell) => carried,
            never = both => match never {},
            // Somebody who does not read keeps no seat of the worker.
            () = over => Ok(()),
        }
    }
}

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
                Some(last.ok().flatten())
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
    let last = match last {
        Some(last) => last,
        None => TerminalOutput::Gone(why_gone(place).await),
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
async fn why_gone(place: &Place) -> Gone {
    // A lease that ran out ends the shell before it is known here that it did.
    let _goes_on = timeout(ENDING, place.closed.cancelled()).await;
    match place.interrupt.get() {
        None => Gone::GoesOn,
        Some(Interrupt::Stopped) => Gone::Stopped,
        Some(Interrupt::TimedOut) => Gone::TimedOut,
        Some(Interrupt::Lost) => Gone::WorkerLost,
    }
}

/// Connects to the build, which is no friend: links that it has made are not followed.
async fn connect(place: Arc<Place>) -> io::Result<UnixStream> {
    let connected = async {
        let found = spawn_blocking(move || find(&place.meeting.root, &place.meeting.below));
        let socket = found.await??;
        // The socket that was found, whatever stands under its name by now.
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(&[SHELL]).await?;
        Ok(stream)
    };
    timeout(CONNECT_TIME, connected).await?
}

/// Finds the socket in the directory `below` a root. The way to the root is the farm's, and what is below the build's.
fn find(root: &Path, below: &Path) -> io::Result<OwnedFd> {
    let root = File::open(root)?;
    let below = below.strip_prefix("/").unwrap_or(below);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS;
    let socket = below.join(DEBUG_SOCKET);
    Ok(openat2(&root, socket, flags, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod tests;
