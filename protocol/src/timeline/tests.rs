//! The phases of a unit as they are told, from what the farm has of them.

use super::*;
use crate::{build::BuildId, message::client::BuildDetail, project::BatchConfig};

fn build(ended: Option<u64>) -> BuildSummary {
    BuildSummary {
        build: BuildId(1),
        project: "p".parse().unwrap(),
        number: 1,
        team: "t".parse().unwrap(),
        initiator: "me".to_owned(),
        status: Status::InProgress,
        submitted: WallTime(1_000),
        started: None,
        ended: ended.map(WallTime),
    }
}

/// A unit whose phases from `DOWNLOAD_SOURCE` on are so: how each stands, when it started and ended.
fn unit(status: Status, phases: &[(Status, Option<u64>, Option<u64>)]) -> UnitDetail {
    let names = [
        Phase::DownloadSource,
        Phase::Install,
        Phase::PreBuild,
        Phase::Build,
        Phase::PostBuild,
        Phase::UploadArtifacts,
    ];
    let phase = |(phase, &(status, started, ended)): (Phase, &(Status, Option<u64>, _))| {
        let failed = status == Status::Ended(Outcome::Failed);
        PhaseDetail {
            job: 0,
            phase,
            status,
            waits: None,
            attempts: 1,
            fetches: 0,
            worker: None,
            started: started.map(WallTime),
            ended: Option::<u64>::map(ended, WallTime),
            context: failed.then(|| PhaseContext {
                status_code: "X".to_owned(),
                message: "it failed".to_owned(),
            }),
            cache_uses: Vec::new(),
        }
    };
    UnitDetail {
        identifier: None,
        status,
        ignore_failure: false,
        phases: names.into_iter().zip(phases).map(phase).collect(),
        artifact: None,
        secondary_artifacts: Default::default(),
        exported_variables: Default::default(),
        reports: Vec::new(),
    }
}

const GOOD: Status = Status::Ended(Outcome::Succeeded);
const FAILED: Status = Status::Ended(Outcome::Failed);
const SKIPPED: Status = Status::Ended(Outcome::Skipped);

fn shown(entries: &[Entry]) -> String {
    let shown = entries.iter().map(|entry| {
        let status = entry.status.map_or("-", Status::as_str);
        format!("{} {status}", entry.phase)
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[test]
fn a_successful_build_has_eleven_phases_in_order() {
    let phases: Vec<_> = (0..6)
        .map(|n| (GOOD, Some(2_000 + n), Some(3_000 + n)))
        .collect();
    let entries = timeline(&build(Some(4_000)), &unit(GOOD, &phases));
    assert_eq!(
        shown(&entries),
        "SUBMITTED SUCCEEDED, QUEUED SUCCEEDED, PROVISIONING SUCCEEDED, DOWNLOAD_SOURCE SUCCEEDED, \
         INSTALL SUCCEEDED, PRE_BUILD SUCCEEDED, BUILD SUCCEEDED, POST_BUILD SUCCEEDED, \
         UPLOAD_ARTIFACTS SUCCEEDED, FINALIZING SUCCEEDED, COMPLETED -"
    );
}

#[test]
fn a_phase_starts_when_the_one_before_ends() {
    let phases = [
        (GOOD, Some(2_500), Some(3_900)),
        (GOOD, Some(4_100), Some(6_000)),
        (Status::InProgress, Some(6_500), None),
    ];
    let entries = timeline(&build(None), &unit(Status::InProgress, &phases));
    for pair in entries.windows(2) {
        assert_eq!(pair[0].ended, Some(pair[1].started), "{pair:?}");
    }
    let last = entries.last().unwrap();
    assert_eq!(
        (last.phase, last.started),
        (Phase::PreBuild, WallTime(6_000))
    );
}

#[test]
fn a_phase_has_one_of_six_statuses() {
    let known = [
        "SUCCEEDED",
        "FAILED",
        "FAULT",
        "TIMED_OUT",
        "IN_PROGRESS",
        "STOPPED",
    ];
    let outcomes = Outcome::ALL.map(Status::Ended).into_iter();
    for status in outcomes.chain([Status::InProgress, Status::Queued]) {
        // What was skipped or waits was never entered.
        let entered = !matches!(status, SKIPPED | Status::Queued);
        let ended = matches!(status, Status::Ended(_)).then_some(3_000);
        let phases = [
            (GOOD, Some(1_500), Some(2_000)),
            (status, entered.then_some(2_500), ended),
        ];
        let mut entries = timeline(&build(None), &unit(Status::InProgress, &phases));
        // Nor are the phases of a unit that ended so and never began.
        let waited = [(status, None, ended)];
        entries.extend(timeline(&build(Some(3_000)), &unit(status, &waited)));
        entries.retain(|entry| entry.phase != Phase::Completed);
        for entry in entries {
            let status = entry.status.map(Status::as_str).unwrap();
            assert!(known.contains(&status), "{status}");
        }
    }
}

#[test]
fn what_was_never_to_run_has_no_phases() {
    let phases = [(SKIPPED, None, Some(3_000)), (SKIPPED, None, Some(3_000))];
    assert_eq!(timeline(&build(Some(4_000)), &unit(SKIPPED, &phases)), []);
}

#[test]
fn what_is_stopped_is_so_in_its_current_phase_and_then_completed() {
    let stopped = Status::Ended(Outcome::Stopped);
    let expected = "SUBMITTED SUCCEEDED, QUEUED SUCCEEDED, PROVISIONING SUCCEEDED, \
                    DOWNLOAD_SOURCE SUCCEEDED, INSTALL STOPPED, COMPLETED -";
    for install in [Some(2_500), None] {
        let phases = [
            (GOOD, Some(1_500), Some(2_000)),
            (stopped, install, Some(3_000)),
            (stopped, None, Some(3_000)),
        ];
        let entries = timeline(&build(Some(3_000)), &unit(stopped, &phases));
        assert_eq!(shown(&entries), expected);
    }
}

#[test]
fn a_duration_is_in_whole_seconds() {
    let phases = [(GOOD, Some(1_000), Some(3_999))];
    let entries = timeline(&build(None), &unit(Status::InProgress, &phases));
    assert_eq!(entries[3].seconds, Some(2));
}

#[test]
fn completed_has_only_a_start() {
    let phases = [(GOOD, Some(2_000), Some(3_000))];
    let entries = timeline(&build(Some(5_000)), &unit(GOOD, &phases));
    let completed = entries.last().unwrap();
    assert_eq!(
        (completed.phase, completed.started),
        (Phase::Completed, WallTime(5_000))
    );
    assert_eq!(
        (completed.status, completed.ended, completed.seconds),
        (None, None, None)
    );
    assert!(completed.contexts.is_empty());
}

#[test]
fn a_failed_download_source_leads_to_finalizing() {
    let phases = [
        (FAILED, Some(2_000), Some(3_000)),
        (SKIPPED, None, Some(3_000)),
    ];
    let entries = timeline(&build(Some(3_000)), &unit(FAILED, &phases));
    assert_eq!(
        shown(&entries),
        "SUBMITTED SUCCEEDED, QUEUED SUCCEEDED, PROVISIONING SUCCEEDED, DOWNLOAD_SOURCE FAILED, \
         FINALIZING SUCCEEDED, COMPLETED -"
    );
    assert_eq!(entries[3].contexts[0].message, "it failed");
    assert_eq!(entries[0].contexts, [PhaseContext::default()]);
}

#[test]
fn what_waited_in_vain_was_queued_and_completed() {
    let out = Status::Ended(Outcome::TimedOut);
    let entries = timeline(&build(Some(9_000)), &unit(out, &[(out, None, Some(9_000))]));
    assert_eq!(
        shown(&entries),
        "SUBMITTED SUCCEEDED, QUEUED TIMED_OUT, COMPLETED -"
    );
}

#[test]
fn the_current_phase_is_the_last_entry() {
    let current = |unit| {
        timeline(&build(None), &unit)
            .last()
            .map(|entry| entry.phase)
    };
    assert_eq!(current(unit(Status::Queued, &[])), Some(Phase::Queued));
    let phases = [
        (Status::InProgress, Some(2_000), None),
        (Status::Queued, None, None),
    ];
    let running = unit(Status::InProgress, &phases);
    assert_eq!(current(running), Some(Phase::DownloadSource));
}

/// The phases of a batch that has these units, each with how it stands.
fn of_batch(
    status: Status,
    ended: Option<u64>,
    units: Vec<UnitDetail>,
) -> Vec<(&'static str, u64)> {
    let detail = BuildDetail {
        summary: BuildSummary {
            status,
            ..build(ended)
        },
        source_version: None,
        batch: Some(BatchConfig::default()),
        units,
    };
    let entries = batch_timeline(&detail);
    let shown = entries.iter();
    shown
        .map(|entry| (entry.phase.as_str(), entry.started.0))
        .collect()
}

#[test]
fn a_batch_whose_source_is_fetched_reads_its_section_until_it_is_planned() {
    let mut fetching = unit(
        Status::InProgress,
        &[(Status::InProgress, Some(2_000), None)],
    );
    fetching.phases[0].fetches = 1;
    let unplanned = of_batch(Status::InProgress, None, vec![fetching.clone()]);
    assert_eq!(
        unplanned,
        [("SUBMITTED", 1_000), ("DOWNLOAD_BATCHSPEC", 1_000)]
    );
    let failed = of_batch(
        Status::Ended(Outcome::Failed),
        Some(3_000),
        vec![fetching.clone()],
    );
    assert_eq!(failed.last(), Some(&("FAILED", 3_000)));
    assert!(!failed.iter().any(|(phase, _)| *phase == "IN_PROGRESS"));
    fetching.identifier = Some("a".to_owned());
    let mut other = unit(
        Status::InProgress,
        &[(Status::InProgress, Some(5_000), None)],
    );
    other.identifier = Some("b".to_owned());
    let planned = of_batch(Status::InProgress, None, vec![fetching, other]);
    assert_eq!(planned.last(), Some(&("IN_PROGRESS", 5_000)));
}

#[test]
fn what_is_no_batch_has_no_phases_of_one_and_combines_only_what_is_there() {
    let mut of = unit(GOOD, &[(GOOD, Some(2_000), Some(3_000))]);
    of.identifier = Some("a".to_owned());
    let good = of_batch(GOOD, Some(4_000), vec![of]);
    let phases: Vec<_> = good.into_iter().map(|(phase, _)| phase).collect();
    assert_eq!(
        phases,
        [
            "SUBMITTED",
            "DOWNLOAD_BATCHSPEC",
            "IN_PROGRESS",
            "SUCCEEDED"
        ]
    );
    let plain = BuildDetail {
        summary: build(None),
        source_version: None,
        batch: None,
        units: Vec::new(),
    };
    assert_eq!(batch_timeline(&plain), []);
}

#[test]
fn a_batch_says_why_it_failed_and_not_what_it_may_fail_in() {
    let failed = |identifier: &str, message: &str| {
        let mut of = unit(FAILED, &[(FAILED, Some(2_000), Some(3_000))]);
        of.identifier = Some(identifier.to_owned());
        of.phases[0].context.as_mut().unwrap().message = message.to_owned();
        of
    };
    let mut forgiven = failed("a", "it may fail");
    forgiven.ignore_failure = true;
    let mut stopped = failed("b", "it was stopped because of the others");
    stopped.phases[0].status = Status::Ended(Outcome::Stopped);
    let detail = BuildDetail {
        summary: BuildSummary {
            status: FAILED,
            ..build(Some(4_000))
        },
        source_version: None,
        batch: Some(BatchConfig::default()),
        units: vec![forgiven, stopped, failed("c", "it counts")],
    };
    let entries = batch_timeline(&detail);
    assert_eq!(entries[2].contexts[0].message, "it counts");
}
