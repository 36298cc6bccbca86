//! Writing chunks: they go out one after another on one stream, and are acknowledged together when all
//! of them are durable.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use protocol::{
    codec::CodecError,
    message::{
        Refusal,
        cache::{CacheReply, CacheRequest, ChunkHeader},
    },
};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::timeout,
};
use transport::{SendHalf, StreamError};

use super::{CacheClient, CacheError};
use crate::{compression::EncodedChunk, gather::Gather};

const WHAT: &str = "write chunks";

/// How long a stream waits for the next chunk, or for the turn to send it, before it is ended: a cache gives one up
/// after a minute.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How much is gathered before it goes, in bytes: a datagram is cut from few pieces then, and the first chunks do
/// not wait for long.
const GATHERED_BYTES: usize = 64 * 1024;

/// Chunks that whichever connection is free takes next.
type Shared = Arc<Mutex<mpsc::Receiver<EncodedChunk>>>;

/// What became of chunks that were written. All of them are durable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Written {
    /// How many were written.
    pub chunks: u64,
    /// How many of them the cache did not have.
    pub new: u64,
    /// What the new ones take on the cache's disk, in bytes.
    pub new_bytes_stored: u64,
}

impl Written {
    fn add(&mut self, more: Self) {
        self.chunks += more.chunks;
        self.new += more.new;
        self.new_bytes_stored += more.new_bytes_stored;
    }
}

impl CacheClient {
    /// Writes everything that comes from `chunks` until its senders are gone, and waits until it is
    /// durable. On an error `chunks` is dropped, so that whoever makes them stops.
    ///
    /// # Errors
    ///
    /// If the cache cannot be reached or refuses; then none, some or all of the chunks are there.
    pub async fn write_chunks(
        &self,
        chunks: mpsc::Receiver<EncodedChunk>,
    ) -> Result<Written, CacheError> {
        let shared = Arc::new(Mutex::new(chunks));
        if self.connections.len() == 1 {
            return Box::pin(self.write_share(0, &shared)).await;
        }
        let mut writing = JoinSet::new();
        for at in 0..self.connections.len() {
            let (client, shared) = (self.clone(), Arc::clone(&shared));
            writing.spawn(async move { client.write_share(at, &shared).await });
        }
        // Whoever makes the chunks stops when the last that takes them is gone.
        drop(shared);
        let mut written = Written::default();
        // Whoever fails first ends the others: dropping the set does.
        while let Some(more) = writing.join_next().await {
            written.add(more.map_err(|_panicked| CacheError::Answer { what: WHAT })??);
        }
        Ok(written)
    }

    /// Writes what it can get of `chunks` over one of the connections, with a stream for as many as come in one
    /// go: the cache does not wait long for the next of a stream.
    async fn write_share(&self, at: usize, chunks: &Shared) -> Result<Written, CacheError> {
        let mut written = Written::default();
        let mut left = VecDeque::new();
        loop {
            if left.is_empty() {
                let Some(first) = chunks.lock().await.recv().await else {
                    return Ok(written);
                };
                left.push_back(first);
            }
            written.add(self.write_stream(at, &mut left, chunks).await?);
        }
    }

    /// Writes what is `left`, one chunk at least, and what comes behind it in one go. What the stream could not take
    /// is left again.
    async fn write_stream(
        &self,
        at: usize,
        left: &mut VecDeque<EncodedChunk>,
        chunks: &Shared,
    ) -> Result<Written, CacheError> {
        let broken = |source| CacheError::Stream { what: WHAT, source };
        let mut stream = self.connections[at].open().await.map_err(broken)?;
        let request = CacheRequest::WriteChunks {
            team: self.team.clone(),
        };
        stream.send.yield_to_others(0);
        let sent = self.send_all((at, &mut stream.send), &request, (left, chunks));
        let sent = sent.await;
        // A cache that refuses stops the stream first: its reason is worth more than ours.
        let answer = stream
            .receive
            .message::<Result<CacheReply, Refusal>>()
            .await;
        match (answer, sent) {
            (Ok(Some(Err(source))), _) => Err(CacheError::Refused { what: WHAT, source }),
            (_, Err(source)) | (Err(source), _) => Err(broken(source)),
            (
                Ok(Some(Ok(CacheReply::Written {
                    chunks,
                    new,
                    new_bytes_stored,
                }))),
                Ok(()),
            ) => Ok(Written {
                chunks,
                new,
                new_bytes_stored,
            }),
            _ => Err(CacheError::Answer { what: WHAT }),
        }
    }

    /// Sends the request, what is `left` and what comes behind it without a pause. What is there already goes together,
    /// and nothing else of the team's between.
    async fn send_all(
        &self,
        (at, send): (usize, &mut SendHalf),
        request: &CacheRequest,
        (left, chunks): (&mut VecDeque<EncodedChunk>, &Shared),
    ) -> Result<(), StreamError> {
        let not_encoded = |source| StreamError::Encode { source };
        let next = || async { chunks.lock().await.recv().await };
        let mut group = Group::default();
        group.gather.message(request).map_err(not_encoded)?;
        // A cache does not mind how long a stream takes to begin.
        let mut patience = Duration::MAX;
        let mut index = 0;
        let mut chunk = left.pop_front();
        while let Some(known) = chunk {
            group.add(index, known).map_err(not_encoded)?;
            index = index.wrapping_add(1);
            let there = if group.gather.bytes() < GATHERED_BYTES {
                let there = left.pop_front().map(Some);
                there.or_else(|| next().now_or_never())
            } else {
                None
            };
            if let Some(Some(there)) = there {
                chunk = Some(there);
                continue;
            }
            let is_all = there.is_some();
            if !self.send_in_turn((at, send), &mut group, patience).await? || is_all {
                break;
            }
            patience = PAUSE_MAX;
            chunk = match left.pop_front() {
                Some(known) => Some(known),
                None => timeout(PAUSE_MAX, next()).await.unwrap_or(None),
            };
        }
        send.finish();
        // Those that waited for their turn for too long.
        for chunk in group.chunks.into_iter().rev() {
            left.push_front(chunk);
        }
        Ok(())
    }

    /// Sends `group`, in the turn of the team; not, if that does not come within `patience`.
    async fn send_in_turn(
        &self,
        (at, send): (usize, &mut SendHalf),
        group: &mut Group,
        patience: Duration,
    ) -> Result<bool, StreamError> {
        let turn = self.connections[at].turn(self.team.as_str());
        let Ok(_turn) = timeout(patience, turn).await else {
            return Ok(false);
        };
        group.chunks.clear();
        send.pieces(group.gather.take()).await?;
        Ok(true)
    }
}

/// What goes together in one turn.
#[derive(Default)]
struct Group {
    gather: Gather,
    chunks: Vec<EncodedChunk>,
}

impl Group {
    fn add(&mut self, index: u32, chunk: EncodedChunk) -> Result<(), CodecError> {
        let header = ChunkHeader {
            index,
            digest: chunk.digest,
            encoding: chunk.encoding,
            body_bytes: u32::try_from(chunk.body.len()).expect("a chunk is at most 2 MiB"),
        };
        self.gather.message(&header)?;
        self.gather.body(chunk.body.clone());
        self.chunks.push(chunk);
        Ok(())
    }
}
