//! Evicting entries, as a change: each goes with the chunks that only it named.

use super::{
    change::{Applied, STAGED_AT_ONCE_MAX, Surroundings, Victim},
    error::Trouble,
    key::ChunkKey,
    ranks::AGES,
    rocks::Column,
    row::{self, Usage},
    staged::Staged,
};

impl Staged<'_> {
    /// Evicts `victims` one after another until `enough` bytes are free, but those that were used since
    /// they were chosen, and those of which most is held: they are in use, and give nothing back. After some
    /// large ones the rest is left for the next change.
    pub(super) fn evict(
        &mut self,
        victims: Vec<Victim>,
        enough: u64,
        around: &Surroundings<'_>,
    ) -> Result<Applied, Trouble> {
        let (mut seen, mut entries, mut all_chunks, mut all_stored) = (0, 0, 0, 0);
        for Victim { key, standing } in victims {
            if enough <= all_stored || STAGED_AT_ONCE_MAX <= self.changed() {
                break;
            }
            seen += 1;
            let usage = self.read(Column::Used, &key, Usage::decode)?;
            if usage.is_none_or(|usage| usage.standing != standing) {
                continue;
            }
            let Some(chunks) = self.given_back(&key, around)? else {
                continue;
            };
            self.delete_entry(&key)?;
            if let Applied::Collected { chunks, stored } = self.collect(&chunks, around)? {
                all_chunks += chunks;
                all_stored += stored;
            }
            let ages = around.ranks.evicted(&key, standing);
            self.put(Column::Meta, AGES.to_vec(), row::encode_ages(ages));
            entries += 1;
        }
        Ok(Applied::Evicted {
            seen,
            entries,
            chunks: all_chunks,
            stored: all_stored,
        })
    }

    /// The chunks that nothing but the entry under `key` names; `None`: most of it is held.
    fn given_back(
        &self,
        key: &[u8],
        around: &Surroundings<'_>,
    ) -> Result<Option<Vec<ChunkKey>>, Trouble> {
        let closure = self.read(Column::Closures, key, row::decode_closure)?;
        let closure = closure.unwrap_or_default();
        let now = around.clock.now();
        let (mut only, mut bytes, mut held, mut all_held) = (Vec::new(), 0, 0, true);
        for chunk in closure {
            let is_held = around.holds.is_held(chunk.hash(), now);
            all_held &= is_held;
            let fact = self.fact(&chunk)?;
            if let Some(fact) = fact.filter(|fact| fact.references == 1 && fact.is_present()) {
                bytes += fact.stored;
                held += if is_held { fact.stored } else { 0 };
                only.push(chunk);
            }
        }
        let is_used = match bytes {
            0 => all_held,
            _ => bytes / 2 < held,
        };
        Ok((!is_used).then_some(only))
    }
}
