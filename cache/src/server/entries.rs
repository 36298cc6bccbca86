//! Entries: written when all that they name is there, given when it still is.

use protocol::{
    message::{
        Refusal,
        cache::{CacheReply, Entry, EntryKey, PutOutcome, UseKey, UseRecord, keys},
    },
    name::Namespace,
};

use super::{
    Context,
    access::Reader,
    listing,
    refusal::{invalid, of_closure, of_cold, of_trouble},
    session::Session,
};
use crate::{
    clock::Clock,
    store::{
        ClosureError, Trouble,
        change::{Applied, Change, PutEntry},
        key,
    },
};

/// Keeps `entry` under `key`; it took so many milliseconds to make what it names, zero: not known.
pub(super) async fn put(
    key: EntryKey,
    mut entry: Entry,
    (replace, made_millis): (bool, u64),
    (session, context): (&Session, &Context),
) -> Result<CacheReply, Refusal> {
    check_key(&key.path)?;
    let now = Clock::wall();
    (entry.team, entry.trust) = session.access().write(&key, &entry, now)?;
    entry.written = now;
    let _room = context.reserve_put().await;
    let (entry, closure) = context
        .store
        .blocking(move |store| {
            let closure = store.closure(&entry, &entry.team);
            Ok((entry, closure))
        })
        .await
        .map_err(|trouble| of_trouble(&trouble))?;
    let row = key::entry(&key);
    let put = PutEntry {
        key: row,
        entry,
        closure: closure.map_err(|error| of_closure(&error))?,
        replace,
        made_millis,
    };
    match change(context, Change::PutEntry(Box::new(put))).await? {
        Applied::Put(outcome) => {
            if let (Some(cold), PutOutcome::Stored) = (&context.cold, outcome) {
                cold.written(&key);
            }
            Ok(CacheReply::Put(outcome))
        }
        Applied::Missing(digest) => Err(of_closure(&ClosureError::Missing {
            part: "the entry",
            digest,
        })),
        _ => Err(unexpected()),
    }
}

/// The entry under `key`, if this connection may see it and all of it is there, or can be brought; whether it `is_use`
/// of it counts for how long it is kept.
pub(super) async fn get(
    key: EntryKey,
    is_use: bool,
    (session, context): (&Session, &Context),
) -> Result<CacheReply, Refusal> {
    check_key(&key.path)?;
    let reader = session.access().read(&key, Clock::wall())?;
    let row = key::entry(&key);
    let mut entry = find((row.clone(), is_use), &reader, context).await?;
    if let (None, Some(cold)) = (&entry, &context.cold)
        && cold.bring(&key, reader.trust, &context.store).await
    {
        entry = find((row, is_use), &reader, context).await?;
    }
    let what = if entry.is_some() { "hit" } else { "miss" };
    metrics::counter!("grange_cache_entries_read_total", "what" => what).increment(1);
    Ok(CacheReply::Entry(entry))
}

/// The entry in this row, if all of it is here; the reader's team then has its chunks.
async fn find(
    (row, is_use): (Vec<u8>, bool),
    reader: &Reader,
    context: &Context,
) -> Result<Option<Entry>, Refusal> {
    let (trust, reading) = (reader.trust, reader.team.clone());
    let _room = context.reserve_closure().await;
    let found = context.store.blocking(move |store| {
        let Some(found) = store.entry(&row, trust)? else {
            return Ok(None);
        };
        if is_use {
            store.touch(row);
        }
        let other = reading.filter(|team| *team != found.entry.team);
        let Some(team) = other else {
            return Ok(Some((found.entry, None)));
        };
        // Whoever may read the entry may read its chunks.
        let chunks = store.not_owned(&team, &found.closure)?;
        let own = (!chunks.is_empty()).then_some(Change::Own { team, chunks });
        Ok(Some((found.entry, own)))
    });
    let found = found.await.map_err(|trouble| of_trouble(&trouble))?;
    let Some((entry, own)) = found else {
        return Ok(None);
    };
    if let Some(own) = own {
        change(context, own).await?;
    }
    Ok(Some(entry))
}

/// A page of entries.
pub(super) async fn list(
    namespace: Namespace,
    (prefix, after): (String, String),
    (session, context): (&Session, &Context),
) -> Result<CacheReply, Refusal> {
    check_length(&prefix)?;
    check_length(&after)?;
    let trust = session.access().list(&namespace, &prefix, Clock::wall())?;
    let behind = match &context.cold {
        Some(cold) => cold.list(&namespace, &prefix, trust).await,
        None => Vec::new(),
    };
    let from = after.clone();
    let page = context
        .store
        .blocking(move |store| store.list(&namespace, (&prefix, &from), trust));
    let page = page.await.map_err(|trouble| of_trouble(&trouble))?;
    let (entries, more) = listing::merged(page, behind, &after);
    Ok(CacheReply::Entries { entries, more })
}

/// Deletes the entries whose keys start with `prefix`.
pub(super) async fn delete(
    namespace: &Namespace,
    prefix: &str,
    (session, context): (&Session, &Context),
) -> Result<CacheReply, Refusal> {
    if prefix.is_empty() {
        return Err(invalid("deleting needs a prefix that is not empty"));
    }
    check_length(prefix)?;
    session.access().delete(namespace, prefix)?;
    let Some(cold) = &context.cold else {
        let deleted = delete_here(namespace, prefix, context).await?;
        return Ok(CacheReply::Deleted(deleted));
    };
    let _alone = cold.deleting().await;
    // Before here: what is brought back meanwhile is here then.
    let gone = cold.delete(namespace, prefix).await;
    let deleted = delete_here(namespace, prefix, context).await?;
    gone.map_err(|error| of_cold(&error, deleted))?;
    Ok(CacheReply::Deleted(deleted))
}

/// Deletes them in the store; gives how many there were.
async fn delete_here(
    namespace: &Namespace,
    prefix: &str,
    context: &Context,
) -> Result<u64, Refusal> {
    let start = key::entries(namespace, prefix);
    let mut deleted = 0;
    loop {
        let start = start.clone();
        let Applied::Deleted { count, more, .. } =
            change(context, Change::DeleteEntries { start }).await?
        else {
            return Err(unexpected());
        };
        deleted += count;
        if !more {
            return Ok(deleted);
        }
    }
}

/// Makes room, although it is not time yet.
pub(super) async fn collect(
    (session, context): (&Session, &Context),
) -> Result<CacheReply, Refusal> {
    session.access().collect()?;
    let swept = context.store.sweep(context.budget).await;
    let swept = swept.map_err(|trouble| of_trouble(&trouble))?;
    Ok(CacheReply::Collected {
        entries: swept.evicted,
        chunks: swept.chunks,
        bytes_stored: swept.stored,
    })
}

/// Counts what a dependency cache did. How long it took to make what was restored is not asked of who restored
/// it, but of the entry; and that it was may say only who may read it.
pub(super) async fn record(
    record: UseRecord,
    (session, context): (&Session, &Context),
) -> Result<CacheReply, Refusal> {
    check_length(&record.what.key)?;
    let at = Clock::wall();
    session.access().record(&record.team, at)?;
    if let Some(entry) = &record.entry {
        check_key(&entry.path)?;
        session.access().read(entry, at)?;
    }
    change(context, Change::Record { record, at }).await?;
    Ok(CacheReply::Done)
}

/// What was counted, as far as it is this connection's business.
pub(super) async fn stats(
    after: Option<UseKey>,
    (session, context): (&Session, &Context),
) -> Result<CacheReply, Refusal> {
    if let Some(after) = &after {
        check_length(&after.key)?;
    }
    let after = after.map_or_else(Vec::new, |after| {
        key::uses(&after.team, &after.project, &after.key)
    });
    let team = session.access().counts_of().cloned();
    let stats = context
        .store
        .blocking(move |store| store.stats(team.as_ref(), &after));
    let stats = stats.await.map_err(|trouble| of_trouble(&trouble))?;
    Ok(CacheReply::Stats(Box::new(stats)))
}

async fn change(context: &Context, change: Change) -> Result<Applied, Refusal> {
    let applied = context.store.change(change).await;
    applied.map_err(|trouble| of_trouble(&trouble))
}

fn unexpected() -> Refusal {
    of_trouble(&Trouble::Closed)
}

fn check_key(path: &str) -> Result<(), Refusal> {
    keys::check(path).map_err(|error| invalid(error.to_string()))
}

fn check_length(key: &str) -> Result<(), Refusal> {
    keys::check_length(key).map_err(|error| invalid(error.to_string()))
}
