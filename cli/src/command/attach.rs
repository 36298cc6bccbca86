//! `grange attach`: a shell inside a build that pauses at a breakpoint.

mod escape;
mod typing;

use std::{
    io::{IsTerminal as _, stdin},
    process::ExitCode,
};

use anyhow::anyhow;
use protocol::message::{
    client::{ClientReply, ClientRequest},
    terminal::{Gone, TERMINAL_MESSAGE_BYTES_MAX, TerminalOutput},
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use transport::ReceiveHalf;

use self::typing::Heard;
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
                "a shell in the build; `exit` leaves it, `codebuild-resume` has the build go on, Enter ~ . leaves a \
                 program that takes every key",
            );
            let raw = Raw::enter();
            let (mut send, mut receive) = (stream.send, stream.receive);
            let printer = Printer::start()?;
            let heard = Heard::default();
            let last = tokio::select! {
                biased;
                last = show(&mut receive, &printer, &heard) => last,
                () = typing::send(&mut send, &heard) => Ok(TerminalOutput::Ended(exit::DONE)),
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
    heard: &Heard,
) -> Result<TerminalOutput, CommandError> {
    loop {
        let message = receive.message_within(TERMINAL_MESSAGE_BYTES_MAX).await;
        match message.map_err(CommandError::farm)? {
            Some(TerminalOutput::Bytes(bytes)) => {
                heard.something();
                if !printer.print(Piece::Bytes(bytes)).await {
                    return Ok(TerminalOutput::Ended(exit::DONE));
                }
            }
            Some(last) => return Ok(last),
            None => return Err(CommandError::farm(anyhow!("the farm ended the terminal"))),
        }
    }
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
