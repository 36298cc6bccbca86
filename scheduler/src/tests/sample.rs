//! Builds, workers and results to test with.

use std::collections::BTreeMap;

use protocol::{
    access::Trust,
    blob::{Blob, TreeRef},
    build::{BuildId, Outcome, Phase, PhaseContext, Rerun},
    digest::Digest,
    git::GitSource,
    graph::{Edge, JobGraph, JobNode, OutcomeSet, UnitNode},
    job::{AttemptResult, FetchedSource, FetchedSources, PhaseCommands, Preface, Shell, Task},
    worker::{Isolation, WorkerOffer},
};

use crate::{Origin, Submission, Terms, tests::script::EPOCH};

/// `b7` is build 7.
pub(crate) fn build_id(text: &str) -> BuildId {
    BuildId(
        text.trim_start_matches('b')
            .parse()
            .expect("builds are called b1, b2, …"),
    )
}

/// A worker of one slot that runs phases in namespaces.
pub(crate) fn offer(name: &str) -> WorkerOffer {
    WorkerOffer {
        name: name.parse().unwrap(),
        capacity: 1,
        labels: BTreeMap::new(),
        architecture: "x86_64".to_owned(),
        isolation: Isolation::Namespace,
        base: Digest::of(b"base"),
        runtimes: Default::default(),
    }
}

pub(crate) fn result(word: &str) -> AttemptResult {
    let outcome = match word {
        "ok" | "bare" => Outcome::Succeeded,
        "fail" => Outcome::Failed,
        "fault" | "state-lost" => Outcome::Fault,
        "stopped" => Outcome::Stopped,
        "timed-out" => Outcome::TimedOut,
        _ => panic!("no such event: {word}"),
    };
    AttemptResult {
        outcome,
        context: PhaseContext::default(),
        snapshot: (word != "bare").then(|| blob(word)),
        artifact: None,
        secondary_artifacts: Default::default(),
        exported: None,
        reports: Vec::new(),
        cache_uses: Vec::new(),
        log_bytes: 10,
        started: EPOCH,
        ended: EPOCH,
        state_lost: word == "state-lost",
        fetched: None,
    }
}

/// What an attempt gives that has fetched the source.
pub(crate) fn fetched() -> AttemptResult {
    let primary = FetchedSource {
        tree: source(),
        commit: "c0ffee".to_owned(),
    };
    AttemptResult {
        fetched: Some(Box::new(FetchedSources {
            primary: Some(primary),
            secondary: BTreeMap::new(),
        })),
        ..result("bare")
    }
}

pub(crate) fn blob(text: &str) -> Blob {
    let digest = Digest::of(text.as_bytes());
    Blob {
        digest,
        chunks: vec![digest],
    }
}

/// A build of project `app` of team `red`, or of the one that the word `team=TEAM` names.
pub(crate) fn submission(build: &str, words: &[&str]) -> Submission {
    let mut submission = uploaded(build, words);
    if words.contains(&"from=git") {
        submission.source = None;
        submission.graph.jobs[0].task = Task::FetchSources(Box::default());
        let git = GitSource::head_of("https://example.org/a".to_owned());
        submission.terms.origin = Some(Origin::of(git));
        submission.terms.recipe = Some(Box::default());
    }
    let mut selected = words
        .iter()
        .filter_map(|word| word.strip_prefix("selects="));
    if let Some((runtime, version)) = selected.next().and_then(|text| text.split_once(':')) {
        let preface = Preface {
            runtimes: BTreeMap::from([(runtime.to_owned(), version.to_owned())]),
            selects_runtimes: true,
            ..Preface::default()
        };
        select(&mut submission.graph, &preface);
    }
    let mut asked = words.iter().filter_map(|word| word.strip_prefix("asks="));
    if let Some((key, value)) = asked.next().and_then(|text| text.split_once(':')) {
        let preface = Preface {
            environment: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            ..Preface::default()
        };
        select(&mut submission.graph, &preface);
    }
    let said = words
        .iter()
        .filter_map(|word| word.strip_prefix("at-once="));
    submission.terms.concurrent_max = said.map(|text| text.parse().unwrap()).next();
    submission
}

/// Has each unit select among workers before its first phase.
fn select(graph: &mut JobGraph, preface: &Preface) {
    for (unit, _) in (0..).zip(graph.units.clone()) {
        let first = graph.jobs.iter_mut().find(|job| job.unit == unit).unwrap();
        first.task = Task::DownloadSource {
            variables: BTreeMap::new(),
            cache: None,
            unasked: None,
            shell: Shell::default(),
            preface: preface.clone(),
            secrets: Vec::new(),
        };
    }
}

fn uploaded(build: &str, words: &[&str]) -> Submission {
    let mut teams = words.iter().filter_map(|word| word.strip_prefix("team="));
    let team = teams.next().unwrap_or("red");
    Submission {
        build: build_id(build),
        team: team.parse().unwrap(),
        namespace: team.parse().unwrap(),
        project: "app".parse().unwrap(),
        trust: Trust::Team,
        initiator: "ann".to_owned(),
        source: Some(source()),
        source_version: Some("c0ffee".to_owned()),
        graph: graph(words.iter().copied().filter(|word| !word.contains('='))),
        reruns: reruns(words),
        priority: priority(words),
        terms: Terms::default(),
    }
}

pub(crate) fn source() -> TreeRef {
    TreeRef {
        tree: blob("tree"),
        attributes: blob("attributes"),
        layout: blob("layout"),
    }
}

/// The word `rerun=PHASE` lets a phase run again.
fn reruns(words: &[&str]) -> BTreeMap<Phase, Rerun> {
    let said = words.iter().filter_map(|word| word.strip_prefix("rerun="));
    said.map(|text| (phase(text), Rerun::Always)).collect()
}

/// The word `priority=5` says how urgent a build is.
fn priority(words: &[&str]) -> i8 {
    let mut said = words
        .iter()
        .filter_map(|word| word.strip_prefix("priority="));
    said.next().map_or(0, |text| text.parse().unwrap())
}

fn graph<'a>(words: impl Iterator<Item = &'a str>) -> JobGraph {
    let mut graph = JobGraph::default();
    for word in words {
        match word {
            "fast-fail" => graph.fast_fail = true,
            unit => add_unit(&mut graph, unit),
        }
    }
    graph
}

/// Adds `name!:phase,phase>name+name`, as the planner would.
fn add_unit(graph: &mut JobGraph, text: &str) {
    let (text, depends) = text.split_once('>').unwrap_or((text, ""));
    let (identifier, phases) = match text.split_once(':') {
        Some((identifier, phases)) => (Some(identifier), phases),
        None => (None, text),
    };
    let mut needs: Vec<Edge> = Vec::new();
    for name in depends.split('+').filter(|name| !name.is_empty()) {
        let is_meant = |unit: &UnitNode| unit.identifier.as_deref() == Some(name);
        let unit = graph
            .units
            .iter()
            .position(is_meant)
            .expect("units come in order");
        let accepts = match graph.units[unit].ignore_failure {
            true => OutcomeSet::ENDED,
            false => OutcomeSet::SUCCEEDED,
        };
        let jobs = graph.jobs_of(u32::try_from(unit).unwrap());
        needs.extend(jobs.map(|(job, _)| Edge { job, accepts }));
    }
    let unit = u32::try_from(graph.units.len()).unwrap();
    graph.units.push(UnitNode {
        identifier: identifier.map(|name| name.trim_end_matches('!').to_owned()),
        ignore_failure: identifier.is_some_and(|name| name.ends_with('!')),
        shard: None,
        debug: false,
    });
    let mut before: Option<(u32, Phase)> = None;
    for phase in phases.split(',').map(phase) {
        needs.extend(before.map(|(job, of)| Edge {
            job,
            accepts: match of {
                Phase::Build | Phase::PostBuild => OutcomeSet::RAN,
                _ => OutcomeSet::SUCCEEDED,
            },
        }));
        let index = u32::try_from(graph.jobs.len()).unwrap();
        graph.jobs.push(JobNode {
            unit,
            phase,
            task: task(phase),
            needs: std::mem::take(&mut needs),
            input: before.map(|(job, _)| job),
        });
        before = Some((index, phase));
    }
}

fn phase(text: &str) -> Phase {
    match text {
        "download" => Phase::DownloadSource,
        "install" => Phase::Install,
        "pre_build" => Phase::PreBuild,
        "build" => Phase::Build,
        "post_build" => Phase::PostBuild,
        "upload" => Phase::UploadArtifacts,
        _ => panic!("no such phase: {text}"),
    }
}

fn task(phase: Phase) -> Task {
    match phase {
        Phase::DownloadSource => Task::DownloadSource {
            variables: BTreeMap::new(),
            cache: None,
            unasked: None,
            shell: Shell::Sh,
            preface: Preface::default(),
            secrets: Vec::new(),
        },
        Phase::UploadArtifacts => Task::UploadArtifacts {
            artifacts: None,
            shell: Shell::Sh,
            reports: Vec::new(),
            secondary: BTreeMap::new(),
        },
        Phase::PostBuild => Task::Commands(PhaseCommands {
            commands: vec!["publish".to_owned()],
            ..PhaseCommands::default()
        }),
        _ => Task::Commands(PhaseCommands::default()),
    }
}
