//! Who writes to a cache that is about to crash, what of it was acknowledged, and whether that is there.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use cache::{
    capture::Subject, client::CacheClient, compression, progress::Progress, put::put,
    verify::verify_tree,
};
use protocol::{
    access::{Role, Trust},
    blob::{Blob, TreeRef},
    digest::Digest,
    message::cache::{Entry, EntryKey, keys},
    name::Team,
    time::WallTime,
};
use testkit::random::Random;
use tokio::{sync::mpsc, task::JoinSet};
use transport::{Client, Credentials};

/// How many write at the same time, each over a connection of its own.
const WRITERS: u64 = 5;
/// How many chunks one request writes at most.
const CHUNKS_AT_ONCE: u64 = 16;
/// How large chunks are at most, in bytes: on either side of what goes to blob files and of what the hot set
/// takes, and now and then a large one.
const SIZES: [u64; 5] = [300, 5_000, 5_000, 50_000, 400_000];
/// How many of them write in bulk only, how many chunks a request has then, and how large each is, in bytes: enough
/// for groups that go past the log.
const BULK_WRITERS: u64 = 2;
const BULK: (u64, u64) = (32, 400_000);
/// How much of what was looked at before is read once more, besides asking whether it is there.
const READ_AGAIN: usize = 64;

/// What was acknowledged.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged {
    chunks: Vec<Digest>,
    references: Vec<(EntryKey, Entry)>,
    trees: Vec<TreeRef>,
}

impl Acknowledged {
    /// How much it is, of all kinds together.
    pub(super) fn count(&self) -> usize {
        self.chunks.len() + self.references.len() + self.trees.len()
    }

    /// Adds what came later.
    pub(super) fn extend(&mut self, later: Self) {
        self.chunks.extend(later.chunks);
        self.references.extend(later.references);
        self.trees.extend(later.trees);
    }

    /// Some of it.
    pub(super) fn sample(&self, random: &mut Random) -> Self {
        Self {
            chunks: some(&self.chunks, random),
            references: Vec::new(),
            trees: some(&self.trees, random),
        }
    }
}

fn some<T: Clone>(all: &[T], random: &mut Random) -> Vec<T> {
    let count = all.len().min(READ_AGAIN);
    let index = |_| usize::try_from(random.below(all.len() as u64)).unwrap();
    (0..count)
        .map(index)
        .map(|index| all[index].clone())
        .collect()
}

/// A member of the farm who uses its cache.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) credentials: Credentials,
    pub(super) cache: SocketAddr,
}

impl Member {
    fn team(&self) -> Team {
        self.credentials.identity.team.clone()
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> CacheClient {
        let client = Client::new(&self.credentials).unwrap();
        let connection = client.connect(self.cache, Role::Cache).await.unwrap();
        CacheClient::new(connection, self.team())
    }
}

/// Starts all writers; what is acknowledged to them goes to `acknowledged`. Dropping them ends them.
pub(super) fn start(
    member: &Member,
    seed: u64,
    acknowledged: &Arc<Mutex<Acknowledged>>,
) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let (member, acknowledged) = (member.clone(), Arc::clone(acknowledged));
        writers.spawn(async move {
            let mut writer = Writer {
                client: member.connect().await,
                team: member.team(),
                random: Random::new(seed * WRITERS + number),
                is_bulk: number < BULK_WRITERS,
                acknowledged,
            };
            // Until the cache has gone.
            while writer.write().await.is_some() {}
        });
    }
    writers
}

struct Writer {
    client: CacheClient,
    team: Team,
    random: Random,
    is_bulk: bool,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

impl Writer {
    /// Writes something; `None`: it was not acknowledged.
    async fn write(&mut self) -> Option<()> {
        if self.is_bulk {
            return self.write_bulk().await;
        }
        match self.random.below(4) {
            0 => self.write_reference().await,
            1 => self.write_tree().await,
            _ => self.write_some().await.map(drop),
        }
    }

    async fn write_some(&mut self) -> Option<Vec<Digest>> {
        let count = 1 + self.random.below(CHUNKS_AT_ONCE);
        let contents = (0..count).map(|_| self.content()).collect();
        self.write_chunks(contents).await
    }

    async fn write_bulk(&mut self) -> Option<()> {
        let (count, size) = BULK;
        let contents = (0..count).map(|_| self.bytes(size)).collect();
        self.write_chunks(contents).await.map(drop)
    }

    async fn write_chunks(&mut self, contents: Vec<Vec<u8>>) -> Option<Vec<Digest>> {
        let digests: Vec<Digest> = contents.iter().map(|bytes| Digest::of(bytes)).collect();
        // All of them go at once.
        let (send, receive) = mpsc::channel(contents.len());
        for (bytes, digest) in contents.iter().zip(&digests) {
            let chunk = compression::encode(bytes, *digest);
            send.try_send(chunk).ok()?;
        }
        drop(send);
        self.client.write_chunks(receive).await.ok()?;
        self.note(|acknowledged| acknowledged.chunks.extend(&digests));
        Some(digests)
    }

    async fn write_reference(&mut self) -> Option<()> {
        let chunk = self.write_some().await?[0];
        let blob = Blob {
            digest: chunk,
            chunks: vec![chunk],
        };
        self.keep(self.entry(vec![blob], vec![])).await
    }

    async fn write_tree(&mut self) -> Option<()> {
        let directory = tempfile::tempdir().unwrap();
        self.fill(directory.path());
        let root = directory.path().to_owned();
        let put = put(&self.client, Subject::all(root), None, &Progress::default()).await;
        let tree = put.ok()?.tree;
        self.note(|acknowledged| acknowledged.trees.push(tree.clone()));
        self.keep(self.entry(vec![], vec![tree])).await
    }

    /// Some small files, and one that is cut.
    fn fill(&mut self, directory: &Path) {
        for number in 0..self.random.below(20) {
            let below = directory.join(format!("{}", number % 3));
            fs::create_dir_all(&below).unwrap();
            fs::write(below.join(format!("{number}")), self.content()).unwrap();
        }
        fs::write(directory.join("large"), self.bytes(1_500_000)).unwrap();
    }

    fn entry(&self, blobs: Vec<Blob>, trees: Vec<TreeRef>) -> Entry {
        Entry {
            blobs,
            trees,
            outlines: vec![],
            // The cache knows better.
            trust: Trust::Untrusted,
            team: self.team.clone(),
            written: WallTime(0),
        }
    }

    /// Puts an entry under a key that nobody has.
    async fn keep(&mut self, entry: Entry) -> Option<()> {
        let key = EntryKey {
            namespace: self.team.clone().into(),
            path: keys::saved(&format!("crash-{}", self.random.below(u64::MAX))),
        };
        let put = self.client.put_entry(key.clone(), entry.clone(), false);
        put.await.ok()?;
        self.note(|acknowledged| acknowledged.references.push((key, entry)));
        Some(())
    }

    fn note(&self, what: impl FnOnce(&mut Acknowledged)) {
        what(&mut self.acknowledged.lock().unwrap());
    }

    fn content(&mut self) -> Vec<u8> {
        let kinds = SIZES.len() as u64;
        let size = SIZES[usize::try_from(self.random.below(kinds)).unwrap()];
        let length = 1 + self.random.below(size);
        self.bytes(length)
    }

    /// Bytes of which about half can be compressed away.
    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let length = usize::try_from(length).unwrap();
        let mut bytes = Vec::with_capacity(length + 16);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.random.below(u64::MAX).to_le_bytes());
            bytes.extend_from_slice(&[7; 8]);
        }
        bytes.truncate(length);
        bytes
    }
}

/// What of `all` is not at the cache as it was acknowledged; `read` is read and verified.
pub(super) async fn lost(
    client: &CacheClient,
    all: &Acknowledged,
    read: &Acknowledged,
) -> Vec<String> {
    let mut lost = Vec::new();
    let missing = client.find_missing(&all.chunks).await.unwrap();
    lost.extend(
        missing
            .into_iter()
            .map(|at| format!("chunk {}", all.chunks[at])),
    );
    for (key, entry) in &all.references {
        let found = client.get_entry(key.clone()).await.unwrap();
        let is_same = |found: &Entry| found.blobs == entry.blobs && found.trees == entry.trees;
        if !found.as_ref().is_some_and(is_same) {
            lost.push(format!("reference {}: {found:?}", key.path));
        }
    }
    if lost.is_empty()
        && let Err(error) = read_chunks(client, &read.chunks).await
    {
        lost.push(error);
    }
    for tree in &read.trees {
        if let Err(error) = verify_tree(client, tree, &Progress::default()).await {
            lost.push(format!("tree {}: {error}", tree.tree.digest));
        }
    }
    lost
}

/// Reads chunks; the client verifies what comes.
async fn read_chunks(client: &CacheClient, chunks: &[Digest]) -> Result<(), String> {
    let (send, mut receive) = mpsc::channel(16);
    let count = async {
        let mut count = 0;
        while receive.recv().await.is_some() {
            count += 1;
        }
        count
    };
    let (read, count) = tokio::join!(client.read_chunks(chunks.to_vec(), send), count);
    read.map_err(|error| error.to_string())?;
    match count == chunks.len() {
        true => Ok(()),
        false => Err(format!("{count} of {} chunks came", chunks.len())),
    }
}
