//! Who was found to have which chunks, in memory: most of what is asked about was asked about before, or has just
//! been written.
//!
//! A table of fingerprints of fixed size. One that is here is true: it was a durable row of the database when it came,
//! and leaves before the row's deletion is over. One that is not here says nothing. Which goes when there is no
//! place is left to chance: what is asked about again comes back.
//!
//! A fingerprint is made of team and key with a secret of this process: two that are equal do not happen by
//! chance, and nobody can make them. Keys alone would not do: what is asked about need not be anybody's hash.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::name::Team;

use crate::store::key::ChunkKey;

/// How many fingerprints there is room for: two for each of the two million chunks that a large store has. 64 MiB
/// once they are used, an eighth of what the cache may take.
const FINGERPRINTS: usize = 1 << 22;
/// How many places a fingerprint may have. With half of all places taken, one set in twenty has none that is free.
const WAYS: usize = 8;
/// Parts of the table, each with a lock of its own: by the first bits of the key, so that ascending keys take each
/// lock once.
const PARTS: usize = 64;

/// Who has which chunks.
#[derive(Debug)]
pub(crate) struct Known {
    /// For the two halves of fingerprints.
    secrets: [RandomState; 2],
    parts: Box<[Mutex<Part>]>,
    /// How often chunks were taken out.
    removals: AtomicU64,
}

/// The state of the table when a look at the database began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since(u64);

/// Sets of places; zero: free.
type Part = Box<[[u128; WAYS]]>;

impl Default for Known {
    fn default() -> Self {
        Self::new(FINGERPRINTS)
    }
}

impl Known {
    /// A table with room for so many, at least `PARTS * WAYS`.
    fn new(fingerprints: usize) -> Self {
        let part = || vec![[0; WAYS]; fingerprints / PARTS / WAYS].into();
        Self {
            secrets: [RandomState::new(), RandomState::new()],
            parts: (0..PARTS).map(|_| Mutex::new(part())).collect(),
            removals: AtomicU64::new(0),
        }
    }

    /// To be asked before rows are read that will be brought here.
    pub(crate) fn since(&self) -> Since {
        Since(self.removals.load(Ordering::SeqCst))
    }

    /// Which of `chunks`, best ascending, are known to be the team's, in their order.
    pub(crate) fn among<'a>(
        &self,
        team: &Team,
        chunks: impl Iterator<Item = &'a ChunkKey>,
    ) -> Vec<bool> {
        let team = self.halves(team.as_str().as_bytes());
        let mut parts = Held::new(self);
        chunks
            .map(|chunk| {
                let (part, set) = place(chunk);
                let part = parts.part(part);
                part[set % part.len()].contains(&self.fingerprint(team, chunk))
            })
            .collect()
    }

    /// Takes in `chunks`, best ascending, whose rows of the team were found since.
    pub(crate) fn bring<'a>(
        &self,
        team: &Team,
        chunks: impl Iterator<Item = &'a ChunkKey>,
        since: Since,
    ) {
        let team = self.halves(team.as_str().as_bytes());
        self.bring_each(chunks.map(|chunk| (*chunk, team)), since);
    }

    /// Takes in what rows of owners say, best ascending, that were written or read since: each is the key of a
    /// chunk and the name of a team.
    pub(crate) fn bring_rows<'a>(&self, rows: impl Iterator<Item = &'a [u8]>, since: Since) {
        let rows = rows.filter_map(|row| {
            let (chunk, team) = row.split_first_chunk::<36>()?;
            Some((ChunkKey::from_bytes(chunk)?, self.halves(team)))
        });
        self.bring_each(rows, since);
    }

    fn bring_each(&self, owned: impl Iterator<Item = (ChunkKey, [u64; 2])>, since: Since) {
        let mut parts = Held::new(self);
        for (chunk, team) in owned {
            let fingerprint = self.fingerprint(team, &chunk);
            let (part, set) = place(&chunk);
            let part = parts.part(part);
            // Under the lock: a removal that comes later finds it here.
            if self.removals.load(Ordering::SeqCst) != since.0 {
                return;
            }
            let length = part.len();
            let set = &mut part[set % length];
            if set.contains(&fingerprint) {
                continue;
            }
            let chance = usize::from(fingerprint.to_le_bytes()[15]) % WAYS;
            let free = set.iter().position(|&there| there == 0);
            set[free.unwrap_or(chance)] = fingerprint;
        }
    }

    /// Forgets who has `chunks`, because nobody may any more.
    pub(crate) fn remove(&self, chunks: impl Iterator<Item = ChunkKey>) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        for chunk in chunks {
            // Of any team, and of some other chunks: the set does not say whose its fingerprints are.
            let (part, set) = place(&chunk);
            let mut part = lock(&self.parts[part]);
            let length = part.len();
            part[set % length] = [0; WAYS];
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        for part in &self.parts {
            let mut part = lock(part);
            // Fresh memory takes none until it is used.
            *part = vec![[0; WAYS]; part.len()].into();
        }
    }

    fn fingerprint(&self, team: [u64; 2], chunk: &ChunkKey) -> u128 {
        let [high, low] = self.halves((team, chunk.as_bytes()));
        // Zero is a free place.
        ((u128::from(high) << 64) | u128::from(low)).max(1)
    }

    fn halves(&self, of: impl Hash + Copy) -> [u64; 2] {
        self.secrets.each_ref().map(|secret| secret.hash_one(of))
    }
}

/// The lock of the part that was asked for last: the next key is often of the same.
struct Held<'a> {
    known: &'a Known,
    held: Option<(usize, MutexGuard<'a, Part>)>,
}

impl<'a> Held<'a> {
    const fn new(known: &'a Known) -> Self {
        Self { known, held: None }
    }

    fn part(&mut self, wanted: usize) -> &mut [[u128; WAYS]] {
        let held = match self.held.take() {
            Some((part, held)) if part == wanted => held,
            other => {
                // Never two at a time: others take them in another order.
                drop(other);
                lock(&self.known.parts[wanted])
            }
        };
        &mut self.held.insert((wanted, held)).1
    }
}

/// Where fingerprints of a chunk are, whosever: part, and set, to be divided by how many there are. BLAKE3 spreads
/// evenly: any bits of the key will do.
fn place(chunk: &ChunkKey) -> (usize, usize) {
    let (first, _) = chunk
        .as_bytes()
        .split_first_chunk()
        .expect("a key has 36 bytes");
    let first = u64::from_be_bytes(*first);
    let part = first >> (u64::BITS - PARTS.ilog2());
    let set = first & u64::from(u32::MAX);
    let index = |number| usize::try_from(number).expect("32 bits fit");
    (index(part), index(set))
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    // A fingerprint is written in one step.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use protocol::digest::Digest;

    use super::*;

    fn keys(numbers: std::ops::Range<u32>) -> Vec<ChunkKey> {
        let digests = numbers.map(|number| Digest::of(&number.to_le_bytes()));
        let mut keys: Vec<ChunkKey> = digests
            .map(|digest| ChunkKey::of(&digest).unwrap())
            .collect();
        keys.sort_unstable();
        keys
    }

    fn team(name: &str) -> Team {
        name.parse().unwrap()
    }

    fn count(known: &Known, name: &str, keys: &[ChunkKey]) -> usize {
        let among = known.among(&team(name), keys.iter());
        among.into_iter().filter(|known| *known).count()
    }

    #[test]
    fn what_was_brought_is_known_for_the_team_that_has_it_and_for_that_length() {
        let known = Known::new(1 << 14);
        let here = keys(0..100);
        known.bring(&team("red"), here.iter(), known.since());
        assert_eq!(count(&known, "red", &here), 100);
        assert_eq!(count(&known, "blue", &here), 0);
        assert_eq!(count(&known, "red", &keys(100..10_000)), 0);
        let longer = here.iter().map(|key| {
            let digest = Digest::from_parts(*key.hash(), key.size() + 1);
            ChunkKey::of(&digest).unwrap()
        });
        assert_eq!(count(&known, "red", &longer.collect::<Vec<_>>()), 0);
        let forged = |change: fn(&mut [u8; 36])| {
            let mut key = *here[0].as_bytes();
            change(&mut key);
            [ChunkKey::from_bytes(&key).unwrap()]
        };
        assert_eq!(count(&known, "red", &forged(|key| key[31] ^= 1)), 0);
        assert_eq!(count(&known, "red", &forged(|key| key[8] ^= 1)), 0);
        let both = forged(|key| {
            key[8] ^= 1;
            key[35] ^= 1;
        });
        assert_eq!(count(&known, "red", &both), 0);
        assert_eq!(
            known.among(&team("red"), here[..2].iter().chain(&keys(500..501))),
            [true, true, false]
        );
    }

    #[test]
    fn what_rows_say_is_known() {
        let known = Known::new(1 << 14);
        let here = keys(0..100);
        let rows: Vec<Vec<u8>> = here.iter().map(|key| key.owner(&team("red"))).collect();
        known.bring_rows(rows.iter().map(Vec::as_slice), known.since());
        assert_eq!(count(&known, "red", &here), 100);
        assert_eq!(count(&known, "blue", &here), 0);
    }

    #[test]
    fn nearly_all_find_a_place_in_a_table_that_is_half_full_and_it_takes_no_more() {
        let known = Known::new(1 << 14);
        let here = keys(0..1 << 13);
        known.bring(&team("red"), here.iter(), known.since());
        let found = count(&known, "red", &here);
        assert!(here.len() * 97 / 100 < found, "{found}");
        let more = keys(1 << 13..1 << 17);
        known.bring(&team("red"), more.iter(), known.since());
        let found = count(&known, "red", &more) + count(&known, "red", &here);
        assert!((1 << 13..=1 << 14).contains(&found), "{found}");
    }

    #[test]
    fn what_is_removed_is_known_to_nobody_and_a_look_from_before_does_not_bring_it_back() {
        let known = Known::new(1 << 14);
        let here = keys(0..10);
        let before = known.since();
        for name in ["red", "blue"] {
            known.bring(&team(name), here.iter(), before);
        }
        known.remove(here[..5].iter().copied());
        assert_eq!(
            count(&known, "red", &here[..5]) + count(&known, "blue", &here[..5]),
            0
        );
        assert_eq!(count(&known, "red", &here[5..]), 5);
        known.bring(&team("red"), here.iter(), before);
        assert_eq!(count(&known, "red", &here), 5);
        let before = known.since();
        known.clear();
        assert_eq!(count(&known, "red", &here), 0);
        known.bring(&team("red"), here.iter(), before);
        assert_eq!(count(&known, "red", &here), 0);
    }
}
