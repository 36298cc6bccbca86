//! Words for people and JSON for programs. What was asked for goes to standard output, talk about it to
//! standard error; colour only where that is a terminal.

mod answers;
pub(crate) mod bar;
mod bench;
pub(crate) mod cache;
mod explained;
mod members;
mod meter;
pub(crate) mod out;
mod plan;
mod project;
mod remarks;
mod reports;
mod secrets;
mod table;
mod text;
pub(crate) mod transcript;

use std::{net::SocketAddr, path::Path};

use ::cache::progress::Transfer;
use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use protocol::{
    access::Role,
    build::{Outcome, Status},
    job::Artifact,
    message::client::Submitted,
    name::ProjectName,
};
use serde::Serialize;
use serde_json::json;

pub(crate) use self::{
    answers::{artifacts, builds, status, workers},
    bench::{hits, hits_documents},
    explained::explained,
    members::{members, tokens},
    plan::plan,
    project::{badge, project, projects},
    remarks::{checked, checked_json, remarks},
    reports::report,
    secrets::secrets,
};
use crate::{
    command::{Context, PRINTED_TOKEN_LIFETIME},
    error::CommandError,
    render::text::bytes,
};

/// A failed command.
pub(crate) fn error(error: &CommandError) {
    let style = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
    let text = error.to_string();
    let rest = text.strip_prefix("error").unwrap_or(&text);
    out::talk(format_args!("{style}error{style:#}{rest}"));
}

/// A word about what goes on.
pub(crate) fn note(text: &str) {
    let style = Style::new().dimmed();
    out::talk(format_args!("{style}{text}{style:#}"));
}

/// Several lines about what goes on, as they are.
pub(crate) fn block(text: &str) {
    out::talk(text.trim_end_matches('\n'));
}

/// What was asked for.
///
/// # Errors
///
/// If standard output does not take it; so for all below that say what was asked for.
pub(crate) fn line(text: &str) -> Result<(), CommandError> {
    out::print(&format!("{text}\n"))
}

/// One JSON object on a line.
fn json_line<T: Serialize>(value: &T) -> Result<(), CommandError> {
    let text = serde_json::to_string(value).context("failed to write JSON");
    line(&text.map_err(CommandError::farm)?)
}

/// How a status looks.
fn status_style(status: Status) -> Style {
    let color = match status {
        Status::Ended(Outcome::Succeeded) => AnsiColor::Green,
        Status::Ended(Outcome::Failed | Outcome::Fault | Outcome::TimedOut) => AnsiColor::Red,
        Status::Ended(Outcome::Stopped | Outcome::Skipped) | Status::Queued => {
            AnsiColor::BrightBlack
        }
        Status::InProgress => AnsiColor::Cyan,
    };
    Style::new().fg_color(Some(color.into()))
}

/// How to reach and join a farm that has come up.
pub(crate) fn farm_is_up(
    address: SocketAddr,
    worker: &str,
    client: &str,
) -> Result<(), CommandError> {
    out::print(&format!(
        "the farm is up at {address}\n\n\
         build on it (on this machine, as this user, without the token):\n  \
         grange build --farm {address} --token {client}\n\
         add a worker:\n  \
         grange worker --join {address} --token {worker}\n\n\
         {}. Ctrl-C ends the farm.\n",
        token_lifetime(),
    ))
}

/// How to join a coordinator that has come up.
pub(crate) fn coordinator_is_up(
    address: SocketAddr,
    tokens: &[(Role, String)],
) -> Result<(), CommandError> {
    let mut text = format!("the coordinator listens on {address}\n");
    for (role, token) in tokens {
        let command = match role {
            Role::Cache => "grange cache serve --join",
            Role::Worker => "grange worker --join",
            _ => "grange build --farm",
        };
        text += &format!("  {command} {address} --token {token}\n");
    }
    text += &format!("{}\n", token_lifetime());
    out::print(&text)
}

fn token_lifetime() -> String {
    format!(
        "the tokens are good for {}; `grange token create` makes more",
        humantime::format_duration(PRINTED_TOKEN_LIFETIME)
    )
}

/// What an upload moved.
pub(crate) fn uploaded(moved: &Transfer) {
    note(&format!(
        "source: {} files, {}; sent {} in {} chunks, the rest was there",
        moved.files,
        bytes(moved.bytes),
        bytes(moved.bytes_moved),
        moved.chunks_moved,
    ));
}

/// The id of a build that nobody follows.
pub(crate) fn submitted_detached(
    submitted: &Submitted,
    project: &ProjectName,
    json: bool,
) -> Result<(), CommandError> {
    let id = submitted.build.to_string();
    if json {
        json_line(&json!({"build": id, "project": project, "number": submitted.number}))
    } else {
        line(&id)
    }
}

/// An artifact that was fetched.
pub(crate) fn fetched(artifact: &Artifact, target: &Path) {
    note(&format!(
        "artifact `{}`: {} files, {} in `{}`",
        artifact.name,
        artifact.files,
        bytes(artifact.bytes),
        target.display(),
    ));
}

/// `grange config`.
pub(crate) fn settings(context: &Context, json: bool) -> Result<(), CommandError> {
    if json {
        return json_line(&context.settings);
    }
    let from = context.settings_file.as_ref();
    let from = match from {
        Some(path) => path.display().to_string(),
        None => "no file, all defaults".to_owned(),
    };
    let text = toml::to_string(&context.settings).context("failed to write the settings");
    let text = text.map_err(CommandError::farm)?;
    out::print(&format!("# from {from}\n{}\n", text.trim_end()))
}
