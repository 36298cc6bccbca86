//! Answers to questions: tables for people, one JSON object per line for programs.

use std::time::Duration;

use protocol::{
    job::{Artifact, CacheUseKind},
    message::client::{BuildDetail, BuildSummary, UnitDetail, WorkerSummary},
};
use serde_json::json;

use super::{
    json_line, out, status_style,
    table::{self, Table},
    text::{at, bytes, span},
};
use crate::error::CommandError;

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
    if json {
        return json_line(detail);
    }
    let summary = &detail.summary;
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
    for unit in &detail.units {
        text += &status_of_unit(unit);
    }
    out::print(&text)
}

fn status_of_unit(unit: &UnitDetail) -> String {
    let mut text = "\n".to_owned();
    if let Some(identifier) = &unit.identifier {
        let style = status_style(unit.status);
        text += &format!("{identifier} {style}{}{style:#}\n", unit.status.as_str());
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
            phase.attempts.saturating_sub(phase.fetches).to_string(),
            phase.waits.clone().or(context).unwrap_or_default(),
        ]);
    }
    text += &table.text();
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
    for report in &unit.reports {
        text += &format!("report `{}`: {}\n", report.group, report.summary);
    }
    text
}

/// What a dependency cache did, in a word.
const fn cache_use(what: CacheUseKind) -> &'static str {
    match what {
        CacheUseKind::Restored => "restored",
        CacheUseKind::RestoredByFallback => "restored by fallback",
        CacheUseKind::Missed => "not there",
        CacheUseKind::Saved => "saved",
        CacheUseKind::Kept => "kept as it was",
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
