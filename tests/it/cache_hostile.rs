//! Clients of the cache that are damaged or hostile, and stores that are not what they should be: refused by
//! name, in bounded memory, and others are served meanwhile.

use std::{fs, time::Duration};

use bytes::Bytes;
use cache::{client::CacheClient, compression};
use protocol::{
    access::Role,
    digest::Digest,
    frame::FRAME_BYTES_MAX,
    message::{
        Refusal, RefusalCode,
        cache::{CacheReply, CacheRequest, ChunkHeader, DIGESTS_MAX, Encoding},
    },
    name::Team,
};
use testkit::{
    farm::{Farm, FarmPlan},
    random::Random,
};
use tokio::{runtime::Runtime, sync::mpsc, task::JoinSet, time::timeout};
use transport::{Client, Connection, Credentials, JoinToken};

use crate::hostile::{peak_kib, resident_kib};

/// How much more memory the cache may take than before, in KiB: at its peak while one connection or two misuse it, and
/// in any case later. What one may have it hold adds up to some 125 MiB: 8 in the windows of QUIC, 37 of chunks that
/// come and are not durable yet, 8 of chunks that go and are not acknowledged yet, 32 of requests as they came and as
/// they are read, and 40 of what those look up. The rest is for what the store and the allocator keep. The bomb, the
/// frames that are too long and the streams that nobody reads ask for twice as much each.
const GROWTH_KIB_MAX: u64 = 256 * 1024;
/// The same at the peak while two dozen connections misuse it: each of them has 8 MiB of chunks on their way, with those
/// that are not acknowledged yet.
const MANY_GROWTH_KIB_MAX: u64 = GROWTH_KIB_MAX + READERS * 8 * 1024;
/// How many connections do not read.
const READERS: u64 = 24;
/// How many connections send a frame at once that is too long: together they would bring twice what is allowed, and
/// their windows hold half of it at most.
const LIARS: usize = 16;
/// What a bomb unpacks to, in bytes: twice what is allowed.
const BOMB_BYTES: usize = 512 << 20;
/// Far less than what a stalled stream is given.
const PROMPT: Duration = Duration::from_secs(20);
const CHUNK_BYTES: usize = 2 << 20;

struct Site {
    farm: Farm,
    runtime: Runtime,
    credentials: Credentials,
}

impl Site {
    fn new() -> Self {
        let farm = Farm::start(FarmPlan {
            workers: 0,
            ..FarmPlan::default()
        });
        let runtime = Runtime::new().unwrap();
        let token: JoinToken = farm.token("developer").parse().unwrap();
        let address = farm.address.parse().unwrap();
        let enrol = transport::enrol(address, &token, "stranger");
        let credentials = runtime.block_on(enrol).unwrap();
        Self {
            farm,
            runtime,
            credentials,
        }
    }

    async fn connect(&self) -> Connection {
        let client = Client::new(&self.credentials).unwrap();
        let address = self.farm.cache_address.parse().unwrap();
        client.connect(address, Role::Cache).await.unwrap()
    }

    fn team(&self) -> Team {
        self.credentials.identity.team.clone()
    }

    async fn client(&self) -> CacheClient {
        CacheClient::new(self.connect().await, self.team())
    }

    /// Runs `misuse`, and checks that the cache has not grown by much, nor by more than `growth_kib_max` at its peak, and
    /// serves others.
    fn misused(&self, growth_kib_max: u64, misuse: impl AsyncFnOnce()) {
        let good = content(0, CHUNK_BYTES);
        self.runtime.block_on(async {
            write(&self.client().await, &good).await;
        });
        let before = resident_kib(self.farm.cache_pid());
        self.runtime.block_on(misuse());
        let grown = resident_kib(self.farm.cache_pid()).saturating_sub(before);
        let at_most = peak_kib(self.farm.cache_pid()).saturating_sub(before);
        testkit::tell(&format!("the cache grew by {at_most} KiB at its peak"));
        assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB");
        assert!(
            at_most < growth_kib_max,
            "memory grew by {at_most} KiB at its peak"
        );
        self.runtime.block_on(self.check_alive(&good));
    }

    /// The cache takes, gives and knows chunks.
    async fn check_alive(&self, good: &[u8]) {
        let client = self.client().await;
        let served = timeout(PROMPT, async {
            write(&client, &content(1, CHUNK_BYTES)).await;
            read(&client, Digest::of(good)).await
        });
        assert_eq!(served.await.expect("others are served"), good);
    }
}

/// Bytes that cannot be compressed.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let words = (0..length / 8).map(|_| random.below(u64::MAX).to_le_bytes());
    words.flatten().collect()
}

async fn write(client: &CacheClient, bytes: &[u8]) {
    let (send, receive) = mpsc::channel(1);
    let chunk = compression::encode(bytes, Digest::of(bytes));
    send.send(chunk).await.unwrap();
    drop(send);
    client.write_chunks(receive).await.unwrap();
}

async fn read(client: &CacheClient, digest: Digest) -> Vec<u8> {
    let (send, mut receive) = mpsc::channel(1);
    client.read_chunks(vec![digest], send).await.unwrap();
    receive.recv().await.unwrap().bytes.to_vec()
}

/// Says that a chunk comes, sends a body, and gives what the cache says.
async fn offer(connection: &Connection, team: Team, header: ChunkHeader, body: Bytes) -> Refusal {
    let mut stream = connection.open().await.unwrap();
    let request = CacheRequest::WriteChunks { team };
    stream.send.message(&request).await.unwrap();
    stream.send.message(&header).await.unwrap();
    // The cache may have said no by now.
    let _sent = stream.send.bytes(body).await;
    stream.send.finish();
    let answer = stream.receive.message::<Result<CacheReply, Refusal>>();
    answer.await.unwrap().unwrap().unwrap_err()
}

#[test]
fn chunks_that_are_not_what_they_say_are_refused_by_name_however_many_come() {
    let site = Site::new();
    site.misused(GROWTH_KIB_MAX, async || {
        let connection = site.connect().await;
        let client = site.client().await;
        let bomb = compression::encode(&vec![0; BOMB_BYTES], Digest::of(b"")).body;
        assert!(bomb.len() < CHUNK_BYTES, "{} bytes", bomb.len());
        let noise = Bytes::from(content(2, CHUNK_BYTES));
        for round in 0..300_u64 {
            let digest = Digest::from_parts([u8::try_from(round % 256).unwrap(); 32], 1_000);
            let large = Digest::from_parts([1; 32], CHUNK_BYTES as u64 + 1);
            let whole = Digest::from_parts([3; 32], CHUNK_BYTES as u64);
            let cases = [
                ("a bomb", whole, Encoding::Zstd, bomb.clone()),
                ("a wrong length", digest, Encoding::Raw, bomb.clone()),
                (
                    "a chunk over the limit",
                    large,
                    Encoding::Raw,
                    noise.clone(),
                ),
                ("other bytes", whole, Encoding::Raw, noise.clone()),
            ];
            let (what, digest, encoding, body) = cases[usize::try_from(round % 4).unwrap()].clone();
            let header = ChunkHeader {
                index: 0,
                digest,
                encoding,
                body_bytes: u32::try_from(body.len()).unwrap(),
            };
            let refused = offer(&connection, site.team(), header, body).await;
            assert_eq!(refused.code, RefusalCode::InvalidArgument, "{what}");
            assert!(
                refused.message.contains(&digest.to_string()),
                "{what}: {refused}"
            );
            assert_eq!(client.find_missing(&[digest]).await.unwrap(), [0], "{what}");
        }
    });
}

#[test]
fn a_million_digests_in_one_request_end_their_connection_and_65_536_are_answered() {
    let site = Site::new();
    site.misused(GROWTH_KIB_MAX, async || {
        // A frame of a million digests says that it is too long before any of them.
        let length = 34_000_000_u32;
        let frame = Bytes::from([&length.to_le_bytes()[..], &vec![7; 34_000_000]].concat());
        let mut lying = JoinSet::new();
        for _ in 0..LIARS {
            let (connection, frame) = (site.connect().await, frame.clone());
            lying.spawn(async move {
                let mut stream = connection.open().await.unwrap();
                let _refused = stream.send.bytes(frame).await;
                timeout(PROMPT, connection.closed()).await
            });
        }
        for closed in lying.join_all().await {
            let reason = closed.expect("it is over");
            let expected = format!("{length} bytes, at most {FRAME_BYTES_MAX} are allowed");
            assert!(reason.contains(&expected), "{reason}");
        }
        let client = site.client().await;
        let digests: Vec<Digest> = (0..1_000_000_u32)
            .map(|number| Digest::of(&number.to_le_bytes()))
            .collect();
        // The client asks in requests that are small enough.
        let missing = timeout(PROMPT, client.find_missing(&digests)).await;
        assert_eq!(missing.expect("it is answered").unwrap().len(), 1_000_000);
        let connection = site.connect().await;
        let mut stream = connection.open().await.unwrap();
        let request = CacheRequest::FindMissing {
            team: site.team(),
            chunks: digests[..=DIGESTS_MAX].to_vec(),
        };
        let refused: Result<CacheReply, Refusal> = stream.request(&request).await.unwrap();
        assert!(refused.unwrap_err().message.contains("65537"));
    });
}

#[test]
fn ten_thousand_streams_that_nobody_reads_hold_up_no_others() {
    let site = Site::new();
    site.misused(GROWTH_KIB_MAX, async || {
        let there = Digest::of(&content(0, CHUNK_BYTES));
        let connection = site.connect().await;
        let mut opening = JoinSet::new();
        for _ in 0..10_000 {
            let (connection, team) = (connection.clone(), site.team());
            opening.spawn(async move {
                let mut stream = connection.open().await.unwrap();
                let chunks = vec![there; 64];
                let request = CacheRequest::ReadChunks { team, chunks };
                stream.send.message(&request).await.unwrap();
                stream
            });
        }
        // As many as the server allows; the others wait for these, which end with their reader only.
        let mut open = Vec::new();
        while let Ok(Some(stream)) = timeout(Duration::from_secs(1), opening.join_next()).await {
            open.push(stream.unwrap());
        }
        let count = open.len();
        assert!((128..=256).contains(&count), "{count} streams are open");
        site.check_alive(&content(0, CHUNK_BYTES)).await;
        let grown = resident_kib(site.farm.cache_pid());
        testkit::tell(&format!(
            "with {count} open streams the cache takes {grown} KiB"
        ));
    });
}

#[test]
fn readers_that_stop_in_the_middle_hold_up_no_others() {
    let site = Site::new();
    site.misused(MANY_GROWTH_KIB_MAX, async || {
        let there = Digest::of(&content(0, CHUNK_BYTES));
        let mut stalled = Vec::new();
        for _ in 0..READERS {
            let connection = site.connect().await;
            let mut stream = connection.open().await.unwrap();
            let request = CacheRequest::ReadChunks {
                team: site.team(),
                chunks: vec![there; 1_000],
            };
            stream.send.message(&request).await.unwrap();
            let first = stream.receive.message::<Result<ChunkHeader, Refusal>>();
            let first = timeout(PROMPT, first).await;
            first.expect("nobody waits for others").unwrap();
            stalled.push((connection, stream));
        }
        site.check_alive(&content(0, CHUNK_BYTES)).await;
    });
}

#[test]
fn a_store_that_is_not_what_it_should_be_is_refused_with_its_name() {
    let mut farm = Farm::start(FarmPlan {
        workers: 0,
        ..FarmPlan::default()
    });
    farm.kill_cache();
    let data = farm.cache_directory();
    let refused = |farm: &Farm| {
        let arguments = [
            "cache",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--join",
            &farm.address,
        ];
        let output = farm
            .grange(&arguments)
            .arg("--data")
            .arg(&data)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(data.to_str().unwrap()), "{said}");
        said
    };
    fs::write(data.join("version"), "7\n").unwrap();
    let newer = refused(&farm);
    assert!(
        newer.contains("version 7") && newer.contains("knows 2"),
        "{newer}"
    );
    fs::write(data.join("version"), "1\n").unwrap();
    let store = data.join("store");
    let manifest = fs::read_to_string(store.join("CURRENT")).unwrap();
    let manifest = store.join(manifest.trim_end());
    let whole = fs::read(&manifest).unwrap();
    let mut damaged = whole.clone();
    damaged[30] ^= 1;
    fs::write(&manifest, damaged).unwrap();
    refused(&farm);
    fs::write(&manifest, whole).unwrap();
    farm.start_cache();
}
