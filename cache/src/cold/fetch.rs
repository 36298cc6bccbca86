//! Read-through: an entry that is not here is brought from the cold tier, with those of its chunks that are
//! not here. All of it is verified: a chunk by its hash, what the entry names by its layouts.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use metrics::counter;
use protocol::{
    access::Trust,
    message::cache::{ChunkHeader, EntryKey, keys},
    name::Team,
};
use tokio::{sync::Semaphore, time::timeout};
use tracing::debug;

use super::{
    Cold, ColdError, REQUESTS_AT_ONCE, lock, names,
    names::Label,
    record::{self, RECORD_BYTES_MAX},
    row,
};
use crate::{
    compression,
    store::{
        ClosureError, Store, Trouble, WholeEntry,
        change::{Applied, Change, PutEntry},
        key::ChunkKey,
        row::encoding_of,
    },
};

/// How long bringing an entry may take: 10 GB on a slow line. Past it a build is better off without.
const FETCH_TIME_MAX: Duration = Duration::from_secs(600);

impl Cold {
    /// Brings the entry under `key`, if the tier has one that is trusted at least as far as `trust`. Says
    /// whether it makes sense to look for it here again. What chunks take on their way comes out of `room`, in
    /// bytes.
    pub(crate) async fn bring(
        &self,
        key: &EntryKey,
        trust: Trust,
        (store, room): (&Store, &Arc<Semaphore>),
    ) -> bool {
        if !keys::is_lasting(&key.path) || self.is_paused() {
            return false;
        }
        let row = row(key);
        let Some(_flight) = self.flights.enter(&row).await else {
            return true;
        };
        let _turn = self.fetches.acquire().await;
        let brought = timeout(FETCH_TIME_MAX, self.fetch(&row, trust, (store, room))).await;
        let what = match &brought {
            Ok(Ok(true)) => "brought",
            Ok(Ok(false)) => "not there",
            Ok(Err(error)) => {
                self.failed("bring an entry", error);
                "failed"
            }
            Err(_elapsed) => "given up",
        };
        counter!("grange_cache_cold_entries_total", "what" => what).increment(1);
        matches!(brought, Ok(Ok(true)))
    }

    async fn fetch(
        &self,
        row: &str,
        trust: Trust,
        place: (&Store, &Arc<Semaphore>),
    ) -> Result<bool, ColdError> {
        let deletions = self.deletions.load(Ordering::SeqCst);
        let labels = self.labels(&names::entry(row)).await?;
        let best = labels
            .into_iter()
            .filter(|label| trust <= label.trust)
            .max_by_key(Label::standing);
        let Some(label) = best else {
            return Ok(false);
        };
        let name = label.name();
        let fetched = self.fetch_object(&label, place, deletions).await;
        if let Err(error) = &fetched
            && let Some(damaged) = error.damaged()
        {
            // Without it, and without the entry, both are written again by whoever has them.
            lock(&self.seen).clear();
            self.bucket.delete(damaged).await?;
            self.bucket.delete(&name).await?;
        }
        fetched
    }

    async fn fetch_object(
        &self,
        label: &Label,
        (store, room): (&Store, &Arc<Semaphore>),
        deletions: u64,
    ) -> Result<bool, ColdError> {
        let name = label.name();
        let Some(bytes) = self.bucket.get(&name, RECORD_BYTES_MAX).await? else {
            return Ok(false);
        };
        let whole = record::decode(&bytes).map_err(|source| ColdError::Record {
            name: name.clone(),
            source,
        })?;
        if super::keep::label(&label.row, &whole.stored) != *label {
            return Err(ColdError::Contradiction { name });
        }
        let team = whole.stored.entry.team.clone();
        self.fetch_chunks((&team, &whole.closure), (store, room))
            .await?;
        let whole = self.checked(store, whole, &name).await?;
        if self.deletions.load(Ordering::SeqCst) != deletions {
            return Ok(false);
        }
        let put = PutEntry {
            key: label.row.clone().into_bytes(),
            entry: whole.stored.entry,
            closure: whole.closure,
            replace: false,
            made_millis: whole.made_millis,
        };
        let applied = store.change(Change::PutEntry(Box::new(put))).await?;
        debug!(name, ?applied, "entry brought from the cold tier");
        Ok(matches!(applied, Applied::Put(_)))
    }

    /// The entry, if it names the chunks that it says it does.
    async fn checked(
        &self,
        store: &Store,
        whole: WholeEntry,
        name: &str,
    ) -> Result<WholeEntry, ColdError> {
        let checking = store.blocking(|store| {
            let closure = store.closure(&whole.stored.entry, &whole.stored.entry.team);
            Ok((closure, whole))
        });
        let (closure, whole) = checking.await?;
        match closure {
            Ok(closure) if closure == whole.closure => Ok(whole),
            Ok(_) => Err(ColdError::Contradiction {
                name: name.to_owned(),
            }),
            Err(ClosureError::Trouble(trouble)) => Err(trouble.into()),
            Err(source) => Err(ColdError::Entry {
                name: name.to_owned(),
                source,
            }),
        }
    }

    /// Has all chunks here, for the team.
    async fn fetch_chunks(
        &self,
        (team, chunks): (&Team, &[ChunkKey]),
        (store, room): (&Store, &Arc<Semaphore>),
    ) -> Result<(), ColdError> {
        let (asked, asking) = (chunks.to_vec(), team.clone());
        let (absent, foreign) = store
            .blocking(move |store| Ok((store.absent(&asked)?, store.not_owned(&asking, &asked)?)))
            .await?;
        if !foreign.is_empty() {
            // Whoever has the entry has what it names; of those that are absent it changes nothing.
            let own = Change::Own {
                team: team.clone(),
                chunks: foreign,
            };
            store.change(own).await?;
        }
        stream::iter(absent)
            .map(|chunk| self.fetch_chunk((team, chunk), (store, room)))
            .buffer_unordered(REQUESTS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn fetch_chunk(
        &self,
        (team, chunk): (&Team, ChunkKey),
        (store, room): (&Store, &Arc<Semaphore>),
    ) -> Result<(), ColdError> {
        /// As it came, and as it is when it is unpacked.
        const COPIES: u64 = 2;
        let bytes = u32::try_from(COPIES * (1 + chunk.size())).expect("a chunk has 2 MiB at most");
        let _room = room.acquire_many(bytes).await;
        let name = names::chunk(&chunk);
        let Some(value) = self.bucket.get(&name, 1 + chunk.size()).await? else {
            return Err(ColdError::NoChunk { name });
        };
        let damaged = |source| ColdError::Chunk {
            name: name.clone(),
            source,
        };
        let encoding = value.first().and_then(|&byte| encoding_of(byte));
        let encoding = encoding.ok_or_else(|| damaged(None))?;
        let header = ChunkHeader {
            index: 0,
            digest: chunk.digest(),
            encoding,
            body_bytes: 0,
        };
        let body = value.slice(1..);
        let verified = tokio::task::spawn_blocking(move || compression::decode(&header, body));
        let verified = verified.await.map_err(|_| Trouble::Closed)?;
        verified.map_err(|source| damaged(Some(Box::new(source))))?;
        let change = Change::PutChunk {
            team: team.clone(),
            chunk,
            value,
        };
        store.change(change).await?;
        Ok(())
    }
}
