//! Builds, workers and results to decide about.

use std::collections::BTreeMap;

use ::scheduler::{Event, SessionId, Submission};
use protocol::{
    access::Trust,
    blob::{Blob, TreeRef},
    build::{BuildId, Outcome, Phase, PhaseContext},
    digest::Digest,
    graph::{JobGraph, JobNode, UnitNode},
    job::{AttemptResult, PhaseCommands, Task},
    name::WorkerName,
    time::WallTime,
    worker::{Incarnation, Isolation, WorkerOffer},
};

/// A build of so many units of one phase each.
pub(super) fn submission(build: u128, team: u32, units: u32) -> Submission {
    let team = format!("team-{team}");
    let unit = |unit| UnitNode {
        identifier: Some(format!("unit_{unit}")),
        ignore_failure: false,
        shard: None,
    };
    let job = |unit| JobNode {
        unit,
        phase: Phase::Build,
        task: Task::Commands(PhaseCommands {
            commands: vec!["make test".to_owned()],
            ..PhaseCommands::default()
        }),
        needs: Vec::new(),
        input: None,
    };
    Submission {
        build: BuildId(build),
        team: team.parse().expect("it is a name"),
        namespace: team.parse().expect("it is a name"),
        project: "app".parse().expect("it is a name"),
        trust: Trust::Team,
        initiator: "ann".to_owned(),
        source: TreeRef {
            tree: blob(b"tree"),
            attributes: blob(b"attributes"),
            layout: blob(b"layout"),
        },
        source_version: None,
        graph: JobGraph {
            units: (0..units).map(unit).collect(),
            jobs: (0..units).map(job).collect(),
            fast_fail: false,
        },
        reruns: BTreeMap::new(),
        priority: 0,
    }
}

fn blob(text: &[u8]) -> Blob {
    let digest = Digest::of(text);
    Blob {
        digest,
        chunks: vec![digest],
    }
}

/// A phase that ended well.
pub(super) fn result() -> AttemptResult {
    AttemptResult {
        outcome: Outcome::Succeeded,
        context: PhaseContext::default(),
        snapshot: Some(blob(b"snapshot")),
        artifact: None,
        reports: Vec::new(),
        cache_uses: Vec::new(),
        log_bytes: 1_000,
        started: WallTime(1),
        ended: WallTime(2),
        state_lost: false,
    }
}

/// So many workers of one slot each.
pub(super) fn joins(workers: u32) -> impl Iterator<Item = Event> {
    (0..workers).map(|number| {
        let name: WorkerName = format!("worker-{number}").parse().expect("it is a name");
        Event::WorkerJoined {
            session: session(&name),
            team: "team-0".parse().expect("it is a name"),
            incarnation: Incarnation(number.into()),
            connection: 1,
            offer: Box::new(WorkerOffer {
                name,
                capacity: 1,
                labels: BTreeMap::new(),
                architecture: "x86_64".to_owned(),
                isolation: Isolation::Namespace,
                base: Digest::of(b"base"),
            }),
            ended: None,
            leaving: false,
            holds: Vec::new(),
        }
    })
}

/// The session of a worker.
pub(super) fn session(worker: &WorkerName) -> SessionId {
    let number = worker.as_str().trim_start_matches("worker-");
    SessionId(number.parse().expect("workers are numbered"))
}
