//! Builds, workers and results to decide about.

use std::collections::BTreeMap;

use ::scheduler::{Event, SessionId, Submission, Terms};
use protocol::{
    access::Trust,
    blob::{Blob, TreeRef},
    build::{BuildId, Outcome, Phase, PhaseContext},
    digest::Digest,
    graph::{Edge, JobGraph, JobNode, OutcomeSet, UnitNode},
    job::{AttemptResult, PhaseCommands, Task},
    name::WorkerName,
    time::WallTime,
    worker::{Incarnation, Isolation, WorkerOffer},
};

/// The phases of a unit that have commands, or do something without.
const PHASES: [Phase; 6] = [
    Phase::DownloadSource,
    Phase::Install,
    Phase::PreBuild,
    Phase::Build,
    Phase::PostBuild,
    Phase::UploadArtifacts,
];
/// How many phases a unit of a real build has.
pub(super) const ALL_PHASES: u32 = 6;

/// A build of so many units of one phase each.
pub(super) fn submission(build: u128, team: u32, units: u32) -> Submission {
    phased(build, team, (units, 1))
}

/// A build of so many units of so many phases each, at most [`ALL_PHASES`], one after the other.
pub(super) fn phased(build: u128, team: u32, (units, phases): (u32, u32)) -> Submission {
    let team = format!("team-{team}");
    let unit = |unit| UnitNode {
        identifier: Some(format!("unit_{unit}")),
        ignore_failure: false,
        shard: None,
        debug: false,
    };
    let job = |index: u32| JobNode {
        unit: index / phases,
        phase: match phases {
            1 => Phase::Build,
            _ => PHASES[(index % phases) as usize],
        },
        task: Task::Commands(PhaseCommands {
            commands: vec!["make test".to_owned()],
            ..PhaseCommands::default()
        }),
        needs: before(index, phases)
            .map(|job| Edge {
                job,
                accepts: OutcomeSet::SUCCEEDED,
            })
            .collect(),
        input: before(index, phases).next(),
    };
    Submission {
        build: BuildId(build),
        team: team.parse().expect("it is a name"),
        namespace: team.parse().expect("it is a name"),
        project: "app".parse().expect("it is a name"),
        trust: Trust::Team,
        initiator: "ann".to_owned(),
        source: Some(TreeRef {
            tree: blob(b"tree"),
            attributes: blob(b"attributes"),
            layout: blob(b"layout"),
        }),
        source_version: None,
        graph: JobGraph {
            units: (0..units).map(unit).collect(),
            jobs: (0..units * phases).map(job).collect(),
            fast_fail: false,
        },
        reruns: BTreeMap::new(),
        priority: 0,
        terms: Terms::default(),
    }
}

/// The phase before one in its unit.
fn before(index: u32, phases: u32) -> impl Iterator<Item = u32> {
    index
        .checked_sub(1)
        .filter(|_| !index.is_multiple_of(phases))
        .into_iter()
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
        secondary_artifacts: Default::default(),
        exported: None,
        reports: Vec::new(),
        cache_uses: Vec::new(),
        log_bytes: 1_000,
        started: WallTime(1),
        ended: WallTime(2),
        state_lost: false,
        fetched: None,
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
                runtimes: Default::default(),
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
