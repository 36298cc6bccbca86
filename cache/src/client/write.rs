//! Writing chunks: they go out one after another on one stream, and are acknowledged together when all
//! of them are durable.

use std::sync::Arc;

use protocol::message::{
    Refusal,
    cache::{CacheReply, CacheRequest, ChunkHeader},
};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
};
use transport::{SendHalf, StreamError};

use super::{CacheClient, CacheError};
use crate::compression::EncodedChunk;

const WHAT: &str = "write chunks";

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
        let mut others = JoinSet::new();
        for at in 1..self.connections.len() {
            let (client, shared) = (self.clone(), Arc::clone(&shared));
            others.spawn(async move { client.write_share(at, &shared).await });
        }
        let mut written = Box::pin(self.write_share(0, &shared)).await?;
        // Whoever fails first ends the others: dropping the set does.
        while let Some(more) = others.join_next().await {
            let more = more.map_err(|_panicked| CacheError::Answer { what: WHAT })??;
            written.chunks += more.chunks;
            written.new += more.new;
            written.new_bytes_stored += more.new_bytes_stored;
        }
        Ok(written)
    }

    /// Writes what it can get of `chunks` over one of the connections. Others than the first open a stream
    /// when there is something to write.
    async fn write_share(&self, at: usize, chunks: &Shared) -> Result<Written, CacheError> {
        let first = chunks.lock().await.recv().await;
        if first.is_none() && at != 0 {
            return Ok(Written::default());
        }
        let written = self.write_stream(at, first, chunks).await;
        if written.is_err() {
            // Whoever makes them stops, and so do the other connections.
            chunks.lock().await.close();
        }
        written
    }

    async fn write_stream(
        &self,
        at: usize,
        first: Option<EncodedChunk>,
        chunks: &Shared,
    ) -> Result<Written, CacheError> {
        let broken = |source| CacheError::Stream { what: WHAT, source };
        let mut stream = self.connections[at].open().await.map_err(broken)?;
        let request = CacheRequest::WriteChunks {
            team: self.team.clone(),
        };
        stream.send.yield_to_others();
        let sent = match stream.send.message(&request).await {
            Ok(()) => send_all(&mut stream.send, first, chunks).await,
            Err(error) => Err(error),
        };
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
}

async fn send_all(
    send: &mut SendHalf,
    mut next: Option<EncodedChunk>,
    chunks: &Shared,
) -> Result<(), StreamError> {
    let mut index = 0;
    while let Some(chunk) = next {
        let header = ChunkHeader {
            index,
            digest: chunk.digest,
            encoding: chunk.encoding,
            body_bytes: u32::try_from(chunk.body.len()).expect("a chunk is at most 2 MiB"),
        };
        send.message(&header).await?;
        send.bytes(chunk.body).await?;
        index = index.wrapping_add(1);
        next = chunks.lock().await.recv().await;
    }
    send.finish();
    Ok(())
}
