//! Words for people and JSON for programs. What was asked for goes to standard output, talk about it to
//! standard error; colour only where that is a terminal.

pub(crate) mod bar;
mod table;
mod text;
pub(crate) mod transcript;

use std::path::Path;

use anstream::{eprintln, println};
use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use cache::progress::Transfer;
use protocol::{
    access::Role,
    build::{Outcome, Status},
    job::Artifact,
    message::{
        cache::Stats,
        client::{BuildDetail, BuildSummary, Submitted, UnitDetail, WorkerSummary},
    },
    name::ProjectName,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    command::Context,
    error::CommandError,
    render::{
        table::Table,
        text::{at, bytes, span},
    },
};

/// A failed command.
pub(crate) fn error(error: &CommandError) {
    let style = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
    let text = error.to_string();
    let rest = text.strip_prefix("error").unwrap_or(&text);
    eprintln!("{style}error{style:#}{rest}");
}

/// A word about what goes on.
pub(crate) fn note(text: &str) {
    let style = Style::new().dimmed();
    eprintln!("{style}{text}{style:#}");
}

/// Several lines about what goes on, as they are.
pub(crate) fn block(text: &str) {
    eprintln!("{}", text.trim_end_matches('\n'));
}

/// What was asked for.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// One JSON object on a line.
fn json_line<T: Serialize>(value: &T) -> Result<(), CommandError> {
    let text = serde_json::to_string(value).context("failed to write JSON");
    println!("{}", text.map_err(CommandError::farm)?);
    Ok(())
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
pub(crate) fn farm_is_up(address: &str, worker: &str, client: &str) {
    println!("the farm is up at {address}");
    println!();
    println!("build on it (on this machine, as this user, without the token):");
    println!("  grange build --farm {address} --token {client}");
    println!("add a worker:");
    println!("  grange worker --join {address} --token {worker}");
    println!();
    println!(
        "the tokens are good for a day; `grange token create` makes more. Ctrl-C ends the farm."
    );
}

/// How to join a coordinator that has come up.
pub(crate) fn coordinator_is_up(address: &str, tokens: &[(Role, String)]) {
    println!("the coordinator listens on {address}");
    for (role, token) in tokens {
        let command = match role {
            Role::Cache => "grange cache serve --join",
            Role::Worker => "grange worker --join",
            _ => "grange build --farm",
        };
        println!("  {command} {address} --token {token}");
    }
    println!("the tokens are good for a day; `grange token create` makes more");
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
pub(crate) fn submitted_detached(submitted: &Submitted, project: &ProjectName, json: bool) {
    if json {
        let id = submitted.build.to_string();
        println!(
            "{}",
            json!({"build": id, "project": project, "number": submitted.number})
        );
    } else {
        println!("{}", submitted.build);
    }
}

/// `grange builds`.
pub(crate) fn builds(builds: &[BuildSummary], json: bool) -> Result<(), CommandError> {
    if json {
        return builds.iter().try_for_each(json_line);
    }
    let mut table = Table::new(["BUILD", "PROJECT", "STATUS", "SUBMITTED", "TOOK", "BY"]);
    for build in builds {
        let took = build
            .started
            .zip(build.ended)
            .map(|(from, to)| span(to.since(from)));
        table.row([
            build.build.to_string(),
            format!("{}#{}", build.project, build.number),
            table::styled(build.status.as_str(), status_style(build.status)),
            at(build.submitted),
            took.unwrap_or_default(),
            build.initiator.clone(),
        ]);
    }
    table.print();
    Ok(())
}

/// `grange status`.
pub(crate) fn status(detail: &BuildDetail, json: bool) -> Result<(), CommandError> {
    if json {
        return json_line(detail);
    }
    let summary = &detail.summary;
    let style = status_style(summary.status);
    println!(
        "{} ({}#{}) {style}{}{style:#}, submitted {} by {}",
        summary.build,
        summary.project,
        summary.number,
        summary.status.as_str(),
        at(summary.submitted),
        summary.initiator,
    );
    for unit in &detail.units {
        status_of_unit(unit);
    }
    Ok(())
}

fn status_of_unit(unit: &UnitDetail) {
    println!();
    if let Some(identifier) = &unit.identifier {
        let style = status_style(unit.status);
        println!("{identifier} {style}{}{style:#}", unit.status.as_str());
    }
    let mut table = Table::new(["PHASE", "STATUS", "TOOK", "WORKER", "TRIES", ""]);
    for phase in &unit.phases {
        let took = phase
            .started
            .zip(phase.ended)
            .map(|(from, to)| span(to.since(from)));
        let context = phase
            .context
            .as_ref()
            .map(|context| context.message.clone());
        table.row([
            phase.phase.to_string(),
            table::styled(phase.status.as_str(), status_style(phase.status)),
            took.unwrap_or_default(),
            phase
                .worker
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            phase.attempts.to_string(),
            phase.waits.clone().or(context).unwrap_or_default(),
        ]);
    }
    table.print();
    let uses = unit.phases.iter().flat_map(|phase| &phase.cache_uses);
    for used in uses {
        println!(
            "cache {:?} `{}`: {}, {} moved, {} ms",
            used.what,
            used.key,
            bytes(used.bytes),
            bytes(used.bytes_moved),
            used.millis,
        );
    }
    if let Some(artifact) = &unit.artifact {
        println!(
            "artifact `{}`: {} files, {}",
            artifact.name,
            artifact.files,
            bytes(artifact.bytes)
        );
    }
}

/// `grange artifacts`.
pub(crate) fn artifacts(
    artifacts: &[(Option<String>, Artifact)],
    json: bool,
) -> Result<(), CommandError> {
    if json {
        return artifacts.iter().try_for_each(|(unit, artifact)| {
            let tree = artifact.tree.tree.digest.to_string();
            json_line(&json!({
                "unit": unit, "name": artifact.name, "tree": tree,
                "files": artifact.files, "bytes": artifact.bytes,
            }))
        });
    }
    let mut table = Table::new(["NAME", "UNIT", "FILES", "SIZE"]);
    for (unit, artifact) in artifacts {
        table.row([
            artifact.name.clone(),
            unit.clone().unwrap_or_default(),
            artifact.files.to_string(),
            bytes(artifact.bytes),
        ]);
    }
    table.print();
    Ok(())
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

/// `grange workers`.
pub(crate) fn workers(workers: &[WorkerSummary], json: bool) -> Result<(), CommandError> {
    if json {
        return workers.iter().try_for_each(json_line);
    }
    let mut table = Table::new(["WORKER", "SLOTS", "RUNS", "ISOLATION", "BASE", "LABELS", ""]);
    for worker in workers {
        let labels = worker
            .offer
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        table.row([
            worker.offer.name.to_string(),
            worker.offer.capacity.to_string(),
            worker.runs.len().to_string(),
            worker.offer.isolation.to_string(),
            worker.offer.base.short(),
            labels.collect::<Vec<_>>().join(","),
            if worker.draining {
                "draining".to_owned()
            } else {
                String::new()
            },
        ]);
    }
    table.print();
    Ok(())
}

/// `grange cache stats`.
pub(crate) fn cache_stats(stats: &Stats, json: bool) -> Result<(), CommandError> {
    if json {
        return json_line(stats);
    }
    println!(
        "{} chunks, {} in {} on disk, {} free",
        stats.chunks,
        bytes(stats.bytes),
        bytes(stats.bytes_stored),
        bytes(stats.bytes_free),
    );
    let mut table = Table::new([
        "TEAM", "PROJECT", "KEY", "HITS", "MISSES", "SAVED", "RESTORED",
    ]);
    for used in &stats.uses {
        table.row([
            used.team.to_string(),
            used.project.to_string(),
            used.key.clone(),
            used.restored.to_string(),
            used.missed.to_string(),
            used.saved.to_string(),
            bytes(used.bytes_restored),
        ]);
    }
    table.print();
    Ok(())
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
    println!("# from {from}");
    let text = toml::to_string(&context.settings).context("failed to write the settings");
    print_block(&text.map_err(CommandError::farm)?);
    Ok(())
}

fn print_block(text: &str) {
    println!("{}", text.trim_end());
}
