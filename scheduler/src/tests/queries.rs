//! Queries and assignments.

use std::time::Duration;

use protocol::{
    access::Trust,
    arn,
    build::{BuildId, Outcome, Status},
    job::JobId,
    lease::LeaseId,
    message::work::JobInput,
};

use crate::{
    Config, Counts, Event, Scheduler, Scope, assignment, attempt, build_detail, build_summary,
    builds, counts, resolve, room,
    tests::{
        check,
        sample::{blob, source, submission},
        script::{EPOCH, Farm, farm, moment},
    },
    workers,
};

#[test]
fn the_reason_why_a_phase_waits_is_said_in_words() {
    check(
        "
        0s  submit b1 a:install,build b:build>a
        0s  why b1
        1s  join w1
        1s  submit b2 build
        2s  why b2
        3s  drain w1
        3s  join w2
        3s  submit b3 build
        4s  fault w2 1
        4s  why b3
        ",
        "
        0s INSTALL: no worker of the farm is connected
        0s BUILD: waits for INSTALL
        0s BUILD: waits for INSTALL of a
        1s run b1.a.INSTALL on w1 under 0
        2s BUILD: no worker with a free slot (1 connected, all busy)
        3s w1 drains
        3s tell w1 to leave
        3s run b2.BUILD on w2 under 1
        4s b2.BUILD faulted
        4s BUILD: no worker with a free slot (2 connected, 1 draining, 1 put aside after faults)
        ",
    );
}

#[test]
fn a_unit_says_that_it_waits_for_its_base() {
    check(
        "
        0s   join w1 base x
        0s   submit b1 install,build
        1s   ok w1 0
        2s   leave w1
        3s   join w2 base y
        22s  tick
        23s  why b1
        ",
        "
        0s run b1.INSTALL on w1 under 0
        1s b1.INSTALL SUCCEEDED
        1s run b1.BUILD on w1 under 1
        22s b1.BUILD lost 1
        23s BUILD: no worker has the base that the unit started on (1 connected)
        ",
    );
}

#[test]
fn a_build_is_found_by_its_id_by_a_beginning_of_it_and_by_its_number() {
    let mut farm = Farm::default();
    let mut submit = |id: &str, team: &str| {
        let mut submission = submission("b1", &["build"]);
        submission.build = id.parse().unwrap();
        submission.team = team.parse().unwrap();
        farm.apply(moment(Duration::ZERO), Event::Submit(Box::new(submission)));
    };
    submit("1b4e28ba-2fa1-41d2-883f-0016d3cca427", "red");
    submit("1b4e28ba-3fa1-41d2-883f-0016d3cca427", "red");
    submit("2b4e28ba-3fa1-41d2-883f-0016d3cca427", "blue");
    let state = farm.scheduler.state();
    let red = Scope::Team("red".parse().unwrap());
    let check = |scope: &Scope, text: &str, expected: &str| {
        let found = match resolve(state, scope, text) {
            Ok(build) => build.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    };
    let first = "1b4e28ba-2fa1-41d2-883f-0016d3cca427";
    check(&red, first, first);
    check(&red, "1b4e28ba-2", first);
    check(&red, "app#1", first);
    check(&red, "app#2", "1b4e28ba-3fa1-41d2-883f-0016d3cca427");
    check(&Scope::All, "2", "2b4e28ba-3fa1-41d2-883f-0016d3cca427");
    for unknown in ["2", "", "-", "app#3", "other#1", "app#x", "1b4e2-8ba", "zz"] {
        check(&red, unknown, &format!("no build is called `{unknown}`"));
    }
    check(
        &red,
        "1b4e",
        "`1b4e` is the beginning of several build ids, like \
         1b4e28ba-2fa1-41d2-883f-0016d3cca427 and 1b4e28ba-3fa1-41d2-883f-0016d3cca427",
    );
    // Numbers are counted per team, so that an admin may have to say more.
    assert!(resolve(state, &Scope::All, "app#1").is_err());
    let listed = builds(state, &red, None, 9);
    let numbers: Vec<u64> = listed.iter().map(|build| build.number).collect();
    assert_eq!(numbers, [2, 1], "newest first");
    assert_eq!(
        builds(state, &Scope::All, Some(&"other".parse().unwrap()), 9),
        []
    );
    assert_eq!(builds(state, &Scope::All, None, 1).len(), 1);
}

#[test]
fn a_build_in_full_says_what_came_of_each_phase() {
    let farm = farm(
        "
        0s  join w1
        1s  submit b1 a!:install,build b:build
        2s  fault w1 0
        3s  tick
        4s  fail w1 1
        5s  ok w1 2
        ",
    );
    let detail = build_detail(farm.scheduler.state(), BuildId(1), moment(Duration::ZERO)).unwrap();
    let at = |seconds| EPOCH + Duration::from_secs(seconds);
    assert_eq!(detail.summary.status, Status::Ended(Outcome::Succeeded));
    assert_eq!(detail.summary.submitted, at(1));
    assert_eq!(detail.summary.started, Some(at(1)));
    assert_eq!(detail.summary.ended, Some(at(5)));
    let [a, b] = &detail.units[..] else {
        panic!("two units");
    };
    assert_eq!(a.status, Status::Ended(Outcome::Failed));
    assert_eq!(b.status, Status::Ended(Outcome::Succeeded));
    let [install, build] = &a.phases[..] else {
        panic!("two phases");
    };
    assert_eq!((install.attempts, install.started), (2, Some(at(3))));
    assert_eq!((build.attempts, build.started), (0, None));
    assert_eq!(build.status, Status::Ended(Outcome::Skipped));
    let job = JobId {
        build: BuildId(1),
        index: 0,
    };
    let state = farm.scheduler.state();
    assert_eq!(attempt(state, job, 1).unwrap().lease, LeaseId(0));
    assert_eq!(attempt(state, job, 2).unwrap().lease, LeaseId(1));
    assert_eq!(attempt(state, job, 0), None);
    assert_eq!(attempt(state, job, 3), None);
}

#[test]
fn a_retried_build_has_the_next_number_of_its_project() {
    let farm = farm(
        "
        0s  submit b1 build
        1s  retry b1 b2
        2s  stop b1
        3s  delete b1
        4s  retry b2 b3
        ",
    );
    let summary = build_summary(farm.scheduler.state(), BuildId(3)).unwrap();
    assert_eq!((summary.number, summary.initiator.as_str()), (3, "again"));
    assert_eq!(build_summary(farm.scheduler.state(), BuildId(1)), None);
}

#[test]
fn workers_say_what_they_run() {
    let farm = farm(
        "
        0s  join w2 slots 2
        0s  join w1
        0s  submit b1 a:build b:build c:build
        1s  drain w2
        ",
    );
    let state = farm.scheduler.state();
    let listed = workers(state, &Scope::All);
    let told: Vec<_> = listed
        .iter()
        .map(|worker| {
            (
                worker.offer.name.as_str(),
                worker.draining,
                worker.runs.len(),
            )
        })
        .collect();
    assert_eq!(told, [("w1", false, 1), ("w2", true, 2)]);
    assert_eq!(
        counts(state),
        Counts {
            builds_active: 1,
            builds_ended: 0,
            jobs_queued: 0,
            leases: 3,
            workers: 2,
        }
    );
    assert_eq!(room(state, &"red".parse().unwrap(), 0), Ok(()));
}

#[test]
fn an_attempt_may_write_what_is_its_own_and_nothing_of_another() {
    let lost = farm(
        "
        0s   join w1
        0s   submit b1 a:build,upload
        60s  tick
        61s  join w1
        ",
    );
    let now = EPOCH + Duration::from_secs(61);
    let writes = |farm: &Farm| {
        let draft = assignment(farm.scheduler.state(), LeaseId(1), now);
        draft.unwrap().grant.writes
    };
    let id = "00000000-0000-0000-0000-000000000001";
    let own = format!("snapshot/{id}/0/2");
    let dependencies = "dependency/app/".to_owned();
    assert_eq!(writes(&lost), [own, dependencies.clone()]);

    let uploading = farm(
        "
        0s   join w1
        0s   submit b1 a:build,upload
        1s   ok w1 0
        ",
    );
    let own = format!("snapshot/{id}/1/1");
    let artifact = format!("artifact/{id}/0/1");
    assert_eq!(writes(&uploading), [own, dependencies, artifact]);
}

#[test]
fn an_assignment_says_the_occasion_and_allows_what_the_phase_needs() {
    let farm = farm(
        "
        0s   join w1
        0s   submit b1 a:build,post_build
        60s  tick
        61s  tick
        62s  fail w1 1
        ",
    );
    let now = EPOCH + Duration::from_secs(62);
    let state = farm.scheduler.state();
    assert_eq!(
        assignment(state, LeaseId(0), now),
        None,
        "the lease was lost"
    );
    let draft = assignment(state, LeaseId(2), now).unwrap();
    let id = "00000000-0000-0000-0000-000000000001";
    assert_eq!(
        draft.grant.writes,
        [format!("snapshot/{id}/1/1"), "dependency/app/".to_owned()]
    );
    assert_eq!(
        draft.grant.reads,
        [
            format!("source/{id}"),
            format!("snapshot/{id}/"),
            "dependency/app/".to_owned()
        ]
    );
    assert_eq!(draft.grant.trust, Trust::Team);
    assert_eq!(draft.grant.end, EPOCH + Duration::from_secs(75 * 60));
    let signature = protocol::access::SignedGrant {
        grant: vec![1],
        signature: vec![2],
    };
    let assignment = draft.signed(signature.clone());
    assert_eq!(assignment.grant, signature);
    assert_eq!(assignment.time_left, Duration::from_secs(3600 - 62));
    assert_eq!(assignment.input, JobInput::Snapshot(blob("fail")));
    assert!(!assignment.succeeding);
    let app = "app".parse().unwrap();
    let uuid = arn::uuid_of_project(&"red".parse().unwrap(), &app);
    let told: Vec<String> = assignment
        .variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        told,
        [
            "CODEBUILD_BATCH_BUILD_IDENTIFIER=a".to_owned(),
            format!("CODEBUILD_BUILD_ARN={}", arn::of_build(&app, BuildId(1))),
            format!("CODEBUILD_BUILD_ID=app:{id}"),
            "CODEBUILD_BUILD_NUMBER=1".to_owned(),
            "CODEBUILD_BUILD_SUCCEEDING=0".to_owned(),
            "CODEBUILD_INITIATOR=ann".to_owned(),
            format!("CODEBUILD_LOG_PATH={id}/a"),
            format!("CODEBUILD_PROJECT_ARN={}", arn::of_project(&app)),
            format!("CODEBUILD_PROJECT_UUID={uuid}"),
            "CODEBUILD_RESOLVED_SOURCE_VERSION=c0ffee".to_owned(),
            "CODEBUILD_SOURCE_VERSION=c0ffee".to_owned(),
            "CODEBUILD_START_TIME=1000000".to_owned(),
        ]
    );
}

#[test]
fn a_phase_starts_from_the_source_from_a_snapshot_or_from_what_is_there() {
    let input = |script: &str, lease| {
        let farm = farm(script);
        let draft = assignment(farm.scheduler.state(), LeaseId(lease), EPOCH).unwrap();
        draft
            .signed(protocol::access::SignedGrant {
                grant: Vec::new(),
                signature: Vec::new(),
            })
            .input
    };
    let first = input("0s join w1 \n 0s submit b1 install,build", 0);
    assert_eq!(first, JobInput::Source(source()));
    let second = input("0s join w1 \n 0s submit b1 install,build \n 1s ok w1 0", 1);
    assert_eq!(second, JobInput::Snapshot(blob("ok")));
    let bound = input(
        "0s join w1 host \n 0s submit b1 install,build \n 1s ok w1 0",
        1,
    );
    assert_eq!(bound, JobInput::Local);
}

#[test]
fn builds_are_taken_as_long_as_their_graphs_fit_into_memory_and_the_reason_is_said() {
    let weight = submission("b1", &["build"]).graph.weight();
    let config = Config {
        team_weight_max: 2 * weight,
        active_weight_max: 3 * weight,
        ..Config::default()
    };
    let mut scheduler = Scheduler::new(config);
    let red = "red".parse().unwrap();
    let mut submit = |build: &str, words: &[&str]| {
        let submission = submission(build, words);
        let team = submission.team.clone();
        let room = room(scheduler.state(), &team, submission.graph.weight());
        let decided = scheduler.apply(moment(Duration::ZERO), Event::Submit(Box::new(submission)));
        assert_eq!(
            room.is_ok(),
            !decided.facts.is_empty(),
            "what is said is done"
        );
        room.map_err(|why| why.to_string())
    };
    submit("b1", &["build"]).unwrap();
    submit("b2", &["build"]).unwrap();
    let why = submit("b3", &["build"]).unwrap_err();
    assert!(
        why.contains("of team red") && why.contains("stop some"),
        "{why}"
    );
    submit("b4", &["build", "team=blue"]).unwrap();
    let why = submit("b5", &["build", "team=blue"]).unwrap_err();
    assert!(why.contains(&format!("take {} bytes", 3 * weight)), "{why}");
    // Who ends makes room.
    let build = submission("b1", &["build"]).build;
    scheduler.apply(moment(Duration::from_secs(1)), Event::Stop { build });
    assert_eq!(room(scheduler.state(), &red, weight), Ok(()));
}

#[test]
fn the_resolved_version_is_known_only_after_the_source_was_fetched() {
    let variable = |farm: &Farm, lease| {
        let draft = assignment(farm.scheduler.state(), LeaseId(lease), EPOCH).unwrap();
        let signature = protocol::access::SignedGrant {
            grant: Vec::new(),
            signature: Vec::new(),
        };
        let variables = draft.signed(signature).variables;
        variables.get("CODEBUILD_RESOLVED_SOURCE_VERSION").cloned()
    };
    let mut farm = farm("0s join w1 \n 0s submit b1 download,build from=git");
    assert_eq!(variable(&farm, 0), None);
    farm.play("1s fetched w1 0 download,build");
    assert_eq!(variable(&farm, 1).as_deref(), Some("c0ffee"));
}
