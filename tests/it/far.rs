//! A cache that is far from those who use it: what is put and got arrives whole over a path that loses some, and a
//! small answer does not wait behind bulk where the path is narrow.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    ops::Range,
    path::Path,
    pin::pin,
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use cache::{client::CacheClient, compression};
use protocol::{access::Role, digest::Digest};
use testkit::{
    farm::{Farm, FarmPlan},
    project,
    relay::{LinkPlan, Relay, RelayPlan},
};
use tokio::{runtime::Runtime, sync::mpsc, task::JoinSet};
use transport::{Client, Credentials, JoinToken};

use crate::cache_hostile::content;

/// How many requests for bulk are under way at once, and how many chunks each is for, of how many bytes: together
/// eight seconds of the path.
const BULK_REQUESTS: usize = 4;
const BULK_CHUNKS: usize = 8;
const CHUNK_BYTES: usize = 512 * 1024;

/// Ports that no system gives to whoever asks for any. Each process of tests begins elsewhere among them, and each
/// of its tests takes another.
const OWN_PORTS: Range<u16> = 20_000..30_000;
static TURNS: AtomicU32 = AtomicU32::new(0);

/// A farm whose cache is reached through a relay only.
struct Site {
    farm: Farm,
    relay: Relay,
    /// Where the cache truly is.
    near: SocketAddr,
}

impl Site {
    fn behind(link: LinkPlan) -> Self {
        // Relay and cache have to know of each other before either is there.
        let near = free_address();
        let relay = Relay::start(near, RelayPlan::both(link, 1)).unwrap();
        let farm = Farm::start(FarmPlan {
            workers: 0,
            settings: format!("[cache]\nadvertise = '{}'\n", relay.address),
            cache_listen: Some(near),
            ..FarmPlan::default()
        });
        assert_eq!(farm.cache_address, relay.address.to_string());
        Self { farm, relay, near }
    }

    /// How many datagrams the path has lost on the way to the cache, and on the way back.
    fn lost(&self) -> (u64, u64) {
        let passed = self.relay.passed();
        let up = passed.values().map(|(up, _)| up.lost).sum();
        (up, passed.values().map(|(_, down)| down.lost).sum())
    }
}

/// An address that nobody else gets until the cache takes it.
fn free_address() -> SocketAddr {
    let count = u32::from(OWN_PORTS.end - OWN_PORTS.start);
    let mut addresses = (0..count).map(|_| {
        let turn = TURNS.fetch_add(1, Ordering::Relaxed);
        let number = process::id().wrapping_mul(16).wrapping_add(turn) % count;
        let port = OWN_PORTS.start + u16::try_from(number).unwrap();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    });
    let free = addresses.find(|address| UdpSocket::bind(address).is_ok());
    free.expect("one of the ports is free")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A tree with files of all sizes, of which the large ones cannot be compressed.
fn write_tree(root: &Path) {
    project::write(root, "=== bin/run *\n#!/bin/sh\n=== notes\nsome text\n");
    for number in 0..3 {
        fs::write(
            root.join(format!("large-{number}")),
            content(number, 1 << 20),
        )
        .unwrap();
    }
    fs::create_dir(root.join("many")).unwrap();
    for number in 0..200 {
        let file = root.join("many").join(number.to_string());
        fs::write(file, content(number, 1_000)).unwrap();
    }
}

#[test]
fn a_tree_goes_whole_to_a_cache_and_back_over_a_path_that_loses_and_reorders() {
    let site = Site::behind(LinkPlan {
        delay: Duration::from_millis(20),
        lost_of_million: 10_000,
        late_of_million: 20_000,
        late_by: Duration::from_millis(5),
        ..LinkPlan::default()
    });
    let scratch = tempfile::tempdir().unwrap();
    let (root, back) = (scratch.path().join("root"), scratch.path().join("back"));
    write_tree(&root);
    let json = |arguments: &[&str]| site.farm.json(&[&["cache"], arguments].concat());
    let put = json(&["put", text(&root), "--key", "far"]).remove(0);
    assert_eq!(put["files"], 205, "{put}");
    assert!(3 << 20 <= put["bytes_sent"].as_u64().unwrap(), "{put}");
    let got = json(&["get", "far", text(&back)]).remove(0);
    assert_eq!(got["digest"], put["digest"]);
    // What lies there now is read, and is the same tree.
    let again = json(&["put", text(&back)]).remove(0);
    assert_eq!(again["digest"], put["digest"], "{again}");
    assert!(again["bytes_sent"].as_u64().unwrap() < 1 << 20, "{again}");
    let verified = json(&["verify"]);
    assert!(!verified.is_empty());
    assert!(
        verified.iter().all(|one| one["whole"] == true),
        "{verified:?}"
    );
    let (up, down) = site.lost();
    assert!(0 < up && 0 < down, "the path lost {up} and {down}");
}

/// A client of the cache at an address.
async fn client(credentials: &Credentials, cache: SocketAddr) -> CacheClient {
    let client = Client::new(credentials).unwrap();
    let connection = client.connect(cache, Role::Cache).await.unwrap();
    CacheClient::new(connection, credentials.identity.team.clone())
}

async fn write(client: &CacheClient, chunks: &[Vec<u8>]) {
    let (send, receive) = mpsc::channel(4);
    let feed = async move {
        for bytes in chunks {
            let chunk = compression::encode(bytes, Digest::of(bytes));
            send.send(chunk).await.unwrap();
        }
    };
    let ((), written) = tokio::join!(feed, client.write_chunks(receive));
    assert_eq!(written.unwrap().chunks, chunks.len() as u64);
}

/// Has many chunks read at once over the client's connection and asks for something small meanwhile. Gives how
/// many of the chunks had come by then, and whether more came later.
async fn chunks_before_small_answer(client: &CacheClient, chunks: &[Digest]) -> (usize, bool) {
    let (send, mut arriving) = mpsc::channel(1);
    let mut reading = JoinSet::new();
    for asked in chunks.chunks(BULK_CHUNKS) {
        let (client, asked, send) = (client.clone(), asked.to_vec(), send.clone());
        reading.spawn(async move { client.read_chunks(asked, send).await });
    }
    drop(send);
    let first = arriving.recv().await;
    first.expect("bulk is under way");
    let mut arrived = 1;
    let asked = [Digest::of(b"nobody has this")];
    let mut asking = pin!(client.find_missing(&asked));
    let missing = loop {
        tokio::select! {
            biased;
            missing = &mut asking => break missing.unwrap(),
            Some(_chunk) = arriving.recv() => arrived += 1,
        }
    };
    assert_eq!(missing, [0]);
    (arrived, arriving.recv().await.is_some())
}

#[test]
fn a_small_answer_does_not_wait_behind_bulk_of_its_connection() {
    // The queue is full within a moment: whatever waits for longer waits at the sender.
    let site = Site::behind(LinkPlan {
        bytes_per_second: Some(2_000_000),
        queue_bytes: 100_000,
        delay: Duration::from_millis(10),
        ..LinkPlan::default()
    });
    let runtime = Runtime::new().unwrap();
    let token: JoinToken = site.farm.token("developer").parse().unwrap();
    let coordinator = site.farm.address.parse().unwrap();
    let enrol = transport::enrol(coordinator, &token, "stranger");
    let credentials = runtime.block_on(enrol).unwrap();
    let seeds = 0..(BULK_REQUESTS * BULK_CHUNKS) as u64;
    let chunks: Vec<_> = seeds.map(|seed| content(seed, CHUNK_BYTES)).collect();
    let digests: Vec<_> = chunks.iter().map(|bytes| Digest::of(bytes)).collect();
    let (arrived, goes_on) = runtime.block_on(async {
        write(&client(&credentials, site.near).await, &chunks).await;
        let far = client(&credentials, site.relay.address).await;
        chunks_before_small_answer(&far, &digests).await
    });
    assert!(
        arrived <= chunks.len() / 2,
        "{arrived} of {} chunks of bulk came before the small answer",
        chunks.len()
    );
    assert!(goes_on, "bulk was under way all the time");
}
