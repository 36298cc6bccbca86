//! One person's visit to a build that pauses: a shell on a terminal, and what it shows and is typed.

use std::{
    env,
    fs::File,
    io::{self, PipeReader, Read as _, Write as _},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use protocol::{
    codec,
    frame::{self, FRAME_HEADER_BYTES},
    message::terminal::{
        Gone, TERMINAL_BYTES_MAX, TERMINAL_MESSAGE_BYTES_MAX, TerminalInput, TerminalOutput,
    },
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, ioctl_fionbio},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
    time::Timespec,
};
use serde::de::DeserializeOwned;

use super::{Pause, SHELL_NAME, Seat};

/// How much of what a shell wrote is still shown when it is over: what a screen holds, many times.
const LAST_PIECES_MAX: u32 = 16;

/// How long a shell that shows nothing more may take to be gone.
const END_TIME: Duration = Duration::from_secs(1);

/// The status of a shell of which nobody knows how it ended.
const UNKNOWN: u8 = 255;

/// Gives whoever is at `stream` a shell, and says how it ended.
pub(super) fn serve(stream: &UnixStream, pause: &Pause) {
    match shell(stream, pause) {
        // The seat is given up when all is told.
        Ok((last, _seat)) => end(stream, &last),
        Err(error) => {
            let text = format!("codebuild-breakpoint: failed to start a shell: {error}\r\n");
            // Who has left does not want to know.
            let _told = send(stream, &TerminalOutput::Bytes(text.into_bytes()));
            end(stream, &TerminalOutput::Ended(UNKNOWN));
        }
    }
}

fn end(stream: &UnixStream, last: &TerminalOutput) {
    let _told = send(stream, last);
    // So that the reader of keys ends, too, and with it the terminal.
    let _closed = stream.shutdown(Shutdown::Both);
}

/// Runs a shell until it ends, whoever has it leaves, or the build goes on; what is to be said of its end.
fn shell<'a>(stream: &UnixStream, pause: &'a Pause) -> io::Result<(TerminalOutput, Seat<'a>)> {
    let (over, end) = io::pipe()?;
    let (mut ended, mut left) = (end.try_clone()?, end.try_clone()?);
    let seat = pause.enter(end)?;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    // A program that does not read must not keep who types from leaving.
    ioctl_fionbio(&master, true)?;
    let keys = File::from(master.try_clone()?);
    let input = stream.try_clone()?;
    let mut child = start(&master, &pause.here)?;
    let (status, exited) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let code = child.wait().map_or(UNKNOWN, code_of);
        // Nobody may want to know any more.
        let _told = status.try_send(code);
        let _woken = ended.write(&[0]);
    });
    thread::spawn(move || {
        type_in(input, keys);
        let _woken = left.write(&[0]);
    });
    show(stream, File::from(master), &over);
    let last = if pause.is_over() {
        TerminalOutput::Gone(Gone::GoesOn)
    } else {
        TerminalOutput::Ended(exited.recv_timeout(END_TIME).unwrap_or(UNKNOWN))
    };
    Ok((last, seat))
}

/// Starts a shell on the other end of `master`.
fn start(master: &OwnedFd, here: &Path) -> io::Result<Child> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = ioctl_tiocgptpeer(master, flags)?;
    let end = || terminal.try_clone().map(Stdio::from);
    let mut command = Command::new("/proc/self/exe");
    command.arg0(SHELL_NAME).current_dir(here);
    // What is typed is kept nowhere: the home directory is part of what the phase leaves.
    command.env("HISTFILE", "/dev/null");
    if env::var_os("TERM").is_none() {
        command.env("TERM", "xterm");
    }
    command.stdin(end()?).stdout(end()?).stderr(end()?).spawn()
}

/// The status as shells count it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(UNKNOWN)
}

/// Carries what a person types to the terminal, until the person leaves. When nobody has the terminal's near end any
/// more, what runs at the other is told (`SIGHUP`).
fn type_in(mut stream: UnixStream, keys: File) {
    while let Ok(message) = receive::<TerminalInput>(&mut stream) {
        let taken = match message {
            TerminalInput::Bytes(bytes) => type_all(&stream, &keys, &bytes),
            TerminalInput::Size { rows, columns } => {
                let size = Winsize {
                    ws_row: rows,
                    ws_col: columns,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                tcsetwinsize(&keys, size).map_err(io::Error::from)
            }
        };
        if taken.is_err() {
            return;
        }
    }
}

/// Types `bytes` as the program takes them, while the person is there.
fn type_all(stream: &UnixStream, mut keys: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut polled = [
            PollFd::new(keys, PollFlags::OUT),
            PollFd::new(stream, PollFlags::RDHUP),
        ];
        match poll(&mut polled, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let [takes, has_left] = polled.map(|of| !of.revents().is_empty());
        if !takes && has_left {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match keys.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the same may go well at once, or later.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// Carries what the terminal shows, until the person leaves, nobody has its other end any more, or a byte comes from
/// `over`; then what is there already.
fn show(stream: &UnixStream, mut terminal: File, over: &PipeReader) {
    let mut buffer = vec![0; TERMINAL_BYTES_MAX];
    let mut pieces_left = None;
    loop {
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut polled = [
            PollFd::new(&terminal, PollFlags::IN),
            PollFd::new(over, PollFlags::IN),
            PollFd::new(stream, PollFlags::RDHUP),
        ];
        match poll(&mut polled, pieces_left.map(|_| &at_once)) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let [has_more, is_over, has_left] = polled.map(|of| !of.revents().is_empty());
        if has_left {
            return;
        }
        if is_over {
            let left = pieces_left.unwrap_or(LAST_PIECES_MAX);
            if !has_more || left == 0 {
                return;
            }
            pieces_left = Some(left - 1);
        }
        if !has_more {
            continue;
        }
        let bytes = match terminal.read(&mut buffer) {
            Ok(length) if 0 < length => buffer[..length].to_vec(),
            Err(error) if is_passing(&error) => continue,
            // The last one has closed it.
            Ok(_) | Err(_) => return,
        };
        if send(stream, &TerminalOutput::Bytes(bytes)).is_err() {
            return;
        }
    }
}

fn send(mut stream: &UnixStream, message: &TerminalOutput) -> io::Result<()> {
    let message = codec::encode(message).map_err(io::Error::other)?;
    stream.write_all(&[&frame::header(&message)[..], &message[..]].concat())
}

fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let length = frame::length(header).map_err(io::Error::other)?;
    if TERMINAL_MESSAGE_BYTES_MAX < length {
        return Err(io::Error::other("a message is too long"));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    codec::decode(&message).map_err(io::Error::other)
}
