//! Who hears how far a worker is with a restore, and from whom.

use protocol::{
    access::Role,
    message::{
        client::{ClientReply, ClientRequest, WatchEvent},
        work::RestoreProgress,
    },
};
use tokio::time::timeout;

use super::{
    farm::{BUILDSPEC, PATIENCE, TestFarm},
    worker::TestWorker,
};

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_build_hears_of_its_restores_from_the_worker_that_runs_it() {
    let farm = TestFarm::start().await;
    let developer = farm.enrol(Role::Developer, "anna").await;
    let client = developer.connect(farm.address()).await;
    let runs = farm.enrol(Role::Worker, "runs").await;
    let mut runs = TestWorker::join(&runs, farm.address()).await;
    let submitted = client.submit(BUILDSPEC).await.unwrap();
    let lease = runs.assigned().await.lease;
    let lies = farm.enrol(Role::Worker, "lies").await;
    let mut lies = TestWorker::join(&lies, farm.address()).await;

    let mut stream = client.connection.open().await.unwrap();
    let watch = ClientRequest::Watch {
        build: submitted.build.to_string(),
        from: Vec::new(),
        follow: true,
    };
    let reply = stream.request::<_, ClientReply>(&watch).await.unwrap();
    assert!(matches!(reply, Ok(ClientReply::Watching(_))), "{reply:?}");
    // What the watcher is shown first it is shown when it listens.
    let shown = stream.receive.message::<WatchEvent>();
    let shown = timeout(PATIENCE, shown).await.unwrap().unwrap();
    assert!(matches!(shown, Some(WatchEvent::Phase { .. })), "{shown:?}");
    let at = |bytes_done| RestoreProgress {
        bytes_done,
        bytes_total: 100,
    };
    lies.restoring(lease, at(99)).await;
    runs.restoring(lease, at(40)).await;
    let heard = async {
        loop {
            let event = stream.receive.message::<WatchEvent>().await.unwrap();
            if let Some(WatchEvent::Restoring { job, progress }) = event {
                return (job.build, job.index, progress);
            }
        }
    };
    let heard = timeout(PATIENCE, heard).await.unwrap();
    assert_eq!(heard, (submitted.build, 0, at(40)));
    farm.stop().await;
}
