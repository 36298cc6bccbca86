//! Tests of the server and the client together, over loopback.

mod bulk;
mod hostile;
mod life;
mod limits;
mod stalled;
mod uses;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use protocol::{
    access::{Grant, Identity, Role, Trust},
    blob::Blob,
    build::BuildId,
    digest::Digest,
    job::{CacheUse, CacheUseKind},
    message::{
        Refusal, RefusalCode,
        cache::{Entry, EntryKey, PutOutcome, UseRecord},
    },
    name::Team,
    time::WallTime,
};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use transport::{Authority, Client, Connection, Credentials, GrantSigner};

use super::{Limits, Options, RunError, bind, open, rates::Teams, run_renewed, serve};
use crate::{
    client::{CacheClient, CacheError, ReadChunk, Written},
    clock::Clock,
    compression,
    store::{Store, change::Change, key::ChunkKey},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A farm's authority with a cache.
struct Farm {
    authority: Authority,
    signer: GrantSigner,
    directory: TempDir,
    address: SocketAddr,
    stop: CancellationToken,
    renew: watch::Sender<Credentials>,
    running: JoinSet<Result<(), RunError>>,
}

impl Farm {
    async fn start() -> Self {
        let authority = Authority::create().unwrap();
        let signer = GrantSigner::create();
        let credentials = issue(&authority, &signer, "farm", Role::Cache);
        let mut farm = Self {
            authority,
            signer,
            renew: watch::Sender::new(credentials),
            directory: tempfile::tempdir().unwrap(),
            address: ([127, 0, 0, 1], 0).into(),
            stop: CancellationToken::new(),
            running: JoinSet::new(),
        };
        farm.run().await;
        farm
    }

    fn options(&self) -> Options {
        Options {
            listen: ([127, 0, 0, 1], 0).into(),
            directory: self.directory.path().to_owned(),
            budget: u64::MAX,
            free_low_water: 0,
            hold: Duration::from_secs(600),
            metrics_listen: None,
            log_directory: None,
            salvage: false,
            limits: Limits::default(),
            congestion: transport::Congestion::default(),
            datagrams: transport::Datagrams::default(),
            cold: None,
        }
    }

    async fn run(&mut self) {
        self.run_with(self.options()).await;
    }

    async fn run_with(&mut self, options: Options) {
        let (ready, address) = oneshot::channel();
        self.stop = CancellationToken::new();
        let (credentials, stop) = (self.renew.subscribe(), self.stop.clone());
        self.running
            .spawn(run_renewed(options, credentials, ready, stop));
        self.address = address.await.unwrap();
    }

    /// Runs the cache; gives its store, and what connections of a team share.
    async fn run_seen(&mut self, options: Options) -> (Store, Arc<Teams>) {
        let opened = open(&options).await.unwrap();
        let store = opened.0.clone();
        let mut credentials = self.renew.subscribe();
        let bound = bind(&options, &mut credentials).await.unwrap();
        let teams = Arc::clone(&bound.teams);
        let (ready, address) = oneshot::channel();
        self.stop = CancellationToken::new();
        let signals = (ready, self.stop.clone());
        self.running
            .spawn(serve((options, bound), opened, credentials, signals));
        self.address = address.await.unwrap();
        (store, teams)
    }

    /// Ends the cache and starts it again with these limits.
    async fn limit(&mut self, limits: Limits) {
        self.end().await;
        let options = Options {
            limits,
            ..self.options()
        };
        self.run_with(options).await;
    }

    async fn end(&mut self) {
        self.stop.cancel();
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }

    fn credentials(&self, team: &str, role: Role) -> Credentials {
        issue(&self.authority, &self.signer, team, role)
    }

    async fn connect(&self, team: &str, role: Role) -> Connection {
        let client = Client::new(&self.credentials(team, role)).unwrap();
        client.connect(self.address, Role::Cache).await.unwrap()
    }

    /// A client of its own team.
    async fn client(&self, team: &str, role: Role) -> CacheClient {
        CacheClient::new(self.connect(team, role).await, team.parse().unwrap())
    }

    /// A worker with a grant for a build of `team`.
    async fn worker(&self, team: &str, trust: Trust) -> CacheClient {
        let connection = self.connect("farm", Role::Worker).await;
        let worker = CacheClient::new(connection, team.parse().unwrap());
        worker
            .present(self.signer.sign(&grant(team, trust)))
            .await
            .unwrap();
        worker
    }
}

fn issue(authority: &Authority, signer: &GrantSigner, team: &str, role: Role) -> Credentials {
    let identity = Identity {
        team: team.parse().unwrap(),
        role,
        name: format!("{team}-{role}"),
    };
    let (grant_key, now) = (signer.public_key(), Clock::wall());
    Credentials::self_issued(authority, identity, &grant_key, now, DAY).unwrap()
}

fn grant(team: &str, trust: Trust) -> Grant {
    Grant {
        build: BuildId(7),
        team: team.parse().unwrap(),
        namespace: team.parse().unwrap(),
        trust,
        writes: vec!["dependency/app/".to_owned(), "snapshot/7/".to_owned()],
        reads: vec!["dependency/app/".to_owned(), "snapshot/7/".to_owned()],
        end: Clock::wall() + DAY,
    }
}

/// A chunk of `length` bytes, different for each seed, of which about half can be compressed away.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut hasher = Digest::of(&seed.to_le_bytes());
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        bytes.extend_from_slice(hasher.hash());
        bytes.extend_from_slice(&[0; 32]);
        hasher = Digest::of(hasher.hash());
    }
    bytes.truncate(length);
    bytes
}

async fn write(client: &CacheClient, chunks: &[Vec<u8>]) -> Result<Written, CacheError> {
    let (send, receive) = mpsc::channel(4);
    let feed = async move {
        for bytes in chunks {
            let chunk = compression::encode(bytes, Digest::of(bytes));
            if send.send(chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(feed, client.write_chunks(receive)).1
}

async fn read(client: &CacheClient, chunks: &[Digest]) -> Result<Vec<ReadChunk>, CacheError> {
    let (send, mut receive) = mpsc::channel(4);
    let collect = async move {
        let mut all = Vec::new();
        while let Some(chunk) = receive.recv().await {
            all.push(chunk);
        }
        all.sort_by_key(|chunk: &ReadChunk| chunk.index);
        all
    };
    let (all, result) = tokio::join!(collect, client.read_chunks(chunks.to_vec(), send));
    result.map(|()| all)
}

async fn missing(client: &CacheClient, bytes: &[u8]) -> bool {
    let missing = client.find_missing(&[Digest::of(bytes)]).await.unwrap();
    !missing.is_empty()
}

fn entry(bytes: &[u8]) -> Entry {
    let digest = Digest::of(bytes);
    Entry {
        blobs: vec![Blob {
            digest,
            chunks: vec![digest],
        }],
        trees: vec![],
        outlines: vec![],
        // What writers claim is not believed.
        trust: Trust::Protected,
        team: "claimed".parse().unwrap(),
        written: WallTime(1),
    }
}

fn key(namespace: &str, path: &str) -> EntryKey {
    EntryKey {
        namespace: namespace.parse().unwrap(),
        path: path.to_owned(),
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, CacheError>) -> Refusal {
    match result {
        Err(CacheError::Refused { source, .. }) => source,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_of_all_sizes_come_back_as_they_were() {
    let farm = Farm::start().await;
    let client = farm.client("red", Role::Developer).await;
    let sizes = [1, 100, 4_096, 70_000, 524_288, 2_097_152];
    let chunks: Vec<Vec<u8>> = (0..60)
        .map(|seed| content(seed, sizes[usize::try_from(seed).unwrap() % sizes.len()]))
        .collect();
    let written = write(&client, &chunks).await.unwrap();
    let bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    // Chunks of one byte are all alike but for their first byte; count what is distinct.
    let distinct: std::collections::BTreeSet<_> = chunks.iter().collect();
    assert_eq!((written.chunks, written.new), (60, distinct.len() as u64));
    assert!(written.new_bytes_stored < bytes * 3 / 4, "compressed");
    assert_eq!(write(&client, &chunks).await.unwrap().new, 0);

    let digests: Vec<Digest> = chunks.iter().map(|chunk| Digest::of(chunk)).collect();
    assert_eq!(
        client.find_missing(&digests).await.unwrap(),
        Vec::<usize>::new()
    );
    let back = read(&client, &digests).await.unwrap();
    assert_eq!(back.len(), chunks.len());
    for (chunk, expected) in back.iter().zip(&chunks) {
        assert!(chunk.bytes == *expected, "chunk {} differs", chunk.index);
        assert!(chunk.bytes_moved <= expected.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_digests_than_one_request_holds_are_asked_for_in_several() {
    let farm = Farm::start().await;
    let client = farm.client("red", Role::Developer).await;
    let here = content(1, 100);
    write(&client, std::slice::from_ref(&here)).await.unwrap();
    let mut asked: Vec<Digest> = (0..70_000_u64)
        .map(|at| Digest::of(&at.to_le_bytes()))
        .collect();
    asked[69_000] = Digest::of(&here);
    let missing = client.find_missing(&asked).await.unwrap();
    let expected: Vec<usize> = (0..70_000).filter(|&at| at != 69_000).collect();
    assert!(missing == expected);
    let first_missing = read(&client, &asked).await.unwrap_err();
    assert!(matches!(first_missing, CacheError::MissingChunk { digest } if digest == asked[0]));
}

#[tokio::test]
async fn a_team_is_not_told_of_anothers_chunk_until_it_has_it_or_may_read_an_entry_of_it() {
    let farm = Farm::start().await;
    let (shared, uploaded) = (content(1, 5_000), content(2, 5_000));
    let worker = farm.worker("red", Trust::Team).await;
    write(&worker, &[shared.clone(), uploaded.clone()])
        .await
        .unwrap();
    let path = "dependency/app/k";
    let put = worker
        .put_entry(key("red", path), entry(&shared), false)
        .await;
    assert_eq!(put.unwrap(), PutOutcome::Stored);

    let blue = farm.client("blue", Role::Developer).await;
    assert!(missing(&blue, &shared).await && missing(&blue, &uploaded).await);
    let reading = read(&blue, &[Digest::of(&shared)]).await;
    assert!(matches!(reading, Err(CacheError::MissingChunk { .. })));
    let as_red = CacheClient::new(farm.connect("blue", Role::Developer).await, team("red"));
    let refused = refusal(as_red.find_missing(&[Digest::of(&shared)]).await);
    assert_eq!(refused.code, RefusalCode::PermissionDenied);
    assert!(refused.message.contains("team red"), "{refused}");

    // By having it: stored once, known to both.
    assert_eq!(
        write(&blue, std::slice::from_ref(&uploaded))
            .await
            .unwrap()
            .new,
        0
    );
    assert!(!missing(&blue, &uploaded).await);

    // By an entry: a build of team blue whose namespace is red's.
    let granted = Grant {
        team: team("blue"),
        ..grant("red", Trust::Team)
    };
    let builder = CacheClient::new(farm.connect("farm", Role::Worker).await, team("blue"));
    builder.present(farm.signer.sign(&granted)).await.unwrap();
    assert!(missing(&builder, &shared).await);
    assert!(builder.get_entry(key("red", path)).await.unwrap().is_some());
    assert!(!missing(&builder, &shared).await);
    let back = read(&builder, &[Digest::of(&shared)]).await.unwrap();
    assert!(back[0].bytes == shared);
    assert!(!missing(&blue, &shared).await);
}

fn team(name: &str) -> Team {
    name.parse().unwrap()
}

#[tokio::test]
async fn a_worker_writes_where_its_grant_says_and_the_server_says_how_far_it_is_trusted() {
    let farm = Farm::start().await;
    let bytes = content(1, 1_000);
    let worker = farm.worker("red", Trust::Untrusted).await;
    write(&worker, std::slice::from_ref(&bytes)).await.unwrap();
    let put = |path: &str| worker.put_entry(key("red", path), entry(&bytes), false);
    assert_eq!(put("dependency/app/k").await.unwrap(), PutOutcome::Stored);
    assert_eq!(put("dependency/app/k").await.unwrap(), PutOutcome::Kept);
    for path in ["dependency/other/k", "snapshot/77/0", "source/7"] {
        assert_eq!(refusal(put(path).await).code, RefusalCode::PermissionDenied);
    }
    let absent = worker.put_entry(key("red", "snapshot/7/0"), entry(b"absent"), false);
    let refused = refusal(absent.await);
    assert_eq!(refused.code, RefusalCode::FailedPrecondition);
    let digest = Digest::of(b"absent").to_string();
    assert!(refused.message.contains(&digest), "{refused}");

    let seen = worker
        .get_entry(key("red", "dependency/app/k"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((seen.trust, seen.team), (Trust::Untrusted, team("red")));
    assert!(WallTime(1) < seen.written);
    let trusted = farm.worker("red", Trust::Protected).await;
    let seen = trusted
        .get_entry(key("red", "dependency/app/k"))
        .await
        .unwrap();
    assert_eq!(
        seen, None,
        "a protected build sees nothing of an untrusted one"
    );
    let list = trusted
        .list_entries(&"red".parse().unwrap(), "dependency/app/")
        .await;
    assert_eq!(list.unwrap(), vec![]);

    let stranger = farm.connect("farm", Role::Worker).await;
    let stranger = CacheClient::new(stranger, team("red"));
    let refused = refusal(stranger.get_entry(key("red", "dependency/app/k")).await);
    assert_eq!(refused.code, RefusalCode::PermissionDenied);
}

#[tokio::test]
async fn a_grant_that_is_forged_or_over_is_refused() {
    let farm = Farm::start().await;
    let connection = farm.connect("farm", Role::Worker).await;
    let worker = CacheClient::new(connection, team("red"));
    let forged = GrantSigner::create().sign(&grant("red", Trust::Team));
    let over = Grant {
        end: WallTime(1_000),
        ..grant("red", Trust::Team)
    };
    for signed in [forged, farm.signer.sign(&over)] {
        let refused = refusal(worker.present(signed).await);
        assert_eq!(refused.code, RefusalCode::PermissionDenied);
    }
    assert_eq!(
        refusal(worker.find_missing(&[Digest::of(b"x")]).await).code,
        RefusalCode::PermissionDenied
    );
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let mut farm = Farm::start().await;
    let bytes = content(1, 300_000);
    let coordinator = farm.client("red", Role::Coordinator).await;
    write(&coordinator, std::slice::from_ref(&bytes))
        .await
        .unwrap();
    let source = Entry {
        team: team("red"),
        ..entry(&bytes)
    };
    let path = "source/7";
    coordinator
        .put_entry(key("red", path), source, true)
        .await
        .unwrap();
    let record = UseRecord {
        team: team("red"),
        project: "app".parse().unwrap(),
        what: CacheUse {
            key: "k".to_owned(),
            fallbacks: Vec::new(),
            what: CacheUseKind::Restored,
            bytes: 10,
            bytes_moved: 5,
            millis: 2,
        },
        entry: None,
    };
    coordinator.record(record).await.unwrap();
    farm.end().await;
    farm.run().await;

    let developer = farm.client("red", Role::Developer).await;
    let seen = developer
        .get_entry(key("red", path))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen.trust, Trust::Protected, "the coordinator is believed");
    let back = read(&developer, &[Digest::of(&bytes)]).await.unwrap();
    assert!(back[0].bytes == bytes);
    let stats = developer.stats().await.unwrap();
    assert_eq!((stats.chunks, stats.bytes), (1, 300_000));
    assert_eq!(stats.uses[0].restored, 1);
    let other = farm.client("blue", Role::Ci).await;
    assert_eq!(other.stats().await.unwrap().uses, vec![]);

    let coordinator = farm.client("red", Role::Coordinator).await;
    let red = "red".parse().unwrap();
    assert_eq!(
        coordinator
            .list_entries(&red, "source/")
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        coordinator.delete_entries(&red, "source/7").await.unwrap(),
        1
    );
    assert_eq!(developer.get_entry(key("red", path)).await.unwrap(), None);
    let refused = refusal(developer.delete_entries(&red, "source/").await);
    assert_eq!(refused.code, RefusalCode::PermissionDenied);
    farm.end().await;
}
