//! Write-behind: an entry with its chunks goes to the cold tier.

use std::sync::atomic::Ordering;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use metrics::counter;
use protocol::{name::Team, time::WallTime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Cold, ColdError, REQUESTS_AT_ONCE, lock, names, names::Title, policy, record};
use crate::{
    clock::Clock,
    store::{
        ReadAnswer, Store, Trouble, WholeEntry,
        key::ChunkKey,
        row::{self, StoredEntry},
    },
};

/// How many chunks are remembered to be there: 10 MiB of hashes.
const SEEN_MAX: usize = 1 << 18;

impl Cold {
    /// Writes what was written here, one after another, until `stop`.
    pub(crate) async fn write_behind(
        &self,
        store: &Store,
        mut written: mpsc::Receiver<String>,
        stop: CancellationToken,
    ) {
        loop {
            let row = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(row) = written.recv() => row,
                else => return,
            };
            tokio::select! {
                biased;
                // The first round of the next start finds it.
                () = stop.cancelled() => return,
                () = self.keep_or_note(store, &row) => {}
            }
        }
    }

    async fn keep_or_note(&self, store: &Store, row: &str) {
        let kept = match self.is_paused(&self.writes) {
            true => Ok(false),
            false => self.keep(store, row).await,
        };
        match &kept {
            Ok(true) => lock(&self.writes).answered(),
            Ok(false) => {}
            Err(error) => self.failed("write an entry", &self.writes, error),
        }
        // What the server does not take for a reason of its own waits for a round, too, but for none soon.
        if kept.is_ok_and(|kept| !kept) || self.is_paused(&self.writes) {
            self.is_behind.store(true, Ordering::Relaxed);
        }
    }

    /// Has the entry under `row`, with all its chunks, in the bucket. Says whether that is done: an entry that
    /// is not here any more, or has a name that no object can have, needs nothing.
    pub(super) async fn keep(&self, store: &Store, row: &str) -> Result<bool, ColdError> {
        let Some(entry) = whole(store, row).await? else {
            return Ok(true);
        };
        let title = title(row, &entry.stored);
        if !self.bucket.takes(&title.name()) {
            return Ok(true);
        }
        let _no_chunk_goes = self.sweeping.read().await;
        let team = &entry.stored.entry.team;
        let done: Result<Vec<bool>, ColdError> = stream::iter(entry.closure.clone())
            .map(|chunk| self.keep_chunk(store, team, chunk))
            .buffer_unordered(REQUESTS_AT_ONCE)
            .try_collect()
            .await;
        if done?.contains(&false) {
            // Evicted, or damaged, meanwhile.
            return Ok(true);
        }
        let _no_entry_goes = self.deleting.read().await;
        // Deleted meanwhile; or evicted, and then it stays unwritten.
        if whole(store, row).await?.is_none() {
            return Ok(true);
        }
        let bytes = record::encode(&entry).into();
        self.bucket.put(&title.name(), bytes).await?;
        counter!("grange_cache_cold_entries_total", "what" => "kept").increment(1);
        self.delete_beaten(&title).await.map(|()| true)
    }

    /// Deletes what stood under the key of an entry that now stands there.
    async fn delete_beaten(&self, title: &Title) -> Result<(), ColdError> {
        let others = self.titles(&names::entry(&title.row)).await?;
        let others = others.iter().map(|(other, _)| other);
        let beaten = others.filter(|other| policy::beats(title, other));
        self.delete_all(beaten.map(Title::name)).await
    }

    /// Has a chunk in the bucket that is not soon too old. Says whether it was there to be written.
    async fn keep_chunk(
        &self,
        store: &Store,
        team: &Team,
        chunk: ChunkKey,
    ) -> Result<bool, ColdError> {
        if lock(&self.seen).contains(chunk.hash()) {
            return Ok(true);
        }
        let name = names::chunk(&chunk);
        let modified = self.bucket.modified(&name).await?;
        if modified.is_none_or(|modified| self.is_aged(modified)) {
            let bytes = u32::try_from(1 + chunk.size()).expect("a chunk has 2 MiB at most");
            let _room = self.room.acquire_many(bytes).await;
            let Some(value) = value(store, team.clone(), chunk).await? else {
                return Ok(false);
            };
            self.bucket.put(&name, value).await?;
        }
        let mut seen = lock(&self.seen);
        if SEEN_MAX <= seen.len() {
            seen.clear();
        }
        seen.insert(*chunk.hash());
        Ok(true)
    }

    /// Whether an object is so old that it is written anew where it is needed.
    pub(super) fn is_aged(&self, modified: WallTime) -> bool {
        policy::is_aged(self.keep, Clock::wall().since(modified))
    }
}

/// What the name of an entry's object says.
pub(super) fn title(row: &str, stored: &StoredEntry) -> Title {
    Title {
        row: row.to_owned(),
        trust: stored.entry.trust,
        written: stored.entry.written,
        bytes: stored.bytes,
        chunks: stored.chunks,
    }
}

async fn whole(store: &Store, row: &str) -> Result<Option<WholeEntry>, Trouble> {
    let row = row.as_bytes().to_vec();
    store.blocking(move |store| store.whole_entry(&row)).await
}

/// A chunk as it is stored: one byte of encoding, and the body.
async fn value(store: &Store, team: Team, chunk: ChunkKey) -> Result<Option<Bytes>, Trouble> {
    let read = store
        .blocking(move |store| store.read_one(&team, &chunk.digest()))
        .await?;
    let ReadAnswer::Found { encoding, body } = read else {
        return Ok(None);
    };
    let mut value = BytesMut::with_capacity(1 + body.len());
    value.put_u8(row::encoding_byte(encoding).expect("what is stored has an encoding"));
    value.extend_from_slice(&body);
    Ok(Some(value.freeze()))
}
