//! `grange attach`: a shell inside a build that pauses at a breakpoint.

use std::{
    convert::Infallible,
    io::{ErrorKind, IsTerminal as _, Read as _, stdin, stdout},
    process::ExitCode,
    thread,
};

use anyhow::anyhow;
use protocol::message::{
    client::{ClientReply, ClientRequest},
    terminal::{
        Gone, TERMINAL_BYTES_MAX, TERMINAL_MESSAGE_BYTES_MAX, TerminalInput, TerminalOutput,
    },
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use transport::{ReceiveHalf, SendHalf, StreamError};

use crate::{
    args::AttachArgs,
    command::Context,
    error::{CommandError, exit},
    farm::unexpected,
    reach::Purpose,
    render::{
        self,
        out::{Piece, Printer},
    },
};

/// What a terminal sends when its person has no more to type: Ctrl-D.
const END_OF_INPUT: u8 = 4;

/// Opens a shell in a build; the exit code is the shell's, or says what became of the build.
///
/// # Errors
///
/// If the farm cannot be reached or refuses, or the build is not at a breakpoint.
pub(crate) async fn run(args: &AttachArgs, context: &Context) -> Result<ExitCode, CommandError> {
    context
        .with_farm(&args.farm, Purpose::Ask, async |reached| {
            let request = ClientRequest::Attach {
                build: args.build.clone(),
                unit: args.unit.clone(),
            };
            let (reply, stream) = reached.farm.open(&request).await?;
            if !matches!(reply, ClientReply::Attached) {
                return Err(unexpected(&reply));
            }
            render::note(
                "a shell in the build; `exit` leaves it, `codebuild-resume` has the build go on",
            );
            let raw = Raw::enter();
            let (mut send, mut receive) = (stream.send, stream.receive);
            let printer = Printer::start()?;
            let last = tokio::select! {
                biased;
                last = show(&mut receive, &printer) => last,
                // Whether it arrives says the other direction.
                never = type_in(&mut send) => match never {},
            };
            // Who has closed the pipe has seen enough.
            let written = printer.finish().await;
            drop(raw);
            let last = last?;
            written?;
            Ok(ExitCode::from(code(&last)))
        })
        .await
}

/// The exit code for how a shell ended; what there is to be said of it is told.
fn code(last: &TerminalOutput) -> u8 {
    match last {
        TerminalOutput::Ended(status) => *status,
        TerminalOutput::Bytes(_) => exit::DONE,
        TerminalOutput::Gone(gone) => {
            render::note(&gone.to_string());
            match gone {
                Gone::GoesOn => exit::DONE,
                Gone::Stopped => exit::STOPPED,
                Gone::TimedOut => exit::TIMED_OUT,
                Gone::WorkerLost => exit::FARM,
            }
        }
    }
}

/// Shows what the shell shows, up to its end.
async fn show(
    receive: &mut ReceiveHalf,
    printer: &Printer,
) -> Result<TerminalOutput, CommandError> {
    loop {
        let message = receive.message_within(TERMINAL_MESSAGE_BYTES_MAX).await;
        match message.map_err(CommandError::farm)? {
            Some(TerminalOutput::Bytes(bytes)) => {
                if !printer.print(Piece::Bytes(bytes)).await {
                    return Ok(TerminalOutput::Ended(exit::DONE));
                }
            }
            Some(last) => return Ok(last),
            None => return Err(CommandError::farm(anyhow!("the farm ended the terminal"))),
        }
    }
}

/// Sends what is typed, and how large the terminal is. Goes on for ever, though there is nothing more to send.
async fn type_in(send: &mut SendHalf) -> Infallible {
    // What becomes of it is shown.
    let _broken = send_typed(send).await;
    std::future::pending().await
}

async fn send_typed(send: &mut SendHalf) -> Result<(), StreamError> {
    let mut resized = signal(SignalKind::window_change()).ok();
    let (typed, mut keys) = mpsc::channel(1);
    // A runtime would wait for it, and somebody may never press another key.
    let _detached = thread::spawn(move || read_keys(&typed));
    if let Some(size) = size() {
        send.message(&size).await?;
    }
    loop {
        let changed = async {
            match &mut resized {
                Some(resized) => resized.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = changed => if let Some(size) = size() {
                send.message(&size).await?;
            },
            Some(bytes) = keys.recv() => {
                send.message(&TerminalInput::Bytes(bytes)).await?;
            }
        }
    }
}

/// Reads what is typed, and says at the end that there is no more.
fn read_keys(typed: &mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; TERMINAL_BYTES_MAX];
    loop {
        let (bytes, is_last) = match stdin().read(&mut buffer) {
            Ok(length @ 1..) => (buffer[..length].to_vec(), false),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(_) | Err(_) => (vec![END_OF_INPUT], true),
        };
        if typed.blocking_send(bytes).is_err() || is_last {
            return;
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

/// A terminal that passes every key on; as it was before when this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        if !stdin().is_terminal() {
            return Self(None);
        }
        let before = tcgetattr(stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            let _as_it_is = tcsetattr(stdin(), OptionalActions::Now, &raw);
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _nothing_to_do = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
