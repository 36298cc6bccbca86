//! Writing chunks: they go out one after another on one stream, and are acknowledged together when all
//! of them are durable.

use protocol::message::{
    Refusal,
    cache::{CacheReply, CacheRequest, ChunkHeader},
};
use tokio::sync::mpsc;
use transport::{SendHalf, StreamError};

use super::{CacheClient, CacheError};
use crate::compression::EncodedChunk;

const WHAT: &str = "write chunks";

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
        mut chunks: mpsc::Receiver<EncodedChunk>,
    ) -> Result<Written, CacheError> {
        let broken = |source| CacheError::Stream { what: WHAT, source };
        let mut stream = self.connection.open().await.map_err(broken)?;
        let request = CacheRequest::WriteChunks {
            team: self.team.clone(),
        };
        let sent = match stream.send.message(&request).await {
            Ok(()) => send_all(&mut stream.send, &mut chunks).await,
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
    chunks: &mut mpsc::Receiver<EncodedChunk>,
) -> Result<(), StreamError> {
    let mut index = 0;
    while let Some(chunk) = chunks.recv().await {
        let header = ChunkHeader {
            index,
            digest: chunk.digest,
            encoding: chunk.encoding,
            body_bytes: u32::try_from(chunk.body.len()).expect("a chunk is at most 2 MiB"),
        };
        send.message(&header).await?;
        send.bytes(chunk.body).await?;
        index = index.wrapping_add(1);
    }
    send.finish();
    Ok(())
}
