//! Read-through: an entry that is not here is brought from the cold tier, with those of its chunks that are
//! not here. All of it is verified: a chunk by its hash, what the entry names by its layouts.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use metrics::counter;
use protocol::{
    access::Trust,
    message::cache::{ChunkHeader, EntryKey, keys},
    name::Team,
};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{
    Cold, ColdError, REQUESTS_AT_ONCE, lock,
    names::{self, Title},
    policy,
    record::{self, RECORD_BYTES_MAX},
    row,
};
use crate::{
    clock::Clock,
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

/// What came of bringing an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Brought {
    Here,
    NotThere,
    /// For a store of this size.
    TooLarge,
}

impl Cold {
    /// Brings the entry under `key`, if the tier has one that is trusted at least as far as `trust`. Says
    /// whether it makes sense to look for it here again.
    pub(crate) async fn bring(&self, key: &EntryKey, trust: Trust, store: &Store) -> bool {
        if !keys::is_lasting(&key.path) || self.is_paused(&self.reads) {
            return false;
        }
        let row = row(key);
        // Who asks for less trust may find what another does not.
        let flight = self.flights.enter(&format!("{trust:?} {row}")).await;
        let Some(flight) = flight else { return true };
        if self.is_paused(&self.reads) {
            return false;
        }
        let slow = ColdError::Slow {
            what: "bring an entry",
            limit: FETCH_TIME_MAX,
        };
        let fetching = self.fetch(&row, trust, store);
        let brought = timeout(FETCH_TIME_MAX, fetching).await.unwrap_or(Err(slow));
        flight.finish();
        let what = match &brought {
            Ok(Brought::Here) => "brought",
            Ok(Brought::NotThere) => "not there",
            Ok(Brought::TooLarge) => "too large",
            Err(_) => "failed",
        };
        counter!("grange_cache_cold_entries_total", "what" => what).increment(1);
        match &brought {
            Ok(_) => lock(&self.reads).answered(),
            Err(error) => self.failed("bring an entry", &self.reads, error),
        }
        matches!(brought, Ok(Brought::Here))
    }

    async fn fetch(&self, row: &str, trust: Trust, store: &Store) -> Result<Brought, ColdError> {
        let titles = self.look(&names::entry(row)).await?;
        let all = titles.iter().map(|(title, _)| title.clone());
        let Some(title) = policy::best(all, trust) else {
            return Ok(Brought::NotThere);
        };
        let modified = titles.iter().find(|(one, _)| *one == title);
        let age = modified.map(|&(_, modified)| Clock::wall().since(modified));
        if self.brought_max < title.bytes {
            return Ok(Brought::TooLarge);
        }
        let name = title.name();
        let _turn = self.fetches.acquire().await;
        let fetched = self.fetch_object(&title, store).await;
        if let Err(error) = &fetched
            && let Some(damaged) = error.damaged()
        {
            self.delete_damaged(damaged, &name).await;
        }
        if matches!(fetched, Ok(Brought::Here)) && age.is_some_and(policy::is_renewed) {
            self.wait_for_writing(row.to_owned());
        }
        fetched
    }

    /// Deletes an object that is worth nothing and the entry that needs it: both are written again by whoever has
    /// them.
    async fn delete_damaged(&self, damaged: &str, entry: &str) {
        for name in [damaged, entry] {
            if let Err(error) = self.bucket.delete(name).await {
                warn!(
                    error = error.text(),
                    name, "what is damaged stays in the cold tier"
                );
            }
        }
        lock(&self.seen).clear();
    }

    async fn fetch_object(&self, title: &Title, store: &Store) -> Result<Brought, ColdError> {
        let name = title.name();
        let Some(bytes) = self.bucket.get(&name, RECORD_BYTES_MAX).await? else {
            return Ok(Brought::NotThere);
        };
        let whole = record::decode(&bytes).map_err(|source| ColdError::Record {
            name: name.clone(),
            source,
        })?;
        if super::keep::title(&title.row, &whole.stored) != *title {
            return Err(ColdError::Contradiction { name });
        }
        let team = whole.stored.entry.team.clone();
        self.fetch_chunks(&team, &whole.closure, store).await?;
        let Some(whole) = self.checked(store, whole, &name).await? else {
            return Ok(Brought::NotThere);
        };
        let _no_entry_goes = self.deleting.read().await;
        if self.bucket.modified(&name).await?.is_none() {
            return Ok(Brought::NotThere);
        }
        let put = PutEntry {
            key: title.row.clone().into_bytes(),
            entry: whole.stored.entry,
            closure: whole.closure,
            replace: false,
            made_millis: whole.made_millis,
        };
        let applied = store.change(Change::PutEntry(Box::new(put))).await?;
        debug!(name, ?applied, "entry brought from the cold tier");
        Ok(match applied {
            Applied::Put(_) => Brought::Here,
            _ => Brought::NotThere,
        })
    }

    /// The entry, if it names the chunks that it says it does; `None`: one of them is gone from here already.
    async fn checked(
        &self,
        store: &Store,
        whole: WholeEntry,
        name: &str,
    ) -> Result<Option<WholeEntry>, ColdError> {
        let _turn = self.checks.acquire().await;
        let checking = store.blocking(|store| {
            let closure = store.closure(&whole.stored.entry, &whole.stored.entry.team);
            Ok((closure, whole))
        });
        let (closure, whole) = checking.await?;
        match closure {
            Ok(closure) if closure == whole.closure => Ok(Some(whole)),
            Ok(_) => Err(ColdError::Contradiction {
                name: name.to_owned(),
            }),
            Err(ClosureError::Missing { .. }) => Ok(None),
            Err(ClosureError::Trouble(trouble)) => Err(trouble.into()),
            Err(source) => Err(ColdError::Entry {
                name: name.to_owned(),
                source,
            }),
        }
    }

    /// Has all chunks here, for the team. What is here for others is fetched all the same: that it is in the
    /// bucket shows that the entry is about bytes that were had.
    async fn fetch_chunks(
        &self,
        team: &Team,
        chunks: &[ChunkKey],
        store: &Store,
    ) -> Result<(), ColdError> {
        let (asked, asking) = (chunks.to_vec(), team.clone());
        let lacking = store.blocking(move |store| {
            let mut lacking = store.absent(&asked)?;
            lacking.extend(store.not_owned(&asking, &asked)?);
            lacking.sort_unstable();
            lacking.dedup();
            Ok(lacking)
        });
        stream::iter(lacking.await?)
            .map(|chunk| self.fetch_chunk(team, chunk, store))
            .buffer_unordered(REQUESTS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn fetch_chunk(
        &self,
        team: &Team,
        chunk: ChunkKey,
        store: &Store,
    ) -> Result<(), ColdError> {
        /// As it came, and as it is when it is unpacked.
        const COPIES: u64 = 2;
        let bytes = u32::try_from(COPIES * (1 + chunk.size())).expect("a chunk has 2 MiB at most");
        let _room = self.room.acquire_many(bytes).await;
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
