//! What a person types, on its way to the shell.

use std::{
    convert::Infallible,
    future::pending,
    io::{ErrorKind, IsTerminal as _, Read as _, stdin, stdout},
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use protocol::message::terminal::{TERMINAL_BYTES_MAX, TerminalInput};
use rustix::termios::tcgetwinsize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{MissedTickBehavior, interval},
};
use transport::{SendHalf, StreamError};

use super::escape::{Escape, Typed};

/// What a terminal sends when its person has no more to type: Ctrl-D.
const END_OF_INPUT: u8 = 4;

/// How much is read at once, in bytes: what a terminal has at most.
const PIECE_BYTES: usize = 4096;
/// How many pieces of what was typed may wait: some megabytes that somebody pastes.
const KEYS_MAX: usize = 4096;

/// How long nothing is shown until the end of input is said again: whatever has read the last one has gone on.
const QUIET_TIME: Duration = Duration::from_secs(1);

/// Whether the shell has shown something since somebody asked.
#[derive(Debug, Default)]
pub(super) struct Heard(AtomicBool);

impl Heard {
    /// The shell has shown something.
    pub(super) fn something(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn since(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Sends what is typed, and how large the terminal is, until the person leaves by the [`Escape`]. Goes on for ever if
/// there is nothing more to type, or nobody takes it: what becomes of the shell is shown.
pub(super) async fn send(send: &mut SendHalf, heard: &Heard) {
    let (typed, keys) = mpsc::channel(KEYS_MAX);
    let (leaves, left) = oneshot::channel();
    // A runtime would wait for it, and somebody may never press another key.
    let _detached = thread::spawn(move || match stdin().is_terminal() {
        true => read_keys(&typed, leaves),
        false => read_pipe(&typed, leaves),
    });
    tokio::select! {
        Ok(()) = left => {}
        _broken = send_typed(send, (keys, heard)) => pending().await,
    }
}

async fn send_typed(
    send: &mut SendHalf,
    (mut keys, heard): (mpsc::Receiver<Vec<u8>>, &Heard),
) -> Result<Infallible, StreamError> {
    let mut resized = signal(SignalKind::window_change()).ok();
    if let Some(size) = size() {
        send.message(&size).await?;
    }
    let mut is_over = false;
    let mut quiet = interval(QUIET_TIME);
    quiet.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let changed = async {
            match &mut resized {
                Some(resized) => resized.recv().await,
                None => pending().await,
            }
        };
        let bytes = tokio::select! {
            _ = changed => {
                if let Some(size) = size() {
                    send.message(&size).await?;
                }
                continue;
            }
            typed = keys.recv(), if !is_over => {
                is_over = typed.is_none();
                let mut typed = typed.unwrap_or_else(|| vec![END_OF_INPUT]);
                // A byte more than a piece may have been held back.
                while typed.len() + PIECE_BYTES < TERMINAL_BYTES_MAX
                    && let Ok(more) = keys.try_recv()
                {
                    typed.extend(more);
                }
                typed
            }
            // Another program than the shell may have taken the last one, and the shell waits for its own.
            _ = quiet.tick(), if is_over => {
                if heard.since() {
                    continue;
                }
                vec![END_OF_INPUT]
            }
        };
        send.message(&TerminalInput::Bytes(bytes)).await?;
    }
}

/// Reads what is typed, until there is no more, or the person leaves. What is over [`KEYS_MAX`] is dropped, up to the
/// end of the line that it is in: the way out has to be seen.
fn read_keys(typed: &mpsc::Sender<Vec<u8>>, leaves: oneshot::Sender<()>) {
    let mut escape = Escape::new();
    let mut drops = false;
    read(|keys| {
        let Typed::Sent(mut keys) = escape.push(keys) else {
            return ControlFlow::Break(());
        };
        if drops {
            let line_end = keys.iter().position(|key| matches!(key, b'\r' | b'\n'));
            keys.drain(..line_end.map_or(keys.len(), |at| at + 1));
            drops = line_end.is_none();
        }
        if keys.is_empty() {
            return ControlFlow::Continue(());
        }
        match typed.try_send(keys) {
            Ok(()) => ControlFlow::Continue(()),
            Err(TrySendError::Full(_)) => {
                drops = true;
                ControlFlow::Continue(())
            }
            Err(TrySendError::Closed(_)) => ControlFlow::Break(()),
        }
    });
    if escape.has_left() {
        // Who has left already does not want to know.
        let _told = leaves.send(());
    }
}

/// Reads what is piped, all of it.
fn read_pipe(typed: &mpsc::Sender<Vec<u8>>, _leaves: oneshot::Sender<()>) {
    read(|bytes| match typed.blocking_send(bytes.to_vec()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    });
}

fn read(mut take: impl FnMut(&[u8]) -> ControlFlow<()>) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match stdin().read(&mut buffer) {
            Ok(length @ 1..) => {
                if take(&buffer[..length]).is_break() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// How large the terminal is; `None`: there is none.
fn size() -> Option<TerminalInput> {
    let size = tcgetwinsize(stdout()).ok()?;
    Some(TerminalInput::Size {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}
