//! The commands about secrets. A value comes in by a file, a pipe or unseen keys, and never goes out.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _, stdin},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use protocol::{
    message::client::{ClientReply, ClientRequest},
    secret::{SECRET_BYTES_MAX, SecretValue},
};
use rustix::{
    io::ioctl_fionread,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr},
};
use tokio::task::spawn_blocking;

use super::read::{ask, expect_done};
use crate::{
    args::{OneSecretArgs, SecretCommand, SetSecretArgs},
    command::Context,
    error::CommandError,
    farm::unexpected,
    render,
};

/// What the keys send that end a line, take the last byte back, and leave.
const LINE_ENDS: [u8; 3] = [b'\n', b'\r', 0x04];
const ERASE: [u8; 2] = [0x7f, 0x08];
const LEAVE: u8 = 0x03;

/// Runs `grange secret …`.
///
/// # Errors
///
/// If there is no value, or the farm cannot be reached or refuses.
pub(crate) async fn run(command: SecretCommand, context: &Context) -> Result<(), CommandError> {
    match command {
        SecretCommand::Set(args) => set(args, context).await,
        SecretCommand::List { project, read } => {
            let request = ClientRequest::Secrets { project };
            match ask(&request, &read.farm, context).await? {
                ClientReply::Secrets(secrets) => render::secrets(&secrets, read.json),
                other => Err(unexpected(&other)),
            }
        }
        SecretCommand::Delete(OneSecretArgs { id, project, farm }) => {
            let request = ClientRequest::DeleteSecret { project, id };
            expect_done(&ask(&request, &farm, context).await?)
        }
    }
}

async fn set(args: SetSecretArgs, context: &Context) -> Result<(), CommandError> {
    let OneSecretArgs { id, project, farm } = args.secret;
    let bytes = match &args.file {
        Some(path) => of_file(path)?,
        None if stdin().is_terminal() => {
            render::note(&format!(
                "type the value of `{id}` and Enter; it is not shown"
            ));
            typed(context).await?
        }
        None => piped(context).await?,
    };
    let value = SecretValue::new(bytes).map_err(CommandError::usage)?;
    let request = ClientRequest::SetSecret { project, id, value };
    match ask(&request, &farm, context).await? {
        ClientReply::SecretSet(version) => render::line(&version),
        other => Err(unexpected(&other)),
    }
}

/// What a file holds, as it is.
fn of_file(path: &Path) -> Result<Vec<u8>, CommandError> {
    let read = File::open(path).and_then(bounded);
    read.with_context(|| format!("failed to read `{}`", path.display()))
        .map_err(CommandError::usage)
}

/// What comes through a pipe, without the end of its last line.
async fn piped(context: &Context) -> Result<Vec<u8>, CommandError> {
    let mut bytes = wait(context, || bounded(stdin())).await?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(bytes)
}

/// Reads a little more than a secret may have, so that one that is too long is seen.
fn bounded(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let room = u64::try_from(SECRET_BYTES_MAX + 2).unwrap_or(u64::MAX);
    from.take(room).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A line that is typed while the terminal shows nothing.
async fn typed(context: &Context) -> Result<Vec<u8>, CommandError> {
    let _unseen = Unseen::begin()
        .context("failed to keep the terminal from showing what is typed")
        .map_err(CommandError::usage)?;
    let line = wait(context, line).await?.ok_or_else(CommandError::left)?;
    // It comes at once where it was pasted. The terminal forgets it, or the shell would be given it.
    if ioctl_fionread(stdin()).is_ok_and(|bytes| 0 < bytes) {
        return Err(CommandError::usage(anyhow!(
            "what was typed has more than one line, of which only the first was read; \
             give a value of several lines by `--file` or through a pipe"
        )));
    }
    Ok(line)
}

/// The bytes up to the end of a line, one key at a time; `None`: somebody wants to leave.
fn line() -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    // Not through a buffer, which would take what comes after the line, too.
    let mut byte = [0];
    while rustix::io::read(stdin(), &mut byte)? == 1 {
        match byte[0] {
            LEAVE => return Ok(None),
            byte if LINE_ENDS.contains(&byte) => break,
            byte if ERASE.contains(&byte) => drop(bytes.pop()),
            byte => bytes.push(byte),
        }
        if SECRET_BYTES_MAX < bytes.len() {
            break;
        }
    }
    Ok(Some(bytes))
}

/// Reads what may never come, unless somebody leaves.
async fn wait<T: Send + 'static>(
    context: &Context,
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, CommandError> {
    let read = tokio::select! {
        biased;
        () = context.signals.left() => return Err(CommandError::left()),
        read = spawn_blocking(read) => read,
    };
    let read = read.map_err(|_| anyhow!("reading was broken off"));
    let read = read.map_err(CommandError::farm)?;
    read.context("failed to read the value from standard input")
        .map_err(CommandError::usage)
}

/// A terminal that shows no keys and passes each on at once, until this is dropped.
struct Unseen {
    before: Termios,
}

impl Unseen {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut unseen = before.clone();
        // No signals either: whoever is ended by one leaves the terminal as it is here.
        unseen.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(stdin(), OptionalActions::Now, &unseen)?;
        Ok(Self { before })
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing. What was typed and not read goes: it may be of a secret.
        let _restored = tcsetattr(stdin(), OptionalActions::Flush, &self.before);
    }
}
