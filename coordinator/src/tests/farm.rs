//! A farm for tests: a coordinator and a cache on loopback, and members that say what tests tell them.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use cache::{client::CacheClient, compression};
use protocol::{
    access::{Identity, Role},
    attributes::Attributes,
    blob::{Blob, TreeRef},
    build::{BuildId, Outcome, Phase, PhaseContext},
    digest::Digest,
    job::AttemptResult,
    layout::Layout,
    lease::LeaseId,
    message::{
        Refusal,
        client::{ClientReply, ClientRequest, LogPosition, SubmitBuild, Submitted, WatchEvent},
        work::{
            Assignment, CoordinatorMessage, HeldLease, LogAck, LogPiece, LogStart, RevokeReason,
            WorkRequest, WorkerMessage,
        },
    },
    time::WallTime,
    tree::Tree,
    worker::{Isolation, WorkerOffer},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use transport::{Client, Connection, Credentials, JoinToken, Stream};

use crate::{
    Options, Ready, RunError,
    options::{BUILD_TIME_LIMIT, QUEUE_TIME_LIMIT, RETENTION, RETENTION_BYTES},
};

/// A buildspec whose phases all do something, as far as anybody here knows.
pub(super) const BUILDSPEC: &str = "version: 0.2\nphases:\n  build:\n    commands: [make]\n";
/// How long a test waits for a state that has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A coordinator and a cache.
pub(super) struct TestFarm {
    home: tempfile::TempDir,
    coordinator: Running<RunError>,
    ready: Ready,
    cache: Option<Running<cache::server::RunError>>,
}

/// A service that runs.
struct Running<E> {
    stop: CancellationToken,
    task: JoinSet<Result<(), E>>,
}

impl<E: std::fmt::Debug + 'static> Running<E> {
    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

impl TestFarm {
    /// A farm without workers.
    pub(super) async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (coordinator, ready) = start_coordinator(home.path().join("coordinator")).await;
        let mut farm = Self {
            home,
            coordinator,
            ready,
            cache: None,
        };
        farm.start_cache().await;
        farm
    }

    async fn start_cache(&mut self) {
        let member = self.enrol(Role::Cache, "cache").await;
        let options = cache::server::Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            directory: self.home.path().join("cache"),
            budget: 1 << 30,
            free_low_water: 1 << 20,
            hold: Duration::from_secs(60),
            metrics_listen: None,
        };
        let (told, ready) = oneshot::channel();
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let credentials = member.credentials.clone();
        task.spawn(cache::server::run(options, credentials, told, stop.clone()));
        let address = ready.await.unwrap();
        self.cache = Some(Running { stop, task });
        let client = member.connect(self.address()).await;
        let announced = client.ask(ClientRequest::AnnounceCache(address)).await;
        assert_eq!(announced, Ok(ClientReply::Done));
    }

    /// Stops the cache and starts it at another address.
    pub(super) async fn move_cache(&mut self) {
        if let Some(cache) = self.cache.take() {
            cache.stop().await;
        }
        self.start_cache().await;
    }

    /// Stops the coordinator and starts it on what it has kept.
    pub(super) async fn restart(&mut self) {
        let stopping = Running {
            stop: self.coordinator.stop.clone(),
            task: std::mem::take(&mut self.coordinator.task),
        };
        stopping.stop().await;
        (self.coordinator, self.ready) =
            start_coordinator(self.home.path().join("coordinator")).await;
    }

    pub(super) async fn stop(self) {
        self.coordinator.stop().await;
        if let Some(cache) = self.cache {
            cache.stop().await;
        }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.ready.address
    }

    /// A connection as the farm's admin.
    pub(super) async fn admin(&self) -> TestClient {
        let admin = Member {
            credentials: self.ready.admin.clone(),
        };
        admin.connect(self.address()).await
    }

    /// A token for a member of this role.
    pub(super) async fn token(&self, role: Role) -> JoinToken {
        let request = ClientRequest::CreateToken {
            team: "main".parse().unwrap(),
            role,
            lifetime: Duration::from_secs(600),
        };
        let answer = self.admin().await.ask(request).await;
        let Ok(ClientReply::Token(text)) = answer else {
            panic!("an admin should get a token: {answer:?}");
        };
        text.parse().unwrap()
    }

    /// A member that has joined with a token.
    pub(super) async fn enrol(&self, role: Role, name: &str) -> Member {
        let token = self.token(role).await;
        assert_eq!(token.fingerprint, self.ready.authority_fingerprint);
        let credentials = transport::enrol(self.address(), &token, name).await;
        let credentials = credentials.unwrap();
        let identity = Identity {
            team: "main".parse().unwrap(),
            role,
            name: name.to_owned(),
        };
        assert_eq!(credentials.identity, identity);
        Member { credentials }
    }

    /// The keys of all sources that the cache keeps.
    pub(super) async fn source_keys(&self) -> Vec<String> {
        let cache = self.admin().await.cache().await;
        let entries = cache
            .list_entries(&"main".parse().unwrap(), "source/")
            .await
            .unwrap();
        entries.into_iter().map(|(key, _)| key).collect()
    }

    pub(super) fn log_directory(&self, build: BuildId) -> PathBuf {
        let logs = self.home.path().join("coordinator/logs");
        logs.join(build.to_string())
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, is_so: impl AsyncFn() -> bool) {
        let wait = async {
            while !is_so().await {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap();
    }

    /// What the coordinator answers over HTTP.
    pub(super) async fn http(&self, path: &str) -> String {
        let address = self.ready.metrics.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: farm\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

async fn start_coordinator(directory: PathBuf) -> (Running<RunError>, Ready) {
    let options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        directory,
        metrics_listen: Some("127.0.0.1:0".parse().unwrap()),
        team: "main".parse().unwrap(),
        build_time_limit: BUILD_TIME_LIMIT,
        queue_time_limit: QUEUE_TIME_LIMIT,
        retention: RETENTION,
        retention_bytes: RETENTION_BYTES,
    };
    let (told, ready) = oneshot::channel();
    let stop = CancellationToken::new();
    let mut task = JoinSet::new();
    task.spawn(crate::run(options, told, stop.clone()));
    let ready = ready.await.unwrap();
    (Running { stop, task }, ready)
}

/// Somebody with credentials.
pub(super) struct Member {
    credentials: Credentials,
}

impl Member {
    pub(super) async fn connect(&self, coordinator: SocketAddr) -> TestClient {
        let client = Client::new(&self.credentials).unwrap();
        let connection = client
            .connect(coordinator, Role::Coordinator)
            .await
            .unwrap();
        TestClient { client, connection }
    }
}

/// A connection to the coordinator.
#[derive(Clone)]
pub(super) struct TestClient {
    client: Client,
    connection: Connection,
}

/// What came of watching a build: events, and the bytes of those that are log.
pub(super) struct Watched {
    pub(super) events: Vec<(WatchEvent, Vec<u8>)>,
}

impl TestClient {
    pub(super) async fn ask(&self, request: ClientRequest) -> Result<ClientReply, Refusal> {
        let mut stream = self.connection.open().await.unwrap();
        stream.request(&request).await.unwrap()
    }

    async fn cache(&self) -> CacheClient {
        let Ok(ClientReply::Farm(farm)) = self.ask(ClientRequest::Farm).await else {
            panic!("everybody may know the farm");
        };
        let address = farm.cache.unwrap();
        let connection = self.client.connect(address, Role::Cache).await.unwrap();
        CacheClient::new(connection, farm.team)
    }

    /// A submission of an empty tree, which is at the cache.
    pub(super) async fn build(&self, buildspec: &str) -> SubmitBuild {
        let tree = Tree::new(Vec::new()).unwrap().encode();
        let digest = Digest::of(&tree);
        let attributes = Attributes::new(Vec::new()).encode(&digest);
        let layout = Layout {
            chunks: Vec::new(),
            files: Vec::new(),
        }
        .encode(&digest);
        let (chunks, written) = mpsc::channel(3);
        let mut blobs = Vec::new();
        for bytes in [tree, attributes, layout] {
            let digest = Digest::of(&bytes);
            let encoded = compression::encode(&bytes, digest);
            chunks.send(encoded).await.unwrap();
            blobs.push(Blob {
                digest,
                chunks: vec![digest],
            });
        }
        drop(chunks);
        let cache = self.cache().await;
        cache.write_chunks(written).await.unwrap();
        let [tree, attributes, layout] = blobs.try_into().unwrap();
        SubmitBuild {
            project: "app".parse().unwrap(),
            buildspec_path: "buildspec.yml".to_owned(),
            buildspec: buildspec.to_owned(),
            source: TreeRef {
                tree,
                attributes,
                layout,
            },
            source_version: None,
            variables: BTreeMap::new(),
            batch: false,
        }
    }

    pub(super) async fn submit(&self, buildspec: &str) -> Result<Submitted, Refusal> {
        self.submit_build(self.build(buildspec).await).await
    }

    pub(super) async fn submit_build(&self, build: SubmitBuild) -> Result<Submitted, Refusal> {
        match self.ask(ClientRequest::Submit(Box::new(build))).await? {
            ClientReply::Submitted(submitted) => Ok(submitted),
            other => panic!("this answers another request: {other:?}"),
        }
    }

    /// Watches to the end.
    pub(super) async fn watch(&self, build: &str, from: Vec<LogPosition>, follow: bool) -> Watched {
        let request = ClientRequest::Watch {
            build: build.to_owned(),
            from,
            follow,
        };
        let mut stream = self.connection.open().await.unwrap();
        let answer = stream.request::<_, ClientReply>(&request).await.unwrap();
        assert!(matches!(answer, Ok(ClientReply::Watching(_))), "{answer:?}");
        let mut events = Vec::new();
        let all = async {
            while let Some(event) = stream.receive.message::<WatchEvent>().await.unwrap() {
                let length = match &event {
                    WatchEvent::Log { bytes, .. } => *bytes,
                    _ => 0,
                };
                let length = usize::try_from(length).unwrap();
                let bytes = stream.receive.bytes(length).await.unwrap();
                events.push((event, bytes.to_vec()));
            }
        };
        timeout(PATIENCE, all).await.unwrap();
        Watched { events }
    }
}

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
        };
        let holds = held.iter().map(|assignment| HeldLease {
            lease: assignment.lease,
            job: assignment.job,
            attempt: assignment.attempt,
        });
        let join = WorkerMessage::Join {
            offer,
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

    /// Reports an attempt, and waits until that is kept.
    pub(super) async fn finish(&mut self, assignment: &Assignment, outcome: Outcome) {
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
            cache_uses: Vec::new(),
            log_bytes: 0,
            started: WallTime(1),
            ended: WallTime(2),
        };
        let finished = WorkerMessage::Finished {
            lease: assignment.lease,
            result: Box::new(result),
        };
        self.session.send.message(&finished).await.unwrap();
        let expected = CoordinatorMessage::Acknowledged {
            lease: assignment.lease,
        };
        assert_eq!(self.told().await, Some(expected));
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
