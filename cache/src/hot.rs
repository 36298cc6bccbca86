//! The hot set: small chunks that are read often, in memory, as they travel.
//!
//! A chunk is taken in when it is read for the second time within a while, so one pass over everything
//! changes nothing; which goes first is decided by a hand that spares what was read since it last came by.
//! What is deleted or set aside in the store leaves the set, too; what was being read meanwhile is not
//! taken in.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::name::Team;

use crate::store::key::ChunkKey;

/// The largest chunk that is taken in, in bytes: below this, finding a chunk takes longer than moving it.
pub(crate) const HOT_CHUNK_BYTES_MAX: u64 = 32 * 1024;
/// What the set takes, in bytes: an eighth of what the cache may take.
const HOT_BYTES: usize = 64 << 20;
/// What a chunk takes besides its bytes, about: a row of the table with its teams, a place in the queue.
const OVERHEAD_BYTES: usize = 224;
/// How many teams of a chunk are known; more are looked up in the store.
const TEAMS_MAX: usize = 4;
/// Parts of the set, each with a lock of its own, so that those who read do not wait for each other.
const PARTS: usize = 16;
/// How many readings are remembered in each part: with chunks of 4 KiB, four times as many as fit.
const SEEN: usize = 4096;
/// Of how many chunks with the same slot: of chunks of 4 KiB that fit in the set, hardly ever nine share one.
const SEEN_TOGETHER: usize = 8;

/// Small chunks in memory.
#[derive(Debug)]
pub(crate) struct Hot {
    parts: Box<[Mutex<Part>]>,
    part_bytes: usize,
    /// For the two halves of what stands for a team.
    secrets: [RandomState; 2],
    /// How often chunks were taken out of the store.
    removals: AtomicU64,
}

/// Who reads: a team, by a fingerprint that is made with secrets of this process. Two that are equal do not happen by
/// chance, and nobody can make them. Names would each be another place in memory to look at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Reader(u128);

impl Reader {
    const NOBODY: Self = Self(0);
}

/// The state of the store when a reading began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since(u64);

#[derive(Debug)]
struct Part {
    chunks: HashMap<ChunkKey, Chunk>,
    /// The order in which the hand goes. Has each chunk of the table once, and ones that are gone.
    queue: VecDeque<ChunkKey>,
    bytes: usize,
    /// By slot: a part of the keys of the chunks that were read, the last first.
    seen: Box<[[u64; SEEN_TOGETHER]]>,
}

#[derive(Debug)]
struct Chunk {
    /// One byte of encoding, and the body.
    value: Box<[u8]>,
    /// Who may read it.
    readers: [Reader; TEAMS_MAX],
    /// Whether it was read since the hand came by.
    is_used: bool,
}

impl Default for Hot {
    fn default() -> Self {
        Self::new(HOT_BYTES)
    }
}

impl Hot {
    /// A set that takes at most about `bytes`.
    fn new(bytes: usize) -> Self {
        let part = || Part {
            chunks: HashMap::new(),
            queue: VecDeque::new(),
            bytes: 0,
            seen: vec![[0; SEEN_TOGETHER]; SEEN / SEEN_TOGETHER].into(),
        };
        Self {
            parts: (0..PARTS).map(|_| Mutex::new(part())).collect(),
            part_bytes: bytes / PARTS,
            secrets: [RandomState::new(), RandomState::new()],
            removals: AtomicU64::new(0),
        }
    }

    /// To be asked before chunks are read that will be brought here.
    pub(crate) fn since(&self) -> Since {
        Since(self.removals.load(Ordering::SeqCst))
    }

    /// What stands for `team` here.
    pub(crate) fn reader(&self, team: &Team) -> Reader {
        let halves = self.secrets.each_ref();
        let [high, low] = halves.map(|secret| u128::from(secret.hash_one(team.as_str())));
        Reader((high << 64 | low).max(1))
    }

    /// Shows the chunk as it is kept, one byte of encoding and the body, if it is here and `reader` may read it;
    /// whether that is so. Nobody else gets at chunks near it meanwhile.
    pub(crate) fn show(&self, reader: Reader, chunk: &ChunkKey, look: impl FnOnce(&[u8])) -> bool {
        let mut part = self.part(chunk);
        let Some(found) = part.chunks.get_mut(chunk) else {
            return false;
        };
        if !found.readers.contains(&reader) {
            return false;
        }
        found.is_used = true;
        look(&found.value);
        true
    }

    /// Takes in a chunk that `reader` has just read, if it was read not long before.
    pub(crate) fn bring(&self, reader: Reader, chunk: &ChunkKey, value: &[u8], since: Since) {
        let (fingerprint, at) = slot(chunk);
        let mut part = self.part(chunk);
        // Under the lock: a removal that comes later finds the chunk here.
        if self.removals.load(Ordering::SeqCst) != since.0 {
            return;
        }
        if let Some(found) = part.chunks.get_mut(chunk) {
            let place = |one: &Reader| *one == reader || *one == Reader::NOBODY;
            // Its own, or the first that is free.
            if let Some(at) = found.readers.iter().position(place) {
                found.readers[at] = reader;
            }
            return;
        }
        if !part.seen[at].contains(&fingerprint) {
            part.seen[at].rotate_right(1);
            part.seen[at][0] = fingerprint;
            return;
        }
        let mut readers = [Reader::NOBODY; TEAMS_MAX];
        readers[0] = reader;
        let taken = Chunk {
            value: value.into(),
            readers,
            is_used: false,
        };
        part.bytes += taken.bytes();
        part.chunks.insert(*chunk, taken);
        part.queue.push_back(*chunk);
        part.shrink(self.part_bytes);
    }

    /// Takes out chunks that the store does not have any more. What is being read meanwhile is not taken in, since
    /// they may be among that.
    pub(crate) fn remove(&self, chunks: impl Iterator<Item = ChunkKey>) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.forget(chunks);
    }

    /// Takes out chunks that are in doubt. What is being read meanwhile is taken in: if the store is found to be
    /// wrong, they are removed.
    pub(crate) fn forget(&self, chunks: impl Iterator<Item = ChunkKey>) {
        let mut leaving: [Vec<ChunkKey>; PARTS] = Default::default();
        for chunk in chunks {
            leaving[part_of(&chunk)].push(chunk);
        }
        for (part, leaving) in self.parts.iter().zip(leaving) {
            let mut part = lock(part);
            let mut gone = HashSet::new();
            for chunk in leaving {
                if let Some(removed) = part.chunks.remove(&chunk) {
                    part.bytes -= removed.bytes();
                    gone.insert(chunk);
                }
            }
            // Or they would be there twice when they come back.
            if !gone.is_empty() {
                part.queue.retain(|queued| !gone.contains(queued));
            }
        }
    }

    /// What it takes, in bytes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| lock(part).bytes).sum()
    }

    fn part(&self, chunk: &ChunkKey) -> MutexGuard<'_, Part> {
        lock(&self.parts[part_of(chunk)])
    }
}

impl Part {
    fn shrink(&mut self, bytes_max: usize) {
        while bytes_max < self.bytes {
            let Some(chunk) = self.queue.pop_front() else {
                return;
            };
            let Some(found) = self.chunks.get_mut(&chunk) else {
                continue;
            };
            if std::mem::take(&mut found.is_used) {
                self.queue.push_back(chunk);
            } else if let Some(gone) = self.chunks.remove(&chunk) {
                self.bytes -= gone.bytes();
            }
        }
    }
}

impl Chunk {
    fn bytes(&self) -> usize {
        self.value.len() + OVERHEAD_BYTES
    }
}

/// Which part a chunk belongs to.
fn part_of(chunk: &ChunkKey) -> usize {
    let [.., last] = chunk.hash();
    usize::from(*last) % PARTS
}

/// What is remembered of a chunk that was read, and where. BLAKE3 spreads evenly: any bytes will do.
fn slot(chunk: &ChunkKey) -> (u64, usize) {
    let (first, rest) = chunk
        .hash()
        .split_first_chunk()
        .expect("a hash has 32 bytes");
    let [a, b, ..] = *rest else {
        unreachable!("a hash has 32 bytes")
    };
    (
        u64::from_le_bytes(*first),
        usize::from(u16::from_le_bytes([a, b])) % (SEEN / SEEN_TOGETHER),
    )
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    // What is brought and taken out changes in steps that do not panic.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use protocol::digest::Digest;

    use super::*;

    fn key(seed: u32) -> ChunkKey {
        let bytes = [&seed.to_le_bytes()[..], &[0; 996]].concat();
        ChunkKey::of(&Digest::of(&bytes)).unwrap()
    }

    fn of(hot: &Hot, team: &str) -> Reader {
        hot.reader(&team.parse().unwrap())
    }

    fn get(hot: &Hot, team: &str, chunk: &ChunkKey) -> Option<Vec<u8>> {
        let mut found = None;
        let shown = hot.show(of(hot, team), chunk, |value| found = Some(value.to_vec()));
        assert_eq!(shown, found.is_some());
        found
    }

    fn read(hot: &Hot, chunk: &ChunkKey) -> bool {
        let found = get(hot, "red", chunk).is_some();
        if !found {
            hot.bring(of(hot, "red"), chunk, &[7; 1000], hot.since());
        }
        found
    }

    #[test]
    fn what_is_read_twice_is_there_the_third_time_and_only_for_who_read_it() {
        let hot = Hot::default();
        assert!(!read(&hot, &key(1)));
        assert!(!read(&hot, &key(1)));
        assert!(read(&hot, &key(1)));
        assert_eq!(get(&hot, "red", &key(1)), Some(vec![7; 1000]));
        assert_eq!(get(&hot, "blue", &key(1)), None);
        hot.bring(of(&hot, "blue"), &key(1), &[7; 1000], hot.since());
        assert!(get(&hot, "blue", &key(1)).is_some());
    }

    #[test]
    fn of_more_teams_than_are_known_the_last_are_looked_up_in_the_store() {
        let hot = Hot::default();
        read(&hot, &key(1));
        read(&hot, &key(1));
        let teams: Vec<String> = (0..TEAMS_MAX + 1)
            .map(|one| format!("team-{one}"))
            .collect();
        for team in teams.iter().chain(&teams) {
            hot.bring(of(&hot, team), &key(1), &[7; 1000], hot.since());
        }
        let shown = teams
            .iter()
            .filter(|team| get(&hot, team, &key(1)).is_some());
        assert_eq!(shown.count(), TEAMS_MAX - 1);
        assert!(get(&hot, "red", &key(1)).is_some());
    }

    #[test]
    fn what_fits_comes_in_though_it_is_read_in_turn() {
        let hot = Hot::default();
        let chunks: Vec<ChunkKey> = (0..14_000).map(key).collect();
        for chunk in chunks.iter().chain(&chunks) {
            hot.bring(of(&hot, "red"), chunk, &[7; 4_096], hot.since());
        }
        let there = chunks
            .iter()
            .filter(|chunk| get(&hot, "red", chunk).is_some());
        let there = there.count();
        assert!(13_900 <= there, "{there} of 14,000 are there");
    }

    #[test]
    fn it_is_bounded_and_a_scan_does_not_push_out_what_is_used() {
        let hot = Hot::new(1 << 20);
        for chunk in (0..400).chain(0..400).map(key) {
            read(&hot, &chunk);
        }
        for number in 1_000..50_000 {
            read(&hot, &key(number));
            if number % 100 == 0 {
                for used in 0..400 {
                    read(&hot, &key(used));
                }
            }
        }
        assert!(hot.bytes() <= 1 << 20, "{} bytes", hot.bytes());
        let kept = (0..400).filter(|&used| read(&hot, &key(used))).count();
        assert!(390 <= kept, "{kept} of 400 are there");
    }

    #[test]
    fn what_is_removed_is_gone_and_a_reading_from_before_does_not_bring_it_back() {
        let hot = Hot::default();
        read(&hot, &key(1));
        read(&hot, &key(1));
        let before = hot.since();
        hot.remove([key(1)].into_iter());
        assert_eq!(get(&hot, "red", &key(1)), None);
        assert_eq!(hot.bytes(), 0);
        hot.bring(of(&hot, "red"), &key(1), &[7; 1000], before);
        assert_eq!(get(&hot, "red", &key(1)), None);
        hot.bring(of(&hot, "red"), &key(1), &[7; 1000], hot.since());
        assert!(get(&hot, "red", &key(1)).is_some());
    }

    #[test]
    fn what_is_in_doubt_is_gone_and_a_reading_from_before_brings_it_back() {
        let hot = Hot::default();
        read(&hot, &key(1));
        read(&hot, &key(1));
        let before = hot.since();
        hot.forget([key(1)].into_iter());
        assert_eq!(get(&hot, "red", &key(1)), None);
        assert_eq!(hot.bytes(), 0);
        hot.bring(of(&hot, "red"), &key(1), &[7; 1000], before);
        assert!(get(&hot, "red", &key(1)).is_some());
    }
}
