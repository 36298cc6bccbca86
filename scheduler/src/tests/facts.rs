//! The JSON of facts lasts as long as journals do. A change here takes a new version of the journal.

use std::time::Duration;

use protocol::{
    build::{BuildId, Outcome, PhaseContext},
    digest::Digest,
    git::GitSource,
    job::JobId,
    lease::LeaseId,
    project::{BatchConfig, CacheKind, Project, ProjectSource},
    time::WallTime,
    worker::{Incarnation, Isolation},
};

use crate::{
    Config, Fact, FoldError, Limits, Origin, Platform, RestartCause, ReturnCause, Scheduler,
    StopCause,
    tests::sample::{result, submission},
};

const BUILD: BuildId = BuildId(0x1b4e_28ba_2fa1_41d2_883f_0016_d3cc_a427);
const JOB: JobId = JobId {
    build: BUILD,
    index: 3,
};
const AT: WallTime = WallTime(1_700_000_000_000);

#[track_caller]
fn check(fact: &Fact, golden: &str) {
    assert_eq!(serde_json::to_string(fact).unwrap(), golden);
    assert_eq!(serde_json::from_str::<Fact>(golden).unwrap(), *fact);
}

fn context() -> PhaseContext {
    PhaseContext {
        status_code: "CODE".to_owned(),
        message: "Why.".to_owned(),
    }
}

#[test]
fn the_json_of_a_submission_never_changes() {
    let fact = Fact::BuildSubmitted {
        submission: Box::new(submission("b1", &["build"])),
        number: 7,
        order: 8,
        limits: Limits {
            queue: Duration::from_secs(9),
            run: Duration::from_millis(10_500),
        },
        at: AT,
    };
    check(&fact, include_str!("golden/submitted.json").trim());
}

#[test]
fn the_json_of_a_result_never_changes() {
    let fact = Fact::JobEnded {
        lease: LeaseId(5),
        job: JOB,
        worker: "w1".parse().unwrap(),
        outcome: Outcome::Failed,
        result: Box::new(result("fail")),
        at: AT,
    };
    check(&fact, include_str!("golden/ended.json").trim());
}

#[test]
fn the_json_of_leases_never_changes() {
    check(
        &Fact::LeaseGranted {
            lease: LeaseId(5),
            job: JOB,
            attempt: 2,
            worker: "w1".parse().unwrap(),
            platform: Platform {
                architecture: "x86_64".to_owned(),
                isolation: Isolation::Namespace,
                base: Digest::from_parts([1; 32], 2),
            },
            incarnation: Some(Incarnation(6)),
            binds: Some(false),
            at: AT,
        },
        include_str!("golden/granted.json").trim(),
    );
    check(
        &Fact::LeaseLost {
            lease: LeaseId(5),
            job: JOB,
            worker: "w1".parse().unwrap(),
            context: context(),
            breaks: Some(true),
            at: AT,
        },
        r#"{"LeaseLost":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","context":{"status_code":"CODE","message":"Why."},"breaks":true,"at":1700000000000}}"#,
    );
    check(
        &Fact::AttemptBegan {
            lease: LeaseId(5),
            job: JOB,
            worker: "w1".parse().unwrap(),
            at: AT,
        },
        r#"{"AttemptBegan":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","at":1700000000000}}"#,
    );
    check(
        &Fact::LeaseReturned {
            lease: LeaseId(5),
            job: JOB,
            worker: "w1".parse().unwrap(),
            cause: ReturnCause::HandedOver,
            breaks: true,
            unstarts: true,
            at: AT,
        },
        r#"{"LeaseReturned":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","cause":"HandedOver","breaks":true,"unstarts":true,"at":1700000000000}}"#,
    );
    check(
        &Fact::AttemptFaulted {
            lease: LeaseId(5),
            job: JOB,
            worker: "w1".parse().unwrap(),
            context: context(),
            breaks: Some(false),
            at: AT,
        },
        r#"{"AttemptFaulted":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","context":{"status_code":"CODE","message":"Why."},"breaks":false,"at":1700000000000}}"#,
    );
}

/// What facts of before they said more are read as.
#[track_caller]
fn check_older(golden: &str, means: &str) {
    let read: Fact = serde_json::from_str(golden).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), means);
}

#[test]
fn uses_of_caches_in_older_journals_name_no_fallback_keys() {
    let ended = |fallbacks: &str| {
        let used = format!(
            r#""cache_uses":[{{"key":"k",{fallbacks}"what":"MISSED","bytes":0,"bytes_moved":0,"millis":1}}]"#
        );
        let golden = include_str!("golden/ended.json").trim();
        assert!(golden.contains(r#""cache_uses":[]"#));
        golden.replace(r#""cache_uses":[]"#, &used)
    };
    check_older(&ended(""), &ended(r#""fallbacks":[],"#));
}

#[test]
fn facts_of_older_journals_are_still_read() {
    let granted = include_str!("golden/granted.json").trim();
    let granted = granted.replace(
        "\"incarnation\":6,\"binds\":false",
        "\"incarnation\":null,\"binds\":null",
    );
    check_older(include_str!("golden/granted-older.json"), &granted);
    check_older(
        include_str!("golden/ended-older.json").trim(),
        include_str!("golden/ended.json").trim(),
    );
    check_older(
        include_str!("golden/submitted-older.json"),
        include_str!("golden/submitted.json").trim(),
    );
    check_older(
        include_str!("golden/ended-older.json"),
        include_str!("golden/ended.json").trim(),
    );
    check_older(
        r#"{"LeaseLost":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","at":1700000000000}}"#,
        r#"{"LeaseLost":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","context":{"status_code":"WORKER_LOST","message":"The worker was lost."},"breaks":null,"at":1700000000000}}"#,
    );
    check_older(
        r#"{"AttemptFaulted":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","context":{"status_code":"CODE","message":"Why."},"at":1700000000000}}"#,
        r#"{"AttemptFaulted":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","context":{"status_code":"CODE","message":"Why."},"breaks":null,"at":1700000000000}}"#,
    );
}

#[test]
fn facts_that_said_less_of_what_is_given_back_and_of_who_drains_are_still_read() {
    check_older(
        r#"{"LeaseReturned":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","cause":"NotBegun","breaks":true,"at":1700000000000}}"#,
        r#"{"LeaseReturned":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","cause":"NotBegun","breaks":true,"unstarts":false,"at":1700000000000}}"#,
    );
    check_older(
        r#"{"WorkerDraining":{"worker":"w1","at":1700000000000}}"#,
        r#"{"WorkerDraining":{"worker":"w1","incarnation":null,"at":1700000000000}}"#,
    );
}

#[test]
fn the_json_of_what_did_not_run_never_changes() {
    check(
        &Fact::JobSkipped {
            job: JOB,
            needs: 2,
            at: AT,
        },
        r#"{"JobSkipped":{"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"needs":2,"at":1700000000000}}"#,
    );
    check(
        &Fact::JobGivenUp {
            job: JOB,
            outcome: Outcome::TimedOut,
            context: context(),
            at: AT,
        },
        r#"{"JobGivenUp":{"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"outcome":"TIMED_OUT","context":{"status_code":"CODE","message":"Why."},"at":1700000000000}}"#,
    );
    check(
        &Fact::UnitRestarted {
            build: BUILD,
            unit: 1,
            worker: "w1".parse().unwrap(),
            cause: RestartCause::WorkerLost,
            at: AT,
        },
        r#"{"UnitRestarted":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","unit":1,"worker":"w1","cause":"WorkerLost","at":1700000000000}}"#,
    );
    let causes = [RestartCause::WorkerLeaves, RestartCause::StateLost];
    let named = causes.map(|cause| serde_json::to_string(&cause).unwrap());
    assert_eq!(named, [r#""WorkerLeaves""#, r#""StateLost""#]);
}

#[test]
fn the_json_of_ends_never_changes() {
    check(
        &Fact::StopRequested {
            build: BUILD,
            cause: StopCause::FastFail,
            at: AT,
        },
        r#"{"StopRequested":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","cause":"FastFail","at":1700000000000}}"#,
    );
    check(
        &Fact::BuildEnded {
            build: BUILD,
            outcome: Outcome::Succeeded,
            at: AT,
        },
        r#"{"BuildEnded":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","outcome":"SUCCEEDED","at":1700000000000}}"#,
    );
    check(
        &Fact::BuildDeleted {
            build: BUILD,
            at: AT,
        },
        r#"{"BuildDeleted":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","at":1700000000000}}"#,
    );
    check(
        &Fact::WorkerDraining {
            worker: "w1".parse().unwrap(),
            incarnation: Some(Incarnation(6)),
            at: AT,
        },
        r#"{"WorkerDraining":{"worker":"w1","incarnation":6,"at":1700000000000}}"#,
    );
    check(
        &Fact::WorkerDrained {
            worker: "w1".parse().unwrap(),
            at: AT,
        },
        r#"{"WorkerDrained":{"worker":"w1","at":1700000000000}}"#,
    );
}

#[test]
fn the_json_of_projects_never_changes() {
    let team = || "red".parse().unwrap();
    let mut project = Project::new("shop".parse().unwrap());
    project.source = ProjectSource::Git(GitSource {
        url: "https://example.org/a".to_owned(),
        version: Some("main".to_owned()),
        depth: Some(1),
        submodules: true,
        credential: Some("github:token".to_owned()),
        insecure_ssl: true,
    });
    project.env.variables.insert("A".to_owned(), "1".to_owned());
    project.cache.kind = CacheKind::None;
    project.build_minutes = Some(5);
    project.badge = true;
    check(
        &Fact::ProjectSaved {
            team: team(),
            project: Box::new(project),
            at: AT,
        },
        r#"{"ProjectSaved":{"team":"red","project":{"name":"shop","description":"","source":{"git":{"url":"https://example.org/a","version":"main","depth":1,"submodules":true,"credential":"github:token","insecure_ssl":true}},"secondary_sources":{},"buildspec":null,"env":{"variables":{"A":"1"},"parameter_store":{},"secrets_manager":{}},"environment":{"compute_type":null,"fleet":null,"image":null,"type":null,"privileged_mode":false},"artifacts":{"name":null,"override_name":true,"secondary":[]},"cache":{"type":"NO_CACHE","namespace":null},"build_minutes":5,"queue_minutes":null,"concurrent_builds_max":null,"batch":{"builds_max":null,"compute_types":[],"minutes":null,"combine_artifacts":false,"reports":"merged"},"badge":true},"at":1700000000000}}"#,
    );
    // What was written before batches had more than restrictions.
    let older = r#"{"ProjectSaved":{"team":"red","project":{"name":"shop","batch":{"builds_max":null,"compute_types":[]}},"at":1700000000000}}"#;
    let read: Fact = serde_json::from_str(older).unwrap();
    let Fact::ProjectSaved { project, .. } = read else {
        panic!("it is another fact");
    };
    assert_eq!(project.batch, BatchConfig::default());
    // All of a project but its name may be left out.
    let bare = r#"{"ProjectSaved":{"team":"red","project":{"name":"shop"},"at":1700000000000}}"#;
    let read: Fact = serde_json::from_str(bare).unwrap();
    let bare = Fact::ProjectSaved {
        team: team(),
        project: Box::new(Project::new("shop".parse().unwrap())),
        at: AT,
    };
    assert_eq!(read, bare);
    // So may all of a repository but its address.
    let older = r#"{"url":"https://example.org/a","version":"main","depth":1,"submodules":true}"#;
    let read: GitSource = serde_json::from_str(older).unwrap();
    assert_eq!((read.credential, read.insecure_ssl), (None, false));
    check(
        &Fact::ProjectDeleted {
            team: team(),
            project: "shop".parse().unwrap(),
            at: AT,
        },
        r#"{"ProjectDeleted":{"team":"red","project":"shop","at":1700000000000}}"#,
    );
    check(
        &Fact::CachesInvalidated {
            team: team(),
            project: "shop".parse().unwrap(),
            generation: 3,
            shared: Some(("all".parse().unwrap(), 1)),
            at: AT,
        },
        r#"{"CachesInvalidated":{"team":"red","project":"shop","generation":3,"shared":["all",1],"at":1700000000000}}"#,
    );
}

#[test]
fn the_json_of_terms_never_changes_and_none_are_not_written_down() {
    let mut submission = submission("b1", &["build"]);
    submission.terms.run = Some(Duration::from_secs(300));
    submission.terms.cache_shared = Some(("all".parse().unwrap(), 1));
    let git = GitSource::head_of("https://example.org/a".to_owned());
    submission.terms.origin = Some(Origin {
        git,
        commit: Some("c0ffee".to_owned()),
        tree: None,
    });
    submission.terms.recipe = Some(Box::default());
    let fact = Fact::SourcesFetched {
        lease: LeaseId(5),
        job: JOB,
        worker: "w1".parse().unwrap(),
        submission: Box::new(submission),
        log_bytes: 7,
        at: AT,
    };
    let json = serde_json::to_string(&fact).unwrap();
    assert_eq!(serde_json::from_str::<Fact>(&json).unwrap(), fact);
    let terms = r#","terms":{"queue":null,"run":{"secs":300,"nanos":0},"concurrent_max":null,"cache_generation":0,"cache_shared":["all",1],"origin":{"git":{"url":"https://example.org/a","version":null,"depth":null,"submodules":false,"credential":null,"insecure_ssl":false},"commit":"c0ffee","tree":null},"secondary":{},"recipe":{"buildspec":null,"buildspec_path":"","variables":{},"env":{"variables":{},"parameter_store":{},"secrets_manager":{}},"batch":false,"no_cache":false,"restrictions":{"builds_max":null,"compute_types":[],"minutes":null,"combine_artifacts":false,"reports":"merged"},"git_credentials":[],"environment":{"compute_type":null,"fleet":null,"image":null,"type":null,"privileged_mode":false},"artifacts":{"name":null,"override_name":true,"secondary":[]}}}},"log_bytes":7,"at":1700000000000}}"#;
    assert!(json.ends_with(terms), "{json}");
    // Batches had less of their own before.
    let older = json.replace(
        r#","minutes":null,"combine_artifacts":false,"reports":"merged""#,
        "",
    );
    assert_eq!(serde_json::from_str::<Fact>(&older).unwrap(), fact);
    let head = r#"{"SourcesFetched":{"lease":5,"job":{"build":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","index":3},"worker":"w1","submission":{"#;
    assert!(json.starts_with(head), "{json}");
}

#[test]
fn facts_that_do_not_fit_are_refused_and_change_nothing() {
    let submitted = Fact::BuildSubmitted {
        submission: Box::new(submission("b1", &["install,build"])),
        number: 1,
        order: 0,
        limits: Config::default().limits,
        at: AT,
    };
    let build = BuildId(1);
    let job = |index| JobId { build, index };
    let ended = |job| Fact::JobEnded {
        lease: LeaseId(0),
        job,
        worker: "w1".parse().unwrap(),
        outcome: Outcome::Succeeded,
        result: Box::new(result("ok")),
        at: AT,
    };
    let granted = |job| Fact::LeaseGranted {
        lease: LeaseId(0),
        job,
        attempt: 1,
        worker: "w1".parse().unwrap(),
        platform: Platform {
            architecture: "x86_64".to_owned(),
            isolation: Isolation::Namespace,
            base: Digest::of(b"base"),
        },
        incarnation: None,
        binds: None,
        at: AT,
    };
    let mut broken = submission("b2", &["install,build"]);
    broken.graph.jobs[0].unit = 9;
    let broken = Fact::BuildSubmitted {
        submission: Box::new(broken),
        number: 1,
        order: 1,
        limits: Config::default().limits,
        at: AT,
    };
    let mut scheduler = Scheduler::new(Config::default());
    assert_eq!(
        scheduler.replay(&ended(job(0))),
        Err(FoldError::UnknownBuild { build })
    );
    scheduler.replay(&submitted).unwrap();
    let before = scheduler.ledger().clone();
    for (fact, error) in [
        (submitted, FoldError::KnownBuild { build }),
        (broken, FoldError::Graph { build: BuildId(2) }),
        (ended(job(0)), FoldError::Standing { job: job(0) }),
        (granted(job(1)), FoldError::Standing { job: job(1) }),
        (granted(job(7)), FoldError::UnknownIndex { build, index: 7 }),
    ] {
        assert_eq!(scheduler.replay(&fact), Err(error));
        assert_eq!(*scheduler.ledger(), before);
    }
}
