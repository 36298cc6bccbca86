//! Answers to questions: tables for people, one JSON object per line for programs.

use std::time::Duration;

use anyhow::Context as _;
use protocol::{
    job::{Artifact, CacheUseKind},
    message::client::{BuildDetail, BuildSummary, UnitDetail, WorkerSummary},
    timeline::{BatchPhase, Entry, batch_timeline, timeline},
};
use serde_json::json;

use super::{
    json_line, out, status_style,
    table::{self, Table},
    text::{at, bytes, span},
};
use crate::{
    command::{Content, Published},
    error::CommandError,
};

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
    out::print(&table.text())
}

/// `grange status`.
pub(crate) fn status(detail: &BuildDetail, json: bool) -> Result<(), CommandError> {
    let summary = &detail.summary;
    if json {
        return status_json(detail);
    }
    let style = status_style(summary.status);
    let mut text = format!(
        "{} ({}#{}) {style}{}{style:#}, submitted {} by {}\n",
        summary.build,
        summary.project,
        summary.number,
        summary.status.as_str(),
        at(summary.submitted),
        summary.initiator,
    );
    text += &batch_phases(&batch_timeline(detail));
    for unit in &detail.units {
        text += &status_of_unit(summary, unit);
    }
    out::print(&text)
}

/// A build for programs: all that is known of it, and for each unit `CodeBuild`'s phases and the current one.
fn status_json(detail: &BuildDetail) -> Result<(), CommandError> {
    let whole = serde_json::to_value(detail).context("failed to write JSON");
    let mut whole = whole.map_err(CommandError::farm)?;
    whole["build_status"] = json!(detail.summary.status.of_build());
    for (at, unit) in detail.units.iter().enumerate() {
        let entries = timeline(&detail.summary, unit);
        let current = entries.last().map(|entry| entry.phase);
        whole["units"][at]["current_phase"] = json!(current);
        whole["units"][at]["timeline"] = json!(entries);
    }
    if detail.batch.is_some() {
        let entries = batch_timeline(detail);
        whole["batch"]["current_phase"] = json!(entries.last().map(|entry| entry.phase));
        whole["batch"]["timeline"] = json!(entries);
    }
    json_line(&whole)
}

/// The phases of a batch, as a table; empty: it is none.
fn batch_phases(entries: &[Entry<BatchPhase>]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["BATCH PHASE", "STATUS", "TOOK", ""]);
    for entry in entries {
        let row = row_of(entry, entry.phase.as_str());
        let [phase, status, took, _, _, context] = row;
        table.row([phase, status, took, context]);
    }
    table.text()
}

fn status_of_unit(build: &BuildSummary, unit: &UnitDetail) -> String {
    let mut text = "\n".to_owned();
    if let Some(identifier) = &unit.identifier {
        let style = status_style(unit.status);
        text += &format!("{identifier} {style}{}{style:#}\n", unit.status.as_str());
    }
    text += &phases(build, unit);
    let uses = unit.phases.iter().flat_map(|phase| &phase.cache_uses);
    for used in uses {
        text += &format!(
            "cache `{}` {}: {}, {} moved, {}\n",
            used.key,
            cache_use(used.what),
            bytes(used.bytes),
            bytes(used.bytes_moved),
            span(Duration::from_millis(used.millis)),
        );
    }
    if let Some(artifact) = &unit.artifact {
        text += &format!(
            "artifact `{}`: {} files, {}\n",
            artifact.name,
            artifact.files,
            bytes(artifact.bytes)
        );
    }
    for (identifier, artifact) in &unit.secondary_artifacts {
        text += &format!(
            "artifact `{}` ({identifier}): {} files, {}\n",
            artifact.name,
            artifact.files,
            bytes(artifact.bytes)
        );
    }
    for (name, value) in &unit.exported_variables {
        text += &format!("exports {name}={}\n", value.escape_debug());
    }
    for report in &unit.reports {
        text += &format!("report `{}`: {}\n", report.group, report.summary);
    }
    text
}

/// The phases of a unit, as a table.
fn phases(build: &BuildSummary, unit: &UnitDetail) -> String {
    let mut table = Table::new(["PHASE", "STATUS", "TOOK", "WORKER", "TRIES", ""]);
    let entries = timeline(build, unit);
    let around = |entry: &&Entry| unit.phases.iter().all(|phase| phase.phase != entry.phase);
    let first_job = unit.phases.first().map(|phase| phase.phase);
    let (before, after): (Vec<_>, Vec<_>) = entries
        .iter()
        .filter(around)
        .partition(|entry| Some(entry.phase) < first_job);
    before
        .into_iter()
        .for_each(|entry| table.row(row_of(entry, entry.phase.as_str())));
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
            phase.attempts.saturating_sub(phase.fetches).to_string(),
            phase.waits.clone().or(context).unwrap_or_default(),
        ]);
    }
    after
        .into_iter()
        .for_each(|entry| table.row(row_of(entry, entry.phase.as_str())));
    table.text()
}

/// A phase that is no job.
fn row_of<P>(entry: &Entry<P>, phase: &str) -> [String; 6] {
    let status = entry
        .status
        .map(|status| table::styled(status.as_str(), status_style(status)));
    let took = entry.ended.map(|end| span(end.since(entry.started)));
    let context = entry.contexts.iter().map(|context| context.message.clone());
    [
        phase.to_owned(),
        status.unwrap_or_default(),
        took.unwrap_or_default(),
        String::new(),
        String::new(),
        context.collect(),
    ]
}

/// What a dependency cache did, in a word.
pub(super) const fn cache_use(what: CacheUseKind) -> &'static str {
    match what {
        CacheUseKind::Restored => "restored",
        CacheUseKind::RestoredByFallback => "restored by fallback",
        CacheUseKind::Missed => "not there",
        CacheUseKind::Saved => "saved",
        CacheUseKind::Kept => "kept as it was",
    }
}

/// `grange artifacts`.
pub(crate) fn artifacts(artifacts: &[Published], json: bool) -> Result<(), CommandError> {
    if json {
        return artifacts.iter().try_for_each(|of| {
            let tree = |artifact: &Artifact| artifact.tree.tree.digest.to_string();
            let mut shown = json!({
                "unit": of.unit, "identifier": of.identifier, "name": of.name,
                "files": of.files(), "bytes": of.bytes(),
            });
            match &of.content {
                Content::One(artifact) => shown["tree"] = json!(tree(artifact)),
                Content::Combined(parts) => {
                    let trees = parts
                        .iter()
                        .map(|(unit, of)| (unit.clone(), json!(tree(of))));
                    shown["trees"] = trees.collect();
                }
            }
            json_line(&shown)
        });
    }
    let mut table = Table::new(["NAME", "UNIT", "SECONDARY", "FILES", "SIZE"]);
    for of in artifacts {
        table.row([
            of.name.clone(),
            of.unit.clone().unwrap_or_default(),
            of.identifier.clone().unwrap_or_default(),
            of.files().to_string(),
            bytes(of.bytes()),
        ]);
    }
    out::print(&table.text())
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
    out::print(&table.text())
}
