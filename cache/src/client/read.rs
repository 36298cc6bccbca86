//! Reading chunks: one request names many, the answers come in the order in which they are ready, and
//! each is unpacked and verified here while the next ones arrive.

use std::time::Duration;

use bytes::Bytes;
use protocol::{
    digest::Digest,
    message::{
        Refusal,
        cache::{CacheRequest, ChunkHeader, DIGESTS_MAX, Encoding},
    },
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use transport::ReceiveHalf;

use super::{
    CacheClient, CacheError,
    ask::send,
    bulk::{chosen, shares},
    unpack::{Arrived, Unpacking},
};
use crate::compression;

const WHAT: &str = "read chunks";

/// A chunk that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReadChunk {
    /// Index into the chunks that were asked for.
    pub index: usize,
    /// Which chunk.
    pub digest: Digest,
    /// Its uncompressed bytes; they are what the digest says.
    pub bytes: Bytes,
    /// How many bytes of body travelled for it.
    pub bytes_moved: u64,
}

/// How long the cache may take to look at a chunk that is reported as damaged.
const REPORT_TIME: Duration = Duration::from_secs(10);

impl CacheClient {
    /// Reads `chunks` and sends each to `out`, in the order in which they become ready; a chunk that is
    /// named twice comes twice. Ends early, without an error, when nobody receives from `out` any more.
    ///
    /// # Errors
    ///
    /// If the cache cannot be asked or refuses; and at the first chunk that is missing or corrupt, which
    /// the cache is told.
    /// Chunks that were sent to `out` before are good.
    pub async fn read_chunks(
        &self,
        chunks: Vec<Digest>,
        out: mpsc::Sender<ReadChunk>,
    ) -> Result<(), CacheError> {
        let shares = shares(&chunks, self.connections.len());
        if let [all] = &shares[..] {
            return Box::pin(self.read_share(0, &chunks, all, &out)).await;
        }
        let mut reading = JoinSet::new();
        for (share, at) in shares.into_iter().zip(0..) {
            let (client, chunks, out) = (self.clone(), chosen(&chunks, &share), out.clone());
            reading.spawn(async move { client.read_share(at, &chunks, &share, &out).await });
        }
        // Whoever fails first ends the others: dropping the set does.
        while let Some(read) = reading.join_next().await {
            read.map_err(|_panicked| CacheError::Answer { what: WHAT })??;
        }
        Ok(())
    }

    /// Reads `chunks` over one of the connections; `numbers` says what each is called.
    async fn read_share(
        &self,
        at: usize,
        chunks: &[Digest],
        numbers: &[usize],
        out: &mpsc::Sender<ReadChunk>,
    ) -> Result<(), CacheError> {
        let batches = chunks.chunks(DIGESTS_MAX).zip(numbers.chunks(DIGESTS_MAX));
        for (asked, numbers) in batches {
            let done = self.read_batch(at, asked, numbers, out).await;
            if let Err(CacheError::Corrupt { digest, .. }) = &done {
                self.report_damage(*digest).await;
            }
            done?;
        }
        Ok(())
    }

    /// Tells the cache that a chunk came damaged, so that it looks whether it is so there: then it is
    /// missing, and whoever has it brings it again.
    async fn report_damage(&self, digest: Digest) {
        let request = CacheRequest::ReportDamage {
            team: self.team.clone(),
            chunks: vec![digest],
        };
        // It is damaged all the same; who asks again reports it again.
        let _not_told = timeout(REPORT_TIME, self.ask("report damage", request)).await;
    }

    async fn read_batch(
        &self,
        at: usize,
        asked: &[Digest],
        numbers: &[usize],
        out: &mpsc::Sender<ReadChunk>,
    ) -> Result<(), CacheError> {
        let broken = |source| CacheError::Stream { what: WHAT, source };
        let mut stream = self.connections[at].open().await.map_err(broken)?;
        let request = CacheRequest::ReadChunks {
            team: self.team.clone(),
            chunks: asked.to_vec(),
        };
        let sent = send(&self.connections[at], &mut stream.send, &request).await;
        sent.map_err(broken)?;
        stream.send.finish();
        let mut unpacking = Unpacking::new(out, asked.len());
        for _ in 0..asked.len() {
            let next = next_chunk(&mut stream.receive, asked).await;
            let (header, body) = match next {
                Ok(next) => next,
                Err(error) => {
                    // What came before is good.
                    unpacking.finish().await?;
                    return Err(error);
                }
            };
            let chunk = Arrived {
                index: numbers[header.index as usize],
                header,
                body,
            };
            if !unpacking.take(chunk, stream.receive.is_ahead()).await? {
                return Ok(());
            }
        }
        unpacking.finish().await
    }
}

/// The next header and body, checked against what was asked for.
async fn next_chunk(
    receive: &mut ReceiveHalf,
    asked: &[Digest],
) -> Result<(ChunkHeader, Bytes), CacheError> {
    let broken = |source| CacheError::Stream { what: WHAT, source };
    let answer = receive.message::<Result<ChunkHeader, Refusal>>().await;
    let header = match answer.map_err(broken)? {
        Some(Ok(header)) => header,
        Some(Err(source)) => return Err(CacheError::Refused { what: WHAT, source }),
        None => return Err(CacheError::Answer { what: WHAT }),
    };
    let digest = usize::try_from(header.index)
        .ok()
        .and_then(|index| asked.get(index));
    let body_max = header.digest.size();
    if digest != Some(&header.digest) || body_max < u64::from(header.body_bytes) {
        return Err(CacheError::Answer { what: WHAT });
    }
    if header.encoding == Encoding::Missing || !compression::is_chunk(&header.digest) {
        return Err(CacheError::MissingChunk {
            digest: header.digest,
        });
    }
    let length = usize::try_from(header.body_bytes).expect("a chunk's size is checked");
    let body = receive.bytes(length).await.map_err(broken)?;
    Ok((header, body))
}
