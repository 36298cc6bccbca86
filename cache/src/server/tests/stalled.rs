//! Readers that do not read: what they hold, of which room, and for how long.

use futures_util::FutureExt as _;
use protocol::message::cache::{CacheRequest, ChunkHeader};
use tokio::time::{sleep, timeout};
use transport::{Stream, StreamError};

use super::*;
use crate::fixture::Noise;

/// Far less than what a stalled stream is given.
const PROMPT: Duration = Duration::from_secs(20);
const CHUNK_BYTES: usize = 2 << 20;
/// How much of a team's chunks is on its way to a connection that does not read: one chunk of which a part is sent, and
/// one behind it.
const HELD_BYTES: usize = 2 * CHUNK_BYTES;
/// How many datagrams, in bytes, a reader has that has got what it gets without reading: its window has 8 MiB, so
/// the fourth chunk does not fit in it with what goes before each. Three chunks take less.
const STALLED_BYTES: u64 = 7_500 * 1024;
/// How many chunks a reader asks for that does not read: more than it gets and holds.
const ASKED: usize = 8;
/// How often others read meanwhile: more than it takes until nothing moves any more.
const READS: usize = 20;

/// What comes before each chunk.
type Answer = Result<ChunkHeader, Refusal>;

/// A cache with a chunk that two teams have.
struct Cache {
    farm: Farm,
    teams: Arc<Teams>,
    chunk: Digest,
}

impl Cache {
    async fn start(limits: Limits) -> Self {
        let mut farm = Farm::start().await;
        farm.end().await;
        let options = Options {
            limits,
            ..farm.options()
        };
        let (_, teams) = farm.run_seen(options).await;
        // It cannot be compressed.
        let bytes = Noise(1).bytes(CHUNK_BYTES);
        for owner in ["red", "blue"] {
            let writer = farm.client(owner, Role::Developer).await;
            write(&writer, std::slice::from_ref(&bytes)).await.unwrap();
        }
        Self {
            farm,
            teams,
            chunk: Digest::of(&bytes),
        }
    }

    /// How much of its room for what is on its way to readers team red has taken, in bytes.
    fn held(&self) -> usize {
        self.teams.share(&team("red")).reads.taken()
    }

    /// Asks for the chunk so many times in the name of team red, and reads nothing.
    async fn ask(&self, connection: &Connection, count: usize) -> Stream {
        let mut stream = connection.open().await.unwrap();
        let request = CacheRequest::ReadChunks {
            team: team("red"),
            chunks: vec![self.chunk; count],
        };
        stream.send.message(&request).await.unwrap();
        stream
    }

    /// A connection of team red that has as much on its way as it can have, and does not read.
    async fn stall(&self) -> (Connection, Stream) {
        let connection = self.farm.connect("red", Role::Developer).await;
        let stream = self.ask(&connection, ASKED).await;
        until(|| STALLED_BYTES <= connection.datagram_bytes().1).await;
        (connection, stream)
    }

    /// Reads the chunk again and again.
    async fn check_served(&self, client: &CacheClient) {
        for _ in 0..READS {
            let back = timeout(PROMPT, read(client, &[self.chunk])).await;
            assert_eq!(back.expect("nothing is held up").unwrap().len(), 1);
        }
    }
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await; // the poll interval
        }
    };
    timeout(PROMPT, wait).await.expect("it comes to that");
}

/// Whether nothing has come of what was asked for.
fn has_nothing(stream: &mut Stream) -> bool {
    let first = stream.receive.message::<Answer>().now_or_never();
    first.is_none()
}

/// Reads all that comes; gives how many chunks that were.
async fn drain(stream: &mut Stream) -> Result<usize, StreamError> {
    let drain = async {
        let mut count = 0;
        while let Some(header) = stream.receive.message::<Answer>().await? {
            let length = usize::try_from(header.unwrap().body_bytes).unwrap();
            stream.receive.bytes(length).await?;
            count += 1;
        }
        Ok::<usize, StreamError>(count)
    };
    timeout(PROMPT, drain).await.expect("it ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_hold_what_their_team_may_have_and_the_next_has_nothing_until_one_of_them_reads() {
    let cache = Cache::start(Limits {
        team_in_flight: 2 * HELD_BYTES as u64,
        ..Limits::default()
    })
    .await;
    let (_one, mut first) = cache.stall().await;
    let _second = cache.stall().await;
    until(|| cache.held() == 2 * HELD_BYTES).await;
    let other = cache.farm.connect("red", Role::Developer).await;
    let mut next = cache.ask(&other, 1).await;
    let blue = cache.farm.client("blue", Role::Developer).await;
    cache.check_served(&blue).await;
    assert_eq!(cache.held(), 2 * HELD_BYTES);
    assert!(has_nothing(&mut next));
    assert_eq!(drain(&mut first).await.unwrap(), ASKED);
    assert_eq!(drain(&mut next).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_does_not_read_leaves_others_of_its_team_what_it_may_not_hold() {
    let cache = Cache::start(Limits {
        team_in_flight: 2 * HELD_BYTES as u64,
        ..Limits::default()
    })
    .await;
    let (connection, mut first) = cache.stall().await;
    until(|| cache.held() == HELD_BYTES).await;
    let mut behind = Vec::new();
    for _ in 0..4 {
        behind.push(cache.ask(&connection, 1).await);
    }
    let other = cache.farm.client("red", Role::Developer).await;
    cache.check_served(&other).await;
    until(|| cache.held() == HELD_BYTES).await;
    assert!(behind.iter_mut().all(has_nothing));
    assert_eq!(drain(&mut first).await.unwrap(), ASKED);
    for stream in &mut behind {
        assert_eq!(drain(stream).await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_whose_readers_do_not_read_holds_up_no_other_on_the_same_connection() {
    let cache = Cache::start(Limits {
        team_in_flight: 2 * HELD_BYTES as u64,
        ..Limits::default()
    })
    .await;
    let farm = &cache.farm;
    let (_one, mut first) = cache.stall().await;
    let _second = cache.stall().await;
    until(|| cache.held() == 2 * HELD_BYTES).await;
    let shared = farm.connect("farm", Role::Worker).await;
    let client = |name: &str| CacheClient::new(shared.clone(), team(name));
    let (red, blue) = (client("red"), client("blue"));
    for one in [&red, &blue] {
        let grant = grant(one.team().as_str(), Trust::Protected);
        one.present(farm.signer.sign(&grant)).await.unwrap();
    }
    // More than a connection may have on its way of one team.
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(cache.ask(&shared, 1).await);
    }
    cache.check_served(&blue).await;
    assert!(waiting.iter_mut().all(has_nothing));
    assert_eq!(drain(&mut first).await.unwrap(), ASKED);
    for stream in &mut waiting {
        assert_eq!(drain(stream).await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_is_cut_off_and_its_room_comes_back() {
    let cache = Cache::start(Limits {
        team_in_flight: HELD_BYTES as u64,
        stall_time: Duration::from_secs(2),
        ..Limits::default()
    })
    .await;
    let (_connection, mut stalled) = cache.stall().await;
    until(|| cache.held() == 0).await;
    let cut_off = drain(&mut stalled).await;
    assert!(matches!(cut_off, Err(StreamError::Reset)), "{cut_off:?}");
    let other = cache.farm.client("red", Role::Developer).await;
    cache.check_served(&other).await;
}
