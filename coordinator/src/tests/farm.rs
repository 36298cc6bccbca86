//! A farm for tests: a coordinator and a cache on loopback, and members that say what tests tell them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use cache::{client::CacheClient, compression};
use protocol::{
    access::{Identity, Role},
    attributes::Attributes,
    blob::{Blob, TreeRef},
    build::BuildId,
    digest::Digest,
    layout::Layout,
    message::{
        Refusal,
        client::{ClientReply, ClientRequest, LogPosition, SubmitBuild, Submitted, WatchEvent},
    },
    tree::Tree,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use transport::{Authority, Client, Connection, Credentials, JoinToken};

use crate::{
    Options, Ready, RunError, clock,
    options::{BATCH_TIME_LIMIT, BUILD_TIME_LIMIT, QUEUE_TIME_LIMIT, RETENTION, RETENTION_BYTES},
};

/// A buildspec whose phases all do something, as far as anybody here knows.
pub(super) const BUILDSPEC: &str = "version: 0.2\nphases:\n  build:\n    commands: [make]\n";
/// The last id that was drawn for a build.
static DRAWN: AtomicU32 = AtomicU32::new(0x1000_0000);
/// How long a test waits for a state that has to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

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
            log_directory: None,
            salvage: false,
            limits: cache::server::Limits::default(),
            congestion: transport::Congestion::default(),
            datagrams: transport::Datagrams::default(),
            cold: None,
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
        self.token_of("main", role).await
    }

    async fn token_of(&self, team: &str, role: Role) -> JoinToken {
        let request = ClientRequest::CreateToken {
            team: team.parse().unwrap(),
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
        self.enrol_in("main", role, name).await
    }

    /// The same, of another team.
    pub(super) async fn enrol_in(&self, team: &str, role: Role, name: &str) -> Member {
        let token = self.token_of(team, role).await;
        assert_eq!(token.fingerprint, self.ready.authority_fingerprint);
        let credentials = transport::enrol(self.address(), &token, name).await;
        let credentials = credentials.unwrap();
        let identity = Identity {
            team: team.parse().unwrap(),
            role,
            name: name.to_owned(),
        };
        assert_eq!(credentials.identity, identity);
        Member { credentials }
    }

    /// What somebody of team main would hold whose certificate was issued now, and counts for `lifetime`.
    pub(super) fn issue(&self, role: Role, name: &str, lifetime: Duration) -> Credentials {
        let authority = self.home.path().join("coordinator/authority");
        let authority = Authority::load_or_create(&authority).unwrap();
        let identity = Identity {
            team: "main".parse().unwrap(),
            role,
            name: name.to_owned(),
        };
        let (grant_key, now) = (self.ready.admin.grant_key(), clock::wall());
        Credentials::self_issued(&authority, identity, grant_key, now, lifetime).unwrap()
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

    pub(super) async fn cache_address(&self) -> SocketAddr {
        match self.admin().await.ask(ClientRequest::Farm).await {
            Ok(ClientReply::Farm(farm)) => farm.cache.unwrap(),
            other => panic!("the farm should be described: {other:?}"),
        }
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, is_so: impl AsyncFn() -> bool) {
        let wait = async {
            while !is_so().await {
                sleep(Duration::from_millis(10)).await; // the poll interval
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
        secrets_key: None,
        metrics_listen: Some("127.0.0.1:0".parse().unwrap()),
        team: "main".parse().unwrap(),
        build_time_limit: BUILD_TIME_LIMIT,
        batch_time_limit: BATCH_TIME_LIMIT,
        queue_time_limit: QUEUE_TIME_LIMIT,
        retention: RETENTION,
        retention_bytes: RETENTION_BYTES,
        team_shares: BTreeMap::new(),
        build_url: None,
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

impl Member {
    /// Why a service does not let it in.
    pub(super) async fn turned_away(&self, farm: &TestFarm, service: Role) -> String {
        let address = match service {
            Role::Cache => farm.cache_address().await,
            _ => farm.address(),
        };
        let client = Client::new(&self.credentials).unwrap();
        let refused = client.connect(address, service).await.unwrap_err();
        protocol::report::Chain(&refused).to_string()
    }

    /// Why it gets no new certificate for the one that it has.
    pub(super) async fn not_renewed(&self, farm: &TestFarm) -> String {
        let refused = transport::renew(farm.address(), &self.credentials).await;
        protocol::report::Chain(&refused.unwrap_err()).to_string()
    }
}

/// A connection to the coordinator.
#[derive(Clone)]
pub(super) struct TestClient {
    client: Client,
    pub(super) connection: Connection,
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

    pub(super) async fn cache(&self) -> CacheClient {
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
            source: Some(TreeRef {
                tree,
                attributes,
                layout,
            }),
            source_version: None,
            variables: BTreeMap::new(),
            batch: false,
            reruns: BTreeMap::new(),
            no_cache: false,
            priority: 0,
            debug: false,
            id: BuildId(DRAWN.fetch_add(1, Ordering::Relaxed).into()),
        }
    }

    /// How many streams it can have open at once, which has to be at least `least`; counts to `most`.
    pub(super) async fn streams(&self, least: usize, most: usize) -> usize {
        let mut streams = Vec::new();
        while streams.len() < most {
            let open = timeout(PATIENCE, self.connection.open());
            tokio::select! {
                biased;
                stream = open => streams.push(stream.unwrap().unwrap()),
                // With the others open there is nothing that it could wait for.
                () = tokio::task::yield_now(), if least <= streams.len() => break,
            }
        }
        streams.len()
    }

    /// Whether watching a build ends with its end, and not in the middle.
    pub(super) async fn watches_to_the_end(&self, build: &str) -> bool {
        let mut stream = self.connection.open().await.unwrap();
        let watch = ClientRequest::Watch {
            build: build.to_owned(),
            from: Vec::new(),
            follow: false,
        };
        // A stream that is reset loses what is on its way, too.
        let Ok(reply) = stream.request::<_, ClientReply>(&watch).await else {
            return false;
        };
        reply.unwrap();
        loop {
            match stream.receive.message::<WatchEvent>().await {
                Ok(Some(WatchEvent::Log { bytes, .. })) => {
                    let bytes = usize::try_from(bytes).unwrap();
                    if stream.receive.bytes(bytes).await.is_err() {
                        return false;
                    }
                }
                Ok(Some(WatchEvent::Ended(_))) => return true,
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends as if all had been sent"),
                Err(_) => return false,
            }
        }
    }

    /// Waits until the coordinator has ended the connection.
    pub(super) async fn gone(&self) {
        timeout(PATIENCE, self.connection.closed()).await.unwrap();
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

    /// Submits a build again.
    pub(super) async fn retry(&self, build: &str, id: BuildId) -> Result<Submitted, Refusal> {
        let build = build.to_owned();
        match self.ask(ClientRequest::Retry { build, id }).await? {
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
