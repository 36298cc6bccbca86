//! The jobs that a buildspec becomes, as a table, as charts and as JSON.

use std::fmt::Write as _;

use protocol::{
    build::Outcome,
    graph::{Edge, JobGraph, JobNode, OutcomeSet},
    job::Task,
};
use serde_json::{Value, json};

use super::{json_line, out, table::Table};
use crate::{args::buildspec::PlanFormat, error::CommandError};

/// The jobs of a graph; `same` names for each the first that does the same.
///
/// # Errors
///
/// If standard output does not take it.
pub(crate) fn plan(graph: &JobGraph, same: &[u32], format: PlanFormat) -> Result<(), CommandError> {
    match format {
        PlanFormat::Text => out::print(&text(graph, same)),
        PlanFormat::Mermaid => out::print(&mermaid(graph, same)),
        PlanFormat::Dot => out::print(&dot(graph, same)),
        PlanFormat::Json => json_line(&object(graph, same)),
    }
}

/// The jobs with their indices and the first job that does the same, if that is another.
fn jobs<'a>(
    graph: &'a JobGraph,
    same: &'a [u32],
) -> impl Iterator<Item = (u32, &'a JobNode, Option<u32>)> {
    let jobs = (0..).zip(&graph.jobs).zip(same);
    jobs.map(|((index, job), &first)| (index, job, (first != index).then_some(first)))
}

/// What a unit is called.
fn unit_name(graph: &JobGraph, unit: u32) -> &str {
    let identifier = graph.units[unit as usize].identifier.as_deref();
    identifier.unwrap_or("build")
}

/// In a few words, what a job does; empty for nothing.
fn does(task: &Task) -> String {
    let counted = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{count} {what}s")),
    };
    match task {
        Task::DownloadSource { cache, .. } => {
            let cache = cache.as_ref().map_or("", |_| ", cache");
            format!("source{cache}")
        }
        Task::Commands(phase) => {
            let parts = [
                counted(phase.commands.len(), "command"),
                counted(phase.finally.len(), "command").map(|count| format!("finally {count}")),
                phase.save_cache.as_ref().map(|_| "cache".to_owned()),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            parts.join(", ")
        }
        Task::UploadArtifacts { artifacts, .. } => artifacts
            .as_ref()
            .map_or(String::new(), |_| "artifacts".to_owned()),
        Task::FetchSources(_) => "source".to_owned(),
    }
}

/// Which outcomes an edge accepts, in a word.
fn accepts(set: OutcomeSet) -> &'static str {
    match set {
        OutcomeSet::SUCCEEDED => "succeeded",
        OutcomeSet::RAN => "ran",
        _ => "ended",
    }
}

/// What a job needs: `3 succeeded`, and `0-5 ended` for jobs that follow each other.
fn needs(edges: &[Edge]) -> String {
    let mut runs: Vec<(u32, u32, OutcomeSet)> = Vec::new();
    for edge in edges {
        match runs.last_mut() {
            Some((_, last, set)) if *last + 1 == edge.job && *set == edge.accepts => {
                *last = edge.job;
            }
            _ => runs.push((edge.job, edge.job, edge.accepts)),
        }
    }
    let runs: Vec<String> = runs
        .into_iter()
        .map(|(first, last, set)| match first == last {
            true => format!("{first} {}", accepts(set)),
            false => format!("{first}-{last} {}", accepts(set)),
        })
        .collect();
    runs.join(", ")
}

fn text(graph: &JobGraph, same: &[u32]) -> String {
    let mut table = Table::new(["JOB", "UNIT", "PHASE", "DOES", "NEEDS", "SAME AS"]);
    for (index, job, first) in jobs(graph, same) {
        table.row([
            index.to_string(),
            unit_name(graph, job.unit).to_owned(),
            job.phase.to_string(),
            does(&job.task),
            needs(&job.needs),
            first.map_or(String::new(), |first| first.to_string()),
        ]);
    }
    table.text()
}

/// The units that the first job of a unit needs, with the outcomes that it accepts.
fn units_needed(graph: &JobGraph, job: &JobNode) -> Vec<(u32, OutcomeSet)> {
    let units = job.needs.iter().map(|edge| {
        let unit = graph.jobs[edge.job as usize].unit;
        (unit, edge.accepts)
    });
    let mut units: Vec<_> = units.filter(|&(unit, _)| unit != job.unit).collect();
    units.dedup_by_key(|&mut (unit, _)| unit);
    units
}

/// What is drawn between boxes: edges within units, edges between units, and jobs that do the same.
struct Drawn {
    within: Vec<(u32, u32, OutcomeSet)>,
    between: Vec<(u32, u32, OutcomeSet)>,
    same: Vec<(u32, u32)>,
}

fn drawn(graph: &JobGraph, same: &[u32]) -> Drawn {
    let mut drawn = Drawn {
        within: Vec::new(),
        between: Vec::new(),
        same: Vec::new(),
    };
    for (index, job, first) in jobs(graph, same) {
        let own = job
            .needs
            .iter()
            .filter(|edge| graph.jobs[edge.job as usize].unit == job.unit);
        drawn
            .within
            .extend(own.map(|edge| (edge.job, index, edge.accepts)));
        let others = units_needed(graph, job).into_iter();
        drawn
            .between
            .extend(others.map(|(unit, set)| (unit, job.unit, set)));
        drawn.same.extend(first.map(|first| (first, index)));
    }
    drawn
}

/// The label of a job in a chart: its phase, and below it what it does.
fn label(job: &JobNode, line_break: &str) -> String {
    match does(&job.task) {
        does if does.is_empty() => job.phase.to_string(),
        does => format!("{}{line_break}{does}", job.phase),
    }
}

fn mermaid(graph: &JobGraph, same: &[u32]) -> String {
    let mut chart = "flowchart LR\n".to_owned();
    for unit in 0..graph.units.len() {
        let unit = u32::try_from(unit).expect("the number of units is limited");
        let _infallible = writeln!(chart, "  subgraph u{unit} [\"{}\"]", unit_name(graph, unit));
        for (index, job) in graph.jobs_of(unit) {
            let _infallible = writeln!(chart, "    j{index}[\"{}\"]", label(job, "<br>"));
        }
        chart.push_str("  end\n");
    }
    let drawn = drawn(graph, same);
    for (from, to, set) in drawn.within {
        let _infallible = writeln!(chart, "  j{from} -->|{}| j{to}", accepts(set));
    }
    for (from, to, set) in drawn.between {
        let _infallible = writeln!(chart, "  u{from} ==>|{}| u{to}", accepts(set));
    }
    for (first, index) in drawn.same {
        let _infallible = writeln!(chart, "  j{first} -.-|same| j{index}");
    }
    chart
}

fn dot(graph: &JobGraph, same: &[u32]) -> String {
    let mut chart =
        "digraph build {\n  compound=true;\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    let mut ends = Vec::with_capacity(graph.units.len());
    for unit in 0..graph.units.len() {
        let unit = u32::try_from(unit).expect("the number of units is limited");
        let name = unit_name(graph, unit);
        let _infallible = writeln!(chart, "  subgraph cluster_{unit} {{\n    label=\"{name}\";");
        let mut end = (0, 0);
        for (at, (index, job)) in graph.jobs_of(unit).enumerate() {
            end = (if at == 0 { index } else { end.0 }, index);
            let _infallible = writeln!(chart, "    j{index} [label=\"{}\"];", label(job, "\\n"));
        }
        ends.push(end);
        chart.push_str("  }\n");
    }
    let drawn = drawn(graph, same);
    for (from, to, set) in drawn.within {
        let _infallible = writeln!(chart, "  j{from} -> j{to} [label=\"{}\"];", accepts(set));
    }
    for (from, to, set) in drawn.between {
        let (last, first) = (ends[from as usize].1, ends[to as usize].0);
        let _infallible = writeln!(
            chart,
            "  j{last} -> j{first} [label=\"{}\", ltail=cluster_{from}, lhead=cluster_{to}];",
            accepts(set)
        );
    }
    for (first, index) in drawn.same {
        let _infallible = writeln!(
            chart,
            "  j{first} -> j{index} [label=\"same\", style=dashed, dir=none, constraint=false];"
        );
    }
    chart + "}\n"
}

fn object(graph: &JobGraph, same: &[u32]) -> Value {
    let outcomes = |set: OutcomeSet| {
        let accepted = Outcome::ALL
            .into_iter()
            .filter(|&outcome| set.contains(outcome));
        accepted.map(Outcome::as_str).collect::<Vec<_>>()
    };
    let jobs = jobs(graph, same).map(|(index, job, first)| {
        let needs = job.needs.iter();
        let needs = needs.map(|edge| json!({"job": edge.job, "accepts": outcomes(edge.accepts)}));
        let (commands, finally) = match &job.task {
            Task::Commands(phase) => (phase.commands.as_slice(), phase.finally.as_slice()),
            _ => (&[][..], &[][..]),
        };
        json!({
            "job": index,
            "unit": job.unit,
            "phase": job.phase,
            "does": does(&job.task),
            "commands": commands,
            "finally": finally,
            "needs": needs.collect::<Vec<_>>(),
            "input": job.input,
            "same_as": first,
        })
    });
    json!({
        "units": graph.units,
        "jobs": jobs.collect::<Vec<_>>(),
        "fast_fail": graph.fast_fail,
    })
}

#[cfg(test)]
mod tests {
    use buildspec::{PlanRequest, same_work};

    use super::*;

    fn graph(batch: &str) -> JobGraph {
        let text = format!(
            "version: 0.2\nphases: {{install: {{commands: [i]}}, build: {{commands: [b, c], finally: [f]}}}}\n\
             artifacts: {{files: out}}\nbatch: {batch}\n"
        );
        let spec = buildspec::parse(&text).spec.unwrap();
        let request = PlanRequest {
            batch: true,
            ..PlanRequest::default()
        };
        buildspec::plan(&spec, &request).unwrap()
    }

    #[test]
    fn the_table_says_what_each_job_does_needs_and_shares() {
        let graph = graph(
            "{build-graph: [{identifier: a}, {identifier: b, depend-on: [a], ignore-failure: yes}]}",
        );
        let shown = text(&graph, &same_work(&graph));
        assert_eq!(
            shown,
            "\
JOB  UNIT  PHASE             DOES                           NEEDS          SAME AS
0    a     DOWNLOAD_SOURCE   source
1    a     INSTALL           1 command                      0 succeeded
2    a     PRE_BUILD                                        1 succeeded
3    a     BUILD             2 commands, finally 1 command  2 succeeded
4    a     POST_BUILD                                       3 ran
5    a     UPLOAD_ARTIFACTS  artifacts                      4 ran
6    b     DOWNLOAD_SOURCE   source                         0-5 succeeded  0
7    b     INSTALL           1 command                      6 succeeded    1
8    b     PRE_BUILD                                        7 succeeded    2
9    b     BUILD             2 commands, finally 1 command  8 succeeded
10   b     POST_BUILD                                       9 ran
11   b     UPLOAD_ARTIFACTS  artifacts                      10 ran
"
        );
    }

    #[test]
    fn charts_have_a_box_for_each_job_and_an_edge_for_each_need() {
        let graph = graph("{build-graph: [{identifier: a}, {identifier: b, depend-on: [a]}]}");
        let same = same_work(&graph);
        let chart = mermaid(&graph, &same);
        for line in [
            "flowchart LR",
            "  subgraph u1 [\"b\"]",
            "    j9[\"BUILD<br>2 commands, finally 1 command\"]",
            "  j3 -->|ran| j4",
            "  u0 ==>|succeeded| u1",
            "  j1 -.-|same| j7",
        ] {
            assert!(
                chart.lines().any(|found| found == line),
                "{line} is not in\n{chart}"
            );
        }
        let chart = dot(&graph, &same);
        for line in [
            "  j3 -> j4 [label=\"ran\"];",
            "  j5 -> j6 [label=\"succeeded\", ltail=cluster_0, lhead=cluster_1];",
            "  j1 -> j7 [label=\"same\", style=dashed, dir=none, constraint=false];",
        ] {
            assert!(
                chart.lines().any(|found| found == line),
                "{line} is not in\n{chart}"
            );
        }
        let boxes = chart.lines().filter(|line| line.contains("    j")).count();
        assert_eq!(
            (boxes, chart.matches('{').count()),
            (12, chart.matches('}').count())
        );
    }

    #[test]
    fn the_object_has_the_units_and_their_jobs() {
        let graph = graph("{build-fanout: {parallelism: 2}}");
        let object = object(&graph, &same_work(&graph));
        assert_eq!(object["units"][1]["shard"], json!({"index": 1, "count": 2}));
        assert_eq!(object["jobs"][9]["commands"], json!(["b", "c"]));
        assert_eq!(object["jobs"][8]["same_as"], json!(2));
        assert_eq!(
            object["jobs"][4]["needs"],
            json!([{"job": 3, "accepts": ["SUCCEEDED", "FAILED"]}])
        );
    }
}
