//! Chunks in and out. Bodies travel as they are stored; what comes in is unpacked and verified before it
//! is acknowledged.

mod write;

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use metrics::counter;
use protocol::{
    digest::Digest,
    layout::CHUNK_BYTES_MAX,
    message::{
        Refusal,
        cache::{CacheReply, ChunkHeader, DAMAGE_REPORTED_MAX, DIGESTS_MAX, Encoding},
    },
    name::Team,
};
use tokio::{
    sync::{OwnedSemaphorePermit, SemaphorePermit, mpsc},
    time::timeout,
};
use transport::{Stream, StreamError};

pub(super) use self::write::write;
use super::{
    Context,
    refusal::{chain, invalid, of_trouble},
    session::Session,
};
use crate::{
    clock::Clock,
    gather::Gather,
    store::{ReadAnswer, Store, Trouble, Visit},
};

/// How many bytes of chunks are looked up at once, by what they have uncompressed: some hundreds of small
/// ones are read in one go, and a large one starts on its way before the next is read.
const WINDOW_BYTES: u64 = 1 << 20;
/// How many chunks are looked up at once.
const WINDOW_CHUNKS: usize = 256;

/// Up to so many chunks, with so many bytes, are looked up where they are asked for: that takes some dozens of
/// microseconds if they are in memory. More is looked up while others are served.
const BRIEF_CHUNKS_MAX: usize = 16;
const BRIEF_BYTES_MAX: u64 = 64 << 10;
/// The same of chunks of which only is asked whether they are there.
const BRIEF_DIGESTS_MAX: usize = 64;

/// Which of `chunks` the team does not have here.
pub(super) async fn find_missing(
    team: Team,
    chunks: Vec<Digest>,
    (session, context): (&Session, &Context),
) -> Result<CacheReply, Refusal> {
    session.access().chunks(&team, Clock::wall())?;
    check_count(chunks.len())?;
    let _named = session.reserve_digests(chunks.len()).await;
    let _room = context.reserve_digests(chunks.len()).await;
    let asked = chunks.len() as u64;
    let is_brief = chunks.len() <= BRIEF_DIGESTS_MAX;
    let work = move |store: Store| store.present(&team, &chunks);
    let present = match is_brief {
        true => context.store.brief(work).await,
        false => context.store.blocking(work).await,
    };
    let present = present.map_err(|trouble| of_trouble(&trouble))?;
    let missing: Vec<u32> = (0..)
        .zip(&present)
        .filter(|(_, there)| !**there)
        .map(|(at, _)| at)
        .collect();
    counter!("grange_cache_presence_checks_total").increment(asked);
    counter!("grange_cache_presence_misses_total").increment(missing.len() as u64);
    Ok(CacheReply::Missing(missing))
}

/// Reads `chunks` again, which came to the client damaged, and sets aside those that are so here.
pub(super) async fn report_damage(
    team: Team,
    chunks: Vec<Digest>,
    (session, context): (&Session, &Context),
) -> Result<CacheReply, Refusal> {
    session.access().chunks(&team, Clock::wall())?;
    if DAMAGE_REPORTED_MAX < chunks.len() {
        return Err(invalid(format!(
            "the report names {} chunks, at most {DAMAGE_REPORTED_MAX} are allowed",
            chunks.len()
        )));
    }
    let share = context.teams.share(&team);
    let all = chunks.iter().map(transfer_bytes).sum::<u64>();
    session.pace.wait(context.teams.clock(), all).await;
    share.pace.wait(context.teams.clock(), all).await;
    // One is read after another.
    let largest = chunks.iter().map(transfer_bytes).max().unwrap_or(0);
    let _room = session.reserve_read(&team, &share, largest).await;
    let set_aside = context.store.verify(team, chunks).await;
    let set_aside = set_aside.map_err(|trouble| of_trouble(&trouble))?;
    counter!("grange_cache_damage_reports_total").increment(1);
    Ok(CacheReply::SetAside(set_aside))
}

/// What is sent for some chunks, and the room that it takes until then.
struct Outgoing {
    window: Window,
    _room: [OwnedSemaphorePermit; 3],
}

/// Some chunks with their headers, as they are sent.
#[derive(Debug, Default, Eq, PartialEq)]
struct Window {
    pieces: Vec<Bytes>,
    chunks: u64,
    /// The bytes of bodies.
    bytes: u64,
}

/// Sends chunks; the room that naming them takes is given back as they go. A stream that breaks is no
/// refusal: nobody is there to read it.
pub(super) async fn read(
    team: Team,
    (mut chunks, mut named): (VecDeque<Digest>, SemaphorePermit<'_>),
    stream: &mut Stream,
    (session, context): (&Session, &Context),
) -> Result<(), Refusal> {
    session.access().chunks(&team, Clock::wall())?;
    let retired = context.store.retired();
    let retired = retired.map_err(|trouble| of_trouble(&trouble))?;
    // While one window is on its way, the next is read.
    let (ready, mut outgoing) = mpsc::channel(1);
    let share = context.teams.share(&team);
    let look_up = async move {
        let mut first = 0;
        while let Some(asked) = next_window(&mut chunks) {
            let (team, count) = (team.clone(), asked.len());
            let bytes = asked.iter().map(transfer_bytes).sum::<u64>();
            // Who waits for a rate has no room for these yet.
            session.pace.wait(context.teams.clock(), bytes).await;
            share.pace.wait(context.teams.clock(), bytes).await;
            let room = session.reserve_read(&team, &share, bytes).await;
            let looking_up = context.reserve_digests(count).await;
            let work = move |store: Store| look_up(&store, &team, &asked, first);
            let is_brief = count <= BRIEF_CHUNKS_MAX && bytes <= BRIEF_BYTES_MAX;
            let answers = match is_brief {
                true => context.store.brief(work).await,
                false => context.store.blocking(work).await,
            };
            drop(looking_up);
            let window_failed = answers.is_err();
            let answers = answers.map(|window| Outgoing {
                window,
                _room: room,
            });
            if ready.send(answers).await.is_err() || window_failed {
                return;
            }
            drop(named.split(count));
            first += count;
        }
    };
    let send = async move {
        while let Some(answers) = outgoing.recv().await {
            let outgoing = answers.map_err(|trouble| of_trouble(&trouble))?;
            let sent = tokio::select! {
                biased;
                // Bodies lie in the database's memory.
                () = retired.cancelled() => Err(SendError::Retired),
                sent = send_window(stream, outgoing.window, (session, context)) => sent,
            };
            if let Err(error) = sent {
                tracing::debug!(error = %chain(&error), "chunks not sent");
                stream.send.reset();
                return Ok(());
            }
        }
        Ok(())
    };
    tokio::join!(look_up, send).1
}

/// Why a chunk could not be sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the client does not read")]
    Stalled,
    #[error("the store is being opened again")]
    Retired,
    #[error(transparent)]
    Stream(#[from] StreamError),
}

async fn send_window(
    stream: &mut Stream,
    window: Window,
    (session, context): (&Session, &Context),
) -> Result<(), SendError> {
    // One window after another, not a datagram of each in turn: a chunk that arrives whole wakes its reader once.
    // With 16 chunks of 512 KiB in flight that is a tenth more bytes per second.
    let turn = session.turns.fetch_add(1, Ordering::Relaxed);
    stream.send.yield_to_others(turn);
    let stall_time = context.teams.limits().stall_time;
    let sent = timeout(stall_time, stream.send.pieces(window.pieces));
    sent.await.map_err(|_elapsed| SendError::Stalled)??;
    counter!("grange_cache_chunks_read_total").increment(window.chunks);
    counter!("grange_cache_chunks_read_bytes_total").increment(window.bytes);
    Ok(())
}

/// Takes the next chunks that are looked up together.
fn next_window(chunks: &mut VecDeque<Digest>) -> Option<Vec<Digest>> {
    let mut bytes = 0;
    let fitting = chunks.iter().take(WINDOW_CHUNKS).take_while(|digest| {
        bytes += transfer_bytes(digest);
        bytes <= WINDOW_BYTES
    });
    // A chunk that is larger than the window makes one of its own.
    let length = fitting.count().max(1).min(chunks.len());
    let window: Vec<Digest> = chunks.drain(..length).collect();
    if 2 * chunks.len() < chunks.capacity() {
        chunks.shrink_to_fit();
    }
    (!window.is_empty()).then_some(window)
}

/// What a chunk takes at most on its way, in bytes.
fn transfer_bytes(digest: &Digest) -> u64 {
    digest.size().min(CHUNK_BYTES_MAX)
}

fn look_up(store: &Store, team: &Team, chunks: &[Digest], first: usize) -> Result<Window, Trouble> {
    let mut filling = Filling::with_room_for(chunks);
    store.read(team, chunks, |at, found| {
        filling.add((first + at, chunks[at]), found);
    })?;
    Ok(filling.whole())
}

/// What a header takes at most before a small body, in bytes, with its frame.
const HEADER_BYTES: usize = 64;

/// A window into which chunks are put one behind another.
#[derive(Debug, Default)]
struct Filling {
    gather: Gather,
    chunks: u64,
    bytes: u64,
}

impl Filling {
    fn with_room_for(chunks: &[Digest]) -> Self {
        let sizes = chunks.iter().map(transfer_bytes);
        let copied: u64 = sizes.filter(|&size| Gather::is_copied(size)).sum();
        let mut filling = Self::default();
        let copied = usize::try_from(copied).expect("a window is small");
        filling.gather.reserve(copied + HEADER_BYTES * chunks.len());
        filling
    }

    /// Adds the chunk `digest`, the `index`th of the request.
    fn add(&mut self, (index, digest): (usize, Digest), found: Visit<'_>) {
        let (encoding, length) = match &found {
            Visit::Answer(ReadAnswer::Missing) => (Encoding::Missing, 0),
            Visit::Answer(ReadAnswer::Found { encoding, body }) => (*encoding, body.len()),
            Visit::Brief { encoding, body } => (*encoding, body.len()),
        };
        let answer: Result<ChunkHeader, Refusal> = Ok(ChunkHeader {
            index: u32::try_from(index).expect("a request has at most 65,536 chunks"),
            digest,
            encoding,
            body_bytes: u32::try_from(length).expect("a chunk is at most 2 MiB"),
        });
        self.chunks += 1;
        self.bytes += length as u64;
        let message = self.gather.message(&answer);
        message.expect("a header is smaller than a frame");
        match found {
            Visit::Answer(ReadAnswer::Missing) => {}
            Visit::Answer(ReadAnswer::Found { body, .. }) => self.gather.body(body),
            Visit::Brief { body, .. } => self.gather.copy(body),
        }
    }

    fn whole(mut self) -> Window {
        Window {
            pieces: self.gather.take(),
            chunks: self.chunks,
            bytes: self.bytes,
        }
    }
}

pub(super) fn check_count(count: usize) -> Result<(), Refusal> {
    if count <= DIGESTS_MAX {
        return Ok(());
    }
    Err(invalid(format!(
        "the request names {count} chunks, at most {DIGESTS_MAX} are allowed"
    )))
}

/// Waits for room for `bytes`, which are less than there is at all.
pub(super) async fn reserve(
    room: &Arc<tokio::sync::Semaphore>,
    bytes: u64,
) -> OwnedSemaphorePermit {
    let permits = u32::try_from(bytes).expect("chunks are small");
    let room = Arc::clone(room).acquire_many_owned(permits).await;
    room.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests;
