//! Builds and results to simulate with.

use std::{collections::BTreeMap, sync::LazyLock};

use buildspec::PlanRequest;
use protocol::{
    access::Trust,
    blob::{Blob, TreeRef},
    build::{BuildId, Outcome, Phase, PhaseContext, Rerun},
    digest::Digest,
    graph::JobGraph,
    job::{AttemptResult, JobId},
    time::WallTime,
};
use scheduler::{Submission, Terms};

/// Buildspecs, by name: each kind of edge, and each kind of unit.
const SHAPES: &[(&str, &str, bool)] = &[
    (
        "plain",
        "version: 0.2\nphases:\n  install:\n    commands: [a]\n  build:\n    commands: [b]\n  post_build:\n    commands: [c]\n",
        false,
    ),
    (
        "continue",
        "version: 0.2\nphases:\n  install:\n    on-failure: CONTINUE\n    commands: [a]\n  build:\n    on-failure: ABORT\n    commands: [b]\n",
        false,
    ),
    (
        "list",
        "version: 0.2\nphases:\n  build:\n    commands: [b]\nbatch:\n  build-list:\n    - identifier: a\n    - identifier: b\n      ignore-failure: true\n",
        true,
    ),
    (
        "graph",
        "version: 0.2\nphases:\n  build:\n    commands: [b]\nbatch:\n  build-graph:\n    - identifier: a\n    - identifier: b\n      ignore-failure: true\n    - identifier: c\n      depend-on: [a, b]\n",
        true,
    ),
    (
        "fast-fail",
        "version: 0.2\nphases:\n  build:\n    commands: [b]\nbatch:\n  fast-fail: true\n  build-graph:\n    - identifier: a\n    - identifier: b\n      depend-on: [a]\n    - identifier: c\n",
        true,
    ),
];

static GRAPHS: LazyLock<Vec<JobGraph>> = LazyLock::new(|| {
    let planned = SHAPES.iter().map(|(_, text, batch)| {
        let spec = buildspec::parse(text).spec.unwrap();
        let request = PlanRequest {
            batch: *batch,
            ..PlanRequest::default()
        };
        buildspec::plan(&spec, &request).unwrap()
    });
    planned.collect()
});

fn place(shape: u64) -> usize {
    usize::try_from(shape % SHAPES.len() as u64).unwrap()
}

/// What builds of a shape are called.
pub(super) fn shape_name(shape: u64) -> &'static str {
    SHAPES[place(shape)].0
}

/// The id of a build that scripts know by its number.
pub(super) const fn build_id(build: u64) -> BuildId {
    BuildId(build as u128)
}

/// A build of project `app` of team `red`.
pub(super) fn submission(build: u64, shape: u64) -> Submission {
    Submission {
        build: build_id(build),
        team: "red".parse().unwrap(),
        namespace: "red".parse().unwrap(),
        project: "app".parse().unwrap(),
        trust: Trust::Team,
        initiator: "ann".to_owned(),
        source: Some(source(build)),
        source_version: None,
        graph: GRAPHS[place(shape)].clone(),
        reruns: match shape / SHAPES.len() as u64 % 3 {
            0 => BTreeMap::from([(Phase::PostBuild, Rerun::Always)]),
            1 => BTreeMap::from([(Phase::Build, Rerun::Never)]),
            _ => BTreeMap::new(),
        },
        priority: i8::try_from(shape % 7).unwrap() - 3,
        terms: Terms::default(),
    }
}

/// The source of a build; one that is retried has the first one's.
fn source(build: u64) -> TreeRef {
    TreeRef {
        tree: blob(&format!("source of {build}")),
        attributes: blob("attributes"),
        layout: blob("layout"),
    }
}

/// What an attempt leaves for the next phase.
pub(super) fn snapshot(job: JobId, attempt: u32) -> Blob {
    blob(&format!("{job} {attempt}"))
}

fn blob(text: &str) -> Blob {
    let digest = Digest::of(text.as_bytes());
    Blob {
        digest,
        chunks: vec![digest],
    }
}

/// What an attempt gives.
pub(super) fn result(
    outcome: Outcome,
    snapshot: Option<Blob>,
    log_bytes: u64,
) -> Box<AttemptResult> {
    Box::new(AttemptResult {
        outcome,
        context: PhaseContext::default(),
        snapshot,
        artifact: None,
        secondary_artifacts: Default::default(),
        exported: None,
        reports: Vec::new(),
        cache_uses: Vec::new(),
        log_bytes,
        started: WallTime(1),
        ended: WallTime(2),
        state_lost: false,
        fetched: None,
    })
}

/// The byte at `offset` of an attempt's log: another one in each log, so that bytes of two logs, or bytes
/// at another place, show.
pub(super) fn log_byte(job: JobId, attempt: u32, offset: usize) -> u8 {
    let mark = u64::from(job.index) * 31 + u64::from(attempt) * 7 + offset as u64 * 13;
    u8::try_from((mark + u64::try_from(job.build.0 % 251).unwrap()) % 251).unwrap()
}
