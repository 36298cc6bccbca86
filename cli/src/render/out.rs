//! The one way to standard output and standard error.
//!
//! What was asked for either arrives whole or the command fails; only a reader who has seen enough and
//! closed the pipe is none. Talk that nobody can hear is no failure.

use std::{
    fmt,
    io::{self, Write as _},
    thread,
};

use protocol::message::work::RestoreProgress;
use tokio::sync::{mpsc, oneshot};

use super::bar::RestoreBar;
use crate::error::CommandError;

/// How many pieces may wait to be written: with pieces of log of 256 KiB some 4 MiB.
const PIECES_MAX: usize = 16;

/// Writes what was asked for, styled where that is a terminal.
///
/// # Errors
///
/// If standard output does not take it.
pub(crate) fn print(text: &str) -> Result<(), CommandError> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(CommandError::output)
}

/// Writes a line of talk.
pub(crate) fn talk(line: impl fmt::Display) {
    let mut out = anstream::stderr().lock();
    // Nobody hears.
    let _unheard = writeln!(out, "{line}");
}

/// Something to be written, in its turn.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    /// To standard output, byte for byte.
    Bytes(Vec<u8>),
    /// A line of talk.
    Talk(String),
    /// How far restores are, drawn below what is written; `None`: there are none.
    Restoring(Option<RestoreProgress>),
}

/// A thread that writes: a reader who stands still holds up only what is to be written.
#[derive(Debug)]
pub(crate) struct Printer {
    pieces: mpsc::Sender<Piece>,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl Printer {
    /// A printer that has written nothing.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub(crate) fn start() -> Result<Self, CommandError> {
        let (pieces, to_write) = mpsc::channel(PIECES_MAX);
        let (end, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("printer".to_owned());
        // A runtime would wait for it, and standard output may never take another byte.
        let _detached = thread
            .spawn(move || {
                // Who was left does not want to know.
                let _left = end.send(write_all(to_write));
            })
            .map_err(CommandError::farm)?;
        Ok(Self { pieces, ended })
    }

    /// Hands a piece over, waiting while too many wait. Gives whether standard output takes any more; talk
    /// goes on in any case.
    ///
    /// # Cancel safety
    ///
    /// The piece may be lost.
    pub(crate) async fn print(&self, piece: Piece) -> bool {
        match self.pieces.send(piece).await {
            Ok(()) => true,
            Err(mpsc::error::SendError(piece)) => {
                match piece {
                    Piece::Talk(line) => talk(line),
                    Piece::Bytes(_) | Piece::Restoring(_) => {}
                }
                false
            }
        }
    }

    /// Waits until all is written.
    ///
    /// # Errors
    ///
    /// If standard output did not take it.
    pub(crate) async fn finish(self) -> Result<(), CommandError> {
        drop(self.pieces);
        let ended = self.ended.await;
        let ended = ended.unwrap_or_else(|_| Err(io::Error::other("the printer has failed")));
        ended.map_err(CommandError::output)
    }
}

/// Writes until nobody hands over any more, or standard output fails.
fn write_all(mut pieces: mpsc::Receiver<Piece>) -> io::Result<()> {
    let mut out = io::stdout();
    let mut bar = RestoreBar::default();
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => {
                bar.aside(|| out.write_all(&bytes).and_then(|()| out.flush()))?;
            }
            Piece::Talk(line) => bar.aside(|| talk(line)),
            Piece::Restoring(progress) => bar.draw(progress),
        }
    }
    Ok(())
}
