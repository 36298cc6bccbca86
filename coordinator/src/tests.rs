//! A coordinator as a whole, on loopback, with a real cache, real connections and a worker that only
//! says that it works.

mod expiry;
mod farm;
mod restoring;
mod secrets;
mod worker;

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    access::Role,
    build::{BuildId, Outcome, Status},
    message::{
        Refusal, RefusalCode,
        client::{ClientReply, ClientRequest, LogPosition, WatchEvent},
        work::{CoordinatorMessage, LOG_BYTES_MAX, LogAck, LogStart, WorkRequest},
    },
};

use self::{
    farm::{BUILDSPEC, TestFarm, Watched},
    worker::TestWorker,
};

fn refused(answer: Result<ClientReply, Refusal>) -> Refusal {
    answer.expect_err("this should be refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_runs_on_a_worker_is_followed_and_outlives_a_restart() {
    let mut farm = TestFarm::start().await;
    let worker = farm.enrol(Role::Worker, "w1").await;
    let developer = farm.enrol(Role::Developer, "anna").await;
    let client = developer.connect(farm.address()).await;
    let submitted = client.submit(BUILDSPEC).await.unwrap();
    assert_eq!(submitted.number, 1);

    // A watcher that is there from the start, before any worker is.
    let watching = client.clone();
    let id = submitted.build.to_string();
    let watched = {
        let id = id.clone();
        async move { watching.watch(&id, Vec::new(), true).await }
    };
    let work = async {
        let mut session = TestWorker::join(&worker, farm.address()).await;
        let mut phases = Vec::new();
        for _ in 0..6 {
            phases.push(session.run_one("a line\n").await.as_str());
        }
        phases
    };
    let (watched, phases) = tokio::join!(watched, work);
    let expected = [
        "DOWNLOAD_SOURCE",
        "INSTALL",
        "PRE_BUILD",
        "BUILD",
        "POST_BUILD",
        "UPLOAD_ARTIFACTS",
    ];
    assert_eq!(phases, expected);
    assert_eq!(watched.ended(), Some(Status::Ended(Outcome::Succeeded)));
    check_transcript(&watched, &expected);
    drop(client);

    farm.restart().await;
    let client = developer.connect(farm.address()).await;
    let Ok(ClientReply::Builds(builds)) = client
        .ask(ClientRequest::Builds {
            project: None,
            limit: 10,
        })
        .await
    else {
        panic!("the builds should be listed");
    };
    assert_eq!(builds.len(), 1);
    assert_eq!(builds[0].status, Status::Ended(Outcome::Succeeded));
    let again = client.watch(&id, Vec::new(), false).await;
    check_transcript(&again, &expected);
    // Who has part of a log gets the rest.
    let from = vec![LogPosition {
        job: 3,
        attempt: 1,
        offset: 2,
    }];
    let rest = client.watch("app#1", from, false).await;
    assert_eq!(rest.logs()[&(3, 1)], "line\n");
    farm.stop().await;
}

/// Each phase starts, then its log comes, then it ends; and nothing comes twice.
fn check_transcript(watched: &Watched, phases: &[&str]) {
    let mut expected = Vec::new();
    for phase in phases {
        expected.push(format!("{phase} IN_PROGRESS"));
        expected.push("log a line".to_owned());
        expected.push(format!("{phase} SUCCEEDED"));
    }
    expected.push("ended SUCCEEDED".to_owned());
    let mut lines = watched.lines();
    lines.retain(|line| !line.ends_with("QUEUED"));
    assert_eq!(lines, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_so() {
    let farm = TestFarm::start().await;
    let developer = farm.enrol(Role::Developer, "anna").await;
    let client = developer.connect(farm.address()).await;
    let token = ClientRequest::CreateToken {
        team: "main".parse().unwrap(),
        role: Role::Admin,
        lifetime: Duration::from_secs(60),
    };
    let refusal = refused(client.ask(token).await);
    assert_eq!(refusal.code, RefusalCode::PermissionDenied);
    assert!(refusal.message.contains("developer anna"), "{refusal}");
    let announce = ClientRequest::AnnounceCache("127.0.0.1:1".parse().unwrap());
    let refusal = refused(client.ask(announce).await);
    assert_eq!(refusal.code, RefusalCode::PermissionDenied);

    let mut token = farm.token(Role::Worker).await;
    token.secret[0] ^= 1;
    let error = transport::enrol(farm.address(), &token, "w1").await;
    let chain = protocol::report::Chain(&error.unwrap_err()).to_string();
    assert!(chain.contains("not known here"), "{chain}");

    let token = farm.token(Role::Worker).await;
    let error = transport::enrol(farm.address(), &token, "../w1").await;
    let chain = protocol::report::Chain(&error.unwrap_err()).to_string();
    assert!(chain.contains("`../w1`"), "{chain}");
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_is_out_at_once_at_coordinator_and_cache() {
    let farm = TestFarm::start().await;
    let worker = farm.enrol(Role::Worker, "w1").await;
    let anna = farm.enrol(Role::Developer, "anna").await;
    let mut session = TestWorker::join(&worker, farm.address()).await;
    let client = anna.connect(farm.address()).await;
    let at_cache = client.cache().await;
    at_cache.stats().await.unwrap();
    let token = farm.token(Role::Worker).await;
    let taken = transport::enrol(farm.address(), &token, "w1").await;
    let chain = protocol::report::Chain(&taken.unwrap_err()).to_string();
    assert!(chain.contains("grange member revoke w1"), "{chain}");

    let refusal = refused(
        client
            .ask(ClientRequest::RevokeMember("w1".to_owned()))
            .await,
    );
    assert_eq!(refusal.code, RefusalCode::PermissionDenied);
    let admin = farm.admin().await;
    for name in ["w1", "anna"] {
        let revoke = ClientRequest::RevokeMember(name.to_owned());
        assert_eq!(admin.ask(revoke).await, Ok(ClientReply::Done));
    }
    assert_eq!(session.told().await, None, "the session ends");
    client.gone().await;
    farm.until(async || at_cache.stats().await.is_err()).await;
    for member in [&worker, &anna] {
        for service in [Role::Coordinator, Role::Cache] {
            let why = member.turned_away(&farm, service).await;
            assert!(why.contains("revoked"), "{service}: {why}");
        }
        let why = member.not_renewed(&farm).await;
        assert!(why.contains("revoked"), "{why}");
    }
    // The name is free again, for somebody with a new certificate.
    let again = farm.enrol(Role::Worker, "w1").await;
    TestWorker::join(&again, farm.address()).await;
    let Ok(ClientReply::Members(members)) = admin.ask(ClientRequest::Members).await else {
        panic!("members should be listed");
    };
    let names: Vec<_> = members
        .iter()
        .map(|one| one.identity.name.as_str())
        .collect();
    assert_eq!(names, ["cache", "w1", "local"]);
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_cannot_be_is_refused_with_every_reason() {
    let farm = TestFarm::start().await;
    let client = farm.enrol(Role::Developer, "anna").await;
    let client = client.connect(farm.address()).await;
    let refusal = client
        .submit(
            "version: 0.2\nphases:\n  pre_build:\n    comands: [a]\n  build:\n    comands: [make]\n",
        )
        .await
        .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InvalidArgument);
    for part in ["line 3", "line 5", "`buildspec.yml`"] {
        assert!(refusal.message.contains(part), "{refusal}");
    }
    let mut build = client.build(BUILDSPEC).await;
    // A source of which the cache has nothing.
    let nowhere = vec![protocol::digest::Digest::of(b"nowhere")];
    build.source.as_mut().unwrap().tree.chunks = nowhere;
    let refusal = client.submit_build(build).await.unwrap_err();
    assert!(
        matches!(
            refusal.code,
            RefusalCode::FailedPrecondition | RefusalCode::NotFound | RefusalCode::InvalidArgument
        ),
        "{refusal:?}"
    );
    for text in ["ffffffff", "app#9", "nonsense"] {
        let refusal = refused(client.ask(ClientRequest::Build(text.to_owned())).await);
        assert_eq!(refusal.code, RefusalCode::NotFound, "{text}");
    }
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_submitted_again_under_its_id_is_the_same_build_also_after_a_restart() {
    let mut farm = TestFarm::start().await;
    let client = farm.enrol(Role::Developer, "anna").await;
    let member = client.connect(farm.address()).await;
    let build = member.build(BUILDSPEC).await;
    let submitted = member.submit_build(build.clone()).await.unwrap();
    assert_ne!(submitted.build, build.id, "no client chooses it");
    let say = || member.submit_build(build.clone());
    for again in <[_; 2]>::from(tokio::join!(say(), say())) {
        assert_eq!(again.as_ref(), Ok(&submitted));
    }
    farm.restart().await;
    let member = client.connect(farm.address()).await;
    assert_eq!(member.submit_build(build.clone()).await, Ok(submitted));
    let Ok(ClientReply::Builds(known)) = member
        .ask(ClientRequest::Builds {
            project: None,
            limit: 9,
        })
        .await
    else {
        panic!("everybody may see builds");
    };
    assert_eq!(known.len(), 1);
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_cannot_be_is_a_fault_and_the_phase_is_tried_again() {
    let farm = TestFarm::start().await;
    let worker = farm.enrol(Role::Worker, "w1").await;
    let client = farm.enrol(Role::Developer, "anna").await;
    let client = client.connect(farm.address()).await;
    client.submit(BUILDSPEC).await.unwrap();
    let mut session = TestWorker::join(&worker, farm.address()).await;
    let assignment = session.assigned().await;
    session.log(&assignment, 0, "half").await;
    session
        .finish_with(&assignment, Outcome::Succeeded, 5)
        .await;
    let second = session.assigned().await;
    assert_eq!((second.job, second.attempt), (assignment.job, 2));
    session.log(&second, 0, "all").await;
    let most = LOG_BYTES_MAX + 1;
    session.finish_with(&second, Outcome::Succeeded, most).await;
    let third = session.assigned().await;
    assert_eq!((third.job, third.attempt), (assignment.job, 3));
    session.log(&third, 0, "all").await;
    session.finish_with(&third, Outcome::Succeeded, 3).await;
    // It goes on, and nothing comes any more to the log that is stored.
    assert_ne!(session.assigned().await.job, assignment.job);
    session.log_is_over(&third, 3, "more").await;
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_stopped_retried_and_deleted_with_all_that_belongs_to_it() {
    let farm = TestFarm::start().await;
    let worker = farm.enrol(Role::Worker, "w1").await;
    let client = farm.enrol(Role::Developer, "anna").await;
    let client = client.connect(farm.address()).await;
    let first = client.submit(BUILDSPEC).await.unwrap();
    let id = first.build.to_string();
    let refusal = refused(client.ask(ClientRequest::Delete(id.clone())).await);
    assert_eq!(refusal.code, RefusalCode::FailedPrecondition);
    let mut session = TestWorker::join(&worker, farm.address()).await;
    session.run_one("some log\n").await;
    let assignment = session.assigned().await;
    let stopped = client.ask(ClientRequest::Stop(id.clone())).await;
    assert_eq!(stopped, Ok(ClientReply::Done));
    session.revoked(assignment.lease).await;
    session.finish(&assignment, Outcome::Stopped).await;
    let watched = client.watch(&id, Vec::new(), true).await;
    assert_eq!(watched.ended(), Some(Status::Ended(Outcome::Stopped)));

    let second = client.retry(&id, BuildId(77)).await.unwrap();
    assert_eq!(second.number, 2);
    let again = client.retry(&id, BuildId(77)).await;
    assert_eq!(again.as_ref(), Ok(&second), "said twice, it is one build");
    let keys = farm.source_keys().await;
    assert_eq!(keys.len(), 2, "each build holds its source: {keys:?}");
    assert!(farm.log_directory(first.build).exists());
    let deleted = client.ask(ClientRequest::Delete(id.clone())).await;
    assert_eq!(deleted, Ok(ClientReply::Done));
    let refusal = refused(client.ask(ClientRequest::Build(id)).await);
    assert_eq!(refusal.code, RefusalCode::NotFound);
    farm.until(async || farm.source_keys().await.len() == 1)
        .await;
    assert!(!farm.log_directory(first.build).exists());
    assert_eq!(
        farm.source_keys().await,
        [format!("source/{}", second.build)]
    );
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_result_is_acknowledged_and_changes_nothing() {
    let farm = TestFarm::start().await;
    let worker = farm.enrol(Role::Worker, "w1").await;
    let other = farm.enrol(Role::Worker, "w2").await;
    let developer = farm.enrol(Role::Developer, "anna").await;
    let client = developer.connect(farm.address()).await;
    let id = client.submit(BUILDSPEC).await.unwrap().build.to_string();
    let mut late = TestWorker::join(&worker, farm.address()).await;
    let first = late.assigned().await;
    late.log(&first, 0, "first\n").await;
    late.lose(&first).await;
    let mut session = TestWorker::join(&other, farm.address()).await;
    let second = session.assigned().await;
    assert_eq!((second.job, second.attempt), (first.job, 2));
    session.log(&second, 0, "second\n").await;
    // It says that the phase has failed: while it runs elsewhere, and when it is over.
    late.finish_with(&first, Outcome::Failed, 6).await;
    session.finish_with(&second, Outcome::Succeeded, 7).await;
    late.finish_with(&first, Outcome::Failed, 6).await;
    for _ in 0..5 {
        session.run_one("").await;
    }
    let watched = client.watch(&id, Vec::new(), true).await;
    assert_eq!(watched.ended(), Some(Status::Ended(Outcome::Succeeded)));
    assert_eq!(watched.logs()[&(0, 2)], "second\n");
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_back_keeps_its_lease_and_goes_on_with_its_log() {
    let mut farm = TestFarm::start().await;
    let worker = farm.enrol(Role::Worker, "w1").await;
    let other = farm.enrol(Role::Worker, "w2").await;
    let developer = farm.enrol(Role::Developer, "anna").await;
    let client = developer.connect(farm.address()).await;
    let id = client.submit(BUILDSPEC).await.unwrap().build.to_string();
    let mut session = TestWorker::join(&worker, farm.address()).await;
    let assignment = session.assigned().await;
    session.log(&assignment, 0, "one\n").await;

    farm.restart().await;
    let mut session = TestWorker::rejoin(&worker, farm.address(), &[&assignment]).await;
    assert_eq!(session.kept, [assignment.lease]);
    assert_eq!(
        session.log(&assignment, 0, "one\ntwo\n").await,
        4,
        "what was there already"
    );
    // Nobody else may write this log.
    let liar = TestWorker::join(&other, farm.address()).await;
    let lie = LogStart {
        lease: assignment.lease,
        job: assignment.job,
        attempt: assignment.attempt,
    };
    let mut stream = liar.connection.open().await.unwrap();
    stream.send.message(&WorkRequest::Log(lie)).await.unwrap();
    assert!(!matches!(
        stream.receive.message::<LogAck>().await,
        Ok(Some(_))
    ));
    drop((liar, stream));

    session.finish(&assignment, Outcome::Succeeded).await;
    for _ in 0..5 {
        session.run_one("").await;
    }
    let client = developer.connect(farm.address()).await;
    let watched = client.watch(&id, Vec::new(), true).await;
    assert_eq!(watched.logs()[&(0, 1)], "one\ntwo\n");
    assert_eq!(watched.ended(), Some(Status::Ended(Outcome::Succeeded)));
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_moves_is_followed_by_coordinator_and_workers() {
    let mut farm = TestFarm::start().await;
    let worker = farm.enrol(Role::Worker, "w1").await;
    let developer = farm.enrol(Role::Developer, "anna").await;
    let mut session = TestWorker::join(&worker, farm.address()).await;
    farm.move_cache().await;
    assert_eq!(session.told().await, None, "the session ends");
    TestWorker::join(&worker, farm.address()).await;
    let client = developer.connect(farm.address()).await;
    client.submit(BUILDSPEC).await.unwrap();
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_told_to_drain_and_numbers_are_shown() {
    let farm = TestFarm::start().await;
    let worker = farm.enrol(Role::Worker, "w1").await;
    let mut session = TestWorker::join(&worker, farm.address()).await;
    let admin = farm.admin().await;
    let Ok(ClientReply::Workers(workers)) = admin.ask(ClientRequest::Workers).await else {
        panic!("the workers should be listed");
    };
    assert_eq!(workers[0].offer.name.as_str(), "w1");
    let unknown = ClientRequest::Drain("w9".parse().unwrap());
    assert_eq!(
        refused(admin.ask(unknown).await).code,
        RefusalCode::NotFound
    );
    let drained = admin.ask(ClientRequest::Drain("w1".parse().unwrap())).await;
    assert_eq!(drained, Ok(ClientReply::Done));
    assert_eq!(session.told().await, Some(CoordinatorMessage::Drain));
    let metrics = farm.http("/metrics").await;
    assert!(metrics.contains("grange_journal_syncs_total"), "{metrics}");
    assert!(farm.http("/healthz").await.ends_with("ok\n"));
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_streams_for_all_its_logs_and_a_client_for_its_requests() {
    let farm = TestFarm::start().await;
    let worker = farm.enrol(Role::Worker, "w1").await;
    let anna = farm.enrol(Role::Developer, "anna").await;
    // Its session, and a log for each slot twice.
    let client = worker.connect(farm.address()).await;
    assert_eq!(client.streams(2_049, 2_049).await, 2_049);
    let client = anna.connect(farm.address()).await;
    assert!(client.streams(64, 3_000).await <= 128);
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_is_not_shown_as_if_it_were_whole() {
    let farm = TestFarm::start().await;
    let worker = farm.enrol(Role::Worker, "w1").await;
    let client = farm.enrol(Role::Developer, "anna").await;
    let client = client.connect(farm.address()).await;
    let build = client.submit(BUILDSPEC).await.unwrap().build;
    let mut session = TestWorker::join(&worker, farm.address()).await;
    for _ in 0..6 {
        session.run_one("a line\n").await;
    }
    assert!(client.watches_to_the_end(&build.to_string()).await);
    let log = farm.log_directory(build).join("3.1");
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    assert!(!client.watches_to_the_end(&build.to_string()).await);
    farm.stop().await;
}

impl Watched {
    fn ended(&self) -> Option<Status> {
        match self.events.last() {
            Some((WatchEvent::Ended(summary), _)) => Some(summary.status),
            _ => None,
        }
    }

    /// The log of each job and attempt.
    fn logs(&self) -> BTreeMap<(u32, u32), String> {
        let mut logs = BTreeMap::<_, String>::new();
        for (event, bytes) in &self.events {
            if let WatchEvent::Log { job, attempt, .. } = event {
                let log = logs.entry((job.index, *attempt)).or_default();
                log.push_str(&String::from_utf8_lossy(bytes));
            }
        }
        logs
    }

    fn lines(&self) -> Vec<String> {
        let line = |(event, bytes): &(WatchEvent, Vec<u8>)| match event {
            WatchEvent::Phase { detail, .. } => {
                format!("{} {}", detail.phase, detail.status.as_str())
            }
            WatchEvent::Log { .. } => {
                format!("log {}", String::from_utf8_lossy(bytes).trim_end())
            }
            WatchEvent::Restoring { job, progress } => {
                format!("restoring {}: {progress:?}", job.index)
            }
            WatchEvent::Ended(summary) => format!("ended {}", summary.status.as_str()),
        };
        self.events.iter().map(line).collect()
    }
}
