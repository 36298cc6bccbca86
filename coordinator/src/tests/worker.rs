//! A worker for tests, which does nothing, and says what it is told to.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::Bytes;
use protocol::{
    blob::Blob,
    build::{Outcome, Phase, PhaseContext},
    digest::Digest,
    job::AttemptResult,
    lease::LeaseId,
    message::work::{
        Assignment, CoordinatorMessage, HeldLease, LogAck, LogPiece, LogStart, RestoreProgress,
        RevokeReason, WorkRequest, WorkerMessage,
    },
    time::WallTime,
    worker::{Incarnation, Isolation, WorkerOffer},
};
use tokio::time::timeout;
use transport::{Connection, Stream};

use super::farm::{Member, PATIENCE};

/// A worker that does nothing, and says what it is told to.
pub(super) struct TestWorker {
    pub(super) connection: Connection,
    session: Stream,
    /// The leases that it may go on with.
    pub(super) kept: Vec<LeaseId>,
}

impl TestWorker {
    pub(super) async fn join(member: &Member, coordinator: SocketAddr) -> Self {
        Self::rejoin(member, coordinator, &[]).await
    }

    /// Joins with attempts that were assigned before.
    pub(super) async fn rejoin(
        member: &Member,
        coordinator: SocketAddr,
        held: &[&Assignment],
    ) -> Self {
        let connection = member.connect(coordinator).await.connection;
        let mut session = connection.open().await.unwrap();
        session.send.message(&WorkRequest::Session).await.unwrap();
        let offer = WorkerOffer {
            // The coordinator goes by the certificate.
            name: "somebody-else".parse().unwrap(),
            capacity: 1,
            labels: BTreeMap::new(),
            architecture: "x86_64".to_owned(),
            isolation: Isolation::Namespace,
            base: Digest::of(b"base"),
            runtimes: Default::default(),
        };
        let holds = held.iter().map(|assignment| HeldLease {
            lease: assignment.lease,
            job: assignment.job,
            attempt: assignment.attempt,
        });
        let join = WorkerMessage::Join {
            offer,
            incarnation: Incarnation(7),
            connection: 1,
            ended: None,
            leaving: false,
            holds: holds.collect(),
        };
        session.send.message(&join).await.unwrap();
        let mut worker = Self {
            connection,
            session,
            kept: Vec::new(),
        };
        let Some(CoordinatorMessage::Joined { leases, .. }) = worker.told().await else {
            panic!("a worker that joins should be told so first");
        };
        worker.kept = leases;
        worker
    }

    /// The next message; `None`: the coordinator has closed the session.
    pub(super) async fn told(&mut self) -> Option<CoordinatorMessage> {
        let message = self.session.receive.message();
        timeout(PATIENCE, message).await.unwrap().ok().flatten()
    }

    pub(super) async fn assigned(&mut self) -> Assignment {
        match self.told().await {
            Some(CoordinatorMessage::Assign(assignment)) => *assignment,
            other => panic!("an assignment should come: {other:?}"),
        }
    }

    pub(super) async fn revoked(&mut self, lease: LeaseId) {
        let expected = CoordinatorMessage::Revoke {
            lease,
            reason: RevokeReason::Stopped,
        };
        assert_eq!(self.told().await, Some(expected));
    }

    /// Sends log; gives how much of it there was before.
    pub(super) async fn log(&self, assignment: &Assignment, offset: u64, text: &str) -> u64 {
        let start = LogStart {
            lease: assignment.lease,
            job: assignment.job,
            attempt: assignment.attempt,
        };
        let mut stream = self.connection.open().await.unwrap();
        stream.send.message(&WorkRequest::Log(start)).await.unwrap();
        let before = acknowledged(&mut stream).await;
        let piece = LogPiece {
            offset,
            bytes: u32::try_from(text.len()).unwrap(),
        };
        stream.send.message(&piece).await.unwrap();
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        stream.send.bytes(bytes).await.unwrap();
        let durable = acknowledged(&mut stream).await;
        assert_eq!(durable, offset + text.len() as u64);
        stream.send.finish();
        before
    }

    /// Sends log of an attempt that is stored: it is not taken.
    pub(super) async fn log_is_over(&self, assignment: &Assignment, offset: u64, text: &str) {
        let start = LogStart {
            lease: assignment.lease,
            job: assignment.job,
            attempt: assignment.attempt,
        };
        let mut stream = self.connection.open().await.unwrap();
        stream.send.message(&WorkRequest::Log(start)).await.unwrap();
        assert_eq!(acknowledged(&mut stream).await, offset);
        let piece = LogPiece {
            offset,
            bytes: u32::try_from(text.len()).unwrap(),
        };
        stream.send.message(&piece).await.unwrap();
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        stream.send.bytes(bytes).await.unwrap();
        let ack = timeout(PATIENCE, stream.receive.message::<LogAck>()).await;
        assert!(ack.unwrap().is_err(), "the stream is reset");
    }

    /// Says how far it is with restoring what an attempt starts from, and waits until that was heard.
    pub(super) async fn restoring(&mut self, lease: LeaseId, progress: RestoreProgress) {
        let said = WorkerMessage::Restoring { lease, progress };
        self.session.send.message(&said).await.unwrap();
        // Messages are taken in turn, and this one is answered.
        let renew = WorkerMessage::Renew {
            sequence: 1,
            leases: Vec::new(),
        };
        self.session.send.message(&renew).await.unwrap();
        let answer = self.told().await;
        let is_answer = matches!(answer, Some(CoordinatorMessage::Renewed { .. }));
        assert!(is_answer, "{answer:?}");
    }

    /// Says that it has killed an attempt, which is lost with that.
    pub(super) async fn lose(&mut self, assignment: &Assignment) {
        let lease = assignment.lease;
        let killed = WorkerMessage::HandOver {
            leases: vec![lease],
        };
        self.session.send.message(&killed).await.unwrap();
        let reason = RevokeReason::Lost;
        let expected = CoordinatorMessage::Revoke { lease, reason };
        assert_eq!(self.told().await, Some(expected));
    }

    /// Reports an attempt, and waits until that is kept.
    pub(super) async fn finish(&mut self, assignment: &Assignment, outcome: Outcome) {
        self.finish_with(assignment, outcome, 0).await;
    }

    /// Reports an attempt whose log has so many bytes, and waits until that is kept.
    pub(super) async fn finish_with(
        &mut self,
        assignment: &Assignment,
        outcome: Outcome,
        log_bytes: u64,
    ) {
        self.report(assignment, outcome, log_bytes).await;
        let expected = CoordinatorMessage::Acknowledged {
            lease: assignment.lease,
        };
        assert_eq!(self.told().await, Some(expected));
    }

    /// Reports an attempt whose log has so many bytes.
    pub(super) async fn report(
        &mut self,
        assignment: &Assignment,
        outcome: Outcome,
        log_bytes: u64,
    ) {
        // The coordinator takes a worker's word for it that this is at the cache.
        let snapshot = Blob {
            digest: Digest::of(b"snapshot"),
            chunks: vec![Digest::of(b"snapshot")],
        };
        let result = AttemptResult {
            outcome,
            context: PhaseContext::default(),
            snapshot: Some(snapshot),
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
        };
        let finished = WorkerMessage::Finished {
            lease: assignment.lease,
            result: Box::new(result),
        };
        self.session.send.message(&finished).await.unwrap();
    }

    /// Runs the next attempt that is assigned, with success.
    pub(super) async fn run_one(&mut self, log: &str) -> Phase {
        let assignment = self.assigned().await;
        if !log.is_empty() {
            self.log(&assignment, 0, log).await;
        }
        self.finish(&assignment, Outcome::Succeeded).await;
        assignment.phase
    }
}

async fn acknowledged(stream: &mut Stream) -> u64 {
    let ack = stream.receive.message::<LogAck>();
    let ack = timeout(PATIENCE, ack).await.unwrap();
    ack.unwrap().unwrap().durable
}
